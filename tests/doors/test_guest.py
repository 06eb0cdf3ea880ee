"""Whatever a plugin does: an answer in time, or `PluginFailed` and a log line."""

import threading
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from mailsrv.doors.guest import (
    MAX_WAITING,
    THREADS,
    BuiltIn,
    Guest,
    PluginFailed,
    decide,
)
from mailsrv.doors.values import ACCEPT, Accept, Defer, Reject
from mailsrv.interfaces import IBlocking
from tests.inline_threads import InlineThreads


class GuestTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = InlineThreads().clock
        self.guest = Guest("acme", self, 10.0, self.clock)
        self.events: list[LogEvent] = []
        globalLogPublisher.addObserver(self.events.append)  # type: ignore[arg-type]
        self.addCleanup(
            globalLogPublisher.removeObserver,
            self.events.append,  # type: ignore[arg-type]
        )

    # Any: answers of all kinds.
    def ask(self, answer: Callable[[], Any], *kinds: type) -> Deferred[Any]:
        return Deferred.fromCoroutine(
            self.guest.ask(lambda provider: answer(), *(kinds or (int,)))
        )

    def assert_logged(self, text: str) -> None:
        lines = [e for e in self.events if text in str(e["log_format"])]
        self.assertEqual([e["plugin"] for e in lines], ["acme"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_values_coroutines_and_deferreds(self) -> None:
        async def coroutine() -> int:
            return 2

        later: Deferred[int] = Deferred()
        for answer in (lambda: 2, coroutine, lambda: later):
            asked = self.ask(answer)
            if answer is not coroutine and not later.called and not asked.called:
                later.callback(2)
            self.assertEqual(self.successResultOf(asked), 2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_gets_the_provider(self) -> None:
        asked = Deferred.fromCoroutine(self.guest.ask(lambda p: p is self, bool))
        self.assertTrue(self.successResultOf(asked))

    def test_exceptions(self) -> None:
        async def coroutine() -> int:
            raise ZeroDivisionError

        def value() -> int:
            raise ZeroDivisionError

        for answer in (coroutine, value):
            self.events.clear()
            self.failureResultOf(self.ask(answer), PluginFailed)
            self.assert_logged("failed")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_an_exit_is_no_exit(self) -> None:
        def leave() -> int:
            raise SystemExit(0)

        self.failureResultOf(self.ask(leave), PluginFailed)
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)

    def test_what_ends_a_generator_is_no_answer(self) -> None:
        async def coroutine() -> int:
            raise GeneratorExit

        def value() -> int:
            raise GeneratorExit

        for answer in (coroutine, value):
            self.failureResultOf(self.ask(answer), PluginFailed)
        self.assertEqual(len(self.flushLoggedErrors(GeneratorExit)), 2)

    def test_the_server_may_end_meanwhile(self) -> None:
        asking = self.guest.ask(lambda _: Deferred(), int)
        asking.send(None)
        asking.close()
        self.assertEqual(self.events, [])

    def test_no_answer_in_time(self) -> None:
        silent: Deferred[int] = Deferred()
        asked = self.ask(lambda: silent)
        self.clock.advance(9.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.failureResultOf(asked, PluginFailed)
        self.assert_logged("gave no answer")
        self.assertTrue(silent.called)  # it was cancelled

    def test_one_that_will_not_be_cancelled(self) -> None:
        after: Deferred[int] = Deferred()

        async def stubborn() -> int:
            try:
                return await Deferred()
            except CancelledError:
                return await after

        asked = self.ask(stubborn)
        self.clock.advance(10.0)
        self.failureResultOf(asked, PluginFailed)
        after.errback(ZeroDivisionError())  # too late: nobody hears it

    def test_a_late_answer_is_no_answer(self) -> None:
        late: Deferred[int] = Deferred(lambda _: None)
        asked = self.ask(lambda: late)
        self.clock.advance(10.0)
        self.failureResultOf(asked, PluginFailed)

    def test_an_answer_of_another_kind(self) -> None:
        self.failureResultOf(self.ask(lambda: None, int, str), PluginFailed)
        self.assert_logged("answered with a {kind}, not with {wanted}")
        event = self.events[-1]
        self.assertEqual((event["kind"], event["wanted"]), ("NoneType", "int or str"))

    def test_too_many_calls_at_once(self) -> None:
        waiting: list[Deferred[int]] = []

        def wait() -> Deferred[int]:
            waiting.append(Deferred())
            return waiting[-1]

        asked = [self.ask(wait) for _ in range(MAX_WAITING)]
        self.failureResultOf(self.ask(wait), PluginFailed)
        for deferred in waiting:
            deferred.callback(1)
        self.assertEqual([self.successResultOf(d) for d in asked], [1] * MAX_WAITING)
        self.assertEqual(self.successResultOf(self.ask(lambda: 1)), 1)


class DecideTests(SynchronousTestCase):
    # Any: as in GuestTests.
    def decide(self, *answers: object) -> Deferred[Any]:
        self.asked: list[object] = []

        def call(provider: object) -> object:
            self.asked.append(provider)
            return provider

        clock = InlineThreads().clock
        policies = [BuiltIn("rule", answers[0])]
        guests = [Guest("plugin", answer, 10.0, clock) for answer in answers[1:]]
        return Deferred.fromCoroutine(decide([*policies, *guests], call, {}))

    def test_all_accept(self) -> None:
        self.assertEqual(self.successResultOf(self.decide(ACCEPT, Accept())), ACCEPT)

    def test_the_first_that_does_not_accept_decides(self) -> None:
        no, later = Reject("no"), Defer("later")
        decided = self.successResultOf(self.decide(ACCEPT, later, no))
        self.assertEqual((decided, self.asked), (later, [ACCEPT, later]))
        self.assertEqual(self.successResultOf(self.decide(no, later)), no)

    def test_no_decision(self) -> None:
        self.failureResultOf(self.decide(ACCEPT, None, ACCEPT), PluginFailed)


@implementer(IBlocking)
class Blocking:
    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.entered = threading.Semaphore(0)
        self.thread: threading.Thread | None = None

    def value(self) -> int:
        self.thread = threading.current_thread()
        return 1

    def block(self) -> int:
        self.entered.release()
        self.go_on.wait(60)
        return 1


class BlockingTests(TestCase):
    """With true threads and the true clock."""

    # Any: the global reactor.
    def guest(self, timeout_s: float) -> Guest:
        loop: Any = reactor
        self.provider = Blocking()
        self.addCleanup(self.provider.go_on.set)
        return Guest("acme", self.provider, timeout_s, loop)

    async def test_it_runs_in_a_thread_of_its_own(self) -> None:
        guest = self.guest(30.0)
        self.assertEqual(await guest.ask(lambda provider: provider.value(), int), 1)
        assert self.provider.thread is not None
        self.assertIn("plugin-acme", self.provider.thread.name)

    async def test_the_reactor_does_not_wait_for_it(self) -> None:
        guest = self.guest(0.01)
        for _ in range(THREADS + 2):  # the last ones get no thread
            with self.assertRaises(PluginFailed):
                await guest.ask(lambda provider: provider.block(), int)
        for _ in range(THREADS):
            self.assertTrue(self.provider.entered.acquire(timeout=10))
        self.assertFalse(self.provider.entered.acquire(blocking=False))
