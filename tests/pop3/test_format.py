"""Messages on the wire: dots, NULs, the end, and TOP, at every edge of a piece."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.pop3.format import Stuffer, Top

OCTETS = st.lists(
    st.sampled_from([b"\r\n", b".", b"\r", b"\n", b"a", b"\r\n.", b"\0"]), max_size=20
).map(b"".join)
CUTS = st.lists(st.integers(0, 40), max_size=6)


def pieces(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(content)) for cut in cuts), len(content)]
    return [content[a:b] for a, b in pairwise(edges)]


def stuffed(content: bytes, cuts: list[int]) -> bytes:
    stuffer = Stuffer()
    return b"".join(map(stuffer.feed, pieces(content, cuts))) + stuffer.end()


def top(content: bytes, lines: int, cuts: list[int]) -> bytes:
    cutter = Top(lines)
    found = b""
    for piece in pieces(content, cuts):
        if cutter.done:
            break
        found += cutter.feed(piece)
    return found


class StufferTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for content, wire in (
            (b"", b".\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\n..b\r\n", b"a\r\n...b\r\n.\r\n"),
            (b"a\0b\r\n", b"a\x80b\r\n.\r\n"),
            (b"a\n.b\r.c\r\n", b"a\n.b\r.c\r\n.\r\n"),
        ):
            self.assertEqual(stuffed(content, []), wire)

    @settings(max_examples=50, deadline=None)
    @given(OCTETS, CUTS)
    def test_any_split_gives_same_wire(self, content: bytes, cuts: list[int]) -> None:
        self.assertEqual(stuffed(content, cuts), stuffed(content, []))

    @settings(max_examples=50, deadline=None)
    @given(OCTETS, CUTS)
    def test_client_gets_back_what_was_stuffed(
        self, content: bytes, cuts: list[int]
    ) -> None:
        wire = stuffed(content, cuts)
        # The first line with a dot alone is the last one.
        self.assertEqual((b"\r\n" + wire).find(b"\r\n.\r\n"), len(wire) - 3)
        got = (b"\r\n" + wire)[:-3].replace(b"\r\n.", b"\r\n")[2:]
        self.assertIn(
            got, [c.replace(b"\0", b"\x80") for c in (content, content + b"\r\n")]
        )


class TopTests(SynchronousTestCase):
    def test_examples(self) -> None:
        message = b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\nthree"
        for lines, expected in (
            (0, b"A: b\r\nC: d\r\n\r\n"),
            (1, b"A: b\r\nC: d\r\n\r\none\r\n"),
            (2, b"A: b\r\nC: d\r\n\r\none\r\ntwo\r\n"),
            (3, message),
            (10**10, message),
        ):
            self.assertEqual(top(message, lines, []), expected)

    def test_empty_header(self) -> None:
        self.assertEqual(top(b"\r\none\r\ntwo\r\n", 1, []), b"\r\none\r\n")

    def test_no_body(self) -> None:
        self.assertEqual(top(b"A: b\r\n", 1, []), b"A: b\r\n")

    @settings(max_examples=50, deadline=None)
    @given(OCTETS, st.integers(0, 3), CUTS)
    def test_any_split_gives_same_top(
        self, content: bytes, lines: int, cuts: list[int]
    ) -> None:
        self.assertEqual(top(content, lines, cuts), top(content, lines, []))
