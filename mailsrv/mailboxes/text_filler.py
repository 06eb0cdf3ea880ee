"""Has the texts of all accounts taken up for search, in the background.

One account at a time, a step at a time, and between two steps a rest; while somebody
works with the store a long one, since what is waited for comes first. Nothing is lost
if it never runs: searches look into the files of what is not taken up.
"""

from collections.abc import Awaitable, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

log = Logger()

FIRST_S = 5.0  # after mail came: there may be more of it, and clients that fetch it
LEAST_REST_S = 0.02
REST = 3.0  # times as long as the step took
QUIET_S = 0.5  # for so long nobody else has worked, before the next step
MOST_S = 5.0  # waited for that: the texts of a busy server are taken up, too

Step = Callable[[], Awaitable[bool]]
"""Takes up some texts of one account; True if there are more."""


class TextFiller:
    """One for a process. Reactor thread only."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._waiting: dict[Step, None] = {}  # in order
        self._timer: IDelayedCall | None = None
        self._busy = False
        self._others_at_s = 0.0  # somebody else's last work
        self._latest_s = 0.0  # the next step, whoever works
        self._stopping: Deferred[None] | None = None

    def add(self, step: Step) -> None:
        """Have an account's texts taken up soon; being there already is enough."""
        if self._stopping is None:
            self._waiting.setdefault(step)
            self._rest(FIRST_S)

    def discard(self, step: Step) -> None:
        """Leave an account out from now on."""
        self._waiting.pop(step, None)

    def others_work(self) -> None:
        """Note that somebody uses the store: it goes before the next step."""
        if not self._busy:  # else it may be our own step
            self._others_at_s = self._reactor.seconds()

    async def stop(self) -> None:
        """Wait for the step that runs; there will be no more."""
        self._stopping = Deferred()
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy:
            await self._stopping

    def _rest(self, delay_s: float) -> None:
        if self._waiting and self._timer is None and not self._busy:
            self._latest_s = self._reactor.seconds() + delay_s + MOST_S
            self._timer = self._reactor.callLater(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        at_s = min(self._others_at_s + QUIET_S, self._latest_s)
        wait_s = at_s - self._reactor.seconds()
        if wait_s > 0:
            self._timer = self._reactor.callLater(wait_s, self._due)
        else:
            Deferred.fromCoroutine(self._run(next(iter(self._waiting))))

    async def _run(self, step: Step) -> None:
        del self._waiting[step]
        self._busy = True
        began_s = self._reactor.seconds()
        more = False
        try:
            more = await step()
        except CancelledError:
            pass  # the server ends
        except Exception:
            log.failure("taking up texts for search failed")
        self._busy = False
        if self._stopping is not None:
            self._stopping.callback(None)
            return
        if more:
            self._waiting.setdefault(step)  # behind the others
        took_s = self._reactor.seconds() - began_s
        self._rest(max(LEAST_REST_S, REST * took_s))
