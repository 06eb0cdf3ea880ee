"""The running server's directory follows the database."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.edits import add_domain
from mailsrv.accounts.live import POLL_S, LiveDirectory
from tests.inline_threads import InlineThreads


class BrokenDatabase(MemoryAccountDatabase):
    broken = False
    can_mark = False

    def mark(self) -> object | None:
        return self._version if self.can_mark else None

    def version(self) -> object:
        if self.broken:
            raise OSError("disk gone")
        return super().version()


class LiveDirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.database = BrokenDatabase()
        self.database.edit(lambda d: add_domain(d, "first.test"))
        self.live = LiveDirectory(
            self.database, threads=self.threads, reactor=self.threads.clock
        )
        self.live.start()
        self.addCleanup(self.live.stop)

    def refresh(self) -> "Deferred[Directory]":
        return Deferred.fromCoroutine(self.live.refresh())

    def add(self, name: str) -> None:
        self.database.edit(lambda d: add_domain(d, name))

    def domains(self) -> list[str]:
        return list(self.live.current.domains)

    def test_is_there_after_start(self) -> None:
        self.assertEqual(self.domains(), ["first.test"])

    def test_change_is_seen_by_the_poll(self) -> None:
        self.add("second.test")
        self.assertEqual(self.domains(), ["first.test"])
        self.threads.clock.advance(POLL_S)
        self.assertEqual(self.domains(), ["first.test", "second.test"])

    def test_change_is_seen_by_refresh(self) -> None:
        self.add("second.test")
        self.assertEqual(
            list(self.successResultOf(self.refresh()).domains),
            ["first.test", "second.test"],
        )

    def test_refresh_does_not_wait_where_nothing_has_changed(self) -> None:
        self.database.can_mark = True
        self.successResultOf(self.refresh())
        self.threads.read_jobs.held = True
        self.assertIs(self.successResultOf(self.refresh()), self.live.current)
        self.add("second.test")
        self.assertNoResult(changed := self.refresh())
        self.threads.read_jobs.step()
        self.assertIn("second.test", self.successResultOf(changed).domains)

    def test_the_poll_looks_whatever_the_mark_says(self) -> None:
        self.database.can_mark = True
        self.successResultOf(self.refresh())
        self.database.broken = True
        self.threads.clock.advance(POLL_S)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_refresh_during_a_reading_reads_once_more(self) -> None:
        jobs = self.threads.read_jobs
        jobs.held = True
        first, second, third = (self.refresh() for _ in range(3))
        self.assertEqual(len(jobs.jobs), 1)
        jobs.step()
        self.successResultOf(first)
        self.add("second.test")
        self.assertNoResult(second)
        jobs.step()
        self.assertIn("second.test", self.successResultOf(second).domains)
        self.successResultOf(third)
        self.assertEqual(jobs.jobs, [])

    def test_refresh_raises_and_the_last_directory_stays(self) -> None:
        self.database.broken = True
        self.failureResultOf(self.refresh(), OSError)
        self.assertEqual(self.domains(), ["first.test"])

    def test_listeners_are_told(self) -> None:
        def broken(directory: Directory) -> None:
            raise RuntimeError

        told: list[Directory] = []
        self.live.changed += [broken, told.append]
        self.threads.clock.advance(POLL_S)
        self.assertEqual(told, [])
        self.add("second.test")
        self.threads.clock.advance(POLL_S)
        self.assertEqual(told, [self.database.snapshot()])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_poll_reports_once_and_goes_on(self) -> None:
        self.database.broken = True
        self.threads.clock.pump([POLL_S] * 3)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.database.broken = False
        self.add("second.test")
        self.threads.clock.advance(POLL_S)
        self.assertIn("second.test", self.domains())
