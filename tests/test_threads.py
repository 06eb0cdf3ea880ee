"""The bridge to threads: order within an account, slices, exceptions, `Later`."""

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailsrv.threads import Later, Threads


class ThreadsTests(TestCase):
    def setUp(self) -> None:
        # Any: twisted.internet.reactor is typed as a module.
        loop: Any = reactor
        self.threads = Threads(loop, writers=2, readers=1, syncers=1, hashers=1)
        self.addCleanup(self.threads.stop)

    async def test_writes_of_an_account_keep_their_order(self) -> None:
        done: list[int] = []

        def job(n: int) -> Callable[[], None]:
            return lambda: done.append(n)

        await gatherResults([self.threads.write("anna", job(n)) for n in range(50)])
        self.assertEqual(done, list(range(50)))

    async def test_later_keeps_its_place(self) -> None:
        done: list[str] = []

        def locked() -> None:
            done.append("try")
            if len(done) < 3:
                raise Later(0.001)
            done.append("got it")

        first = self.threads.write("anna", locked)
        await self.threads.write("anna", lambda: done.append("second"))
        await first
        self.assertEqual(done, ["try", "try", "try", "got it", "second"])

    async def test_exception_reaches_caller_and_queue_goes_on(self) -> None:
        def broken() -> None:
            raise OSError("no")

        failed = self.threads.write("anna", broken)
        after = self.threads.write("anna", lambda: "after")
        with self.assertRaises(OSError):
            await failed
        self.assertEqual(await after, "after")

    async def test_slices_let_others_in(self) -> None:
        seen: list[str] = []

        def long() -> Generator[None, None, str]:
            for _ in range(3):
                seen.append("slice")
                yield
            return "end"

        result = self.threads.read.run_sliced(long())
        other: Deferred[None] = self.threads.read.run(lambda: seen.append("other"))
        self.assertEqual(await result, "end")
        await other
        self.assertLess(seen.index("other"), 3)

    async def test_stop_ends_a_sliced_job_between_two_slices(self) -> None:
        closed: list[str] = []

        def endless() -> Generator[None, None, None]:
            try:
                while True:
                    yield
            finally:
                closed.append("closed")

        result = self.threads.read.run_sliced(endless())
        self.threads.read.stop()
        with self.assertRaises(CancelledError):
            await result
        self.assertEqual(closed, ["closed"])
