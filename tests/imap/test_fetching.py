"""FETCH responses from a real Maildir, octet by octet."""

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.fetch_items import Attribute, parse_fetch
from mailsrv.imap.fetching import PIECE, Batch, Message, Shortened
from mailsrv.imap.parser import Parser
from mailsrv.mime.served import to_crlf
from mailsrv.store.locks import UidlistLock
from mailsrv.store.values import UID, LockHeld
from tests.store.account_fixture import Office

MIXED = b"""\
From: a@b.test
Subject: outer
X-One: 1
Content-Type: multipart/mixed; boundary=b

preamble
--b
Content-Type: text/plain

first
--b
Content-Type: message/rfc822

Subject: inner
To: c@d.test

in it
--b--
"""
HEADER = to_crlf(MIXED.partition(b"\n\n")[0]) + b"\r\n\r\n"
INNER = b"Subject: inner\r\nTo: c@d.test\r\n\r\n"

SECTIONS = [
    (b"BODY.PEEK[]", to_crlf(MIXED)),
    (b"RFC822", to_crlf(MIXED)),
    (b"BODY[HEADER]", HEADER),
    (b"RFC822.HEADER", HEADER),
    (b"BODY[TEXT]", to_crlf(MIXED)[len(HEADER) :]),
    (b"BODY[1]", b"first"),
    (b"BODY[1.MIME]", b"Content-Type: text/plain\r\n\r\n"),
    (b"BODY[2]", INNER + b"in it"),
    (b"BODY[2.MIME]", b"Content-Type: message/rfc822\r\n\r\n"),
    (b"BODY[2.HEADER]", INNER),
    (b"BODY[2.TEXT]", b"in it"),
    (b"BODY[2.1]", b"in it"),
    (b"BODY[2.1.MIME]", INNER),
    (b"BODY[2.HEADER.FIELDS (TO)]", b"To: c@d.test\r\n\r\n"),
    (b"BODY[2.HEADER.FIELDS.NOT (TO)]", b"Subject: inner\r\n\r\n"),
    (b"BODY[HEADER.FIELDS (X-ONE SUBJECT)]", b"Subject: outer\r\nX-One: 1\r\n\r\n"),
    (b"BODY[HEADER.FIELDS (NONE)]", b"\r\n"),
    (b'BODY[HEADER.FIELDS ("A B")]', b"\r\n"),
]

PARTIALS = [
    (b"BODY[]<0.5>", b"BODY[]<0>", to_crlf(MIXED)[:5]),
    (b"BODY[]<3.9999>", b"BODY[]<3>", to_crlf(MIXED)[3:]),
    (b"BODY[]<99999.1>", b"BODY[]<99999>", b""),
    (b"BODY[]<5.0>", b"BODY[]<5>", b""),
    (b"BODY[1]<2.2>", b"BODY[1]<2>", b"rs"),
    (b"BODY[HEADER.FIELDS (TO)]<0.2>", b"BODY[HEADER.FIELDS (TO)]<0>", b"\r\n"),
    (b"BODY[2.HEADER.FIELDS (TO)]<4.3>", b"BODY[2.HEADER.FIELDS (TO)]<4>", b"c@d"),
]

MISSING = [b"BODY[3]", b"BODY[1.1]", b"BODY[1.HEADER]", b"BODY[1.TEXT]", b"BODY[2.2]"]


class FetchingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = Office(Path(self.mktemp()))
        self.store = self.office.store

    def batch(self, items: bytes) -> Batch:
        uids = self.store.open("INBOX").uids
        messages = [
            Message(seq, UID(uid), b"(\\Seen)", 7) for seq, uid in enumerate(uids, 1)
        ]
        return Batch("INBOX", parse_fetch(Parser(b" 1:* " + items)), messages)

    def pieces(self, batch: Batch) -> list[bytes]:
        pieces = []
        while not batch.ended:
            pieces.append(batch.next_piece(self.store))
        batch.close()
        return pieces

    def fetch(self, items: bytes) -> bytes:
        return b"".join(self.pieces(self.batch(items)))

    def test_sections(self) -> None:
        self.office.receive(MIXED)
        for label, octets in SECTIONS:
            shown = label.replace(b".PEEK", b"")
            self.assertEqual(
                self.fetch(label),
                b"* 1 FETCH (%b {%d}\r\n%b)\r\n" % (shown, len(octets), octets),
            )

    def test_partials(self) -> None:
        self.office.receive(MIXED)
        for item, label, octets in PARTIALS:
            self.assertEqual(
                self.fetch(item),
                b"* 1 FETCH (%b {%d}\r\n%b)\r\n" % (label, len(octets), octets),
            )

    def test_only_what_is_asked_for_is_made_ready(self) -> None:
        self.office.drop(MIXED, sub="cur")
        index = str(self.office.root / "index.sqlite")
        octets = len(to_crlf(MIXED))
        for item, ready in (
            (b"BODY[]", 0),
            (b"RFC822.SIZE", 0),
            (b"(RFC822.SIZE BODY[])", 0),
            (b"BODY[]<0.9>", 1),
        ):
            self.assertIn(b"%d" % octets if not ready else b"<0>", self.fetch(item))
            with self.office.connections.use(index, "read") as connection:
                rows = connection.execute("SELECT count(*) FROM content").fetchone()
            self.assertEqual(rows[0], ready, item)

    def test_missing_parts_are_empty(self) -> None:
        self.office.receive(MIXED)
        for item in MISSING:
            self.assertEqual(self.fetch(item), b'* 1 FETCH (%b "")\r\n' % item)

    def test_attributes_in_the_asked_order(self) -> None:
        self.office.receive(b"Subject: s\n\nx\n")
        ((date_s,),) = self.store.rows("INBOX", [UID(1)], ["internal_date"]).values()
        self.assertGreater(date_s, 1_700_000_000)
        got = self.fetch(b"(RFC822.SIZE UID BODY FLAGS BODY[1] BODYSTRUCTURE ENVELOPE)")
        self.assertEqual(
            got,
            b"* 1 FETCH (RFC822.SIZE 17 UID 1"
            b' BODY ("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 3 1)'
            b" FLAGS (\\Seen) BODY[1] {3}\r\nx\r\n"
            b' BODYSTRUCTURE ("text" "plain" ("charset" "us-ascii") NIL NIL'
            b' "7bit" 3 1 NIL NIL NIL NIL)'
            b' ENVELOPE (NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL))\r\n',
        )
        self.assertRegex(
            self.fetch(b"INTERNALDATE"),
            rb'\A\* 1 FETCH \(INTERNALDATE "[ \d]\d-\w{3}-\d{4} [\d:]{8} \+0000"\)\r\n',
        )

    def test_flags_are_told_if_they_were_changed(self) -> None:
        self.office.receive(b"\nx")
        batch = Batch(
            "INBOX",
            parse_fetch(Parser(b" 1 BODY[1]")),
            [Message(1, UID(1), b"(\\Seen)", 7, (Attribute.FLAGS, Attribute.MODSEQ))],
        )
        self.assertEqual(
            b"".join(self.pieces(batch)),
            b"* 1 FETCH (BODY[1] {1}\r\nx FLAGS (\\Seen) MODSEQ (7))\r\n",
        )

    def test_nul_is_served_as_0x80(self) -> None:
        self.office.drop(b"Subject: a\0b\n\n\0x")
        self.store.sync("INBOX")
        self.assertEqual(
            self.fetch(b"(BODY[] BODY[HEADER.FIELDS (SUBJECT)])"),
            b"* 1 FETCH (BODY[] {18}\r\nSubject: a\x80b\r\n\r\n\x80x"
            b" BODY[HEADER.FIELDS (SUBJECT)] {16}\r\nSubject: a\x80b\r\n\r\n)\r\n",
        )

    def test_many_messages(self) -> None:
        for n in range(5):
            self.office.receive(b"Subject: %d\n\n" % n)
        self.assertEqual(
            self.fetch(b"(UID BODY[HEADER.FIELDS (SUBJECT)])"),
            b"".join(
                b"* %d FETCH (UID %d BODY[HEADER.FIELDS (SUBJECT)]"
                b" {14}\r\nSubject: %d\r\n\r\n)\r\n" % (n + 1, n + 1, n)
                for n in range(5)
            ),
        )

    def test_large_message_comes_in_pieces(self) -> None:
        content = b"Subject: s\n\n" + b"0123456789abcde\n" * 60_000
        self.office.receive(content)
        pieces = self.pieces(self.batch(b"BODY[]"))
        self.assertGreater(len(pieces), 3)
        self.assertLess(max(map(len, pieces)), 2 * PIECE)
        served = to_crlf(content)
        self.assertEqual(
            b"".join(pieces),
            b"* 1 FETCH (BODY[] {%d}\r\n%b)\r\n" % (len(served), served),
        )

    def test_large_message_by_partial_fetches(self) -> None:
        content = b"Subject: s\n\n" + b"0123456789abcde\n" * 20_000
        self.office.receive(content)
        served = to_crlf(content)
        got = b""
        for first in range(0, len(served) + 65536, 65536):
            response = self.fetch(b"BODY.PEEK[]<%d.65536>" % first)
            got += response.partition(b"}\r\n")[2][: -len(b")\r\n")]
        self.assertEqual(got, served)

    def test_vanished_file_gives_no_response(self) -> None:
        self.office.receive(b"\none")
        self.office.receive(b"\ntwo")
        self.assertIn(b"one", self.fetch(b"BODY[1]"))
        batch = self.batch(b"(UID BODY[1])")
        first = min(
            (p for d in ("new", "cur") for p in (self.office.maildir / d).iterdir()),
            key=lambda path: path.read_bytes(),
        )
        first.unlink()
        self.assertEqual(
            self.pieces(batch), [b"* 2 FETCH (UID 2 BODY[1] {3}\r\ntwo)\r\n"]
        )
        self.assertEqual(batch.gone, [1])

    def test_unreadable_file_ends_the_connection(self) -> None:
        self.office.receive(b"\n" + b"x" * 3 * PIECE)
        batch = self.batch(b"BODY[]")
        self.assertIsNotNone(batch.next_piece(self.store))

        def broken(fd: int, count: int, offset: int) -> bytes:
            raise OSError(errno.EIO, "broken")

        self.patch(os, "pread", broken)
        with self.assertRaises(Shortened):
            self.pieces(batch)
        batch.close()

    def test_first_piece_may_be_asked_for_again_after_a_lock(self) -> None:
        self.office.receive(b"\none")
        batch = self.batch(b"(UID BODY[1])")
        os.unlink(self.office.root / "index.sqlite")
        with (
            UidlistLock(self.office.maildir),
            self.assertRaises(LockHeld),
        ):
            batch.next_piece(self.store)
        self.assertEqual(
            self.pieces(batch), [b"* 1 FETCH (UID 1 BODY[1] {3}\r\none)\r\n"]
        )

    def test_shortened_file_ends_the_connection(self) -> None:
        self.office.receive(b"\n" + b"x" * 3 * PIECE)
        batch = self.batch(b"BODY[]")
        self.assertGreaterEqual(len(batch.next_piece(self.store)), PIECE)
        (path,) = [
            p for d in ("new", "cur") for p in (self.office.maildir / d).iterdir()
        ]
        os.truncate(path, PIECE)
        with self.assertRaises(Shortened):
            self.pieces(batch)
        batch.close()
