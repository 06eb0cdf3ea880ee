"""Gathers the deliveries of one account, so that one job indexes many of them.

Nothing is lost with it: a file is durable before it comes here, and what a crash
kept from the index is found when the mailbox is next opened.
"""

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.store.values import Delivered

WATCHED_S = 0.01  # STORE.md: within 20 ms if somebody looks at the mailbox
UNWATCHED_S = 1.0


class Indexer:
    """Hands over what waits: soon, and one job at a time."""

    def __init__(
        self,
        reactor: IReactorTime,
        ingest: Callable[[dict[str, list[Delivered]]], Awaitable[None]],
    ) -> None:
        """`ingest` takes deliveries by mailbox and handles its own failures."""
        self._reactor = reactor
        self._ingest = ingest
        self._waiting: dict[str, list[Delivered]] = {}
        self._hurry = False  # somebody watches a mailbox of those that wait
        self._timer: IDelayedCall | None = None
        self._running: Deferred[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether deliveries are not indexed yet."""
        return bool(self._waiting) or self._running is not None

    def add(self, mailbox: str, copy: Delivered, *, watched: bool) -> None:
        """Take a durable file."""
        self._waiting.setdefault(mailbox, []).append(copy)
        if self._running is not None:
            self._hurry = self._hurry or watched
        elif self._timer is None:
            self._hurry = watched
            self._schedule()
        elif watched and not self._hurry:
            self._hurry = True
            self._timer.cancel()
            self._schedule()

    async def flush(self) -> None:
        """Index all that waits now."""
        while self.busy:
            if self._running is None:
                self._start()
            if self._running is not None:
                await self._running

    def _schedule(self) -> None:
        delay_s = WATCHED_S if self._hurry else UNWATCHED_S
        self._timer = self._reactor.callLater(delay_s, self._due)

    def _due(self) -> None:
        self._timer = None
        self._start()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._running = Deferred()
        Deferred.fromCoroutine(self._run(self._running))

    async def _run(self, running: "Deferred[None]") -> None:
        waiting, self._waiting = self._waiting, {}
        self._hurry = False
        await self._ingest(waiting)
        self._running = None
        if self._waiting:
            self._schedule()
        running.callback(None)
