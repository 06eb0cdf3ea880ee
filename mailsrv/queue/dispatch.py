"""Hands what is due to the carriers, in the turn that is fair.

Knows lanes, not rows: what waits is read as it is due. All of it runs in the reactor
thread, but for the look-ups.
"""

import heapq
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.queue.carrying import Carrier, Outcome, Parcel
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.lanes import MAX_ROWS, LaneState, Waiting
from mailsrv.queue.settling import reached, same_for_all
from mailsrv.queue.spool import Spool
from mailsrv.queue.turns import Turns
from mailsrv.queue.values import (
    ALIAS,
    LIST,
    LOCAL,
    Entry,
    Lane,
    Message,
    Recipient,
    Result,
)
from mailsrv.threads import Pool

log = Logger()

_IN_MEMORY = 2000  # rows that are kept as they come in
_AT_A_TIME = 500  # lanes that are looked at in one turn of the reactor
_LOST_S = 60.0  # until a bug or a locked file has another chance
_SPARE_TIMES = 1000
_LOOK_S = 60.0  # at the wall clock, at least
_LEAST_LATEST_S = 3600.0
_BUG = "An error of this server"


@dataclass(frozen=True, slots=True)
class Carriers:
    """Who delivers what."""

    local: Carrier
    list_: Carrier
    relay: Carrier
    alias: Carrier

    def of(self, destination: str) -> Carrier:
        here = {LOCAL: self.local, LIST: self.list_, ALIAS: self.alias}
        return here.get(destination, self.relay)


Settle = Callable[[Parcel, Outcome], Awaitable[Sequence[Result]]]
"""Makes durable what an attempt came to, and returns it."""


