"""The one bridge from the reactor thread to blocking work.

Blocking code (store, hashing, fsync) runs here and nowhere else. A write to an
account goes through that account's serial queue, so that its code needs no lock
inside the process; reads, fsyncs and password hashes have pools of their own.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


class Later(Exception):
    """Raised by a job that waits for a foreign lock: run me again in a while.

    The job must have changed nothing. It keeps its place in its account's queue
    and holds no thread while it waits.
    """

    def __init__(self, delay_s: float) -> None:
        super().__init__(delay_s)
        self.delay_s = delay_s


class Reactor(Protocol):
    """What is needed of Twisted's reactor."""

    def callFromThread(self, f: Callable[..., Any], *args: Any) -> object: ...

    def callLater(
        self, delay: float, f: Callable[..., Any], /, *args: Any
    ) -> object: ...


@dataclass(slots=True)
class _Job:
    """A call, and the Deferred that its caller waits for."""

    call: Callable[[], Any]
    done: Deferred[Any] = field(default_factory=Deferred)


# Any: jobs and results of all kinds go through one queue.
_Finished = Callable[[Any], object]
"""Called in the reactor thread with a job's result, or with its Failure."""


class Pool:
    """A bounded pool whose results come back in the reactor thread.

    Not `concurrent.futures`: its Future has a lock and a condition of its own, and
    a third of the CPU of a way to a thread and back is theirs. Threads begin with
    the first job, hence after the process has become a daemon.
    """

    def __init__(self, reactor: Reactor, size: int, name: str) -> None:
        self._reactor = reactor
        self._queue: SimpleQueue[tuple[Callable[[], Any], _Finished] | None]
        self._queue = SimpleQueue()
        self._size = size
        self._name = name
        self._threads: list[Thread] = []
        self._stopped = False

    def run(self, call: Callable[[], T]) -> "Deferred[T]":
        """Run `call` in the pool. Its exception is the Deferred's failure."""
        done: Deferred[T] = Deferred()
        self._submit(call, done.callback)  # a Failure fires the errback chain
        return done

    def run_sliced(self, slices: Generator[None, None, T]) -> "Deferred[T]":
        """Run a generator to its end, one step at a time.

        Between two steps others get the thread: a step should take under 20 ms.
        `stop` ends it after the step that runs: the failure is CancelledError.
        """
        done: Deferred[T] = Deferred()

        def step() -> tuple[bool, T | None]:
            try:
                next(slices)
            except StopIteration as stop:
                return True, stop.value
            return False, None

        def stepped(result: tuple[bool, T | None] | Failure) -> None:
            if isinstance(result, Failure):
                done.errback(result)
                return
            ended, value = result
            if ended:
                done.callback(value)  # type: ignore[arg-type]  # a T when ended
            elif self._stopped:
                slices.close()
                done.errback(CancelledError())
            else:
                self._submit(step, stepped)

        self._submit(step, stepped)
        return done

    def _submit(self, call: Callable[[], Any], finished: _Finished) -> None:
        if self._stopped:
            raise RuntimeError("the pool has stopped")
        self._queue.put((call, finished))
        if not self._threads:
            for number in range(self._size):
                name = f"{self._name}-{number}"
                self._threads.append(Thread(target=self._work, name=name, daemon=True))
                self._threads[-1].start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            call, finished = job
            result: Any
            try:
                result = call()
            except BaseException:  # whoever waits gets it
                result = Failure()
            self._reactor.callFromThread(finished, result)
            del job, call, finished, result  # an idle thread keeps nothing alive

    def stop(self) -> None:
        """Wait for what runs; what still waits for a thread is run as well."""
        self._stopped = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()


class Threads:
    """All pools of a process. Call from the reactor thread only.

    `read` is for reads of the store, `sync` for writing and syncing message
    files, `hash` for password hashes, `queue` for the queue's rows, `peers` for
    what is kept of other servers; `write` keeps an account's order.
    """

    def __init__(
        self,
        reactor: Reactor,
        *,
        writers: int = 4,
        readers: int = 4,
        syncers: int = 6,
        hashers: int = 2,
    ) -> None:
        self._reactor = reactor
        self._writers = Pool(reactor, writers, "write")
        self.read = Pool(reactor, readers, "read")
        self.sync = Pool(reactor, syncers, "sync")
        self.hash = Pool(reactor, hashers, "hash")
        self.queue = Pool(reactor, 1, "queue")
        self.peers = Pool(reactor, 1, "peers")
        self._queues: dict[str, deque[_Job]] = {}

    def write(self, account: str, call: Callable[[], T]) -> "Deferred[T]":
        """Run `call` after every earlier `write` of the same account."""
        job = _Job(call)
        queue = self._queues.get(account)
        if queue is None:
            self._queues[account] = deque([job])
            self._run_first(account)
        else:
            queue.append(job)
        return job.done

    def _run_first(self, account: str) -> None:
        job = self._queues[account][0]
        running = self._writers.run(job.call)
        running.addBoth(self._ended, account, job)

    def _ended(self, result: Any, account: str, job: _Job) -> None:
        # Any: what a Deferred hands to addBoth, a value or a Failure.
        if isinstance(result, Failure) and isinstance(result.value, Later):
            self._reactor.callLater(result.value.delay_s, self._run_first, account)
            return
        queue = self._queues[account]
        queue.popleft()
        if queue:
            self._run_first(account)
        else:
            del self._queues[account]
        job.done.callback(result)  # a Failure fires the errback chain

    def stop(self) -> None:
        """End all pools after the jobs that they hold."""
        shared = (self.read, self.sync, self.hash, self.queue, self.peers)
        for pool in (*shared, self._writers):
            pool.stop()
