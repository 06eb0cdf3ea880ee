"""Connects to the first of a host's addresses that answers (RFC 8305).

IPv6 and IPv4 in turn, the next one a quarter of a second after the one before or
when that has failed. What was down a moment ago is not tried again.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from mailsrv.smtp.client import SmtpClient

ATTEMPT_DELAY_S = 0.25  # RFC 8305 section 5
CONNECT_TIMEOUT_S = 30.0
DOWN_S = 60.0
MAX_DOWN = 10_000  # addresses that are remembered


class NotConnected(Exception):
    """None of the addresses answers; the text says why."""


class DownHosts:
    """Addresses that did not answer, for a while."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._down: OrderedDict[tuple[str, int], tuple[float, str]] = OrderedDict()

    def add(self, ip: str, port: int, why: str) -> None:
        """Remember that there was no connection."""
        self._down.pop((ip, port), None)
        self._down[ip, port] = (self._seconds() + DOWN_S, why)
        if len(self._down) > MAX_DOWN:
            self._down.popitem(last=False)

    def why(self, ip: str, port: int) -> str:
        """Return why an address is not to be tried now; empty: it may."""
        until_s, why = self._down.get((ip, port), (0.0, ""))
        return why if until_s > self._seconds() else ""


async def connect(
    ips: Sequence[str],
    port: int,
    make: Callable[[], SmtpClient],
    *,
    down: DownHosts,
    reactor: Any,
) -> tuple[SmtpClient, str]:
    """Return a connected client and its peer's address. Raises `NotConnected`.

    Any: the reactor provides more interfaces than one type has.
    """
    up = [ip for ip in in_turn(ips) if not down.why(ip, port)]
    if not up:
        raise NotConnected(f"{down.why(ips[0], port)} (tried a moment ago)")
    return await _Race(up, port, make, down, reactor).done


def in_turn(ips: Sequence[str]) -> list[str]:
    """Return the addresses with IPv6 and IPv4 in turn (RFC 8305 section 4)."""
    six = [ip for ip in ips if ":" in ip]
    four = [ip for ip in ips if ":" not in ip]
    return [ip for ip in chain(*zip_longest(six, four)) if ip is not None]


class _Race:
    """The attempts; the first one that succeeds ends the others."""

    def __init__(
        self,
        ips: Sequence[str],
        port: int,
        make: Callable[[], SmtpClient],
        down: DownHosts,
        reactor: Any,
    ) -> None:
        self.done: Deferred[tuple[SmtpClient, str]] = Deferred(self._cancelled)
        self._left = list(reversed(ips))
        self._port = port
        self._factory = Factory.forProtocol(make)
        self._factory.noisy = False
        self._down = down
        self._reactor = reactor
        self._running: dict[str, Deferred[Any]] = {}  # Any: Twisted says IProtocol
        self._timer: IDelayedCall | None = None
        self._next()

    def _next(self) -> None:
        self._stop_timer()
        if not self._left:
            return
        ip = self._left.pop()
        endpoint = TCP4ClientEndpoint(  # for IPv6 as well
            self._reactor, ip, self._port, CONNECT_TIMEOUT_S
        )
        if self._left:
            self._timer = self._reactor.callLater(ATTEMPT_DELAY_S, self._next)
        attempt: Deferred[Any] = endpoint.connect(self._factory)
        self._running[ip] = attempt
        attempt.addCallbacks(
            self._won, self._lost, callbackArgs=(ip,), errbackArgs=(ip,)
        )

    def _won(self, client: SmtpClient, ip: str) -> None:
        self._running.pop(ip, None)
        if self.done.called:
            client.abort()  # two in one turn of the reactor
            return
        self.done.callback((client, ip))
        self._stop()  # after it: those that are cancelled now have not failed

    def _lost(self, failure: Failure, ip: str) -> None:
        self._running.pop(ip, None)
        if self.done.called:
            return
        why = f"{ip}: {_in_words(failure)}"
        self._down.add(ip, self._port, why)
        if self._left:
            self._next()
        elif not self._running:
            self.done.errback(NotConnected(why))

    def _cancelled(self, done: "Deferred[tuple[SmtpClient, str]]") -> None:
        done.errback(NotConnected("given up"))
        self._stop()

    def _stop(self) -> None:
        self._left.clear()
        self._stop_timer()
        running, self._running = self._running, {}
        for attempt in running.values():
            attempt.cancel()

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def _in_words(failure: Failure) -> str:
    """Say why there was no connection: "Connection was refused by other side"."""
    return failure.getErrorMessage().partition(": ")[0].rstrip(".").lower()
