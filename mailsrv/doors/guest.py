"""Calls into plugins: in time, in the right thread, and with every failure caught.

The one place where a plugin's exception is handled. What comes of it is
`PluginFailed`, which each door turns into its protocol's "try again later".
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.doors.values import ACCEPT, Accept, Decision, Defer, Reject
from mailsrv.interfaces import IBlocking
from mailsrv.threads import Pool, Reactor

log = Logger()
T = TypeVar("T")

THREADS = 4  # of one blocking plugin
MAX_WAITING = 100  # calls of one plugin at a time; more are "not now"


class PluginFailed(Exception):
    """A plugin gave no answer; the log has said why. Temporary."""


class Asked(Protocol):
    """Who stands behind a door: a plugin, or a part of the server."""

    name: str

    async def ask(self, call: Callable[[Any], Any], *kinds: type) -> Any:
        """Return what `call` answers, given the provider: one of `kinds`.

        Any: providers and answers of all doors.
        """


class BuiltIn:
    """A part of the server: trusted to answer, in its own time."""

    def __init__(self, name: str, provider: object) -> None:
        self.name = name
        self._provider = provider

    async def ask(self, call: Callable[[Any], Any], *kinds: type) -> Any:
        # Any: as in Asked.
        answer = call(self._provider)
        return await answer if isinstance(answer, Awaitable) else answer


class Guest:
    """A plugin: nothing that it does gets past `ask` but an answer."""

    def __init__(
        self, name: str, provider: object, timeout_s: float, reactor: Reactor
    ) -> None:
        self.name = name
        self.provider = provider
        self._timeout_s = timeout_s
        self._clock = IReactorTime(reactor)
        self._waiting = 0
        # Its own threads: if they all hang, only this plugin has none.
        self._pool: Pool | None = None
        if IBlocking.providedBy(provider):
            self._pool = Pool(reactor, THREADS, f"plugin-{name}")

    async def ask(self, call: Callable[[Any], Any], *kinds: type) -> Any:
        # Any: as in Asked.
        """Return the plugin's answer; raises `PluginFailed` after logging why."""
        if self._waiting >= MAX_WAITING:
            log.error("plugin {plugin} has too much to do", plugin=self.name)
            raise PluginFailed(self.name)
        self._waiting += 1
        try:
            outcome = await self._in_time(call)
        finally:
            self._waiting -= 1
        if outcome.is_late:
            log.error(
                "plugin {plugin} gave no answer in {timeout_s} s",
                plugin=self.name,
                timeout_s=self._timeout_s,
            )
            raise PluginFailed(self.name)
        if outcome.failure is not None:
            log.failure("plugin {plugin} failed", outcome.failure, plugin=self.name)
            raise PluginFailed(self.name) from outcome.failure.value
        if not isinstance(outcome.answer, kinds):
            log.error(
                "plugin {plugin} answered with a {kind}, not with {wanted}",
                plugin=self.name,
                kind=type(outcome.answer).__name__,
                wanted=" or ".join(kind.__name__ for kind in kinds),
            )
            raise PluginFailed(self.name)
        return outcome.answer

    def _in_time(self, call: Callable[[Any], Any]) -> "Deferred[_Outcome]":
        """Whichever comes first: the answer, or the end of its time.

        An exception comes as a value: a plugin's GeneratorExit would else end our own
        coroutines, as if the server ended. Not `Deferred.addTimeout`: a coroutine may
        catch its cancellation and go on.
        """
        first: Deferred[_Outcome] = Deferred()
        over = False

        def run() -> Any:
            # A call whose time was over before it got a thread is not made.
            return None if over else call(self.provider)

        if self._pool is not None:
            answering = self._pool.run(run)
        else:
            answering = maybeDeferred(run)

        def answered(result: Any) -> None:
            if not over:
                timer.cancel()
                failed = isinstance(result, Failure)
                first.callback(_Outcome(failure=result) if failed else _Outcome(result))

        def timed_out() -> None:
            nonlocal over
            over = True
            try:
                answering.cancel()
            except Exception:
                log.failure("cancelling plugin {plugin} failed", plugin=self.name)
            first.callback(_Outcome(is_late=True))

        timer: IDelayedCall = self._clock.callLater(self._timeout_s, timed_out)
        answering.addBoth(answered)
        return first


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a call. Any: answers of all kinds."""

    answer: Any = None
    failure: Failure | None = None
    is_late: bool = False  # no answer in time


async def decide(
    policies: Iterable[Asked], call: Callable[[Any], Any], who: Mapping[str, Any]
) -> Decision:
    """Ask policies in turn; the first that does not accept has decided.

    `who` are the log fields of the session. Any: policies of each door, and those.
    Raises `PluginFailed`.
    """
    for policy in policies:
        decision: Decision = await policy.ask(call, Accept, Reject, Defer)
        if not isinstance(decision, Accept):
            if isinstance(policy, Guest):
                log.info(
                    "plugin {plugin} says no: {reason}",
                    plugin=policy.name,
                    reason=decision.text,
                    **who,
                )
            return decision
    return ACCEPT
