"""Reads ``mailsrv.toml`` into the settings tree and names every error at once.

It checks types, ranges and names of keys. Whether files, ports and users named
in it are there is checked by what uses them.
"""

import difflib
import re
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from mailsrv.settings import VERSION, Duration, Service, Settings

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(\d{1,9}) ?([smhd])")
_MAX_DURATION_S = 366 * 86400
MAX_FILE = 1024 * 1024  # octets; a settings file is some kilobytes


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to mend: `key` is dotted, `allowed` may be empty."""

    key: str
    wrong: str
    allowed: str = ""

    def __str__(self) -> str:
        instead = f"; allowed: {self.allowed}" if self.allowed else ""
        return f"{self.key}: {self.wrong}{instead}" if self.key else self.wrong


class SettingsError(Exception):
    """The file cannot be used; ``str()`` has one line for each problem."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        super().__init__(file, problems)
        self.file = file
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(f"{self.file}: {problem}" for problem in self.problems)


def load(file: Path) -> Settings:
    """Read `file`; relative paths in it are taken from its folder."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_FILE)
        document = tomllib.loads(content.decode("utf-8"))
    except OSError as error:
        raise SettingsError(file, [Problem("", f"{error.strerror}")]) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(file, [Problem("", f"is not TOML: {error}")]) from error
    reader = _Reader(file.absolute().parent)
    settings = reader.table(document, Settings, "")
    if not any(problem.key == "version" for problem in reader.problems):
        reader.check_version(document["version"])
    if isinstance(settings, Settings):
        reader.check_services(settings)
    if reader.problems:
        raise SettingsError(file, reader.problems)
    assert isinstance(settings, Settings)  # noqa: S101  else there is a problem
    return settings


class _Reader:
    """Turns TOML values into values of the tree; collects what is wrong.

    Any: TOML values and type hints come in all shapes; `value` narrows them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.problems: list[Problem] = []

    def wrong(self, key: str, wrong: str, allowed: str = "") -> None:
        self.problems.append(Problem(key, wrong, allowed))

    def check_version(self, version: int) -> None:
        # An older version will be rewritten here into the newest one.
        if version != VERSION:
            self.wrong(
                "version", f"is {version}; this release does not know it", f"{VERSION}"
            )

    def check_services(self, settings: Settings) -> None:
        known = dict.fromkeys(get_args(Service))
        known |= dict.fromkeys(plugin.name for plugin in settings.plugin)
        for number, listener in enumerate(settings.listen, 1):
            if (service := listener.service) not in known:
                key = f"listen[{number}].service"
                self.wrong(key, f'"{service}" is not known', ", ".join(known))

    def table(self, table: Any, cls: type, where: str) -> Any:
        """Build `cls` from a TOML table; None after a problem."""
        if not isinstance(table, dict):
            self.wrong(where, f"is {_shown(table)}", "a table")
            return None
        hints = get_type_hints(cls)
        known = {field.name: field for field in attrs.fields(cls)}
        for name in table.keys() - known.keys():
            self.wrong(_join(where, name), "is not known", _nearest(name, known))
        before = len(self.problems)
        values = {}
        for name, field in known.items():
            key = _join(where, name)
            if name in table:
                values[name] = self.value(table[name], hints[name], key, field.metadata)
            elif field.default is attrs.NOTHING:
                self.wrong(key, "is missing", allowed(hints[name], field.metadata))
        return cls(**values) if len(self.problems) == before else None

    def value(self, value: Any, hint: Any, key: str, metadata: Any) -> Any:
        """Return `value` as `hint` wants it; None after a problem."""
        if attrs.has(hint):
            return self.table(value, hint, key)
        if get_origin(hint) in (types.UnionType, Union):  # X | None, given: an X
            return self.value(value, get_args(hint)[0], key, metadata)
        if get_origin(hint) is list and isinstance(value, list):
            return [
                self.value(item, get_args(hint)[0], f"{key}[{number}]", metadata)
                for number, item in enumerate(value, 1)
            ]
        if hint is Duration and (seconds := _seconds(value)) is not None:
            return seconds
        if _fits(value, hint, metadata):
            if hint is Path:
                return self._folder / value
            return float(value) if hint is float else value
        self.wrong(key, f"is {_shown(value)}", allowed(hint, metadata))
        return None


def _fits(value: Any, hint: Any, metadata: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is bool:
        return isinstance(value, bool)
    if hint is str or hint is Path:
        return isinstance(value, str) and bool(value) and value.isprintable()
    if get_origin(hint) is dict:  # a plugin's own table: it knows what may be there
        return isinstance(value, dict)
    if hint is int or hint is float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return (hint is float or isinstance(value, int)) and _in_range(value, metadata)
    return False


def _seconds(value: Any) -> Duration | None:
    """Read a duration; None if it is none."""
    if isinstance(value, str) and (found := _DURATION.fullmatch(value)):
        value = int(found[1]) * _UNITS[found[2]]
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Duration(float(value)) if 0 < value <= _MAX_DURATION_S else None


def _in_range(value: float, metadata: Any) -> bool:
    least, most = metadata.get("least"), metadata.get("most")
    above = value > 0 if least is None else value >= least
    return above and (most is None or value <= most) and value < 2**53


def allowed(hint: Any, metadata: Any) -> str:
    """Say in words what a key may hold."""
    if get_origin(hint) in (types.UnionType, Union):
        hint = get_args(hint)[0]
    if attrs.has(hint) or get_origin(hint) is dict:
        return "a table"
    if get_origin(hint) is Literal:
        return ", ".join(_shown(choice) for choice in get_args(hint))
    if get_origin(hint) is list:
        item = get_args(hint)[0]
        if attrs.has(item):
            return "a list (of tables, written [[...]])"
        return f"a list of {allowed(item, metadata)}"
    if hint is bool:
        return "true, false"
    if hint is Duration:
        return 'seconds, or text as "90s", "30m", "4h", "5d"'
    if hint is int or hint is float:
        least, most = metadata.get("least"), metadata.get("most")
        kind = "a whole number" if hint is int else "a number"
        lower = "above 0" if least is None else f"from {least:g}"
        return f"{kind} {lower}" + (f" to {most:g}" if most is not None else "")
    return "a path, as text" if hint is Path else "text, not empty"


def _nearest(name: str, known: dict[str, Any]) -> str:
    """The known name that `name` is likely meant to be, then the others."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if nearest:
        return f"{nearest[0]} is the nearest known key"
    return ", ".join(known)


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    text = {"True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _join(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
