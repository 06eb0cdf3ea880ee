"""Header blocks: where they end, what counts in them, what is set above them."""

from itertools import pairwise
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp.header import (
    MAX_HEADER_OCTETS,
    Header,
    HeaderReader,
    protocol,
    received,
)
from mailsrv.smtp.reply import Refused


def read(*pieces: bytes) -> tuple[bytes, bytes]:
    reader = HeaderReader()
    pending = list(pieces)
    while pending:
        if (parts := reader.feed(pending.pop(0))) is not None:
            return parts[0], parts[1] + b"".join(pending)
    return reader.finish()


class HeaderReaderTests(SynchronousTestCase):
    def test_end(self) -> None:
        for content, expected in (
            (b"A: b\r\n\r\nbody\r\n", (b"A: b\r\n", b"body\r\n")),
            (b"A: b\r\n c\r\n\r\n\r\n", (b"A: b\r\n c\r\n", b"\r\n")),
            (b"A: b\r\n", (b"A: b\r\n", b"")),
            (b"A: b", (b"A: b\r\n", b"")),
            (b"A : b\r\n\r\n", (b"A : b\r\n", b"")),
            (b"", (b"", b"")),
            (b"\r\nA: b\r\n\r\n", (b"", b"A: b\r\n\r\n")),
            (b"no field\r\n\r\nbody", (b"", b"no field\r\n\r\nbody")),
            (b"hello", (b"", b"hello\r\n")),
            (b" folded\r\n\r\n", (b"", b" folded\r\n\r\n")),
        ):
            self.assertEqual(read(content), expected, content)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from([b"A: b", b"\r\n", b" c", b"x", b":"]), max_size=12
        ).map(b"".join),
        st.lists(st.integers(0, 40), max_size=6),
    )
    def test_any_split_gives_same_parts(self, content: bytes, cuts: list[int]) -> None:
        edges = [0, *sorted(min(c, len(content)) for c in cuts), len(content)]
        pieces = [content[a:b] for a, b in pairwise(edges)]
        self.assertEqual(read(*pieces), read(content))

    def test_size_limit(self) -> None:
        field = b"A: " + b"x" * (MAX_HEADER_OCTETS - 5) + b"\r\n"
        self.assertEqual(read(field, b"\r\nb"), (field, b"b"))
        self.assertEqual(read(field + b"\r\nb"), (field, b"b"))
        for pieces in ((b"A: " + field, b"\r\n"), (b"A: " + field + b"\r\nb",)):
            with self.assertRaises(Refused):
                read(*pieces)

    def test_octets_one_by_one_take_linear_time(self) -> None:
        reader, begun = HeaderReader(), process_time()
        for _ in range(50_000):
            reader.feed(b"A:\r\n")
        self.assertLess(process_time() - begun, 2.0)


class HeaderTests(SynchronousTestCase):
    BLOCK = (
        b"RECEIVED: from a\r\n\tby b\r\nBcc: x,\r\n y\r\nReceived : c\r\n"
        b"Bccx: stays\r\nSubject: Bcc: z\r\nmessage-ID:\r\n <1@a>\r\nbcc:\r\n"
    )

    def test_fields(self) -> None:
        header = Header(self.BLOCK)
        self.assertEqual(header.count(b"received"), 2)
        self.assertEqual(header.count(b"date"), 0)
        self.assertEqual(header.value(b"message-id"), "<1@a>")
        self.assertEqual(header.value(b"date"), "")

    def test_without(self) -> None:
        header = Header(self.BLOCK)
        self.assertEqual(
            header.without(b"bcc", b"message-id"),
            b"RECEIVED: from a\r\n\tby b\r\nReceived : c\r\nBccx: stays\r\n"
            b"Subject: Bcc: z\r\n",
        )
        self.assertEqual(header.without(b"date"), self.BLOCK)

    def test_nul(self) -> None:
        with self.assertRaises(Refused):
            Header(b"A: b\0\r\n")

    def test_senders(self) -> None:
        for block, senders in (
            (b"From: a@b.test\r\n", ["a@b.test"]),
            (b"From: A <a@b.test>\r\nSender: c@d.test\r\n", ["a@b.test", "c@d.test"]),
            (b"From: a@b.test,\r\n c@d.test\r\n", ["a@b.test", "c@d.test"]),
            (b'From: "a b"@c.test\r\n', ['"a b"@c.test']),
            (b"From: x: a@b.test;\r\n", ["a@b.test"]),
            (b"From: just a name\r\n", ['"just a name"@']),
            (b"To: a@b.test\r\n", []),
        ):
            self.assertEqual(Header(block).senders(), senders, block)

    def test_hostile_blocks_take_linear_time(self) -> None:
        begun = process_time()
        for unit in (b"from:\r\n", b"\r\n ", b"bcc" * 9, b"date \t", b"\r\nfrom "):
            block = unit * (MAX_HEADER_OCTETS // len(unit))
            Header(block).without(b"from", b"bcc")
        self.assertLess(process_time() - begun, 2.0)


class TraceTests(SynchronousTestCase):
    def trace(self, **values: str) -> bytes:
        known = {
            "client_name": "bar.test",
            "peer": "192.0.2.1",
            "hostname": "mail.example.test",
            "protocol": "ESMTPS",
            "tls": "TLSv1.3 X",
            "transaction": "1.2.3",
            "forward_path": "",
            "date": "Tue, 24 Nov 2026 10:00:00 +0100",
        }
        return received(**{**known, **values})

    def test_received(self) -> None:
        self.assertEqual(
            self.trace(),
            b"Received: from bar.test ([192.0.2.1])\r\n"
            b"\tby mail.example.test with ESMTPS (TLSv1.3 X)\r\n"
            b"\tid 1.2.3;\r\n\tTue, 24 Nov 2026 10:00:00 +0100\r\n",
        )
        self.assertIn(b"([IPv6:2001:db8::1])", self.trace(peer="2001:db8::1"))
        self.assertIn(b"from bar.test\r\n", self.trace(peer=""))
        self.assertIn(
            "for <jörg@b.test>;".encode(), self.trace(forward_path="jörg@b.test")
        )

    def test_protocol_names(self) -> None:
        # RFC 3848, RFC 6531 section 4.3
        for extended, lmtp, utf8, tls, authenticated, name in (
            (False, False, False, False, False, "SMTP"),
            (True, False, False, False, False, "ESMTP"),
            (True, False, False, True, False, "ESMTPS"),
            (True, False, False, False, True, "ESMTPA"),
            (True, False, False, True, True, "ESMTPSA"),
            (True, False, True, False, False, "UTF8SMTP"),
            (True, False, True, True, True, "UTF8SMTPSA"),
            (True, True, False, False, False, "LMTP"),
            (True, True, True, True, False, "UTF8LMTPS"),
        ):
            got = protocol(
                extended=extended,
                lmtp=lmtp,
                utf8=utf8,
                tls=tls,
                authenticated=authenticated,
            )
            self.assertEqual(got, name)
