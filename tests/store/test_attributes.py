"""The file of what must outlive the index."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.attributes import NONE, Attributes, AttributesFile
from mailsrv.store.locks import Dotlock
from mailsrv.store.values import LockHeld

SENT = Attributes(special_uses=("\\Sent",))
OTHER = Attributes(special_uses=("\\Junk", "\\Trash"), mailbox_id="0f" * 16)


class AttributesFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.file = AttributesFile(self.root)

    def test_round_trip(self) -> None:
        self.assertEqual(self.file.all(), {})
        self.file.set({"Gesendet/ü": SENT, "Sent": OTHER})
        self.assertEqual(self.file.all(), {"Gesendet/ü": SENT, "Sent": OTHER})
        self.file.set({"Sent": NONE, "absent": NONE})
        self.assertEqual(self.file.all(), {"Gesendet/ü": SENT})

    def test_rename(self) -> None:
        self.file.set({"A": SENT, "A/B": OTHER})
        self.file.rename({"A": "C", "A/B": "C/B", "x": "y"})
        self.assertEqual(self.file.all(), {"C": SENT, "C/B": OTHER})

    def test_damaged_file_is_not_overwritten(self) -> None:
        path = self.root / "mailsrv-mailboxes"
        for content in (b"{", b"[]", b'{"a": 5}', b'{"a": {"special_uses": 5}}'):
            path.write_bytes(content)
            with self.assertRaises(OSError):
                self.file.set({"Sent": SENT})
            self.assertEqual(path.read_bytes(), content)

    def test_another_holds_the_lock(self) -> None:
        lock = Dotlock(self.root / "mailsrv-mailboxes")
        with lock, self.assertRaises(LockHeld):
            self.file.set({"Sent": SENT})
