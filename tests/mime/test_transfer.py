"""Transfer encodings undone in pieces: as a whole, in any split, with junk."""

import base64
import quopri
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.transfer import MAX_BLANKS, decoder, encoding, is_identity

BASE64 = b"aGVs\r\nbG8 *g\r\nd29\r\nybGQ=\r\nignored"
QUOTED = b"a  \r\nb=\r\nc=3Dd \t= \r\n=62  x=\t\r\n\r\n==zz e=C3=BC \t"


def decoded(name: bytes, *pieces: bytes) -> bytes:
    found = decoder(name)
    assert found is not None
    return b"".join(map(found.feed, pieces)) + found.end()


class TransferTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for name, coded, plain in (
            (b"7bit", b"a\0b", b"a\0b"),
            (b"base64", BASE64, b"hello world"),
            (b"base64", b"aGVsbG8", b"hello"),
            (b"base64", b"aGVsb", b"hel"),
            (b"base64", b"====", b""),
            (b"quoted-printable", b"hello  \r\nbar=\r\n", b"hello\r\nbar"),
            (b"quoted-printable", b"foo\t \t= \r\n=62\r\n", b"foo\t \tb\r\n"),
            (b"quoted-printable", b"=00=ff", b"\0\xff"),
        ):
            self.assertEqual(decoded(name, coded), plain, coded)

    def test_unknown(self) -> None:
        self.assertIsNone(decoder(b"x-uuencode"))

    def test_named_by_a_header(self) -> None:
        for header, name in (
            (b"A: b\r\nContent-Transfer-Encoding: Base64 (x)\r\n\r\n", b"base64"),
            (b"content-transfer-encoding:\r\n 8bit\r\n\r\n", b"8bit"),
            (b"A: b\r\n\r\n", b"7bit"),
        ):
            self.assertEqual(encoding(header), name)
        self.assertTrue(is_identity(b"8bit"))
        self.assertFalse(is_identity(b"base64"))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 60), max_size=8))
    def test_any_split_gives_the_same(self, cuts: list[int]) -> None:
        for name, coded in ((b"base64", BASE64), (b"quoted-printable", QUOTED)):
            edges = [0, *sorted(cuts), len(coded)]
            pieces = [coded[a:b] for a, b in pairwise(edges)]
            self.assertEqual(decoded(name, *pieces), decoded(name, coded))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300))
    def test_what_others_encode(self, octets: bytes) -> None:
        self.assertEqual(decoded(b"base64", base64.encodebytes(octets)), octets)
        text = octets.replace(b"\r", b"").replace(b"\n", b"")
        coded = quopri.encodestring(text, quotetabs=True).replace(b"\n", b"\r\n")
        self.assertEqual(decoded(b"quoted-printable", coded), text)

    def test_endless_blanks_take_linear_time_and_no_memory(self) -> None:
        found = decoder(b"quoted-printable")
        assert found is not None
        got = sum(len(found.feed(b" " * 5000)) for _ in range(1000))
        self.assertGreater(got, 1000 * 5000 - MAX_BLANKS - 1)
