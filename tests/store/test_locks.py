"""Dovecot's dotlocks."""

import errno
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.locks import Dotlock
from mailsrv.store.values import LockHeld
from tests.store.faulty import FaultyDisk


class DotlockTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.guarded = folder / "file"
        self.path = folder / "file.lock"

    def put(self, content: str, age_s: float = 0.0) -> None:
        self.path.write_text(content)
        changed_at = time.time() - age_s
        os.utime(self.path, (changed_at, changed_at))

    def assert_held(self) -> None:
        with self.assertRaises(LockHeld) as caught, Dotlock(self.guarded):
            pass
        self.assertGreater(caught.exception.retry_s, 0.0)
        self.assertTrue(self.path.exists())

    def assert_free(self) -> None:
        with Dotlock(self.guarded):
            self.assertTrue(self.path.exists())
        self.assertFalse(self.path.exists())

    def test_lock_is_dovecots(self) -> None:
        with Dotlock(self.guarded) as lock:
            self.assertTrue(lock.held)
            found = self.path.read_text()
        self.assertEqual(found, f"{os.getpid()}:{socket.gethostname()}")
        self.assertFalse(lock.held)
        self.assertFalse(self.path.exists())

    def test_second_is_told_to_wait(self) -> None:
        with Dotlock(self.guarded):
            self.assert_held()
        self.assert_free()

    def test_lock_of_a_living_process_is_held(self) -> None:
        self.put(f"{os.getppid()}:{socket.gethostname()}")
        self.assert_held()

    def test_lock_of_a_dead_process_is_free(self) -> None:
        dead = subprocess.Popen([sys.executable, "-c", ""])
        dead.wait()
        self.put(f"{dead.pid}:{socket.gethostname()}")
        self.assert_free()

    def test_lock_of_an_earlier_process_with_a_pid_of_today_is_free(self) -> None:
        self.put(f"{os.getpid()}:{socket.gethostname()}", age_s=100_000)
        self.assert_free()

    def test_lock_of_another_host_is_free_when_it_is_stale(self) -> None:
        self.put("1:elsewhere", age_s=110)
        self.assert_held()
        self.put("1:elsewhere", age_s=130)
        self.assert_free()

    def test_lock_without_a_holder_is_free_soon(self) -> None:
        self.put("", age_s=1)
        self.assert_held()
        self.put("", age_s=10)
        self.assert_free()

    def test_nonsense_is_held_until_stale(self) -> None:
        self.put(f"-1:{socket.gethostname()}", age_s=60)
        self.assert_held()
        self.put("nonsense", age_s=130)
        self.assert_free()

    def test_lock_that_another_took_over_is_not_removed(self) -> None:
        with Dotlock(self.guarded):
            self.path.unlink()
            self.put("1:elsewhere")
        self.assertEqual(self.path.read_text(), "1:elsewhere")

    def test_touch_shows_life(self) -> None:
        with Dotlock(self.guarded) as lock:
            os.utime(self.path, (0, 0))
            lock.touch()
            self.assertGreater(self.path.stat().st_mtime, time.time() - 60)

    def test_nothing_is_left_when_the_disk_is_full(self) -> None:
        disk = FaultyDisk("write", errno.ENOSPC)
        with self.assertRaises(OSError), Dotlock(self.guarded, disk):
            pass
        self.assertFalse(self.path.exists())

    def test_lock_is_as_old_as_its_holding(self) -> None:
        self.assert_free()
        (own,) = (self.path.parent / "tmp").iterdir()
        os.utime(own, (0, 0))
        with Dotlock(self.guarded):
            self.assertGreater(self.path.stat().st_mtime, time.time() - 60)
            self.assert_held()

    def test_no_file_is_created_for_a_second_lock(self) -> None:
        self.assert_free()
        disk = FaultyDisk("create", errno.ENOSPC)
        with Dotlock(self.guarded, disk) as lock:
            self.assertTrue(lock.held)

    def test_swept_file_is_made_again(self) -> None:
        self.assert_free()
        (own,) = (self.path.parent / "tmp").iterdir()
        own.unlink()
        self.assert_free()
