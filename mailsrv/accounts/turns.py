"""Shares the few hashing threads fairly: a turn for each network.

A network that sends thousands of logins waits behind its own; half of the turns are
for networks from which somebody has logged in lately.
"""

from collections import OrderedDict, deque

from twisted.internet.defer import Deferred

MAX_WAITING_OF_NETWORK = 500  # a whole office behind one address after a restart
MAX_WAITING = 5000


_Ring = OrderedDict[str, deque[Deferred[None]]]


class TooManyWaiting(Exception):
    """No turn for this one: try again later."""


class Turns:
    """At most `slots` holders at once; called in the reactor thread."""

    def __init__(self, slots: int) -> None:
        self._free = slots
        self._waiting = 0
        # Networks in the order of their next turn, each with those who wait.
        self._known: _Ring = OrderedDict()
        self._others: _Ring = OrderedDict()
        self._last: _Ring = self._others

    async def take(self, network: str, trusted: bool) -> None:
        """Wait for a turn; give it back with `release`. Raises `TooManyWaiting`."""
        if self._free > 0:
            self._free -= 1
            return
        ring = self._known if trusted else self._others
        waiting_there = len(ring.get(network, ()))
        if self._waiting >= MAX_WAITING or waiting_there >= MAX_WAITING_OF_NETWORK:
            raise TooManyWaiting
        turn: Deferred[None] = Deferred()
        ring.setdefault(network, deque()).append(turn)
        self._waiting += 1
        await turn

    def release(self) -> None:
        """Hand the turn on: to the other ring than the last one, if it has any."""
        other = self._known if self._last is self._others else self._others
        ring = other or self._last
        if not ring:
            self._free += 1
            return
        self._last = ring
        network, queue = ring.popitem(last=False)
        turn = queue.popleft()
        if queue:
            ring[network] = queue
        self._waiting -= 1
        turn.callback(None)
