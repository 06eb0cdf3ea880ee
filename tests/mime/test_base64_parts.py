"""Binary parts in base64: nothing else of the message changes."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.base64_parts import code_binary, is_binary
from mailsrv.mime.structure import parse
from mailsrv.mime.transfer import decoder


def coded_binary(message: bytes) -> bytes:
    work = code_binary(message)
    while True:
        try:
            next(work)
        except StopIteration as ended:
            return bytes(ended.value)


ENCODING = b"Content-Transfer-Encoding: %b\r\n"
MIXED = b'Content-Type: multipart/mixed; boundary="x"\r\n\r\nbefore\r\n--x\r\n'


class Base64PartsTests(SynchronousTestCase):
    def test_what_holds_lines_stays(self) -> None:
        for message in (
            b"A: b\r\n\r\ntext\r\n",
            MIXED + ENCODING % b"binary" + b"\r\nlines\r\n--x--\r\nafter\r\n",
            MIXED + ENCODING % b"base64" + b"\r\nYQ==\n\r\n--x--\r\n",
            b"",
            b"A: b",
        ):
            self.assertEqual(coded_binary(message), message)

    def test_parts(self) -> None:
        message = (
            MIXED
            + ENCODING % (b"8bit (x)\r\n y")
            + b"B: c\r\n\r\na\nb\r\n--x\r\n\r\n\0\r\n--x\r\n"
            + b"Content-Type: message/rfc822\r\n\r\n"
            + b"C: d\r\n"
            + ENCODING % b"binary"
            + b"\r\n\r\r\n--x\r\n\r\nplain\r\n--x--\r\n"
        )
        base64 = ENCODING % b"base64"
        self.assertEqual(
            coded_binary(message),
            MIXED
            + base64
            + b"B: c\r\n\r\nYQpi\r\n\r\n--x\r\n"
            + base64
            + b"\r\nAA==\r\n\r\n--x\r\n"
            + b"Content-Type: message/rfc822\r\n\r\n"
            + base64
            + b"C: d\r\n\r\nDQ==\r\n\r\n--x\r\n\r\nplain\r\n--x--\r\n",
        )

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300))
    def test_it_can_be_undone(self, body: bytes) -> None:
        coded = coded_binary(b"A: b\r\n" + ENCODING % b"binary" + b"\r\n" + body)
        self.assertFalse(is_binary(coded))
        part = parse(coded)
        found = decoder(part.encoding)
        assert found is not None
        self.assertEqual(found.feed(coded[part.body : part.end]) + found.end(), body)
