"""Both databases keep what edits make, and nothing of an edit that fails."""

import os
import resource
import signal
import sqlite3
import time
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailsrv.accounts.database import (
    _MIGRATIONS,
    AccountDatabase,
    DatabaseGone,
    DatabaseTooNew,
    MemoryAccountDatabase,
)
from mailsrv.accounts.directory import Account, Alias, Directory
from mailsrv.accounts.edits import (
    EditRefused,
    add_account,
    add_alias,
    add_domain,
    add_group,
    add_list,
    delete,
    set_disabled_extensions,
    set_enabled,
    set_list,
    set_password_hash,
)
from mailsrv.interfaces import IAccountDatabase


def office(directory: Directory) -> Directory:
    directory = add_domain(directory, "example.test")
    directory = add_account(directory, "anna@example.test", "hash a", 1000)
    directory = add_account(directory, "bert@example.test", "hash b")
    directory = set_disabled_extensions(
        directory, "bert@example.test", ["SORT", "COMPRESS=DEFLATE"]
    )
    directory = add_alias(directory, "info@example.test", ["anna@example.test"])
    directory = add_list(directory, "news@example.test", ["anna@example.test"])
    directory = set_list(
        directory,
        "news@example.test",
        title="News",
        posting="moderated",
        posters=["boss@example.org"],
        subject_tag="[N]",
        reply_to="list",
        joining="open",
    )
    return add_group(
        directory,
        "staff@example.test",
        ["anna@example.test", "bert@example.test"],
        ["bert@example.test"],
    )


class MemoryDatabaseTests(SynchronousTestCase):
    """The contract of `IAccountDatabase`, and its run on the one in memory."""

    database: IAccountDatabase

    def setUp(self) -> None:
        self.database = MemoryAccountDatabase()

    def test_provides_the_interface(self) -> None:
        verifyObject(IAccountDatabase, self.database)

    def test_empty_at_first(self) -> None:
        self.assertEqual(self.database.snapshot(), Directory())

    def test_edit_is_in_the_next_snapshot(self) -> None:
        after = self.database.edit(office)
        self.assertEqual(after, office(Directory()))
        self.assertEqual(self.database.snapshot(), after)

    def test_order_of_making_survives_changes(self) -> None:
        self.database.edit(office)
        self.database.edit(lambda d: set_enabled(d, "anna@example.test", False))
        names = [account.name for account in self.database.snapshot().accounts()]
        self.assertEqual(names, ["anna@example.test", "bert@example.test"])

    def test_deleted_name_may_become_another_kind(self) -> None:
        self.database.edit(office)
        name = "info@example.test"
        self.database.edit(
            lambda d: add_account(delete(d, name, Alias), name, "hash i")
        )
        self.assertIsInstance(self.database.snapshot().entries[name], Account)

    def test_probe_key_stays(self) -> None:
        key = self.database.snapshot().probe_key
        self.assertEqual(len(key), 32)
        self.assertEqual(self.database.edit(office).probe_key, key)
        self.assertEqual(self.database.snapshot().probe_key, key)

    def test_keys_are_those_of_the_last_password(self) -> None:
        self.database.edit(office)
        name = "anna@example.test"
        for keys in ("keys", None):
            self.database.edit(
                partial(
                    set_password_hash, name=name, password_hash="new", scram_keys=keys
                )
            )
            account = self.database.snapshot().account(name)
            assert account is not None
            self.assertEqual(account.scram_keys, keys)

    def test_version_changes_with_edits_only(self) -> None:
        before = self.database.version()
        self.assertEqual(self.database.version(), before)
        self.database.edit(office)
        self.assertNotEqual(self.database.version(), before)

    def test_refused_edit_changes_nothing(self) -> None:
        self.database.edit(office)
        before, version = self.database.snapshot(), self.database.version()

        def half_good(directory: Directory) -> Directory:
            directory = add_domain(directory, "other.test")
            return add_account(directory, "anna@example.test", "again")

        with self.assertRaises(EditRefused):
            self.database.edit(half_good)
        self.assertEqual(self.database.snapshot(), before)
        self.assertEqual(self.database.version(), version)


