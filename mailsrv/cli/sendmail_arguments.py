"""What sendmail(8)'s flags ask for. Pure.

Flags that steer a daemon, or that only other mail servers know, are taken and do
nothing: scripts pass them by habit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["send", "smtp", "queue", "nothing"]

_WITH_VALUE = frozenset("BCFLNORVXfhopr")
_MODES: dict[str, Mode] = {
    "m": "send",
    "s": "smtp",
    "p": "queue",
    "i": "nothing",  # newaliases: addresses are in accounts.sqlite, always current
}
_REPORTS = frozenset({"never", "success", "failure", "delay"})


class Usage(Exception):
    """The command line cannot be understood; the text says why."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What to do, and with whom."""

    mode: Mode = "send"
    sender: str | None = None  # -f: the reverse-path; None: the user
    full_name: str = ""  # -F
    recipients: tuple[str, ...] = ()
    recipients_in_header: bool = False  # -t
    ends_at_dot: bool = True  # not with -i
    notify: str = ""  # -N, as RFC 3461 section 4.1 has it
    ret: str = ""  # -R: FULL or HDRS
    envid: str = ""  # -V


def parse(words: Sequence[str]) -> Arguments:
    """Read a command line. Raises `Usage`."""
    found = Arguments()
    changes: dict[str, object] = {}
    recipients: list[str] = []
    for flag, value in _flags(words):
        match flag:
            case "":
                recipients += [word for word in value.split(",") if word.strip()]
            case "b":
                if value not in _MODES:
                    raise Usage(f"-b{value} is not offered: use -bm, -bs or -bp")
                changes["mode"] = _MODES[value]
            case "f" | "r":
                changes["sender"] = value.strip().removeprefix("<").removesuffix(">")
            case "F":
                changes["full_name"] = value
            case "t":
                changes["recipients_in_header"] = True
            case "i":
                changes["ends_at_dot"] = False
            case "o" if value[:1] == "i":
                changes["ends_at_dot"] = False
            case "N":
                changes["notify"] = _notify(value)
            case "R":
                changes["ret"] = "FULL" if value.lower() == "full" else "HDRS"
            case "V":
                changes["envid"] = value
            case "q":
                changes.setdefault("mode", "nothing")
    return Arguments(
        **{  # type: ignore[arg-type]  # names and types as above
            "mode": found.mode,
            **changes,
            "recipients": tuple(word.strip() for word in recipients),
        }
    )


def _flags(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag with its value; a recipient has none and is the value."""
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if word == "--":
            yield from (("", other) for other in reversed(waiting))
            return
        if not word.startswith("-") or word == "-":
            yield "", word
            continue
        letters = word[1:]
        while letters:
            flag, letters = letters[0], letters[1:]
            if flag in ("b", "q"):  # its value is attached, or there is none
                yield flag, letters
                break
            if flag in _WITH_VALUE:
                if not letters and not waiting:
                    raise Usage(f"-{flag} needs a value")
                yield flag, letters or waiting.pop()
                break
            yield flag, ""


def _notify(value: str) -> str:
    words = [word.strip().lower() for word in value.split(",")]
    if not words or not set(words) <= _REPORTS or ("never" in words and words[1:]):
        raise Usage(f"-N {value}: say never, or some of success, failure, delay")
    return ",".join(word.upper() for word in words)
