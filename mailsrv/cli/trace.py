"""Joins the log's lines of a message's life. Pure: the log is read more than once."""

import re
from collections.abc import Callable, Iterable, Iterator

from mailsrv.cli.log_lines import Line, events, parse

_PATHS = ("reverse_path", "forward_path", "forward_paths")
# A quick look at what a line may be of, in text and in JSON. A peer's text may have
# the form: what is found here is parsed.
_IDS = re.compile(
    r'[ "](?:session|transaction|report)(?:=|": )"?([^\s".]+(?:\.[^\s".]+){0,2})'
)
_ID = re.compile(r"[^.]*(?:\.[^.]*){0,2}")


def trace(wanted: str, read: Callable[[], Iterable[str]]) -> Iterator[Line]:
    """Yield what the log tells of `wanted`, in its order.

    `wanted` is an address, a Message-ID, or the id of a transaction, a report or a
    session, and not empty; `read` gives the log from its beginning. What is named
    leads to its transactions (by their Message-ID, to others of the same message), to
    the reports on them, and to what was said in their sessions outside of
    transactions.
    """
    wanted = _plain(wanted)
    transactions: set[str] = set()
    sessions: set[str] = set()
    message_ids: set[str] = set()

    def note(line: Line) -> None:
        transactions.update((_transaction(line), line.get("report")))
        sessions.add(line.get("session"))

    for text in events(read()):
        if _may_name(wanted, text):
            line = parse(text)
            if _is_id(wanted, line):
                note(line)
                message_ids.add(line.get("message_id"))
            elif _is_path(wanted, line):
                note(line)
    message_ids.discard("")
    if message_ids:
        for text in events(read()):
            if "message_id" not in text:
                continue
            line = parse(text)
            if line.get("message_id") in message_ids:
                note(line)
    sessions.discard("")
    transactions.discard("")
    for text in events(read()):
        ids = _IDS.findall(text)
        if sessions.isdisjoint(ids) and transactions.isdisjoint(ids):
            continue
        line = parse(text)
        transaction, report = _transaction(line), line.get("report")
        if transaction in transactions:
            if report:
                transactions.add(report)  # it comes before the report's own lines
            yield line
        elif report in transactions or (
            not transaction and line.get("session") in sessions
        ):
            yield line


def _transaction(line: Line) -> str:
    """Return the id that it began with: a list's copies have its name behind that."""
    found = _ID.match(line.get("transaction"))
    return found[0] if found else ""


def _plain(text: str) -> str:
    """As it is compared: the log has no double quotes within a value."""
    return text.strip("<>").replace('"', "'").lower()


def _may_name(wanted: str, text: str) -> bool:
    """Whether a line is worth a parser."""
    if not wanted.isascii() or "'" in wanted or "\\" in wanted:
        return True  # JSON may write it in other ways
    return wanted in text.lower()


def _is_id(wanted: str, line: Line) -> bool:
    """Whether the line's message, transaction, report or session is the one."""
    if wanted == _plain(line.get("message_id")):
        return True
    ids = map(line.get, ("transaction", "report", "session"))
    return wanted in (*ids, _transaction(line))


def _is_path(wanted: str, line: Line) -> bool:
    # Spaces stand between them, and within those that are in quotes.
    return any(f" {wanted} " in f" {_plain(line.get(name))} " for name in _PATHS)
