"""Calls into plugins: in time, in the right thread, and with every failure caught.

The one place where a plugin's exception is handled. What comes of it is
`PluginFailed`, which each door turns into its protocol's "try again later".
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

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
            answer = await self._in_time(call)
        except _TimeOver as over:
            log.error(
                "plugin {plugin} gave no answer in {timeout_s} s",
                plugin=self.name,
                timeout_s=self._timeout_s,
            )
            raise PluginFailed(self.name) from over
        except GeneratorExit:  # the server ends
            raise
        except BaseException as error:  # SystemExit, too, is no answer
            log.failure("plugin {plugin} failed", plugin=self.name)
            raise PluginFailed(self.name) from error
        finally:
            self._waiting -= 1
        if not isinstance(answer, kinds):
            log.error(
                "plugin {plugin} answered with a {kind}",
                plugin=self.name,
                kind=type(answer).__name__,
            )
            raise PluginFailed(self.name)
        return answer

    def _in_time(self, call: Callable[[Any], Any]) -> "Deferred[Any]":
        """Whichever comes first: the answer, or the end of its time.

        Not `Deferred.addTimeout`: a coroutine may catch its cancellation and go on.
        """
        first: Deferred[Any] = Deferred()
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
                first.callback(result)  # a Failure fires the errback chain

        def timed_out() -> None:
            nonlocal over
            over = True
            try:
                answering.cancel()
            except Exception:
                log.failure("cancelling plugin {plugin} failed", plugin=self.name)
            first.errback(_TimeOver())

        timer: IDelayedCall = self._clock.callLater(self._timeout_s, timed_out)
        answering.addBoth(answered)
        return first


class _TimeOver(Exception):
    """No answer in time."""


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
