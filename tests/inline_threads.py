"""`Threads` without threads: jobs run at once, or when the test says so."""

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from mailsrv.threads import Pool, Threads


class InlinePool(Pool):
    """Runs a job when it is submitted; while `held`, when `step` is called."""

    def __init__(self, reactor: "_InlineReactor") -> None:
        super().__init__(reactor, 1, "inline")
        self.held = False
        self.jobs: list[Callable[[], None]] = []

    # Any: as in Pool.
    def _submit(self, call: Callable[[], Any], finished: Callable[[Any], Any]) -> None:
        def job() -> None:
            result: Any
            try:
                result = call()
            except Exception:
                result = Failure()
            finished(result)

        self.jobs.append(job)
        if not self.held:
            self.step()

    def step(self) -> None:
        """Run the oldest job."""
        self.jobs.pop(0)()

    def release(self) -> None:
        """Run all that is held, and what comes, at once."""
        self.held = False
        while self.jobs:
            self.step()


class _InlineReactor(Clock):
    def callFromThread(self, f: Callable[..., Any], *args: Any) -> object:
        return f(*args)


class InlineThreads(Threads):
    """For SynchronousTestCase: results are there when the call returns."""

    def __init__(self) -> None:
        self.clock = _InlineReactor()
        super().__init__(self.clock)
        self.hash = self.hash_jobs = InlinePool(self.clock)
        self.read = self.read_jobs = InlinePool(self.clock)
        self.sync = InlinePool(self.clock)
        self.queue = InlinePool(self.clock)
        self.peers = InlinePool(self.clock)
        self._writers = InlinePool(self.clock)
