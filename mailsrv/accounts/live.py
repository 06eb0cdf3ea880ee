"""The directory of a running server: the last snapshot, read anew when it changed."""

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.accounts.directory import Directory
from mailsrv.interfaces import IAccountDatabase
from mailsrv.threads import Threads

log = Logger()

POLL_S = 1.0


class LiveDirectory:
    """Follows a database that the command line or other processes may edit.

    `current` is for the reactor thread and never waits. Before refusing something
    that `current` does not know, `await refresh()`.
    """

    def __init__(
        self, database: IAccountDatabase, *, threads: Threads, reactor: IReactorTime
    ) -> None:
        self.current = Directory()
        # Called in the reactor thread with each new directory but the first.
        self.changed: list[Callable[[Directory], None]] = []
        self.database = database
        self._threads = threads
        self._version: object = None
        self._mark: object | None = None  # of the database, before it was read
        self._waiting: list[Deferred[None]] = []
        self._reading = False
        self._failing = False
        self._poll = LoopingCall(self._poll_once)
        self._poll.clock = reactor

    def start(self) -> None:
        """Read the directory now, blocking: before the reactor runs."""
        self._mark, read = self._read()
        if read is not None:
            self._version, self.current = read
        if not self.current.domains:
            log.warn("there are no domains yet: mailsrv domain add makes one")
        self._poll.start(POLL_S, now=False)

    def stop(self) -> None:
        """End polling."""
        if self._poll.running:
            self._poll.stop()

    async def refresh(self) -> Directory:
        """Return the directory as it is now or later; raises what reading raises."""
        mark = self.database.mark()
        if mark is not None and mark == self._mark:
            return self.current
        return await self._read_anew()

    async def _read_anew(self) -> Directory:
        # A reading that has begun may have missed what this caller asks for.
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._reading:
            Deferred.fromCoroutine(self._read_for_all())
        await done
        return self.current

    async def _read_for_all(self) -> None:
        self._reading = True
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            try:
                self._take(*await self._threads.read.run(self._read))
            except Exception:
                failure = Failure()
                for done in waiting:
                    done.errback(failure)
            else:
                for done in waiting:
                    done.callback(None)
        self._reading = False

    def _read(self) -> tuple[object | None, tuple[object, Directory] | None]:
        mark, version = self.database.mark(), self.database.version()
        if version == self._version:
            return mark, None
        return mark, (version, self.database.snapshot())

    def _take(self, mark: object | None, read: tuple[object, Directory] | None) -> None:
        self._mark = mark
        if read is None:
            return
        self._version, self.current = read
        for tell in self.changed:
            try:
                tell(self.current)
            except Exception:  # the others have to know as well
                log.failure("a part did not take up the changed accounts")

    def _poll_once(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._refresh_and_report())

    async def _refresh_and_report(self) -> None:
        try:
            await self._read_anew()
        except Exception:  # the poll goes on: the disk may come back
            if not self._failing:
                log.failure("cannot read the accounts; the last known ones stay")
            self._failing = True
        else:
            self._failing = False