class SqliteDatabaseTests(MemoryDatabaseTests):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.database = self.open()

    def open(self) -> AccountDatabase:
        database = AccountDatabase(self.path)
        self.addCleanup(database.close)
        return database

    def test_survives_closing(self) -> None:
        self.database.edit(office)
        self.assertEqual(self.open().snapshot(), office(Directory()))

    def test_edit_by_another_process_changes_version(self) -> None:
        before = self.database.version()
        self.open().edit(office)
        self.assertNotEqual(self.database.version(), before)
        self.assertEqual(self.database.snapshot(), office(Directory()))

    def aged(self, seconds: float) -> object | None:
        """Return the mark of a file that was changed last so long ago."""
        changed = time.time() - seconds
        os.utime(self.path, (changed, changed))
        return self.database.mark()

    def test_mark_is_another_one_after_an_edit(self) -> None:
        self.database.edit(office)
        mark = self.aged(10)
        self.assertIsNotNone(mark)
        self.assertEqual(self.database.mark(), mark)
        self.open().edit(lambda d: add_domain(d, "other.test"))
        self.assertNotEqual(self.database.mark(), mark)

    def test_no_mark_while_the_file_may_change_without_showing_it(self) -> None:
        self.database.edit(office)
        self.assertIsNone(self.aged(-10))  # changed just now, or the clock was set
        self.path.unlink()
        self.assertIsNone(self.database.mark())

    def test_restored_backup_is_noticed(self) -> None:
        self.database.edit(office)
        before = self.database.version()
        other = Path(self.mktemp())
        AccountDatabase(other).snapshot()
        other.rename(self.path)
        self.assertNotEqual(self.database.version(), before)
        self.assertEqual(self.database.snapshot(), Directory())

    def test_edit_on_a_full_disk_fails_and_later_ones_work(self) -> None:
        self.database.edit(office)
        long = "x" * 100_000
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (65536, limit[1]))
        try:
            with self.assertRaises(sqlite3.OperationalError):
                self.database.edit(
                    lambda d: set_password_hash(d, "anna@example.test", long)
                )
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, handler)
        self.assertEqual(self.database.snapshot(), office(Directory()))
        self.database.edit(lambda d: set_enabled(d, "anna@example.test", False))
        self.assertNotEqual(self.open().snapshot(), office(Directory()))

    def test_file_taken_away_makes_nobody_unknown(self) -> None:
        self.database.edit(office)
        away = self.path.with_suffix(".away")
        self.path.rename(away)
        with self.assertRaises(FileNotFoundError):
            self.database.snapshot()
        self.assertFalse(self.path.exists())
        self.path.touch()
        with self.assertRaises(DatabaseGone):
            self.database.version()
        away.rename(self.path)
        self.assertEqual(self.database.snapshot(), office(Directory()))

    def test_only_the_owner_may_read_it(self) -> None:
        self.database.edit(office)
        for path in self.path.parent.glob(self.path.name + "*"):
            self.assertEqual(path.stat().st_mode & 0o777, 0o600, path)

    def test_file_of_a_later_version_is_left_alone(self) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        with self.assertRaises(DatabaseTooNew):
            self.database.snapshot()

    def test_file_of_the_first_release_is_brought_up_to_date(self) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.executescript(_MIGRATIONS[0])
            connection.execute(
                "INSERT INTO accounts"
                " (name, folder, password_hash, quota_octets, enabled)"
                " VALUES ('anna@example.test', 'anna@example.test', 'hash a', 9, 1)"
            )
            connection.execute("PRAGMA user_version = 1")
        connection.close()
        anna = Account("anna@example.test", "anna@example.test", "hash a", 9)
        directory = self.database.snapshot()
        self.assertEqual(list(directory.accounts()), [anna])
        self.assertEqual(len(directory.probe_key), 32)
        self.assertNotEqual(directory.probe_key, bytes(32))

    def test_nothing_is_opened_before_use(self) -> None:
        self.assertFalse(self.path.exists())
