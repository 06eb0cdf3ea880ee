"""Writes that last, and what a failure leaves."""

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.durable import DISK, make_folders, read, replace, secret
from tests.store.faulty import FaultyDisk


class DurableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"

    def test_replace(self) -> None:
        for content in (b"one", b"two"):
            status = replace(self.path, content)
            self.assertEqual(self.path.read_bytes(), content)
            self.assertEqual(status.st_ino, self.path.stat().st_ino)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(self.folder), ["file"])

    def test_replace_follows_no_link(self) -> None:
        victim = self.folder / "victim"
        victim.write_bytes(b"mine")
        (self.folder / "file.tmp").symlink_to(victim)
        replace(self.path, b"new")
        self.assertEqual(victim.read_bytes(), b"mine")

    def test_failed_replace_leaves_the_old_file(self) -> None:
        self.path.write_bytes(b"old")
        for operation in ("create", "write", "fdatasync", "rename"):
            with self.assertRaises(OSError):
                replace(self.path, b"new", FaultyDisk(operation, errno.EIO))
            self.assertEqual(self.path.read_bytes(), b"old")
            self.assertEqual(os.listdir(self.folder), ["file"])

    def test_folder_sync_that_fails_is_told(self) -> None:
        with self.assertRaises(OSError):
            replace(self.path, b"new", FaultyDisk("fsync", errno.EIO))

    def test_read(self) -> None:
        self.assertEqual(read(self.path, 3), b"")
        self.path.write_bytes(b"abc")
        self.assertEqual(read(self.path, 3), b"abc")
        with self.assertRaises(OSError):
            read(self.path, 2)

    def test_many_pieces_are_written_whole(self) -> None:
        pieces = [b"%d\n" % n for n in range(3000)]
        fd = DISK.create(self.path)
        DISK.write(fd, pieces)
        os.close(fd)
        self.assertEqual(self.path.read_bytes(), b"".join(pieces))

    def test_each_new_folder_is_synced_in_the_one_above(self) -> None:
        disk = FaultyDisk()
        make_folders(self.folder / "a/b/c", disk)
        self.assertEqual(disk.calls, ["fsync"] * 3)
        make_folders(self.folder / "a/b/c", disk)
        self.assertEqual(len(disk.calls), 3)
        self.assertEqual((self.folder / "a/b").stat().st_mode & 0o777, 0o700)

    def test_a_secret_is_made_once_and_for_us_alone(self) -> None:
        key = secret(self.path)
        self.assertEqual(len(key), 32)
        self.assertEqual(secret(self.path), key)
        self.assertEqual(os.listdir(self.folder), ["file"])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertNotEqual(secret(self.folder / "other"), key)

    def test_a_secret_that_is_not_durable_is_none(self) -> None:
        for operation in ("create", "write", "fsync", "link"):
            with self.assertRaises(OSError):
                secret(self.path, FaultyDisk(operation, errno.EIO))
            self.assertFalse(self.path.exists())
        self.assertEqual(len(secret(self.path)), 32)
