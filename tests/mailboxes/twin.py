"""A `Threads` without threads: jobs run at once, or when a test says so."""

from collections.abc import Callable, Generator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.threads import Pool, Threads

T = TypeVar("T")


class TwinPool(Pool):
    """Runs a job in the call that brings it, unless `held`."""

    def __init__(self) -> None:
        self.held = False
        self._jobs: list[Callable[[], None]] = []
        self.started = 0

    def run(self, call: Callable[[], T]) -> "Deferred[T]":
        done: Deferred[T] = Deferred()

        def job() -> None:
            self.started += 1
            try:
                result = call()
            except Exception:
                done.errback(Failure())
            else:
                done.callback(result)

        if self.held:
            self._jobs.append(job)
        else:
            job()
        return done

    def run_sliced(self, slices: Generator[None, None, T]) -> "Deferred[T]":
        def whole() -> T:
            while True:
                try:
                    next(slices)
                except StopIteration as stop:
                    # Any: the value of a StopIteration.
                    value: T = stop.value
                    return value

        return self.run(whole)

    def release(self) -> int:
        """Run the jobs that are held now; return how many these were."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()
        return len(jobs)

    def stop(self) -> None:
        """Nothing runs."""


class TwinThreads(Threads):
    """For tests with a `Clock`; queues and `Later` are the real ones."""

    def __init__(self, clock: Clock) -> None:
        # Any: Clock has no callFromThread, and nothing here calls it.
        reactor: Any = clock
        self._reactor = reactor
        self._queues = {}
        self.read = TwinPool()
        self.sync = TwinPool()
        self.hash = TwinPool()
        self.queue = TwinPool()
        self.peers = TwinPool()
        self._writers = self.writers = TwinPool()
