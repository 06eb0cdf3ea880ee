"""`Threads` without threads: jobs run at once, or when the test says so."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from twisted.internet.task import Clock

from mailsrv.threads import Threads


class InlineExecutor(Executor):
    """Runs a job when it is submitted; while `held`, when `step` is called."""

    def __init__(self) -> None:
        self.held = False
        self.jobs: list[Callable[[], None]] = []

    # Any: the signature is Executor's.
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        future: Future[Any] = Future()

        def job() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except Exception as error:
                future.set_exception(error)

        self.jobs.append(job)
        if not self.held:
            self.step()
        return future

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
        self.hash_jobs, self.read_jobs = InlineExecutor(), InlineExecutor()
        self.hash._executor = self.hash_jobs  # type: ignore[assignment]  # a twin
        self.read._executor = self.read_jobs  # type: ignore[assignment]
        self.sync._executor = InlineExecutor()  # type: ignore[assignment]
        self._writers._executor = InlineExecutor()  # type: ignore[assignment]
