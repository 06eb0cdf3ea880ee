"""BINARY and BINARY.SIZE (RFC 3516) over a real Maildir."""

import base64
import os
import re

from mailsrv.imap import binary
from mailsrv.imap.fetching import PIECE
from mailsrv.settings import ImapSettings
from tests.imap.office import Client, ImapCase

MIXED = (
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n'
    b"Content-Transfer-Encoding: base64\r\n\r\naGVsbG8gd29ybGQ=\r\n--b\r\n"
    b"Content-Transfer-Encoding: quoted-printable\r\n\r\na=3Db=00c  \r\n--b\r\n"
    b"\r\nplain\r\n--b\r\n"
    b"Content-Transfer-Encoding: x-secret\r\n\r\n???\r\n--b\r\n"
    b"Content-Type: message/rfc822\r\n\r\n"
    b"Content-Transfer-Encoding: base64\r\n\r\naW5uZXI=\r\n--b--\r\n"
)


class BinaryTests(ImapCase):
    def fetched(self, message: bytes, settings: ImapSettings | None = None) -> Client:
        client = self.logged_in(settings)
        client.send(b"1 APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
        client.send(b"1 SELECT INBOX\r\n")
        return client

    def test_parts(self) -> None:
        client = self.fetched(MIXED)
        for item, value in (
            (b"BINARY[1]", b"BINARY[1] {11}\r\nhello world"),
            (b"binary.peek[1]<6.100>", b"BINARY[1]<6> {5}\r\nworld"),
            (b"BINARY.PEEK[1]<20.5>", b"BINARY[1]<20> {0}\r\n"),
            (b"BINARY.SIZE[1]", b"BINARY.SIZE[1] 11"),
            (b"BINARY[2]", b"BINARY[2] ~{5}\r\na=b\0c"),
            (b"BINARY[2]<0.3>", b"BINARY[2]<0> {3}\r\na=b"),
            (b"BINARY[3]", b"BINARY[3] {5}\r\nplain"),
            (b"BINARY[3]<1.3>", b"BINARY[3]<1> {3}\r\nlai"),
            (b"BINARY.SIZE[3]", b"BINARY.SIZE[3] 5"),
            (b"BINARY[5.1]", b"BINARY[5.1] {5}\r\ninner"),
            (b"BINARY[9]", b"BINARY[9] NIL"),
            (b"BINARY.SIZE[9]", b"BINARY.SIZE[9] 0"),
            (b"BINARY.SIZE[]", b"BINARY.SIZE[] %d" % len(MIXED)),
            (b"BINARY[]", b"BINARY[] {%d}\r\n%b" % (len(MIXED), MIXED)),
        ):
            client.send(b"1 STORE 1 -FLAGS (\\Seen)\r\n")
            heard = client.send(b"2 FETCH 1 (%b)\r\n" % item)
            self.assertIn(b"FETCH (" + value, heard)
            self.assertIn(b"2 OK", heard)
            sets_seen = b"PEEK" not in item.upper() and b"SIZE" not in item
            self.assertEqual(b"\\Seen" in heard, sets_seen, heard)
            flags = client.send(b"3 FETCH 1 FLAGS\r\n")
            self.assertEqual(b"\\Seen" in flags, sets_seen, item)

    def test_an_encoding_that_is_not_known(self) -> None:
        client = self.fetched(MIXED)
        heard = client.send(b"2 FETCH 1 (UID BINARY.PEEK[4])\r\n")
        self.assertEqual(
            heard, b"2 NO [UNKNOWN-CTE] Some of the parts cannot be decoded\r\n"
        )
        self.assertIn(b"3 NO [UNKNOWN", client.send(b"3 FETCH 1 BINARY.SIZE[4]\r\n"))

    def test_grammar(self) -> None:
        client = self.fetched(MIXED)
        for item in (
            b"BINARY",
            b"BINARY[TEXT]",
            b"BINARY[1.HEADER]",
            b"BINARY.SIZE[1]<0.1>",
            b"BINARY[0]",
            b"BINARY.PEEK",
        ):
            self.assertIn(b"2 BAD", client.send(b"2 FETCH 1 (%b)\r\n" % item), item)

    def test_disabled(self) -> None:
        settings = ImapSettings(disabled_extensions=["BINARY"])
        client = self.fetched(MIXED, settings)
        self.assertNotIn(b"BINARY", client.send(b"1 CAPABILITY\r\n"))
        self.assertIn(b"2 BAD", client.send(b"2 FETCH 1 BINARY.PEEK[1]\r\n"))

    def test_a_large_part_comes_in_pieces(self) -> None:
        content = os.urandom(3 * PIECE)
        head = b"Content-Transfer-Encoding: base64\r\n\r\n"
        text = base64.encodebytes(content).replace(b"\n", b"\r\n")
        client = self.fetched(head + text)
        self.patch(binary, "STEP", 10_000)
        heard = client.send(b"2 FETCH 1 (BINARY.SIZE[1] BINARY.PEEK[1])\r\n")
        self.assertIn(b"BINARY.SIZE[1] %d " % len(content), heard)
        found = re.search(rb"BINARY\[1\] ~\{(\d+)\}\r\n", heard)
        assert found is not None
        start = found.end()
        self.assertEqual(heard[start : start + int(found[1])], content)
        self.assertTrue(heard.endswith(b")\r\n2 OK FETCH completed\r\n"))
