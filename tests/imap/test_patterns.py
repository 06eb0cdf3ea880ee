"""LIST's wildcards (RFC 3501 section 6.3.8)."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.patterns import Pattern

TEXT = st.text("ab/", max_size=8)


class PatternTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for pattern, matching, others in (
            ("*", ["INBOX", "a", "a/b"], []),
            ("%", ["INBOX", "a"], ["a/b"]),
            ("a/%", ["a/b"], ["a", "a/b/c", "b/a"]),
            ("a*c", ["ac", "a/b/c"], ["a/b"]),
            ("%/%", ["a/b"], ["a", "a/b/c"]),
            ("inb%", ["INBOX", "inboxes"], ["INBOXES"]),
            ("inbox/*", ["INBOX/a"], ["INBOX"]),
            ("", [""], ["a"]),
            ("Ent%", ["Entwürfe"], ["entwürfe"]),
        ):
            for name in matching:
                self.assertTrue(Pattern(pattern).matches(name), (pattern, name))
            for name in others:
                self.assertFalse(Pattern(pattern).matches(name), (pattern, name))

    def test_many_wildcards_take_linear_time(self) -> None:
        self.assertFalse(Pattern("*a" * 2000 + "b").matches("a" * 4000))

    @settings(max_examples=50, deadline=None)
    @given(st.text("ab/*%", max_size=8), TEXT)
    def test_as_a_regular_expression(self, pattern: str, name: str) -> None:
        expression = pattern.replace("*", ".*").replace("%", "[^/]*")
        expected = re.fullmatch(expression, name) is not None
        self.assertEqual(Pattern(pattern).matches(name), expected)
