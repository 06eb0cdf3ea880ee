"""Seeing other programs' work: inotify, its loss, and polling instead."""

import os
import struct
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailsrv.mailboxes.watch import Watcher


@implementer(IReactorFDSet)
class FileClock(Clock):
    """A clock that also remembers what wants to be read."""

    # Any: the interface's methods are untyped.
    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        raise NotImplementedError

    def removeWriter(self, writer: Any) -> None:
        raise NotImplementedError

    def getReaders(self) -> list[Any]:
        return self.readers

    def getWriters(self) -> list[Any]:
        return []

    def removeAll(self) -> list[Any]:
        return []

    def read(self) -> None:
        for reader in self.readers:
            reader.doRead()


def mailbox(path: str) -> Path:
    directory = Path(path)
    for name in ("cur", "new", "tmp"):
        (directory / name).mkdir(parents=True)
    return directory


class InotifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = FileClock()
        self.watcher = Watcher(self.clock)
        self.watcher.start()
        self.addCleanup(self.watcher.stop)
        self.box = mailbox(self.mktemp())
        self.calls: list[str] = []

    def watch(self, directory: Path, name: str) -> Any:
        return self.watcher.watch(directory, lambda: self.calls.append(name))

    def test_arrival_rename_and_removal_are_seen(self) -> None:
        self.watch(self.box, "box")
        staged, arrived = self.box / "tmp" / "1", self.box / "new" / "1"
        staged.write_bytes(b"")
        self.clock.read()
        self.assertEqual(self.calls, [])
        for step in (
            lambda: staged.rename(arrived),
            lambda: arrived.rename(self.box / "cur" / "1:2,S"),
            lambda: (self.box / "cur" / "1:2,S").unlink(),
        ):
            self.calls.clear()
            step()
            self.clock.read()
            self.assertEqual(set(self.calls), {"box"})

    def test_read_of_a_message_is_no_change(self) -> None:
        message = self.box / "cur" / "1:2,"
        message.write_bytes(b"")
        self.watch(self.box, "box")
        message.read_bytes()
        self.clock.read()
        self.assertEqual(self.calls, [])

    def test_removed_folder_disturbs_no_other(self) -> None:
        other = mailbox(self.mktemp())
        watch = self.watch(self.box, "box")
        self.watch(other, "other")
        for name in ("cur", "new"):
            os.rmdir(self.box / name)
        self.clock.read()
        watch.stop()
        (other / "new" / "1").write_bytes(b"")
        self.clock.read()
        self.assertEqual(self.calls, ["other"])

    def test_nothing_after_stop(self) -> None:
        watch = self.watch(self.box, "box")
        (self.box / "new" / "1").write_bytes(b"")
        watch.stop()
        self.clock.read()
        self.assertEqual(self.calls, [])

    def test_lost_events_make_all_look(self) -> None:
        other = mailbox(self.mktemp())
        self.watch(self.box, "box")
        self.watch(other, "other")
        (inotify,) = self.clock.readers
        overflow = struct.pack("=iIII", -1, 0x4000, 0, 0)
        read, write = os.pipe()
        os.write(write, overflow)
        os.dup2(read, inotify.fileno())
        self.clock.read()
        self.assertEqual(set(self.calls), {"box", "other"})
        os.close(read)
        os.close(write)


class PollTests(SynchronousTestCase):
    def test_without_inotify_each_mailbox_is_looked_at_now_and_then(self) -> None:
        clock = Clock()
        watcher = Watcher(clock)
        watcher.start()
        calls: list[str] = []
        watch = watcher.watch(mailbox(self.mktemp()), lambda: calls.append("box"))
        clock.pump([3.0, 3.0])
        self.assertEqual(calls, ["box", "box"])
        watch.stop()
        clock.pump([3.0])
        self.assertEqual(calls, ["box", "box"])
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_missing_folder_is_polled(self) -> None:
        clock = FileClock()
        watcher = Watcher(clock)
        watcher.start()
        self.addCleanup(watcher.stop)
        calls: list[str] = []
        watcher.watch(Path(self.mktemp()), lambda: calls.append("box"))
        clock.advance(3.0)
        self.assertEqual(calls, ["box"])
        self.flushLoggedErrors()
