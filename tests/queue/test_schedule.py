"""When recipients are tried again, and what answers make of them."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.queue.schedule import JITTER, Schedule
from mailsrv.queue.settling import Rules, reached, settle
from mailsrv.queue.values import Answer, State
from tests.queue.values import NOW, answer, message, recipient

SCHEDULE = Schedule((100, 1000), 10_000)
RULES = Rules(SCHEDULE, warn_after_s=5000)


class ScheduleTests(SynchronousTestCase):
    def test_pauses_in_turn_and_the_last_one_again(self) -> None:
        times = [SCHEDULE.next_at_utc(0, n, 10, 0.5) for n in (1, 2, 3)]
        self.assertEqual(times, [110, 1010, 1010])

    def test_jitter(self) -> None:
        early, late = (SCHEDULE.next_at_utc(0, 1, 0, chance) for chance in (0, 1))
        assert early is not None
        assert late is not None
        self.assertAlmostEqual(early, 100 * (1 - JITTER))
        self.assertAlmostEqual(late, 100 * (1 + JITTER))

    def test_last_attempt_at_the_end_of_the_time(self) -> None:
        self.assertEqual(SCHEDULE.next_at_utc(0, 9, 9990, 0.5), 10_000)
        self.assertIsNone(SCHEDULE.next_at_utc(0, 10, 10_000, 0.5))

    @given(st.floats(0, 1), st.integers(1, 50), st.floats(0, 9_999))
    def test_always_later_and_never_past_the_end(
        self, chance: float, attempts: int, now: float
    ) -> None:
        at = SCHEDULE.next_at_utc(0, attempts, now, chance)
        assert at is not None
        self.assertGreater(at, now)
        self.assertLessEqual(at, 10_000)


class SettleTests(SynchronousTestCase):
    def settled(self, code: int, after_s: float = 0, **row: Any) -> object:
        # Any: fields of all types.
        said = answer(code, at_utc=NOW + after_s)
        result = settle(message(), recipient(**row), said, RULES, 0.5)
        self.assertEqual(result.state is State.WAITING, result.next_at_utc is not None)
        return result.state, result.next_at_utc, result.warned

    def test_delivered(self) -> None:
        self.assertEqual(self.settled(250), (State.DELIVERED, None, False))

    def test_refused_for_good(self) -> None:
        self.assertEqual(self.settled(550), (State.FAILED, None, False))

    def test_later(self) -> None:
        self.assertEqual(self.settled(451), (State.WAITING, NOW + 100, False))
        again = self.settled(451, 100, attempts=1)
        self.assertEqual(again, (State.WAITING, NOW + 1100, False))

    def test_warned_once(self) -> None:
        late = self.settled(451, 5000, attempts=5)
        self.assertEqual(late, (State.WAITING, NOW + 6000, True))
        again = self.settled(451, 6000, attempts=6, warned=True)
        self.assertEqual(again, (State.WAITING, NOW + 7000, False))

    def test_an_attempt_is_made_when_the_warning_is_due(self) -> None:
        """The pauses are hours by then: it would come twice as late."""
        before = self.settled(451, 4500, attempts=5)
        self.assertEqual(before, (State.WAITING, NOW + 5000, False))
        due = self.settled(451, 5000, attempts=6)
        self.assertEqual(due, (State.WAITING, NOW + 6000, True))
        told = self.settled(451, 4500, attempts=5, warned=True)
        self.assertEqual(told, (State.WAITING, NOW + 5500, False))

    def test_too_old(self) -> None:
        self.assertEqual(self.settled(451, 10_000), (State.FAILED, None, False))

    def test_what_says_that_the_way_does_not_work(self) -> None:
        for code, peer, works in (
            (250, "mx", True),
            (550, "mx", True),
            (451, "mx", True),
            (421, "mx", False),
            (451, "", False),
        ):
            said = Answer(code, "", "", NOW, peer)
            self.assertIs(reached([answer(250), said]), works, (code, peer))
