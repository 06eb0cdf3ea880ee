"""What is known of a command: when it is allowed, its arguments, what it does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from mailsrv.imap.parser import Parser
from mailsrv.imap.session import Session, State

T = TypeVar("T")

ANY = State.NOT_AUTHENTICATED | State.AUTHENTICATED | State.SELECTED
LOGGED_IN = State.AUTHENTICATED | State.SELECTED


@dataclass(frozen=True, slots=True)
class Rule(Generic[T]):
    """One command.

    `parse` takes the arguments from the space after the name on; the dispatcher
    checks that nothing follows. `run` returns the response code of the tagged OK
    (b"" for none) and raises `Refused` for NO, `ProtocolViolation` for BAD. The
    mailbox's news is sent after `run`, before the tagged reply.
    """

    states: State
    parse: Callable[[Parser], T]
    run: Callable[[Session, T], Awaitable[bytes]]
    # RFC 3501 section 7.4.1: no EXPUNGE while FETCH, STORE or SEARCH run.
    holds_expunge: bool = False
    secret: bool = False  # its arguments are not for the log
    extension: bytes = b""  # where that is not offered there is no such command


def both(name: bytes, parse: Any, run: Any, **about: Any) -> dict[bytes, Rule[Any]]:
    """Return the rules of a command by sequence number and by UID."""
    by_uid = {name: False, b"UID " + name: True}
    return {
        key: Rule(State.SELECTED, parse, partial(run, by_uid=uid), **about)
        for key, uid in by_uid.items()
    }


def no_arguments(arguments: Parser) -> None:
    """The grammar of a command that is only its name."""