class Dispatcher:
    """Runs the attempts. `start` it, `stop` it; tell it what is `added` or changed."""

    def __init__(
        self,
        database: QueueDatabase,
        spool: Spool,
        carriers: Carriers,
        settle: Settle,
        turns: Turns,
        *,
        longest_s: Callable[[], float],
        reading: Pool,
        reactor: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        """`longest_s`: for how long somebody waits at most until the next attempt."""
        self._database = database
        self._spool = spool
        self._carriers = carriers
        self._settle = settle
        self._turns = turns
        self._longest_s = longest_s
        self._reading = reading
        self._reactor = reactor
        self._now = now
        self._lanes: dict[Lane, LaneState] = {}
        self._rows = 0  # in memory
        self._in_flight: set[int] = set()
        self._changing: set[int] = set()  # by an admin
        self._guests: dict[int, Lane] = {}  # who waits in a lane that is not its own
        self._times: list[tuple[float, int, Lane]] = []
        self._entered = 0
        self._timer: IDelayedCall | None = None
        self._timer_at = 0.0
        self._looked_at_utc = now()
        self._running = False
        self._idle: list[Deferred[None]] = []

    async def start(self) -> None:
        """Begin with what the database has."""
        lanes = await self._reading.run(self._database.lanes)
        for number, (lane, at_utc) in enumerate(lanes, 1):
            self._later(lane, at_utc)
            if number % _AT_A_TIME == 0:  # others have their turn
                await deferLater(self._reactor, 0)
        self._running = True
        self._go()

    async def stop(self) -> None:
        """Begin no more attempts, and wait for those that run."""
        self._running = False
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        if self._turns.running:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    # What others tell

    def added(self, entry: Entry) -> None:
        """Take note of a message that is durable now."""
        message, recipients = entry
        now = self._now()
        first: dict[str, Lane] = {}  # of each route: what goes one way goes together
        for recipient in recipients:
            # An admin may have found it already: `changed` says what is to come.
            if recipient.next_at_utc is None or recipient.id in self._changing:
                continue
            own = _lane(message, recipient)
            lane = first.setdefault(self._route(own), own)
            state = self._state(lane)
            due = recipient.next_at_utc <= now
            behind = state.more_at_utc is not None and state.more_at_utc <= now
            if due and not behind and self._room(state):
                self._rows += 1
                state.add([(message, recipient)])
                if lane != own:
                    self._state(own).claimed.add(recipient.id)
                    self._guests[recipient.id] = lane
                self._offer(lane, state)
            else:
                self._later(own, recipient.next_at_utc)
        self._go()

    @property
    def sending(self) -> list[int]:
        """The ids of the rows that are being sent to just now."""
        return sorted(self._in_flight)

    def claim(self, rows: Iterable[Waiting]) -> list[Waiting]:
        """Keep recipients from being sent to until they have `changed`.

        Returns those that are not being sent to already, nor changed by another
        admin. What they have become since they were read is in the database.
        """
        busy = self._in_flight | self._changing
        free = [row for row in rows if row[1].id not in busy]
        self._release(free)
        self._changing |= {recipient.id for _, recipient in free}
        for message, recipient in free:
            self._state(_lane(message, recipient)).claimed.add(recipient.id)
        return free

    def changed(self, changes: Iterable[tuple[Message, Result]]) -> None:
        """Take note of what an admin has made durable of what he has claimed."""
        changes = list(changes)
        self._release((message, result.recipient) for message, result in changes)
        self._changing -= {result.recipient.id for _, result in changes}
        for message, result in changes:
            if result.next_at_utc is not None:
                self._later(_lane(message, result.recipient), result.next_at_utc)
        self._go()

    # Lanes

    def _room(self, state: LaneState) -> bool:
        return len(state.rows) < MAX_ROWS and self._rows < _IN_MEMORY

    def _route(self, lane: Lane) -> str:
        carrier = self._carriers.of(lane.destination)
        return carrier.route(lane.sender, lane.destination)

    def _state(self, lane: Lane) -> LaneState:
        state = self._lanes.get(lane)
        if state is None:
            state = self._lanes[lane] = LaneState(self._route(lane))
        return state

    def _offer(self, lane: Lane, state: LaneState) -> None:
        self._turns.offer(lane, state.route)

    def _later(self, lane: Lane, at_utc: float) -> None:
        """Come back to a lane at a time."""
        state = self._state(lane)
        at_utc = min(at_utc, self._latest_utc())
        if state.later(at_utc):
            self._entered += 1  # lanes need not be compared
            heapq.heappush(self._times, (at_utc, self._entered, lane))
            if len(self._times) > 4 * len(self._lanes) + _SPARE_TIMES:
                self._forget_times()

    def _forget_times(self) -> None:
        """Forget times that count no more, as after many retries by an admin."""
        self._times = [
            (state.more_at_utc, number, lane)
            for number, (lane, state) in enumerate(self._lanes.items())
            if state.more_at_utc is not None
        ]
        self._entered = max(self._entered, len(self._times))
        heapq.heapify(self._times)

    def _latest_utc(self) -> float:
        return self._now() + max(self._longest_s(), _LEAST_LATEST_S)

    def _clock_was_set_back(self) -> None:
        for lane, state in list(self._lanes.items()):
            if state.more_at_utc is not None:
                self._later(lane, state.more_at_utc)

    def _release(self, rows: Iterable[Waiting]) -> None:
        """Forget rows. Looks at their lanes alone: there may be 100,000 others."""
        ids: dict[Lane, set[int]] = {}
        for message, recipient in rows:
            ids.setdefault(_lane(message, recipient), set()).add(recipient.id)
            if (host := self._guests.pop(recipient.id, None)) is not None:
                ids.setdefault(host, set()).add(recipient.id)
        for lane, its in ids.items():
            if (state := self._lanes.get(lane)) is not None:
                before = len(state.rows)
                state.release(its)
                self._rows -= before - len(state.rows)
                self._sweep(lane, state)

    def _sweep(self, lane: Lane, state: LaneState) -> None:
        if state.empty:
            del self._lanes[lane]

    # Turns

    def _go(self) -> None:
        """Begin all that is due and has a slot."""
        if not self._running:
            return
        now = self._now()
        if now < self._looked_at_utc - _LOOK_S:
            self._clock_was_set_back()
        self._looked_at_utc = now
        for _ in range(_AT_A_TIME):
            if not self._times or self._times[0][0] > now:
                break
            lane = heapq.heappop(self._times)[2]
            state = self._lanes.get(lane)
            if state is not None and state.due(now):
                self._offer(lane, state)
        while (turn := self._turns.take()) is not None:
            Deferred.fromCoroutine(self._serve(*turn))
        self._set_timer(now)

    def _set_timer(self, now: float) -> None:
        at = self._times[0][0] if self._times else None
        if self._timer is not None and self._timer.active():
            if at == self._timer_at:
                return
            self._timer.cancel()
        if at is None:
            self._timer = None
            return
        self._timer_at = at
        # The wall clock may be set, or the machine sleep: the reactor knows nothing.
        self._timer = self._reactor.callLater(
            min(max(0.0, at - now), _LOOK_S), self._go
        )

    async def _serve(self, lane: Lane, route: str) -> None:
        """Use a slot for one attempt."""
        ok: bool | None = None
        try:
            ok = await self._next_attempt(lane)
        except Exception:
            log.failure("an attempt failed", destination=lane.destination)
            self._later(lane, self._now() + _LOST_S)
        self._turns.end(lane, route, ok)
        if (state := self._lanes.get(lane)) is not None:
            self._sweep(lane, state)
        self._go()
        if not self._turns.running:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)

    async def _next_attempt(self, lane: Lane) -> bool | None:
        state = self._lanes.get(lane)
        if state is None:
            return None
        if not state.rows and state.due(self._now()):
            await self._load(lane, state)
            self._reactor.callLater(0, self._go)
        found = state.next_parcel()
        if state.due(self._now()):  # by another slot, at the same time
            self._offer(lane, state)
        if found is None:
            return None
        message, recipients = found
        self._rows -= len(recipients)
        if recipients := self._still_together(lane, message, recipients):
            return await self._attempt(lane, message, recipients)
        return None

    def _still_together(
        self, lane: Lane, message: Message, recipients: tuple[Recipient, ...]
    ) -> tuple[Recipient, ...]:
        """Return those that go the lane's way; the others wait in their own lanes.

        Settings may have changed since they were put together.
        """
        route = self._route(lane)
        owns = {r.id: _lane(message, r) for r in recipients}
        strays = [
            r
            for r in recipients
            if owns[r.id] != lane and self._route(owns[r.id]) != route
        ]
        self._release((message, r) for r in strays)
        for stray in strays:
            self._later(owns[stray.id], self._now())
        if strays:
            self._reactor.callLater(0, self._go)
        return tuple(r for r in recipients if r not in strays)

    async def _load(self, lane: Lane, state: LaneState) -> None:
        limit = MAX_ROWS + len(state.claimed)
        state.loading, state.more_at_utc = True, None
        try:
            rows: list[Waiting] = await self._reading.run(
                lambda: self._database.waiting(lane, limit)
            )
        except Exception:
            state.loading = False
            raise
        before = len(state.rows)  # others may have come meanwhile
        state.loaded(
            rows,
            all_=len(rows) < limit,
            now_utc=self._now(),
            latest_utc=self._latest_utc(),
        )
        self._rows += len(state.rows) - before
        if (at := state.more_at_utc) is not None:
            state.more_at_utc = None
            self._later(lane, at)

    async def _attempt(
        self, lane: Lane, message: Message, recipients: tuple[Recipient, ...]
    ) -> bool:
        parcel = Parcel(
            message, recipients, self._spool.content(message), lane.destination
        )
        ids = {recipient.id for recipient in recipients}
        self._in_flight |= ids
        carrier = self._carriers.of(lane.destination)
        try:
            outcome = await carrier.carry(parcel)
            if len(outcome.answers) != len(recipients):
                raise AssertionError("a carrier answers for each recipient")
        except Exception:
            log.failure("{transaction}: delivering failed", transaction=message.id)
            outcome = Outcome(same_for_all(recipients, _BUG, self._now))
        try:
            results = await self._settle(parcel, outcome)
        except Exception:  # else nobody would try them again before a restart
            log.failure("{transaction}: results are lost", transaction=message.id)
            results = [_later_again(r, self._now()) for r in recipients]
        self._in_flight -= ids
        self._release((message, r) for r in recipients)
        for result in results:
            if result.next_at_utc is not None:
                self._later(_lane(message, result.recipient), result.next_at_utc)
        return reached(outcome.answers)


def _later_again(recipient: Recipient, now_utc: float) -> Result:
    """Return when to look at a recipient whose result was not kept."""
    return Result(recipient, recipient.state, now_utc + _LOST_S, None)


def _lane(message: Message, recipient: Recipient) -> Lane:
    return Lane(message.priority, recipient.destination, message.reverse_path)
