"""When a recipient is tried again, and when that ends. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

JITTER = 0.2  # of a pause: what failed together is not tried together


@dataclass(frozen=True, slots=True)
class Schedule:
    """The pauses between attempts; the last one repeats until the time is over."""

    # RFC 5321 section 4.5.4.1: at least 30 minutes soon, and 4 or 5 days in all. The
    # first ones are shorter: greylisting and restarts are over in minutes.
    pauses_s: Sequence[float]
    lifetime_s: float

    def next_at_utc(
        self, arrived_at_utc: float, attempts: int, now_utc: float, chance: float
    ) -> float | None:
        """Return the time of the next attempt, None if the message is too old.

        `attempts` counts those that failed, at least 1; `chance` is between 0 and 1.
        The last attempt is made at the end of the message's time, not before.
        """
        ends_at = self.ends_at_utc(arrived_at_utc)
        if now_utc >= ends_at:
            return None
        pause_s = self.pauses_s[min(attempts, len(self.pauses_s)) - 1]
        pause_s *= 1 - JITTER + 2 * JITTER * chance
        return min(now_utc + pause_s, ends_at)

    @property
    def longest_s(self) -> float:
        """The longest pause that there can be."""
        return max(self.pauses_s) * (1 + JITTER)

    def ends_at_utc(self, arrived_at_utc: float) -> float:
        """Return when the time of a message is over."""
        return arrived_at_utc + self.lifetime_s
