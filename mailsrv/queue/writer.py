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
        self._again: list[_Job] = []  # results, when the disk may be back
        self._singly = 0  # of the jobs, that are tried one by one
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
        self._wake()
        return job.done

    def _wake(self) -> None:
        if not self._running:
            self._running = True
            # At the end of this turn, with what else comes in it.
            self._reactor.callLater(0, self._begin)

    def _begin(self) -> None:
        Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while self._jobs:
            most = len(self._jobs)
            if self._singly:
                most, self._singly = 1, self._singly - 1
            jobs, self._jobs = self._jobs[:most], self._jobs[most:]
            try:
                taken, files = await self._pool.run(partial(self._commit, jobs))
            except Exception as error:
                self._failed(jobs, error)
                continue
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

    def _failed(self, jobs: list[_Job], error: Exception) -> None:
        log.failure("writing the queue's rows failed")
        is_disk = isinstance(error, sqlite3.OperationalError)
        if not is_disk and len(jobs) > 1:  # only one is to suffer
            self._jobs[:0] = jobs
            self._singly = len(jobs)
            return
        contradicts = isinstance(error, sqlite3.IntegrityError)
        for job in jobs:
            # New messages of a carrier that can never be written are left out.
            hopeless = contradicts or (not is_disk and job.new)
            if job.results and not hopeless:
                self._later(job)
            else:
                job.done.errback(_told(error))

    def _later(self, job: _Job) -> None:
        """Try a job again in a while; others need not wait for that."""
        if not self._again:
            self._reactor.callLater(_AGAIN_S, self._retry)
        self._again.append(job)

    def _retry(self) -> None:
        again, self._again = self._again, []
        self._jobs += again
        self._wake()


def _told(error: Exception) -> DeliveryFailed:
    full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    failed = DeliveryFailed("full" if full else "io")
    failed.__cause__ = error
    return failed
