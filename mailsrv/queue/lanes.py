"""What waits in one lane of the queue, as far as it is known without its rows. Pure.

Rows come into memory as they are due, some at a time; `claimed` are those in memory
or being delivered: they are not taken out of the database again.
"""

from collections import deque
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field

from mailsrv.queue.values import Message, Recipient

MAX_ROWS = 100  # of a lane in memory; also the recipients of one transaction

Waiting = tuple[Message, Recipient]


@dataclass(slots=True)
class LaneState:
    """A lane with something to come."""

    route: str
    rows: deque[Waiting] = field(default_factory=deque)  # due
    claimed: set[int] = field(default_factory=set)
    # The database has nothing before this time but what is claimed; None: nothing.
    more_at_utc: float | None = None
    loading: bool = False
    # Settled while a look at the database was under way: it may show them as before.
    settled: set[int] = field(default_factory=set)

    @property
    def empty(self) -> bool:
        return (
            not self.claimed
            and not self.rows
            and self.more_at_utc is None
            and not self.loading
        )

    def due(self, now_utc: float) -> bool:
        """Whether there is something to send, or to be looked for."""
        if self.rows:
            return True
        at = self.more_at_utc
        return at is not None and at <= now_utc and not self.loading

    def later(self, at_utc: float) -> bool:
        """Note when more is due; return whether that is sooner than was known."""
        sooner = self.more_at_utc is None or at_utc < self.more_at_utc
        if sooner:
            self.more_at_utc = at_utc
        return sooner

    def add(self, rows: Iterable[Waiting]) -> None:
        for row in rows:
            self.rows.append(row)
            self.claimed.add(row[1].id)

    def loaded(
        self, rows: Sequence[Waiting], *, all_: bool, now_utc: float, latest_utc: float
    ) -> None:
        """Take what the database has, in the order of its times.

        `all_`: it has nothing else. What is to wait until after `latest_utc` is due:
        the clock went ahead when that was written.
        """
        settled, self.settled = self.settled, set()
        self.loading = False
        for message, recipient in rows:
            if recipient.id in self.claimed or recipient.id in settled:
                continue
            at = recipient.next_at_utc
            if at is not None and now_utc < at <= latest_utc:
                self.later(at)
                return
            self.add([(message, recipient)])
        if not all_:
            self.later(now_utc)

    def release(self, ids: Set[int]) -> None:
        """Forget rows: what is to come of them is in the database."""
        if self.loading:
            self.settled |= ids
        if self.claimed.isdisjoint(ids):
            return
        self.claimed -= ids
        if any(recipient.id in ids for _, recipient in self.rows):
            self.rows = deque(row for row in self.rows if row[1].id not in ids)

    def next_parcel(self) -> tuple[Message, tuple[Recipient, ...]] | None:
        """Take the next message, with all that follow and get the same of it."""
        if not self.rows:
            return None
        message, first = self.rows.popleft()
        recipients = [first]
        while (
            self.rows
            and len(recipients) < MAX_ROWS
            and self.rows[0][0].id == message.id
            and not first.goes_alone
            and not self.rows[0][1].goes_alone
        ):
            recipients.append(self.rows.popleft()[1])
        return message, tuple(recipients)
