"""SMTP over a real mail store: what stands in the Maildirs after a 250."""

import errno
from pathlib import Path

from twisted.internet.defer import Deferred

from mailsrv.accounts import edits
from mailsrv.mailboxes.store import MailStore
from mailsrv.settings import StoreSettings
from mailsrv.store.delivery import Delivery
from mailsrv.store.values import DeliveryFailed, Target
from tests.smtp.office import ANNA, BERT, MAIL, MESSAGE, Connection, OfficeCase, rcpt
from tests.store.faulty import FaultyDisk


class DeliveryTests(OfficeCase):
    def setUp(self) -> None:
        super().setUp()
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.mail_store = MailStore(
            self.root,
            threads=self.threads,
            reactor=self.clock,
            settings=StoreSettings(free_space_reserve_octets=0),
        )
        self.addCleanup(self.stop)
        self.client = Connection(self.factory(mail_store=self.mail_store))
        self.client.send(b"EHLO client.test\r\n")

    def stop(self) -> None:
        self.client.lose()
        stopping = Deferred.fromCoroutine(self.mail_store.stop())
        self.clock.advance(0)
        self.successResultOf(stopping)

    def deliver(self, content: bytes, *recipients: str) -> bytes:
        self.client.send(MAIL + rcpt(*recipients) + b"DATA\r\n")
        reply = self.client.send(content + b".\r\n")
        self.clock.pump([0, 0, 0.1, 2])
        return reply + self.client.wire.take()

    def files(self, folder: str) -> list[bytes]:
        """The messages of an account, and what was left behind."""
        maildir = self.root / folder / "Maildir"
        self.assertEqual(list((maildir / "tmp").glob("[0-9]*")), [])
        found = [*maildir.glob("new/*"), *maildir.glob("cur/*")]
        return [path.read_bytes() for path in found]

    def test_one_recipient(self) -> None:
        self.assertEqual(self.deliver(MESSAGE, ANNA)[:3], b"250")
        [octets] = self.files(ANNA)
        self.assertRegex(
            octets,
            rb"(?s)^Return-Path: <a@else\.test>\nDelivered-To: anna@example\.test\n"
            rb"Received: from .*\nFrom: <a@else\.test>\nSubject: one\n\nbody\n$",
        )
        self.assertNotIn(b"\r", octets)

    def test_recipients_share_one_file_that_names_none(self) -> None:
        self.assertEqual(self.deliver(MESSAGE, ANNA, BERT)[:3], b"250")
        [one], [other] = self.files(ANNA), self.files(BERT)
        self.assertEqual(one, other)
        for name in (b"anna", b"bert"):
            self.assertNotIn(name, one)

    def test_alias_and_address_give_one_copy(self) -> None:
        self.deliver(MESSAGE, ANNA, "sales@example.test", "postmaster@example.test")
        self.assertEqual(len(self.files(ANNA)), 1)

    def test_large_message_comes_whole(self) -> None:
        line = b"..%b\r\n" % (b"x" * 70)
        self.client.send(MAIL + rcpt(ANNA) + b"DATA\r\n" + MESSAGE[:-6])
        for _ in range(40):
            self.client.send(line * 800)
        reply = self.client.send(b".\r\n")
        self.clock.pump([0, 0, 0.1])
        self.assertEqual((reply + self.client.wire.take())[:3], b"250")
        [octets] = self.files(ANNA)
        self.assertEqual(octets.count(b"\n." + b"x" * 70), 40 * 800)

    def test_failing_disk_is_temporary_and_leaves_nothing(self) -> None:
        courier = self.mail_store._around.courier  # where the disk can be replaced
        good = courier.delivery
        for operation, error, reply in (
            ("fsync", errno.EIO, b"451 4.3.0"),
            ("create", errno.EROFS, b"451 4.3.0"),
            ("create", errno.EMFILE, b"451 4.3.0"),
            ("write", errno.ENOSPC, b"452 4.3.1"),
        ):
            disk = FaultyDisk(operation=operation, error=error)
            courier.delivery = Delivery(self.root, host="host", disk=disk)
            self.assertEqual(self.deliver(MESSAGE, ANNA, BERT)[:9], reply, operation)
            self.assertEqual(self.files(ANNA) + self.files(BERT), [])
        courier.delivery = good
        self.assertEqual(self.deliver(MESSAGE, ANNA, BERT)[:3], b"250")

    def test_one_copy_that_cannot_be_made_waits(self) -> None:
        courier = self.mail_store._around.courier
        disk = FaultyDisk(operation="link", error=errno.ENOSPC)
        courier.delivery = Delivery(self.root, host="host", disk=disk)
        self.assertEqual(self.deliver(MESSAGE, ANNA, BERT)[:3], b"250")
        self.assertEqual(len(self.files(ANNA) + self.files(BERT)), 1)
        [(_, [waiting], _)] = self.queue.taken
        self.assertEqual(waiting.destination, "local")

    def test_what_the_queue_refuses_is_taken_back(self) -> None:
        self.database.edit(
            lambda d: edits.add_alias(d, "both@example.test", [ANNA, "c@else.test"])
        )
        self.queue.spool = Target(str(self.root.absolute() / "spool"))
        self.queue.failure = DeliveryFailed("full")
        self.assertEqual(self.deliver(MESSAGE, "both@example.test")[:3], b"452")
        spool = self.root / "spool" / "Maildir" / "new"
        self.assertEqual(self.files(ANNA) + list(spool.iterdir()), [])

    def test_lost_connection_leaves_nothing(self) -> None:
        self.client.send(MAIL + rcpt(ANNA) + b"DATA\r\n" + MESSAGE)
        self.client.send(b"x" * 2_000_000)
        self.client.lose()
        self.clock.pump([0, 0, 0.1])
        self.assertEqual(self.files(ANNA), [])
        self.client = Connection(self.factory(mail_store=self.mail_store))
