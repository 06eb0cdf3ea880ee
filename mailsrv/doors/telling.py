"""Telling change listeners what happened: in order, and with nobody waiting for it."""

from collections import deque
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.doors.guest import Asked, PluginFailed
from mailsrv.doors.values import Change

log = Logger()

MAX_BEHIND = 1000  # changes that a slow listener may still have to hear


class Telling:
    """Tells one listener, one change at a time."""

    def __init__(self, listener: Asked, reactor: IReactorTime) -> None:
        self._listener = listener
        self._reactor = reactor
        self._waiting: deque[Change] = deque()
        self._missed = 0
        self._running = False

    def tell(self, change: Change) -> None:
        """Take a change; the listener hears of it in a later turn of the reactor."""
        if len(self._waiting) >= MAX_BEHIND:
            self._missed += 1
            return
        self._waiting.append(change)
        if not self._running:
            self._running = True
            self._reactor.callLater(0, self._start)

    def _start(self) -> None:
        Deferred.fromCoroutine(self._run())

    async def _run(self) -> None:
        while self._waiting:
            change = self._waiting.popleft()
            try:
                await self._listener.ask(partial(_tell, change=change), type(None))
            except PluginFailed:
                pass  # the log has it; the next change may fare better
        self._running = False
        if self._missed:
            log.warn(
                "{plugin} has missed {missed} changes",
                plugin=self._listener.name,
                missed=self._missed,
            )
            self._missed = 0


def _tell(listener: Any, change: Change) -> Any:
    # Any: what a plugin is and answers.
    return listener.changed(change)
