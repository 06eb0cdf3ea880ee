"""Connections that wait a moment for the next message to the same place."""

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.smtp.client import SmtpClient

IDLE_S = 5.0
MAX_IDLE = 100
# Then the domain's policy and the host's certificate are looked at again, however much
# mail there is.
MAX_AGE_S = 300.0
MAX_MESSAGES = 100  # over one connection: some servers count them


@dataclass(slots=True)
class Connection:
    """A client that is ready, and where it leads."""

    client: SmtpClient
    peer: str  # host name and address
    made_at_s: float  # by the reactor
    messages: int = 0


@dataclass(slots=True)
class _Idle:
    connection: Connection
    timer: IDelayedCall


class IdleConnections:
    """Kept by the name of what may share them."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._reactor = reactor
        self._idle: dict[str, list[_Idle]] = {}
        self._count = 0
        self._stopped = False

    def take(self, name: str) -> Connection | None:
        """Return one that is still there, the one that was used last."""
        while waiting := self._idle.get(name):
            idle = waiting[-1]
            self._remove(name, idle)
            if idle.connection.client.usable:
                return idle.connection
        return None

    def give(self, name: str, connection: Connection) -> None:
        """Keep one for a moment, or say goodbye."""
        client = connection.client
        if not client.usable:
            client.quit()
            return
        full = self._count >= MAX_IDLE or connection.messages >= MAX_MESSAGES
        old = self._reactor.seconds() - connection.made_at_s >= MAX_AGE_S
        if full or old or self._stopped:
            client.quit()
            return
        idle = _Idle(connection, self._reactor.callLater(IDLE_S, self._expire(name)))
        self._idle.setdefault(name, []).append(idle)
        self._count += 1

    def stop(self) -> None:
        """Say goodbye to all."""
        self._stopped = True
        self.clear()

    def clear(self) -> None:
        """Say goodbye to those that wait now."""
        for name in list(self._idle):
            while (connection := self.take(name)) is not None:
                connection.client.quit()

    def _expire(self, name: str) -> Callable[[], None]:
        def expired() -> None:
            for idle in list(self._idle.get(name, ())):
                if not idle.timer.active():
                    self._remove(name, idle)
                    idle.connection.client.quit()

        return expired

    def _remove(self, name: str, idle: _Idle) -> None:
        waiting = self._idle[name]
        waiting.remove(idle)
        if not waiting:
            del self._idle[name]
        self._count -= 1
        if idle.timer.active():
            idle.timer.cancel()
