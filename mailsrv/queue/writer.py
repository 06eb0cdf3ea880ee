"""The one writer of the queue's rows: what comes while it writes is written together.

New messages fail at once when the disk does; what became of recipients is kept and
written again until it is durable, since else they would get a message twice.
"""

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.queue.values import Entry, Result
from mailsrv.store.values import DeliveryFailed
from mailsrv.threads import Pool

log = Logger()

_AGAIN_S = 5.0  # after a failure

Write = Callable[
    [Sequence[Entry], Sequence[Result]], tuple[Sequence[Entry], Sequence[str]]
]


@dataclass(slots=True, eq=False)
class _Job:
    new: Sequence[Entry]
    results: Sequence[Result]
    done: Deferred[list[Entry]] = field(default_factory=Deferred)


class Writer:
    """Commits in groups. `finished` is told of files that no message has any more."""

    def __init__(
        self,
        write: Write,
        finished: Callable[[Sequence[str]], None],
        pool: Pool,
        reactor: IReactorTime,
    ) -> None:
        """`write` runs in `pool`, which has one thread."""
        self._write = write
        self._finished = finished
        self._pool = pool
        self._reactor = reactor
        self._jobs: list[_Job] = []
        self._running = False

    def write(
        self, new: Sequence[Entry] = (), results: Sequence[Result] = ()
    ) -> "Deferred[list[Entry]]":
        """Make messages and results durable, together.

        Returns the messages with the ids of their rows; those that were to be taken
        once and had been are not among them. Raises `DeliveryFailed`: without
        results when the disk does, with them if the rows contradict others.
        """
        job = _Job(new, results)
        self._jobs.append(job)
        if not self._running:
            self._running = True
            # At the end of this turn, with what else comes in it.
            self._reactor.callLater(0, self._begin)
        return job.done

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        most = None
        while self._jobs:
            jobs, self._jobs = self._jobs[:most], self._jobs[most:] if most else []
            try:
                taken, files = await self._pool.run(partial(self._commit, jobs))
            except Exception as error:
                await self._failed(jobs, error)
                most = 1  # if it is not the disk, only one suffers
                continue
            most = None
            if files:
                self._finished(files)
            by_id = {entry[0].id: entry for entry in taken}
            for job in jobs:
                ids = [message.id for message, _ in job.new]
                job.done.callback([by_id[id] for id in ids if id in by_id])
        self._running = False

    def _commit(self, jobs: Sequence[_Job]) -> tuple[Sequence[Entry], Sequence[str]]:
        return self._write(
            [entry for job in jobs for entry in job.new],
            [result for job in jobs for result in job.results],
        )

    async def _failed(self, jobs: Sequence[_Job], error: Exception) -> None:
        log.failure("writing the queue's rows failed")
        # One alone that can never be written would be tried for ever.
        hopeless = isinstance(error, sqlite3.IntegrityError) and len(jobs) == 1
        again = [job for job in jobs if job.results and not hopeless]
        self._jobs += again
        for job in jobs:
            if job not in again:
                job.done.errback(_told(error))
        if again:
            await deferLater(self._reactor, _AGAIN_S)


def _told(error: Exception) -> DeliveryFailed:
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    failed = DeliveryFailed("full" if full else "io")
    failed.__cause__ = error
    return failed
