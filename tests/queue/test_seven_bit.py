"""Copies for servers without 8BITMIME."""

from collections.abc import Iterable
from dataclasses import replace
from email import message_from_bytes

import dkim
from twisted.internet.defer import Deferred

from mailsrv.mime.downgrade import NotConvertible
from mailsrv.queue.carrying import Parcel
from mailsrv.queue.seven_bit import SevenBitCopies
from mailsrv.trust.dkim import Signer
from mailsrv.trust.dkim_keys import KeyFolder, State
from tests.queue.office import ANNA, QueueCase

TEXT = "Grüße aus dem Büro, auch an Ben.\r\n"
HEADER = (
    f"From: {ANNA}\r\nTo: b@else.test\r\nSubject: x\r\nMIME-Version: 1.0\r\n"
    "Content-Type: text/plain; charset=utf-8\r\n"
    "Content-Transfer-Encoding: 8bit\r\n\r\n"
).encode()


class SevenBitTests(QueueCase):
    def setUp(self) -> None:
        super().setUp()
        self.keys = KeyFolder(self.data / "dkim")
        self.keys.make("example.test", State.ACTIVE, 0)
        # In the past, or dkimpy takes no signature.
        self.signer = Signer(self.data / "dkim", lambda: 1_700_000_000.0)
        self.copies = SevenBitCopies(
            self.queue.spooled, self.signer.sign, self.threads.read
        )

    def sign(self, header: bytes, body: Iterable[bytes]) -> bytes:
        return self.signer.sign(header, body)

    def parcel(self, octets: bytes, prefix: bytes = b"") -> tuple[Parcel, bytes]:
        """A parcel, and what is sent of it as it is."""
        self.wait(
            self.queue.submit(octets, reverse_path=ANNA, forward_paths=["b@else.test"])
        )
        parcel, content = self.far.carried[-1]
        if prefix:
            [recipient] = parcel.recipients
            parcel = replace(parcel, recipients=(replace(recipient, prefix=prefix),))
        return parcel, content

    async def sent(self, parcel: Parcel) -> bytes:
        async with self.copies.of(parcel) as copy:
            self.assertFalse(copy.message.eight_bit)
            [recipient] = copy.recipients
            content = b"".join([p async for p in copy.content.pieces(recipient)])
            self.assertEqual(len(content), copy.content.octets(recipient))
        return content

    def txt(self, name: bytes, timeout: int = 5) -> bytes:
        records = [
            self.keys.record("example.test", key)
            for key in self.keys.keys("example.test")
        ]
        return {f"{r.name}.": r.value.encode() for r in records}[name.decode()]

    def test_seven_bits_and_signed_anew(self) -> None:
        parcel, content = self.parcel(HEADER + TEXT.encode() * 4000)
        self.assertIn(TEXT.encode(), content)
        result = self.wait(self.sent(parcel))
        self.assertTrue(result.isascii())
        self.assertEqual(result.count(b"DKIM-Signature:"), 2)
        for index in range(2):
            self.assertTrue(dkim.DKIM(result).verify(idx=index, dnsfunc=self.txt))
        payload = message_from_bytes(result).get_payload(decode=True)
        assert isinstance(payload, bytes)
        self.assertEqual(payload.decode(), TEXT * 4000)
        self.assertNotIn(b"\n", result.replace(b"\r\n", b""))

    def test_fields_of_a_recipient_alone(self) -> None:
        parcel, _ = self.parcel(HEADER + TEXT.encode(), b"List-Id: <l.example>\r\n")
        result = self.wait(self.sent(parcel))
        header = result.partition(b"\r\n\r\n")[0]
        self.assertIn(b"\r\nList-Id: <l.example>\r\n", header)

    def test_what_was_not_signed_is_not_now(self) -> None:
        parcel, _ = self.parcel(HEADER + TEXT.encode())
        parcel = replace(parcel, message=replace(parcel.message, prefix=b""))
        self.assertNotIn(b"DKIM-Signature", self.wait(self.sent(parcel)))

    def test_what_cannot_be_converted(self) -> None:
        octets = HEADER.replace(b"Subject: x", "Subject: ü".encode())
        parcel, _ = self.parcel(octets + b"plain\r\n")
        sending = Deferred.fromCoroutine(self.sent(parcel))
        self.settle()
        self.failureResultOf(sending, NotConvertible)
