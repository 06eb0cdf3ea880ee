"""What an admin may do with mail that waits; for the command and the web alike."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

from mailsrv.queue.database import Filter
from mailsrv.queue.queue import Queue
from mailsrv.queue.report_text import said
from mailsrv.queue.values import Answer, Message, Recipient, Result, State

Action = Literal["retry", "hold", "release", "drop", "bounce"]
ACTIONS: tuple[Action, ...] = get_args(Action)

_AT_A_TIME = 200
_OPEN = (State.WAITING, State.HELD)
_BY_HAND = "Sent back by the administrator of this server"


@dataclass(frozen=True, slots=True)
class Changed:
    """How many recipients were changed, and how many are being sent to just now."""

    done: int
    busy: int


async def change(
    queue: Queue, action: Action, wanted: Filter, now: Callable[[], float]
) -> Changed:
    """Do something with all recipients that a filter means now. Raises StoreError.

    `retry` tries at once; `hold` waits until `release`; `drop` tells nobody;
    `bounce` tells the sender.
    """
    done = busy = after = 0
    last = await queue.last_row()  # not what comes of it: reports
    while after < last and (rows := await queue.find(wanted, _AT_A_TIME, after)):
        after = rows[-1][1].id
        rows = [
            (message, recipient)
            for message, recipient in rows
            if recipient.id <= last and recipient.state in _states(action)
        ]
        result = partial(_result, action, now=now)
        number = await queue.change(rows, result)
        done += number
        busy += len(rows) - number
    return Changed(done, busy)


def _states(action: Action) -> tuple[State, ...]:
    match action:
        case "retry" | "hold":
            return (State.WAITING,)
        case "release":
            return (State.HELD,)
    return _OPEN


def _result(
    action: Action, message: Message, recipient: Recipient, now: Callable[[], float]
) -> Result:
    match action:
        case "retry" | "release":
            return _unsent(recipient, State.WAITING, now())
        case "hold":
            return _unsent(recipient, State.HELD, None)
        case "drop":
            return _unsent(recipient, State.DROPPED, None)
    return Result(
        recipient, State.FAILED, None, _by_hand(recipient, now()), attempted=False
    )


def _by_hand(recipient: Recipient, now_utc: float) -> Answer:
    """Return why it was sent back, with what was last said, so that both are known."""
    text, last = _BY_HAND, recipient.answer
    if last is not None:
        who = f"{last.peer} said" if last.peer else "before"
        text += f"; {who}: {said(last)}"
    return Answer(554, "5.0.0", text, now_utc)


def _unsent(recipient: Recipient, state: State, next_at_utc: float | None) -> Result:
    return Result(recipient, state, next_at_utc, None, attempted=False)
