"""Joins the log's lines of a message's life. Pure: the log is read more than once."""

import json
from collections.abc import Callable, Iterable, Iterator

from mailsrv.cli.log_lines import Line, events, parse

_PATHS = ("reverse_path", "forward_path", "forward_paths")


def trace(wanted: str, read: Callable[[], Iterable[str]]) -> Iterator[Line]:
    """Yield what the log tells of `wanted`, in its order.

    `wanted` is an address, a Message-ID, or the id of a transaction or session;
    `read` gives the log from its beginning. What is named leads to its transactions
    (by their Message-ID, to others of the same message) and to what was said in
    their sessions outside of transactions.
    """
    wanted = wanted.strip("<>").lower()
    spellings = (wanted, json.dumps(wanted)[1:-1])  # the second one: in a JSON log
    transactions: set[str] = set()
    sessions: set[str] = set()
    message_ids: set[str] = set()

    def note(line: Line) -> None:
        if transaction := line.get("transaction"):
            transactions.add(transaction)
        sessions.add(line.get("session"))

    for text in events(read()):
        if any(spelling in text.lower() for spelling in spellings):
            line = parse(text)
            if _is_id(wanted, line):
                note(line)
                message_ids.add(line.get("message_id"))
            elif _is_path(wanted, line):
                note(line)
    message_ids.discard("")
    if message_ids:
        for text in events(read()):
            line = parse(text)
            if line.get("message_id") in message_ids:
                note(line)
    sessions.discard("")
    for text in events(read()):
        line = parse(text)
        if transaction := line.get("transaction"):
            if transaction in transactions:
                yield line
        elif line.get("session") in sessions:
            yield line


def _is_id(wanted: str, line: Line) -> bool:
    """Whether the line's message, transaction or session is the one."""
    message_id = line.get("message_id").strip("<>").lower()
    return wanted in (message_id, line.get("transaction"), line.get("session"))


def _is_path(wanted: str, line: Line) -> bool:
    return any(wanted in line.get(name).lower().split() for name in _PATHS)
