"""Change listeners hear what is durable and announced; where junk goes."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.doors.guest import BuiltIn
from mailsrv.doors.values import Change
from tests.doors.memory import MemoryListener
from tests.mailboxes.office import Office


class ChangesTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.listener = MemoryListener()
        heard = [BuiltIn("memory", self.listener)]
        self.office = Office(self, root, listeners=heard)

    def heard(self) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
        """Mailbox, and the UIDs added and expunged, of anna's changes."""
        self.office.clock.pump([0, 1.5, 0, 0, 0])
        changes, self.listener.changes = self.listener.changes, []
        for change in changes:
            self.assertEqual(change.account, "anna")
        return [(c.mailbox, c.added, c.expunged) for c in changes]

    def test_a_delivery_nobody_looks_at(self) -> None:
        self.office.deliver()
        self.office.clock.pump([0, 1.5, 0])
        (change,) = self.listener.changes
        self.assertEqual((change.mailbox, change.rebuilt), ("INBOX", True))
        self.listener.changes.clear()
        self.office.deliver()
        self.assertEqual(self.heard(), [("INBOX", (2,), ())])

    def test_what_sessions_do(self) -> None:
        for _ in range(2):
            self.office.append("INBOX")
        self.heard()
        selected = self.office.select()
        self.office.wait(selected.store_flags([2], "+", ["\\Flagged"], silent=False))
        self.office.clock.advance(0)
        flagged = Change("anna", "INBOX", (), (2,), ())
        self.assertEqual(self.listener.changes, [flagged])
        self.heard()
        self.office.wait(selected.copy([1], "Archive"))
        self.assertEqual(self.heard(), [("Archive", (1,), ())])
        self.office.wait(selected.move([1], "Trash", lambda _: None))
        changes = self.heard()
        self.assertIn(("INBOX", (), (1,)), changes)
        self.assertIn(("Trash", (1,), ()), changes)


class JunkTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.office = Office(self, root)
        self.account = self.office.account()

    def test_it_is_where_the_account_has_it(self) -> None:
        self.assertEqual(self.office.wait(self.account.junk()), "Junk")
        self.office.wait(self.account.rename("Junk", "Spam/Maybe"))
        self.assertEqual(self.office.wait(self.account.junk()), "Spam/Maybe")

    def test_it_is_made_if_it_is_gone(self) -> None:
        self.office.wait(self.account.delete("Junk"))
        self.assertEqual(self.office.wait(self.account.junk()), "Junk")
        names = [info.name for info in self.office.wait(self.account.mailboxes())]
        self.assertIn("Junk", names)
