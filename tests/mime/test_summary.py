"""`summary` on sound, broken and hostile messages."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.served import to_crlf
from mailsrv.mime.structure import load, part_at
from mailsrv.mime.summary import Summary, summary

PLAIN = b"Date: Tue, 24 Nov 2026 10:00:00 +0200\nFrom: a@b.test\n\nhello\n"


class SummaryTests(SynchronousTestCase):
    def test_lf_and_crlf_files_give_the_same(self) -> None:
        one, other = summary(PLAIN), summary(to_crlf(PLAIN))
        self.assertEqual(one.size_octets, len(to_crlf(PLAIN)))
        self.assertEqual(
            (one.size_octets, one.body, one.structure),
            (other.size_octets, other.body, other.structure),
        )
        self.assertEqual((one.file_octets, other.file_octets), (60, 64))

    def test_all_of_a_plain_message(self) -> None:
        got = summary(PLAIN)
        self.assertEqual(
            got.bodystructure,
            b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 7 1'
            b" NIL NIL NIL NIL)",
        )
        self.assertEqual(
            got.envelope,
            b'("Tue, 24 Nov 2026 10:00:00 +0200" NIL ((NIL NIL "a" "b.test"))'
            b' ((NIL NIL "a" "b.test")) ((NIL NIL "a" "b.test")) NIL NIL NIL NIL NIL)',
        )
        assert got.sent is not None
        self.assertEqual(got.sent.at_utc, 1795507200)
        self.assertEqual(got.checkpoints, b"")

    def test_structure_is_loaded_again(self) -> None:
        content = (
            b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n"
            b"--x\nContent-Type: message/rfc822\n\nSubject: s\n\nin it\n--x--\n"
        )
        root = load(summary(content).structure)
        served = to_crlf(content)
        for numbers, body in (((1,), b"one"), ((2, 1), b"in it")):
            part = part_at(root, numbers)
            assert part is not None
            self.assertEqual(served[part.served_body : part.served_end], body)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"\n",
                    b"\r\n",
                    b"\r",
                    b"--x",
                    b"--x--",
                    b"--y",
                    b"Content-Type: multipart/mixed; boundary=x\n",
                    b"Content-Type: multipart/digest; boundary=y\n",
                    b"content-type:message/rfc822\n",
                    b"To: a (b\n",
                    b'To: "a, <b@c>;:\n',
                    b"\0\xff",
                    b" ",
                    b"text",
                ]
            ),
            max_size=30,
        ).map(b"".join)
    )
    def test_any_octets_have_a_summary(self, content: bytes) -> None:
        got = summary(content)
        self.assertEqual(got.size_octets, len(to_crlf(content)))
        for part in load(got.structure).walk():
            spans = part.served_start, part.served_body, part.served_end
            self.assertEqual(list(spans), sorted(spans))
            self.assertLessEqual(part.served_end, got.size_octets)
        self.assertNotIn(b"\0", got.envelope + got.bodystructure)


def _nested(n: int) -> bytes:
    return b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (i, i)
        for i in range(n)
    )


MULTIPART = b"Content-Type: multipart/mixed; boundary=b\n\n"

HOSTILE = {
    "nested multiparts": _nested,
    "parts": lambda n: MULTIPART + b"--b\n\nx\n" * n,
    "parts without blank lines": lambda n: MULTIPART + b"--b\nX: y\n" * n,
    "headers": lambda n: b"X: y\n" * n,
    "addresses": lambda n: b"To: " + b"a@b, " * n,
    "unended quotes": lambda n: b"To: " + b'"a b@b, ' * n,
    "unended angles": lambda n: b"To: " + b"a <b@b, " * n,
    "unended comments": lambda n: b"To: " + b"(" * n,
    "empty members": lambda n: b"To: " + b";,<>" * n,
    "backslashes": lambda n: b"To: " + b"\\" * n,
    "dashes": lambda n: MULTIPART + b"\n--" * n,
    "parameters": lambda n: b"Content-Type: a/b" + b'; a="' * n,
    "semicolons": lambda n: b"Content-Type: a/b" + b";" * n,
    "messages": lambda n: b"Content-Type: message/rfc822\n\n" * n,
    "folds": lambda n: b"Subject: " + b"\n " * n,
    "blanks": lambda n: b"Subject" + b" " * n,
    "date": lambda n: b"Date: " + b"1 " * n,
}


def _cost(content: bytes) -> tuple[float, Summary]:
    best = float("inf")
    for _ in range(3):
        start = time.thread_time()
        got = summary(content)
        best = min(best, time.thread_time() - start)
    return best, got


class HostileTests(SynchronousTestCase):
    def test_four_times_the_input_is_at_most_about_four_times_the_work(self) -> None:
        for name, make in HOSTILE.items():
            cost, _ = _cost(make(1500))
            larger, got = _cost(make(6000))
            # A quadratic step would give 16; the 2 ms are for what is too short.
            self.assertLess(larger, cost * 9 + 0.002, name)
            self.assertEqual(got.size_octets, len(to_crlf(make(6000))), name)

    def test_caps(self) -> None:
        parts = list(load(summary(MULTIPART + b"--b\n\nx\n" * 12_000).structure).walk())
        self.assertEqual(len(parts), 10_000)
        depth = list(load(summary(_nested(2000)).structure).walk())
        self.assertEqual(len(depth), 100)
        self.assertEqual(
            summary(b"To: " + b"a@b, " * 3000).envelope.count(b"NIL NIL "), 1003
        )
