"""Change listeners hear of everything in order, and hold nobody up."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.doors.guest import Guest
from mailsrv.doors.telling import MAX_BEHIND, Telling
from mailsrv.doors.values import Change
from tests.doors.memory import MemoryListener
from tests.inline_threads import InlineThreads


def change(uid: int) -> Change:
    return Change("anna@example.test", "INBOX", (uid,), (), ())


class Slow(MemoryListener):
    """Takes the next one only when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Deferred[None]] = []

    def changed(self, change: Change) -> "Deferred[None]":  # type: ignore[override]
        super().changed(change)
        self.waiting.append(Deferred())
        return self.waiting[-1]


class Failing(MemoryListener):
    def changed(self, change: Change) -> None:
        super().changed(change)
        raise ZeroDivisionError


class TellingTests(SynchronousTestCase):
    def telling(self, listener: MemoryListener) -> Telling:
        self.clock = InlineThreads().clock
        return Telling(Guest("acme", listener, 10.0, self.clock), self.clock)

    def test_later_and_in_order(self) -> None:
        listener = MemoryListener()
        telling = self.telling(listener)
        for uid in (1, 2, 3):
            telling.tell(change(uid))
        self.assertEqual(listener.changes, [])
        self.clock.advance(0)
        self.assertEqual(listener.changes, [change(1), change(2), change(3)])

    def test_one_at_a_time(self) -> None:
        listener = Slow()
        telling = self.telling(listener)
        telling.tell(change(1))
        telling.tell(change(2))
        self.clock.advance(0)
        self.assertEqual(listener.changes, [change(1)])
        listener.waiting[0].callback(None)
        self.assertEqual(listener.changes, [change(1), change(2)])

    def test_a_failure_costs_one_change(self) -> None:
        listener = Failing()
        telling = self.telling(listener)
        telling.tell(change(1))
        telling.tell(change(2))
        self.clock.advance(0)
        self.assertEqual(len(listener.changes), 2)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_one_that_hangs_does_not_gather_changes_for_ever(self) -> None:
        listener = Slow()
        telling = self.telling(listener)
        telling.tell(change(0))
        self.clock.advance(0)
        for uid in range(1, MAX_BEHIND + 6):
            telling.tell(change(uid))
        while any(not waiting.called for waiting in listener.waiting):
            listener.waiting[-1].callback(None)
        self.assertEqual(listener.changes, [change(n) for n in range(MAX_BEHIND + 1)])
        telling.tell(change(1))
        self.clock.advance(0)
        self.assertEqual(listener.changes[-1], change(1))
