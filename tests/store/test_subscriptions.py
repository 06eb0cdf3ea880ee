"""Dovecot's subscriptions file."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.locks import Dotlock
from mailsrv.store.subscriptions import Subscriptions
from mailsrv.store.values import LockHeld


class SubscriptionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.path = self.root / "subscriptions"
        self.subscriptions = Subscriptions(self.root)

    def test_version_2(self) -> None:
        self.path.write_bytes(b"V\t2\n\nINBOX\nA\tB&APw-\nSent\n")
        self.assertEqual(self.subscriptions.names(), ["INBOX", "A/Bü", "Sent"])

    def test_version_1(self) -> None:
        self.path.write_bytes(b"INBOX\nA.B&APw-\nSent\nSent\n\n")
        self.assertEqual(self.subscriptions.names(), ["INBOX", "A/Bü", "Sent"])

    def test_lines_that_mean_nothing_are_passed_over(self) -> None:
        self.path.write_bytes(b"V\t2\n\n&AAA-\n\xff\na\x01nb\n\xc3\xa4\x01nb\nSent\n")
        self.assertEqual(self.subscriptions.names(), ["Sent"])

    def test_changes(self) -> None:
        self.assertFalse(self.subscriptions.exists())
        self.subscriptions.add(["Sent", "inbox", "A/ü", "Sent"])
        self.assertEqual(self.path.read_bytes(), b"V\t2\n\nSent\nINBOX\nA\t&APw-\n")
        self.subscriptions.remove(["Sent", "absent"])
        self.assertEqual(self.subscriptions.names(), ["INBOX", "A/ü"])

    def test_utf8(self) -> None:
        lines = "V\t2\n\nA\tä\nR&D\n&APw-\n".encode()
        self.path.write_bytes(lines)
        self.assertEqual(self.subscriptions.names(), ["A/ä", "R&D", "ü"])
        (self.root / ".Ä").mkdir()
        self.subscriptions.add(["Ö", "R&D", "ü", "X/Ä & Ö"])
        lines += "Ö\nX\tÄ & Ö\n".encode()
        self.assertEqual(self.path.read_bytes(), lines)
        (self.root / ".Ä").rmdir()
        self.subscriptions.add(["Sent"])
        self.assertEqual(self.path.read_bytes(), lines + b"Sent\n")
        self.subscriptions.remove(["A/ä"])
        self.assertEqual(self.subscriptions.names()[:2], ["R&D", "ü"])

    def test_version_1_in_utf8(self) -> None:
        self.path.write_bytes("A.ä\n".encode())
        self.subscriptions.add(["C"])
        self.assertEqual(self.path.read_bytes(), "V\t2\n\nA\tä\nC\n".encode())

    def test_all_unsubscribed_is_not_a_new_account(self) -> None:
        self.subscriptions.add([])
        self.assertTrue(self.subscriptions.exists())
        self.assertEqual(self.subscriptions.names(), [])

    def test_version_1_becomes_2(self) -> None:
        self.path.write_bytes(b"A.B\n")
        self.subscriptions.add(["C"])
        self.assertEqual(self.path.read_bytes(), b"V\t2\n\nA\tB\nC\n")

    def test_another_holds_the_lock(self) -> None:
        with Dotlock(self.path), self.assertRaises(LockHeld):
            self.subscriptions.add(["A"])
        self.assertFalse(self.path.exists())
