"""What a crash between two steps leaves, and that it is mended."""

from mailsrv.store import transfer
from mailsrv.store.scanning import Folder
from mailsrv.store.values import SEEN
from tests.store.account_fixture import old
from tests.store.test_sync import SyncTestCase


class Killed(BaseException):
    """The process ends here."""


class CrashTests(SyncTestCase):
    """A process that dies between two steps; another one goes on."""

    def begin_again(self) -> None:
        for folder in (self.office.maildir, self.office.maildir / ".Trash"):
            for sub in ("new", "cur"):
                old(folder / sub)
        self.store = self.office.store = self.office.another()

    def moved(self) -> None:
        """The message is in Trash alone, and still the same one."""
        self.begin_again()
        self.assertEqual(list(self.store.open("INBOX").uids), [])
        state = self.store.open("Trash")
        self.assertEqual((list(state.uids), list(state.flags)), ([1], [SEEN]))
        rows = self.store.rows("Trash", [1], ["email_id"])
        self.assertEqual(rows[1][0], self.email_id)
        with self.office.connections.use(
            str(self.office.root / "index.sqlite"), "read"
        ) as connection:
            (left,) = connection.execute("SELECT count(*) FROM intent").fetchone()
        self.assertEqual(left, 0)

    def prepare(self) -> None:
        self.office.receive(flags=SEEN)
        self.store.open("INBOX")
        self.store.open("Trash")
        self.email_id = self.store.rows("INBOX", [1], ["email_id"])[1][0]

    def killed(self, step: str) -> None:
        def die(*_: object) -> None:
            raise Killed

        self.patch(transfer, step, die)
        self.assertRaises(Killed, self.store.move, "INBOX", [1], "Trash")

    def test_move_killed_before_the_rename(self) -> None:
        self.prepare()
        self.killed("_rename")
        self.begin_again()
        self.assertEqual(list(self.store.open("INBOX").uids), [1])
        self.assertEqual(list(self.store.open("Trash").uids), [])

    def test_move_killed_after_the_rename(self) -> None:
        self.prepare()
        self.killed("sync_folder")
        self.moved()

    def test_move_killed_before_the_uidlist(self) -> None:
        self.prepare()
        self.killed("append")
        self.moved()

    def test_move_killed_before_the_commit(self) -> None:
        self.prepare()
        self.killed("_insert")
        self.moved()

    def test_copy_that_fails_leaves_nothing(self) -> None:
        self.prepare()

        def fail(*_: object) -> None:
            raise OSError(5, "no")

        self.patch(transfer, "sync_folder", fail)
        self.assertRaises(OSError, self.store.copy, "INBOX", [1], "Trash")
        self.assertEqual(self.office.files("cur", ".Trash"), [])

    def test_uid_that_stands_in_the_uidlist_alone_is_taken(self) -> None:
        self.store.open("INBOX")
        delivered = self.office.deliver()

        def die(*_: object) -> None:
            raise Killed

        with self.assertRaises(Killed):
            patch = self.patch(Folder, "known_box", die)
            self.store.ingest("INBOX", [delivered])
        patch.restore()
        self.begin_again()
        self.assertEqual(self.store.uids_of("INBOX", [delivered.base]), [])
        self.store.sync("INBOX")
        self.assertEqual(self.store.uids_of("INBOX", [delivered.base]), [1])
        self.assertEqual(self.office.receive(), 2)
