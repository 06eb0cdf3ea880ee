"""verify: what it finds, and that mending leaves nothing."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.store.locks import UidlistLock
from mailsrv.store.values import SEEN, LockHeld
from mailsrv.store.verify import Verifier
from tests.store.account_fixture import MESSAGE, Office, old
from tests.store.test_texts import run


class VerifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = Office(Path(self.mktemp()))
        self.addCleanup(self.office.connections.close)
        self.verifier = Verifier(
            self.office.root, connections=self.office.connections, now=time.time
        )
        self.uids = [self.office.receive(flags=SEEN) for _ in range(3)]
        self.office.store.open("INBOX")

    def sql(self, statement: str) -> None:
        with self.office.connections.use(
            str(self.office.root / "index.sqlite"), "write"
        ) as connection:
            connection.execute(statement)

    def texts(self) -> list[str]:
        return [str(finding) for finding in self.verifier.check()]

    def assertFound(self, text: str) -> None:
        self.assertTrue(any(text in found for found in self.texts()), self.texts())

    def assertMended(self) -> None:
        old(self.office.maildir / "cur")
        old(self.office.maildir / "new")
        self.verifier.mend()
        self.assertEqual(self.texts(), [])

    def test_sound_account(self) -> None:
        self.office.store.store_flags("INBOX", [1], "+", ["\\Flagged", "word"])
        self.office.store.expunge("INBOX", [2], only_deleted=False)
        self.office.store.move("INBOX", [3], "Trash")
        self.office.drop()  # not taken in yet
        self.assertEqual(self.texts(), [])

    def test_account_that_nobody_used(self) -> None:
        self.office.store.close()
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(self.texts(), [])
        self.assertFalse((self.office.root / "index.sqlite").exists())

    def test_missing_file(self) -> None:
        os.unlink(os.fsencode(self.office.maildir / "cur") + b"/" + self.name(0))
        self.assertFound("message 1 has no file")
        self.assertMended()
        self.assertEqual(list(self.office.store.open("INBOX").uids), [2, 3])

    def name(self, n: int) -> bytes:
        return self.office.files()[n]

    def test_other_flags(self) -> None:
        self.sql("UPDATE message SET flags = 0 WHERE uid = 2")
        self.assertFound("message 2 has other flags")
        self.assertMended()
        self.assertEqual(set(self.office.store.open("INBOX").flags), {SEEN})

    def test_lost_uidlist_is_written_from_the_index(self) -> None:
        before = self.office.store.open("INBOX")
        os.unlink(self.office.maildir / "dovecot-uidlist")
        self.assertFound("uidlist is missing")
        self.assertMended()
        after = self.office.store.open("INBOX")
        self.assertEqual(after.uid_validity, before.uid_validity)
        self.assertEqual(after.uids, before.uids)

    def test_broken_line_of_the_uidlist(self) -> None:
        path = self.office.maildir / "dovecot-uidlist"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join([lines[0], lines[1], b"nonsense\n", *lines[3:]]))
        self.assertFound("broken lines")
        self.assertFound("message 2 has UID None")
        self.assertMended()
        self.assertEqual(list(self.office.store.open("INBOX").uids), [1, 2, 3])

    def test_other_uids_in_the_uidlist(self) -> None:
        path = self.office.maildir / "dovecot-uidlist"
        text = path.read_bytes()
        path.write_bytes(text.replace(b"\n3 ", b"\n33 ").replace(b" N4 ", b" N34 ", 1))
        self.assertFound("message 3 has UID 33")
        self.assertMended()
        self.assertEqual(list(self.office.store.open("INBOX").uids), [1, 2, 33])

    def test_wrong_counts(self) -> None:
        self.sql("UPDATE mailbox SET messages = 77, octets = 1")
        self.assertFound("counts 77 messages")
        self.assertMended()
        self.assertEqual(self.office.store.status("INBOX").messages, 3)

    def test_wrong_uid_next_and_mod_seq(self) -> None:
        self.sql("UPDATE mailbox SET uid_next = 2, mod_seq = 1")
        self.assertFound("MODSEQ above")
        self.assertFound("next UID 2")
        self.assertMended()
        self.assertEqual(self.office.receive(), 4)

    def test_wrong_size(self) -> None:
        self.sql("UPDATE message SET size_octets = size_octets + 1 WHERE uid = 2")
        self.sql("UPDATE mailbox SET octets = octets + 1")
        self.assertFound("octets in its file")
        self.assertMended()
        rows = self.office.store.rows("INBOX", [2], ["size_octets"])
        served = len(MESSAGE.replace(b"\n", b"\r\n"))
        self.assertEqual(list(rows[2]), [served])
        self.assertEqual(self.office.store.status("INBOX").size_octets, 3 * served)

    def test_damaged_index(self) -> None:
        self.office.store.close()
        path = self.office.root / "index.sqlite"
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        octets = bytearray(path.read_bytes())
        octets[4096 * 2 :] = b"\xff" * (len(octets) - 4096 * 2)
        path.write_bytes(octets)
        self.assertFound("index is damaged")
        self.assertMended()
        self.assertEqual(list(self.office.store.open("INBOX").uids), [1, 2, 3])

    def test_damaged_texts(self) -> None:
        path = self.office.root / "search.sqlite"
        if not run(self.office.store.index_texts(0)) or not path.exists():
            raise SkipTest("this SQLite has no FTS5")
        self.assertEqual(self.texts(), [])
        self.office.store.close()
        path.write_bytes(b"no SQLite" * 1000)
        self.assertFound("index of texts is damaged")
        self.assertFound(f"delete {path}")  # the remedy
        self.assertMended()
        self.assertFalse(path.exists())  # it is filled in the background

    def test_lost_trigrams(self) -> None:
        """A sound file, in which nothing would be found any more."""
        path = self.office.root / "search.sqlite"
        if not run(self.office.store.index_texts(0)) or not path.exists():
            raise SkipTest("this SQLite has no FTS5")
        self.office.store.close()
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM trigram_data WHERE id > 10")
        self.assertFound("index of texts is damaged")
        self.assertMended()
        self.assertFalse(path.exists())

    def test_mailbox_that_is_gone_and_orphans(self) -> None:
        self.office.store.open("Sent")
        os.rename(self.office.maildir / ".Sent", self.office.root / "elsewhere")
        self.sql(
            "INSERT INTO content VALUES (999, 1, 0, '', 0, '', '', '', '', '', NULL)"
        )
        self.assertFound("has no folder")
        self.assertFound("1 unknown messages")
        self.assertMended()

    def test_links_are_told_and_stay(self) -> None:
        os.symlink("/etc/passwd", self.office.maildir / "cur" / "1.link:2,")
        self.assertFound("no regular file")
        self.verifier.mend()
        self.assertFound("no regular file")

    def test_locked_mailbox(self) -> None:
        with UidlistLock(self.office.maildir):
            self.assertRaises(LockHeld, self.verifier.check)
