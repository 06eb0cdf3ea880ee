"""What answers make of recipients: done, failed, or to be tried again. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailsrv.queue.schedule import Schedule
from mailsrv.queue.values import Answer, Message, Recipient, Result, State
from mailsrv.settings import QueueSettings

LATER = 451, "4.3.0"  # ours, for what went wrong on this side


@dataclass(frozen=True, slots=True)
class Rules:
    """How long the queue goes on, and when it speaks of it."""

    schedule: Schedule
    warn_after_s: float


def rules(settings: QueueSettings) -> Rules:
    """Return the rules of the section ``[queue]``."""
    schedule = Schedule(settings.retry_after, settings.lifetime)
    return Rules(schedule, settings.warn_after)


def settle(
    message: Message,
    recipient: Recipient,
    answer: Answer,
    rules: Rules,
    chance: float,
) -> Result:
    """Say what is next for a recipient after an attempt.

    `chance` is between 0 and 1. A recipient whose time is over fails with the
    temporary answer that it had last.
    """
    if answer.positive:
        return Result(recipient, State.DELIVERED, None, answer)
    if answer.permanent:
        return Result(recipient, State.FAILED, None, answer)
    now = answer.at_utc
    next_at = rules.schedule.next_at_utc(
        message.arrived_at_utc, recipient.attempts + 1, now, chance
    )
    if next_at is None:
        return Result(recipient, State.FAILED, None, answer)
    if recipient.warned:
        return Result(recipient, State.WAITING, next_at, answer)
    warn_at = message.arrived_at_utc + rules.warn_after_s
    if now < warn_at:
        next_at = min(next_at, warn_at)  # the sender is told by an attempt
    return Result(recipient, State.WAITING, next_at, answer, warned=now >= warn_at)


def same_for_all(
    recipients: Sequence[Recipient], text: str, now: Callable[[], float]
) -> tuple[Answer, ...]:
    """Return the temporary answer of an attempt that came to nothing on our side."""
    return (Answer(*LATER, text, now()),) * len(recipients)


def reached(answers: Sequence[Answer]) -> bool:
    """Tell whether the way to the destination works, whatever became of recipients."""
    return not any(
        answer.code == 421 or (not answer.positive and not answer.peer)
        for answer in answers
    )
