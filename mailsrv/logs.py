"""Log lines: one event, one line, as text or as JSON, where twistd wants them.

A text line is ``TIME LEVEL NAMESPACE session=... peer=... MESSAGE key=value ...``.
What a peer chose comes after ``peer`` and is escaped, so that neither a person nor
fail2ban can be fooled by it.
"""

import json
import re
import sys
import syslog
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from string import Formatter
from typing import Any

from twisted.logger import ILogObserver, LogEvent, LogLevel, formatEvent
from twisted.python.logfile import LogFile
from zope.interface import implementer

from mailsrv.settings import LogSettings

FIRST = ("session", "peer")  # stand before the message
# What lines of one message are found by: fields too where the message says them.
FOUND_BY = frozenset({"transaction", "forward_path"})
MAX_VALUE = 1024  # characters of one field
# Control characters, line separators, marks that turn the direction of a line.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_BARE = re.compile(r"[^\s\"=]+")  # a value that needs no quotes
_PLAIN = re.compile(r"[^{}]+")  # a format without fields
_LEGACY = {"time", "message", "isError", "system", "format", "failure", "why"}
_PRIORITY = {
    LogLevel.debug: syslog.LOG_DEBUG,
    LogLevel.info: syslog.LOG_INFO,
    LogLevel.warn: syslog.LOG_WARNING,
    LogLevel.error: syslog.LOG_ERR,
    LogLevel.critical: syslog.LOG_CRIT,
}
# Twisted's lines on each socket of a DNS question.
_UDP_PORT = re.compile(
    r"^(\(UDP Port|_Datagrams starting|St\w+ protocol <mailsrv\.dns)"
)
_RANK = {level: rank for rank, level in enumerate(_PRIORITY)}

Write = Callable[[str, int], object]


@implementer(ILogObserver)
class LineObserver:
    """Writes events of the level in `settings`, which may be replaced, and above."""

    def __init__(self, write: Write, settings: LogSettings) -> None:
        self._write = write
        self.settings = settings

    def __call__(self, event: LogEvent) -> None:
        level = event.get("log_level") or LogLevel.info
        if _RANK[level] < _RANK[LogLevel.lookupByName(self.settings.level)]:
            return
        if _UDP_PORT.search(str(event.get("log_text", ""))):
            return
        line = json_line(event) if self.settings.format == "json" else text_line(event)
        self._write(line, _PRIORITY[level])


def text_line(event: LogEvent) -> str:
    """Format an event for people; a traceback follows in lines with a tab."""
    fields = _fields(event)
    told = _names_in(event.get("log_format") or "") - FOUND_BY
    parts = [_time(event), _level(event), str(event.get("log_namespace", "-"))]
    parts += [f"{name}={_quoted(fields[name])}" for name in FIRST if name in fields]
    parts.append(_escaped(_message(event)))
    parts += [
        f"{name}={_quoted(value)}"
        for name, value in fields.items()
        if name not in FIRST and name not in told
    ]
    return " ".join(parts) + "".join(
        f"\n\t{_escaped(line)}" for line in _traceback(event)
    )


def json_line(event: LogEvent) -> str:
    """Format an event for programs: one JSON object, ASCII only."""
    row: dict[str, object] = {
        "time": _time(event),
        "level": _level(event),
        "namespace": str(event.get("log_namespace", "-")),
        "message": _message(event),
        **_fields(event),
    }
    if traceback := _traceback(event):
        row["traceback"] = "\n".join(traceback)
    return json.dumps(row)


def _time(event: LogEvent) -> str:
    seconds, part = divmod(event.get("log_time") or 0, 1)
    return f"{_second(int(seconds))}.{int(part * 1000):03}Z"


@lru_cache(maxsize=1)  # many lines are of one second
def _second(seconds: int) -> str:
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="seconds").removesuffix("+00:00")


def _message(event: LogEvent) -> str:
    plain = event.get("log_format") or ""
    if plain and event.get("log_failure") is None and _PLAIN.fullmatch(plain):
        return plain
    message = formatEvent(event)
    if event.get("log_failure") is not None:
        # Twisted's older calls put the traceback there as well.
        message = message.partition("\n")[0]
    return message


def _level(event: LogEvent) -> str:
    return str((event.get("log_level") or LogLevel.info).name)


def _fields(event: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """The values that the caller gave; objects of Twisted's own are left out.

    Any: an event may hold everything.
    """
    fields: dict[str, str | int | float | bool] = {}
    for name, value in event.items():
        if name.startswith("log_") or name in _LEGACY:
            continue
        if isinstance(value, bytes):
            value = value.decode("ascii", "backslashreplace")
        if isinstance(value, str):
            fields[name] = value[:MAX_VALUE]
        elif isinstance(value, int | float | bool):
            fields[name] = value
    return fields


@lru_cache(maxsize=512)  # formats are constants of the code
def _names_in(log_format: str) -> frozenset[str]:
    try:
        return frozenset(
            re.split(r"[.\[(]", name)[0]
            for _, name, _, _ in Formatter().parse(log_format)
            if name
        )
    except ValueError:
        return frozenset()


def _quoted(value: str | int | float | bool) -> str:
    if not isinstance(value, str):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    text = _escaped(value)
    return text if _BARE.fullmatch(text) else '"' + text.replace('"', "'") + '"'


def _escaped(text: str) -> str:
    if text.isprintable():  # nothing unsafe is: a quick look at most values
        return text
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _traceback(event: LogEvent) -> list[str]:
    failure = event.get("log_failure")
    return [] if failure is None else failure.getTraceback().rstrip().split("\n")


def twistd_writer(options: Mapping[str, Any]) -> tuple[Write, Callable[[], None]]:
    """Where twistd's own options send the log; how to begin a new file.

    Any: twistd's options are untyped.
    """
    if options.get("syslog"):
        syslog.openlog(options.get("prefix") or "mailsrv", 0, syslog.LOG_MAIL)
        return lambda line, priority: syslog.syslog(priority, line), lambda: None
    name = options.get("logfile") or ("-" if options.get("nodaemon") else "mailsrv.log")
    if name == "-":
        # Log's beginning replaces sys.stdout by a stream into the log.
        return _stream_writer(sys.stdout), lambda: None
    # Kept whole: logrotate moves it and sends SIGUSR1.
    file = LogFile.fromFullPath(name, rotateLength=None)
    return _stream_writer(file), file.reopen


def _stream_writer(stream: Any) -> Write:
    # Any: a text stream or Twisted's LogFile.
    def write(line: str, priority: int) -> None:
        stream.write(line + "\n")
        stream.flush()

    return write
