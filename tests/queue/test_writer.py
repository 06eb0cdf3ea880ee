"""The one writer: who waits for a disk that refuses, and who does not."""

import sqlite3
from collections.abc import Sequence

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.queue.values import Entry, Result, State
from mailsrv.queue.writer import Writer
from mailsrv.store.values import DeliveryFailed
from tests.inline_threads import InlineThreads
from tests.queue.values import answer, entry, recipient

DELIVERED = Result(recipient(), State.DELIVERED, None, answer(250))


class WriterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.clock = self.threads.clock
        self.fails: Exception | None = None
        self.contradicts = ""  # the id of a message that is there already
        self.written: list[object] = []
        self.writer = Writer(
            self.write, lambda files: None, self.threads.queue, self.clock
        )

    def write(
        self, new: Sequence[Entry], results: Sequence[Result]
    ) -> tuple[Sequence[Entry], Sequence[str]]:
        if self.fails is not None:
            raise self.fails
        if any(message.id == self.contradicts for message, _ in new):
            raise sqlite3.IntegrityError("UNIQUE constraint failed")
        self.written += [*(message.id for message, _ in new), *results]
        return new, ()

    def settle(self) -> None:
        self.clock.pump([0] * 5)

    def test_new_mail_is_refused_at_once_while_results_wait_for_the_disk(self) -> None:
        self.fails = sqlite3.OperationalError("database or disk is full")
        results = [self.writer.write((), [DELIVERED]) for _ in range(20)]
        self.settle()
        for _ in range(3):
            refused = self.writer.write([entry()])
            self.settle()
            self.failureResultOf(refused, DeliveryFailed)
            self.clock.advance(2)
            self.settle()
        self.fails = None
        taken = self.writer.write([entry("m2")])
        self.settle()
        self.assertEqual(len(self.successResultOf(taken)), 1)
        self.clock.advance(5)
        self.settle()
        for one in results:
            self.assertEqual(self.successResultOf(one), [])
        self.assertEqual(self.written, ["m2", *[DELIVERED] * 20])
        self.flushLoggedErrors(sqlite3.OperationalError)

    def test_one_that_contradicts_is_alone_in_failing(self) -> None:
        self.contradicts = "m2"
        writes = [self.writer.write([entry(id)]) for id in ("m1", "m2", "m3")]
        self.settle()
        self.assertEqual(len(self.successResultOf(writes[0])), 1)
        self.failureResultOf(writes[1], DeliveryFailed)
        self.assertEqual(len(self.successResultOf(writes[2])), 1)
        self.assertEqual(self.written, ["m1", "m3"])
        self.flushLoggedErrors(sqlite3.IntegrityError)

    def test_what_can_never_be_written_keeps_nobody_waiting(self) -> None:
        self.contradicts = "m2"
        never = self.writer.write([entry("m2")], [DELIVERED])
        good = self.writer.write((), [DELIVERED])
        self.settle()
        self.failureResultOf(never, DeliveryFailed)
        self.assertEqual(self.successResultOf(good), [])
        self.flushLoggedErrors(sqlite3.IntegrityError)
