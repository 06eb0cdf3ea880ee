"""Scans of a Maildir that others change, crashes half-way, and locks."""

import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store import flags, index, maildir
from mailsrv.store.account import AccountStore
from mailsrv.store.content import header_key
from mailsrv.store.locks import UidlistLock
from mailsrv.store.pop3_uidl import DEFAULT, compiled
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import FLAGGED, SEEN, LockHeld, MessageGone
from tests.store.account_fixture import MESSAGE, Office

DOVECOTS = compiled(DEFAULT)


class SyncTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = Office(Path(self.mktemp()))
        self.store = self.office.store
        self.addCleanup(self.office.connections.close)

    def path(self, sub: str, name: bytes, mailbox: str = "") -> bytes:
        return os.fsencode(self.office.maildir / mailbox / sub) + b"/" + name


class ScanTests(SyncTestCase):
    def test_files_of_others_get_uids_in_the_order_of_their_arrival(self) -> None:
        self.store.open("INBOX")
        for name in (b"1000000000.M9P1.host", b"999999999.M1P1.host", b"7.a"):
            self.office.drop(name=name)
        self.store.open("INBOX")
        lines = (self.office.maildir / "dovecot-uidlist").read_bytes().splitlines()
        self.assertEqual(
            [line.rpartition(b":")[2] for line in lines[1:]],
            [b"7.a", b"999999999.M1P1.host", b"1000000000.M9P1.host"],
        )

    def test_a_new_file_does_not_make_cur_be_read(self) -> None:
        self.office.receive(flags=SEEN)
        self.store.open("INBOX")
        self.office.settle()
        # Where nobody looks nothing is found.
        (name,) = self.office.files()
        times = os.stat(self.office.maildir / "cur")
        os.rename(self.path("cur", name), self.path("cur", name + b"T"))
        os.utime(self.office.maildir / "cur", ns=(times.st_atime_ns, times.st_mtime_ns))
        self.office.drop()
        changes = self.store.sync("INBOX", move_new=False)
        self.assertEqual((len(changes.added), len(changes.flagged)), (1, 0))
        changes = self.store.sync("INBOX", force=True)
        self.assertEqual(len(changes.flagged), 1)

    def test_change_within_the_second_of_a_scan_is_found(self) -> None:
        self.store.open("INBOX")
        self.assertTrue(self.store.unsettled("INBOX"))
        times = os.stat(self.office.maildir / "cur")
        self.office.drop(sub="cur")
        os.utime(self.office.maildir / "cur", ns=(times.st_atime_ns, times.st_mtime_ns))
        self.assertEqual(len(self.store.sync("INBOX").added), 1)
        self.office.settle()
        self.assertFalse(self.store.unsettled("INBOX"))

    def test_removal_is_told(self) -> None:
        self.office.receive(flags=SEEN)
        self.store.open("INBOX")
        (name,) = self.office.files()
        os.unlink(self.path("cur", name))
        self.assertEqual(list(self.office.settle().expunged), [1])

    def test_file_that_comes_back_is_another_message(self) -> None:
        self.office.receive(flags=SEEN)
        self.office.receive(flags=SEEN)
        self.store.open("INBOX")
        name = self.office.files()[0]
        aside = self.path("tmp", name)
        os.rename(self.path("cur", name), aside)
        self.office.settle()
        os.rename(aside, self.path("cur", name))
        uidlist = Uidlist(self.office.maildir, self.office.maildir)
        with uidlist.lock:  # another program writes it anew: it is read whole
            uidlist.refresh()
            uidlist.drop(())
        self.assertEqual([c[0] for c in self.office.settle().added], [3])
        self.assertEqual(list(self.store.open("INBOX").uids), [2, 3])

    def test_file_that_comes_back_has_one_line(self) -> None:
        """Dovecot moves a message to another mailbox and back, under its name."""
        self.office.receive(flags=SEEN)
        self.store.copy("INBOX", [1], "INBOX")  # the copy has an id of its own
        name = self.office.files()[1]
        aside = self.path("tmp", name)
        os.rename(self.path("cur", name), aside)
        self.office.settle()
        os.rename(aside, self.path("cur", name))
        self.assertEqual([c[0] for c in self.office.settle().added], [3])
        lines = (self.office.maildir / "dovecot-uidlist").read_bytes().splitlines()
        self.assertEqual([line.split()[0] for line in lines[1:]], [b"1", b"3"])

    def test_maildir_made_anew_with_the_same_names(self) -> None:
        self.office.drop(b"A: first\n\nlong\n", name=b"1.a", sub="cur")
        before = self.store.open("INBOX")
        self.assertEqual(self.read(1), b"A: first\r\n\r\nlong\r\n")
        shutil.rmtree(self.office.maildir)
        maildir.create(self.office.maildir)
        self.office.drop(b"A: 2\n\n", name=b"1.a", sub="cur")
        os.utime(self.path("cur", b"1.a"), (1, 1))
        self.store.sync("INBOX")
        after = self.store.open("INBOX")
        self.assertNotEqual(after.uid_validity, before.uid_validity)
        self.assertEqual(list(after.uids), [1])
        self.assertEqual(self.read(1), b"A: 2\r\n\r\n")

    def test_file_with_the_name_of_another_is_read_as_it_is(self) -> None:
        self.office.drop(b"A: first\n\nlong\n", name=b"1.a", sub="cur")
        self.store.open("INBOX")
        self.assertEqual(self.read(1), b"A: first\r\n\r\nlong\r\n")
        os.unlink(self.path("cur", b"1.a"))
        self.office.drop(b"A: 2\n\n", name=b"1.a", sub="cur")
        os.utime(self.path("cur", b"1.a"), (1, 1))
        self.assertEqual(self.read(1), b"A: 2\r\n\r\n")

    def read(self, uid: int) -> bytes:
        with self.store.open_message("INBOX", uid) as file:
            return file.read(0, file.size_octets)

    def test_links_are_no_messages(self) -> None:
        os.symlink("/etc/passwd", self.office.maildir / "new" / "1.link")
        os.mkfifo(self.office.maildir / "new" / "2.fifo")
        os.mkdir(self.office.maildir / "cur" / "3.folder")
        self.assertEqual(list(self.store.open("INBOX").uids), [])

    def test_file_that_became_a_link_is_not_followed(self) -> None:
        uid = self.office.receive(flags=SEEN)
        (name,) = self.office.files()
        os.unlink(self.path("cur", name))
        os.symlink("/etc/passwd", self.path("cur", name))
        self.assertRaises(MessageGone, self.store.open_message, "INBOX", uid)

    def test_renamed_file_opens(self) -> None:
        uid = self.office.receive(flags=SEEN)
        (name,) = self.office.files()
        os.rename(self.path("cur", name), self.path("cur", name + b"T"))
        with self.store.open_message("INBOX", uid) as file:
            self.assertEqual(len(file.read(0, 10_000)), file.size_octets)

    def test_wrong_sizes_in_a_name_are_corrected(self) -> None:
        served = MESSAGE.replace(b"\n", b"\r\n")
        octets = len(MESSAGE)
        for n, sizes in enumerate(
            (
                f",S={octets},W={octets}",
                f",S={octets + 9},W={octets + 19}",
                f",S={octets}",
                ",S=x",
            )
        ):
            self.office.drop(name=b"%d.a%s" % (n, sizes.encode()))
        uids = self.store.open("INBOX").uids
        self.store.rows("INBOX", uids, ["envelope"])
        rows = self.store.rows("INBOX", uids, ["size_octets"])
        self.assertEqual([size for (size,) in rows.values()], [len(served)] * 4)
        self.assertEqual(self.store.status("INBOX").size_octets, 4 * len(served))

    def test_file_with_crlf_is_served_as_it_is(self) -> None:
        served = MESSAGE.replace(b"\n", b"\r\n")
        self.office.drop(served)
        self.store.open("INBOX")
        with self.store.open_message("INBOX", 1) as file:
            self.assertEqual(file.read(0, 10_000), served)

    def test_pop3_fields_of_dovecot(self) -> None:
        for name in (b"1.a", b"2.b", b"3.c"):
            self.office.drop(name=name)
        (self.office.maildir / "dovecot-uidlist").write_bytes(
            b"3 V1234567890 N8 G0123456789abcdef0123456789abcdef\n"
            b"5 :1.a\n6 Pold-uidl O2 :2.b\n7 O1 :3.c\n"
        )
        found = self.store.open("INBOX")
        self.assertEqual((found.uid_validity, found.uid_next), (1234567890, 8))
        self.assertEqual(found.mailbox_id, "0123456789abcdef0123456789abcdef")
        self.assertEqual(
            [(uid, uidl) for uid, uidl, _ in self.store.uidls("INBOX", DOVECOTS)],
            [(7, b"00000007499602d2"), (6, b"old-uidl"), (5, b"00000005499602d2")],
        )

    def test_listed_file_that_a_scan_misses_keeps_its_uid(self) -> None:
        """Dovecot lists and renames it while we look."""
        self.office.receive()
        name = self.office.drop(sub="cur")
        with (self.office.maildir / "dovecot-uidlist").open("ab") as uidlist:
            uidlist.write(b"2 :%b\n" % name.partition(b":")[0])
        path = self.path("cur", name)
        hidden = self.path("tmp", b"hidden")
        looks = []

        def now() -> float:
            """Called as each scan begins: the second one misses it."""
            looks.append(1)
            if len(looks) == 2:
                os.rename(path, hidden)
            elif os.path.exists(hidden):
                os.rename(hidden, path)
            return time.time()

        store = AccountStore(
            self.office.root,
            connections=self.office.connections,
            quota_octets=None,
            now=now,
        )
        store.sync("INBOX")
        self.assertEqual(list(self.store.open("INBOX").uids), [1, 2])

    def test_nothing_is_lost_while_another_program_renames(self) -> None:
        """A scan misses files then, and the second one too; UIDs stay."""
        count = 300
        for n in range(count):
            self.office.drop(name=b"%d.a:2," % n, sub="cur")
        before = self.store.open("INBOX")
        stop = threading.Event()

        def rename() -> None:
            letters = [b"", b"S"]
            while not stop.is_set():
                for n in range(count):
                    base = self.path("cur", b"%d.a:2," % n)
                    os.rename(base + letters[0], base + letters[1])
                letters.reverse()

        thread = threading.Thread(target=rename)
        thread.start()
        try:
            for _ in range(15):
                changes = self.store.sync("INBOX", force=True)
                self.assertEqual(
                    (list(changes.added), list(changes.expunged)), ([], [])
                )
        finally:
            stop.set()
            thread.join()
        self.office.settle()
        after = self.store.open("INBOX")
        self.assertEqual(after.uids, before.uids)
        self.assertEqual(len(set(after.flags)), 1)


