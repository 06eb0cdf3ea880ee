"""The grammar of each command: whatever comes, it refuses or accepts."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.commands.table import RULES
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.parser import Parser

TOKENS = [b"{3}\r\na\r\n", b"\xc3\xbc", b"\xff"]
TOKENS += (
    rb' |(|)|[|]|<|>|"|"a b"|{2}|NIL|INBOX|&|&APw-|*|%|1:*|0|4294967296|\Seen|\*|+FLAGS'
    rb"|FLAGS.SILENT|RETURN|SUBSCRIBED|RECURSIVEMATCH|USE|UID|BODY|BODY.PEEK|HEADER"
    rb"|HEADER.FIELDS|1.2.TEXT|0.5|NOT|OR|ALL|SINCE|1-Jan-2020|CHARSET|UTF-8|KEYWORD"
    rb"|$|RETURN (MIN)|RETURN ()|SAVE|MODSEQ|OLDER|US-ASCII|(SUBJECT)|REFERENCES"
    rb'|" 1-Jan-0000 00:00:00 +0000"|MESSAGES'
).split(b"|")


class GrammarTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from(TOKENS), max_size=12))
    def test_any_arguments_are_taken_or_refused(self, tokens: list[bytes]) -> None:
        for text in (b"".join(tokens), b" " + b" ".join(tokens)):
            for rule in RULES.values():
                parser = Parser(text)
                try:
                    rule.parse(parser)
                    parser.end()
                except (ProtocolViolation, Refused):
                    continue

    def test_depth_is_limited(self) -> None:
        for text in (b" " + b"(" * 10_000, b" " + b"NOT " * 10_000 + b"ALL"):
            with self.assertRaises(ProtocolViolation):
                RULES[b"SEARCH"].parse(Parser(text))
