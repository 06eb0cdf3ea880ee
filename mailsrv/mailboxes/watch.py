"""Sees what other programs do to the Maildirs that are selected (inotify(7)).

Twisted's own `INotify` is not used: it drops the notice that events were lost,
and closes itself when one watched folder is removed.
"""

import ctypes
import os
import struct
from collections.abc import Callable
from pathlib import Path

from twisted.internet.interfaces import IReactorFDSet, IReactorTime, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

log = Logger()

_MASK = 0x40 | 0x80 | 0x100 | 0x200  # IN_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE
_ONLYDIR = 0x01000000
_IGNORED = 0x8000  # the folder is gone, its watch too
_OVERFLOW = 0x4000
_HEADER = struct.Struct("=iIII")
_POLL_S = 3.0  # where inotify is not to be had: one look at the mtimes


@implementer(IReadDescriptor)
class Inotify:
    """One inotify instance: calls back for each changed folder."""

    def __init__(
        self, reactor: IReactorFDSet, changed: Callable[[int | None], None]
    ) -> None:
        """Raises OSError if the system has no instance to spare.

        `changed` is called with the number that `add` gave, once for all events
        of one read; with None after an overflow.
        """
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._changed = changed
        self._reactor = reactor
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        reactor.addReader(self)

    def stop(self) -> None:
        """End all watches."""
        self._reactor.removeReader(self)
        os.close(self._fd)

    def logPrefix(self) -> str:
        return "inotify"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor gives up on the descriptor, which does not happen."""

    def _checked(self, result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def add(self, folder: Path) -> int:
        """Watch a folder; raises OSError (no such folder, no watch to spare)."""
        return self._checked(
            self._libc.inotify_add_watch(
                self._fd, os.fsencode(folder), _MASK | _ONLYDIR
            )
        )

    def remove(self, number: int) -> None:
        """Watch no longer; a folder that is gone is no error."""
        self._libc.inotify_rm_watch(self._fd, number)

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        """Read the events that wait: whole ones, by the kernel's promise."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return
        at = 0
        seen: set[int | None] = set()
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            if mask & _OVERFLOW:
                seen.add(None)
            elif not mask & _IGNORED:
                seen.add(number)
        for one in seen:
            self._changed(one)


class Watcher:
    """Watches folders for many, with one inotify instance or by polling."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._calls: dict[int, Callable[[], None]] = {}
        self._polled: dict[int, Callable[[], None]] = {}
        self._poll_number = 0
        self._polling = False
        self._inotify: Inotify | None = None

    def start(self) -> None:
        """Take an inotify instance; without one, mailboxes are polled."""
        reactor = IReactorFDSet(self._reactor, None)
        if reactor is None:
            return
        try:
            self._inotify = Inotify(reactor, self._changed)
        except OSError as error:
            log.warn(
                "no inotify ({error}): changes by other programs show after {poll_s} s",
                error=error.strerror,
                poll_s=_POLL_S,
            )

    def stop(self) -> None:
        if self._inotify is not None:
            self._inotify.stop()
            self._inotify = None
        self._calls.clear()
        self._polled.clear()

    def watch(self, directory: Path, changed: Callable[[], None]) -> "Watch":
        """Call `changed` whenever ``new/`` or ``cur/`` of a mailbox may differ.

        The folders were just read by a job: to add the watch does not wait for
        the disk.
        """
        numbers: list[int] = []
        if self._inotify is not None:
            try:
                for folder in ("new", "cur"):
                    numbers.append(self._inotify.add(directory / folder))
            except OSError as error:
                log.warn("inotify: {error}", error=error.strerror)
                for number in numbers:
                    self._inotify.remove(number)
                numbers = []
        if numbers:
            self._calls.update(dict.fromkeys(numbers, changed))
            return Watch(self, numbers)
        self._poll_number -= 1
        self._polled[self._poll_number] = changed
        self._schedule_poll()
        return Watch(self, [self._poll_number])

    def forget(self, number: int) -> None:
        """End one watch; `Watch.stop` calls this."""
        if self._polled.pop(number, None) is None:
            # The kernel never gives a number again: a late event finds nobody.
            if self._calls.pop(number, None) is not None and self._inotify is not None:
                self._inotify.remove(number)

    def _changed(self, number: int | None) -> None:
        if number is None:
            log.warn("inotify lost events: looking at all selected mailboxes")
            for changed in set(self._calls.values()):
                changed()
        elif number in self._calls:
            self._calls[number]()

    def _schedule_poll(self) -> None:
        if not self._polling:
            self._polling = True
            self._reactor.callLater(_POLL_S, self._poll)

    def _poll(self) -> None:
        self._polling = False
        for changed in list(self._polled.values()):
            changed()
        if self._polled:
            self._schedule_poll()


class Watch:
    """A mailbox that is watched until `stop`."""

    def __init__(self, watcher: Watcher, numbers: list[int]) -> None:
        self._watcher = watcher
        self._numbers = numbers

    def stop(self) -> None:
        for number in self._numbers:
            self._watcher.forget(number)
        self._numbers = []
