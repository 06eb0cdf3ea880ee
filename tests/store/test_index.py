"""Connections: files of no use are made anew once, by whoever comes first."""

import sqlite3
from contextlib import closing
from pathlib import Path
from threading import Barrier, Thread

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.index import Connections, discard, transaction
from mailsrv.store.values import LockHeld

USERS = 4


class ConnectionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.path = root / "index #1?.sqlite"  # what a URI would take to pieces

    def spoil(self, octets: bytes | None) -> None:
        """Leave a damaged file there, or one of another version."""
        if octets is not None:
            self.path.write_bytes(octets)
            return
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("CREATE TABLE t (x)")
            connection.execute("PRAGMA user_version=1")

    def count(self, connection: sqlite3.Connection) -> int:
        (count,) = connection.execute("SELECT count(*) FROM header_key").fetchone()
        return int(count)

    def test_all_who_find_a_file_of_no_use_get_the_same_new_one(self) -> None:
        for octets in (None, b"", b"x" * 8192) * 3:
            self.spoil(octets)
            barrier = Barrier(USERS)

            def work(number: int, barrier: Barrier = barrier) -> None:
                connections = Connections()  # as another process has them
                barrier.wait(10)
                with (
                    connections.use(str(self.path), "write") as connection,
                    transaction(connection),
                ):
                    connection.execute(
                        "INSERT INTO header_key (key, used_day) VALUES (?, 1)",
                        (b"%d" % number,),
                    )
                connections.close()

            threads = [Thread(target=work, args=(n,)) for n in range(USERS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            connections = Connections()
            with connections.use(str(self.path), "read") as connection:
                self.assertEqual(self.count(connection), USERS)
            connections.close()
            discard(str(self.path))

    def test_another_one_than_the_damaged_file_stays(self) -> None:
        connections, others = Connections(), Connections()

        def damaged() -> None:
            with connections.use(str(self.path), "read"):
                # Meanwhile another process has found it too, and made a new one.
                discard(str(self.path))
                with others.use(str(self.path), "write") as connection:
                    connection.execute(
                        "INSERT INTO header_key (key, used_day) VALUES ('x', 1)"
                    )
                error = sqlite3.DatabaseError("malformed")
                error.sqlite_errorname = "SQLITE_CORRUPT"
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error

        self.assertRaises(LockHeld, damaged)
        with others.use(str(self.path), "read") as connection:
            self.assertEqual(self.count(connection), 1)
        others.close()

    def test_a_file_that_cannot_be_opened_stays(self) -> None:
        self.path.mkdir()
        connections = Connections()

        def use() -> None:
            with connections.use(str(self.path), "write"):
                pass

        self.assertRaises(sqlite3.OperationalError, use)
        self.assertTrue(self.path.is_dir())
