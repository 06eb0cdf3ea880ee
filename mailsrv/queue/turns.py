"""Whose turn it is: slots for deliveries, given out fairly. Pure.

Senders take turns, so that one with a thousand letters does not delay another's one;
within a sender its lanes do. A lane whose route is full is parked there until a
delivery of that route ends. Bulk leaves a part of all slots free, and what it uses
does not count against letters: a newsletter never delays one. Some slots more are kept
for senders of whom nothing is on its way: the servers that another one writes to may
all be slow.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from mailsrv.queue.concurrency import FIRST, Window
from mailsrv.queue.values import Lane, Priority

_FOR_BULK = 0.75  # of the slots
_KEPT = 0.25  # of the slots, in addition
_LOOKED_AT = 100  # senders, where all slots are taken
_MAX_ROUTES = 10_000  # in memory, of those that nobody waits for


def _deques() -> dict[Priority, deque[Lane]]:
    return {priority: deque() for priority in Priority}


@dataclass(slots=True)
class _Slots:
    """What runs, in bulk and otherwise."""

    bulk: int = 0
    others: int = 0

    def free(self, priority: Priority, most: int) -> int:
        if priority is Priority.BULK:
            return max(1, int(most * _FOR_BULK)) - self.bulk - self.others
        return most - self.others

    def add(self, priority: Priority, number: int) -> None:
        if priority is Priority.BULK:
            self.bulk += number
        else:
            self.others += number


@dataclass(slots=True)
class _Route:
    window: Window
    slots: _Slots = field(default_factory=_Slots)
    parked: dict[Priority, deque[Lane]] = field(default_factory=_deques)

    def free(self, priority: Priority) -> int:
        return self.slots.free(priority, self.window.size)

    @property
    def unused(self) -> bool:
        slots = self.slots
        return not slots.bulk + slots.others and not any(self.parked.values())


class Turns:
    """Lanes that have something to send, and the slots that they wait for."""

    def __init__(self, most: int, most_of_route: int) -> None:
        self.most = most
        self.most_of_route = most_of_route  # for routes that begin after a change
        self._slots = _Slots()
        self._routes: dict[str, _Route] = {}
        self._offered: dict[Lane, str] = {}
        self._of_sender: Counter[str] = Counter()  # that run; nobody with none
        self._senders: dict[Priority, OrderedDict[str, deque[Lane]]]
        self._senders = {priority: OrderedDict() for priority in Priority}

    @property
    def running(self) -> int:
        return self._slots.bulk + self._slots.others

    def offer(self, lane: Lane, route: str) -> None:
        """Let a lane wait for its turn; again: no effect."""
        if lane not in self._offered:
            self._offered[lane] = route
            self._wait(lane)

    def take(self) -> tuple[Lane, str] | None:
        """Give a slot to the next lane, and name its route. `end` gives it back.

        The lane waits no more: offer it again if it has more to send.
        """
        for priority, senders in self._senders.items():
            while (sender := self._next(priority, senders)) is not None:
                lanes = senders.pop(sender)
                lane = lanes.popleft()
                if lanes:
                    senders[sender] = lanes  # behind the others
                name = self._offered[lane]
                route = self._route(name)
                if route.free(priority) <= 0:
                    route.parked[priority].append(lane)
                    continue
                del self._offered[lane]
                self._slots.add(priority, 1)
                self._of_sender[sender] += 1
                route.slots.add(priority, 1)
                return lane, name
        return None

    def end(self, lane: Lane, route: str, reached: bool | None) -> None:
        """Give a slot back. `reached`: whether the route works; None: not tried."""
        self._slots.add(lane.priority, -1)
        self._of_sender[lane.sender] -= 1
        if not self._of_sender[lane.sender]:
            del self._of_sender[lane.sender]
        way = self._routes[route]
        way.slots.add(lane.priority, -1)
        if reached is not None:
            (way.window.succeeded if reached else way.window.failed)()
        for priority, parked in way.parked.items():
            for _ in range(min(way.free(priority), len(parked))):
                self._wait(parked.popleft())
        # One that did not work is remembered for a while.
        known = way.window.size < FIRST and len(self._routes) < _MAX_ROUTES
        if way.unused and not known:
            del self._routes[route]

    def _next(self, priority: Priority, senders: Iterable[str]) -> str | None:
        """Say which sender may have a slot; None: there is none for them."""
        free = self._slots.free(priority, self.most)
        if free > 0:
            return next(iter(senders), None)
        if priority is Priority.BULK or free <= -max(1, int(self.most * _KEPT)):
            return None
        some = islice(senders, _LOOKED_AT)
        return next((one for one in some if one not in self._of_sender), None)

    def _wait(self, lane: Lane) -> None:
        self._senders[lane.priority].setdefault(lane.sender, deque()).append(lane)

    def _route(self, name: str) -> _Route:
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = _Route(Window(self.most_of_route))
        return route
