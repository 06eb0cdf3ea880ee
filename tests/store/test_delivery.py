"""Delivery into Maildirs: names, links, order of syncs."""

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.delivery import Delivery, Letter
from mailsrv.store.maildir import parse
from mailsrv.store.values import SEEN, Delivered, NoSuchMailbox, Target

CONTENT = [b"Subject: hello\n", b"\n", b"Hello\n"]


class DeliveryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.delivery = Delivery(self.root, host="mx.example.test")

    def one(self, *targets: Target, content: list[bytes] = CONTENT) -> list[Delivered]:
        (outcome,) = self.delivery.deliver([Letter(content, targets)])
        assert isinstance(outcome, list), outcome
        return outcome

    def files(self, folder: str) -> list[Path]:
        root = self.root / folder / "Maildir"
        return sorted(path for path in root.rglob("*") if path.is_file())

    def test_message_lands_in_new(self) -> None:
        (copy,) = self.one(Target("anna@example.test"))
        (path,) = self.files("anna@example.test")
        self.assertEqual(path.read_bytes(), b"".join(CONTENT))
        self.assertEqual((path.parent.name, os.fsencode(path.name)), ("new", copy.name))
        name = parse(copy.name)
        self.assertEqual((name.file_octets, name.size_octets), (22, 25))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)

    def test_recipients_share_one_file(self) -> None:
        self.one(Target("anna@example.test"), Target("bob@example.test"))
        (first,) = self.files("anna@example.test")
        (second,) = self.files("bob@example.test")
        self.assertTrue(first.samefile(second))

    def test_flags_lead_to_cur(self) -> None:
        date = 1_000_000_000.0
        (copy,) = self.one(Target("a@b.test", flags=SEEN, internal_date=date))
        (path,) = self.files("a@b.test")
        self.assertEqual(path.parent.name, "cur")
        self.assertTrue(copy.name.endswith(b":2,S"))
        self.assertEqual(path.stat().st_mtime, date)
        self.assertEqual(copy.internal_date, date)

    def test_mailbox_is_not_made(self) -> None:
        (outcome,) = self.delivery.deliver([Letter(CONTENT, [Target("a", "Sent")])])
        self.assertIsInstance(outcome, NoSuchMailbox)
        self.assertEqual(self.files("a"), [])