class ProcessTests(SyncTestCase):
    def test_changes_of_another_process_are_told(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        other = self.office.another()
        other.store_flags("INBOX", [1], "+", ["\\Flagged", "Word"])
        other.ingest("INBOX", [self.office.deliver()])
        changes = self.store.sync("INBOX")
        self.assertEqual([c[:2] for c in changes.flagged], [(1, FLAGGED | 32)])
        self.assertEqual([c[0] for c in changes.added], [2])
        self.assertEqual(list(changes.keywords or ()), ["Word"])
        other.expunge("INBOX", [1], only_deleted=False)
        changes = self.store.ingest("INBOX", [self.office.deliver()])
        self.assertEqual(list(changes.expunged), [1])
        self.assertEqual([c[0] for c in changes.added], [3])

    def test_a_delivery_tells_of_keywords_that_another_process_made(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        other = self.office.another()
        other.store_flags("INBOX", [1], "+", ["Word"])
        changes = self.store.ingest("INBOX", [self.office.deliver()])
        # Without its name the flag could not be told, and would never be.
        self.assertEqual([c[:2] for c in changes.flagged], [(1, 32)])
        self.assertEqual(list(changes.keywords or ()), ["Word"])

    def test_recent_is_claimed_though_the_index_was_lost(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(self.store.claim_recent("INBOX"), 2)

    def test_held_lock_leaves_everything_as_it_is(self) -> None:
        self.office.receive(flags=SEEN)
        before = self.store.open("INBOX")
        delivered = self.office.deliver()
        files = self.office.files()
        with UidlistLock(self.office.maildir):
            for call in (
                lambda: self.store.ingest("INBOX", [delivered]),
                lambda: self.store.sync("INBOX"),
                lambda: self.store.store_flags("INBOX", [1], "=", ["\\Flagged"]),
                lambda: self.store.expunge("INBOX", [1], only_deleted=False),
                lambda: self.store.move("INBOX", [1], "Trash"),
                lambda: self.store.copy("INBOX", [1], "INBOX"),
                lambda: self.store.rename("INBOX", "Other"),
            ):
                self.assertRaises(LockHeld, call)
        self.assertEqual(self.office.files(), files)
        after = self.store.open("INBOX")
        self.assertEqual(list(after.uids), [*before.uids, 2])
        self.assertEqual(after.flags[0], SEEN)

    def test_trash_with_a_lock_of_another_is_not_touched(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        with UidlistLock(self.office.maildir / ".Trash"):
            self.assertRaises(LockHeld, self.store.move, "INBOX", [1], "Trash")
            self.store.store_flags("INBOX", [1], "+", ["\\Seen"])  # lock was freed
        self.assertEqual(list(self.store.move("INBOX", [1], "Trash").target_uids), [1])


class TombstoneTests(SyncTestCase):
    def test_history_is_bounded(self) -> None:
        self.patch(index, "MAX_TOMBSTONES", 3)
        delivered = [self.office.deliver() for _ in range(8)]
        self.store.ingest("INBOX", delivered)
        self.store.open("INBOX")
        other = self.office.another()
        other.open("INBOX")
        for uid in range(1, 7):
            other.expunge("INBOX", [uid], only_deleted=False)
        self.assertTrue(self.store.sync("INBOX").rebuilt)
        self.assertEqual(list(self.store.open("INBOX").uids), [7, 8])
        with self.office.connections.use(
            str(self.office.root / "index.sqlite"), "read"
        ) as connection:
            (left,) = connection.execute("SELECT count(*) FROM expunged").fetchone()
        self.assertEqual(left, 3)

    def test_ready_bytes_go_with_the_last_message_that_has_them(self) -> None:
        self.store.open("INBOX")
        self.office.receive()
        self.store.copy("INBOX", [1], "Sent")
        for mailbox, left in (("INBOX", 1), ("Sent", 0)):
            self.store.expunge(mailbox, [1], only_deleted=False)
            self.store.forget(mailbox, [1])
            with self.office.connections.use(
                str(self.office.root / "index.sqlite"), "read"
            ) as connection:
                rows = connection.execute("SELECT count(*) FROM content").fetchone()
            self.assertEqual(rows[0], left)


class ConnectionsTests(SyncTestCase):
    def test_idle_connections_are_bounded(self) -> None:
        connections = index.Connections(2)
        self.addCleanup(connections.close)
        path = str(self.office.root / "index.sqlite")
        with (
            connections.use(path, "read") as a,
            connections.use(path, "read") as b,
            connections.use(path, "write") as c,
        ):
            self.assertEqual(len({id(a), id(b), id(c)}), 3)
        with self.assertRaises(sqlite3.ProgrammingError):
            c.execute("SELECT 1")
            b.execute("SELECT 1")
            a.execute("SELECT 1")

    def test_reader_cannot_write(self) -> None:
        with self.office.connections.use(
            str(self.office.root / "index.sqlite"), "read"
        ) as connection:
            with self.assertRaises(sqlite3.OperationalError):
                connection.execute("DELETE FROM message")


class DoublesTests(SyncTestCase):
    def test_two_files_of_one_base_name_become_two_messages(self) -> None:
        self.office.drop(b"one\n\n", name=b"1.a:2,", sub="cur")
        self.office.drop(b"another\n\n", name=b"1.a:2,S", sub="cur")
        self.assertEqual(len(self.store.open("INBOX").uids), 1)
        self.office.settle()
        self.office.settle()
        uids = self.store.open("INBOX").uids
        self.assertEqual(len(uids), 2)
        sizes = self.store.rows("INBOX", uids, ["size_octets"])
        self.assertEqual(sorted(size for (size,) in sizes.values()), [7, 11])

    def test_two_links_to_one_file_become_one(self) -> None:
        self.office.drop(name=b"1.a:2,", sub="cur")
        os.link(self.path("cur", b"1.a:2,"), self.path("cur", b"1.a:2,S"))
        self.store.open("INBOX")
        self.office.settle()
        self.office.settle()
        self.assertEqual(len(self.office.files()), 1)
        self.assertEqual(list(self.store.open("INBOX").uids), [1])


class CompactionTests(SyncTestCase):
    def test_lines_of_expunged_messages_leave_the_uidlist(self) -> None:
        self.patch(flags, "SPARE_LINES", 2)
        self.store.open("INBOX")
        for _ in range(40):
            self.office.receive()
        self.store.expunge("INBOX", list(range(1, 31)), only_deleted=False)
        self.store.expunge("INBOX", [35, 40], only_deleted=False)
        path = self.office.maildir / "dovecot-uidlist"
        self.assertEqual(len(path.read_bytes().splitlines()), 1 + 10)
        self.assertEqual(self.office.receive(), 41)
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(
            list(self.store.open("INBOX").uids), [31, 32, 33, 34, 36, 37, 38, 39, 41]
        )


class ThreadTests(SyncTestCase):
    def test_readers_and_the_writer_at_once(self) -> None:
        self.store.open("INBOX")
        failures: list[Exception] = []
        stop = threading.Event()
        key = header_key([b"subject"])

        def read() -> None:
            while not stop.is_set():
                try:
                    uids = list(range(1, 40))
                    self.store.rows("INBOX", uids, ["size_octets", "envelope"])
                    self.store.header_fields("INBOX", uids, key)
                    self.store.uidls("INBOX", DOVECOTS)
                    with self.store.open_message("INBOX", 1) as file:
                        assert len(file.read(0, 9999)) == file.size_octets
                except (MessageGone, LockHeld):
                    continue
                except Exception as error:
                    failures.append(error)
                    return

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for n in range(12):
                self.office.drop()
                self.again(lambda: self.store.sync("INBOX"))
                delivered = [self.office.deliver() for _ in range(2)]
                self.again(partial(self.store.ingest, "INBOX", delivered))
                self.again(
                    lambda: self.store.store_flags("INBOX", [1, 2], "+", ["\\Seen"])
                )
                if n == 6:
                    os.unlink(self.office.root / "index.sqlite")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        self.assertEqual(failures, [])
        self.office.settle()
        self.assertEqual(list(self.store.open("INBOX").uids), list(range(1, 37)))

    def again(self, call: Callable[[], object]) -> None:
        """A reader that rebuilds a lost index may hold the lock."""
        for _ in range(200):
            try:
                call()
                return
            except LockHeld as held:
                time.sleep(held.retry_s)
        self.fail("the lock is never free")
