"""Reads the file of a newsletter's recipients: CSV as spreadsheets write it. Pure.

The first line names the columns, one of them ``email`` or ``address``; a file without
such a line has an address in the first column of each.
"""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mailsrv.accounts.addresses import InvalidAddress, parse

ADDRESS_COLUMNS = ("email", "e-mail", "address", "mail")
_SEPARATORS = ",;\t"
_BLANK_LINES = re.compile(r"\A(?:[ \t]*+[\r\n]++)++")
# What Excel writes and reads before all else.
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?[ \t]*+(?:\r\n|[\r\n])', re.IGNORECASE)


class ListRefused(Exception):
    """The file is none of recipients; the text says why."""


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient, and what is filled in for it."""

    address: str  # canonical
    values: dict[str, str]  # by column


@dataclass(frozen=True, slots=True)
class Recipients:
    """Whom a newsletter goes to."""

    rows: tuple[Row, ...]  # each address once, the first one counts
    columns: frozenset[str]
    twice: int  # further rows with an address that was there before
    bad: tuple[str, ...]  # of rows without an address: where and what


def read(text: str) -> Recipients:
    """Read a file. Raises ListRefused."""
    text = _BLANK_LINES.sub("", text)
    if said := _SEPARATOR_LINE.match(text):
        separator, text = said[1], text[said.end() :]
    else:
        separator = _separator(text)
    # Strict: a quote that is not closed would swallow the rows behind it.
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        return _read(lines)
    except csv.Error as error:
        raise ListRefused(f"line {lines.line_num}: {error}") from error


def _separator(text: str) -> str:
    """Return the separator by which the first line has addresses, or names them."""
    first = re.split("[\r\n]", text, maxsplit=1)[0]
    likely = sorted(_SEPARATORS, key=first.count, reverse=True)
    for separator in likely:
        try:
            cells = next(csv.reader([first], delimiter=separator), []) or [""]
        except csv.Error:  # said again when all of it is read
            continue
        named = {cell.strip().lower() for cell in cells}
        if named & {*ADDRESS_COLUMNS} or _is_address(cells[0].strip()):
            return separator
    return likely[0]


def _is_address(text: str) -> bool:
    try:
        parse(text)
    except InvalidAddress:
        return False
    return True


def _read(lines: Iterable[list[str]]) -> Recipients:
    found: dict[str, Row] = {}
    bad: list[str] = []
    names: list[str] | None = None
    column = twice = 0
    for number, cells in enumerate(lines, 1):
        if not any(map(str.strip, cells)):
            continue
        if names is None:
            names, column = _names(cells)
            if "@" not in cells[column]:
                continue
        cells = cells[: len(names)] + [""] * (len(names) - len(cells))
        text = cells[column].strip()
        try:
            address = parse(text).canonical
        except InvalidAddress:
            bad.append(f"row {number}: {text!r} is no address")
            continue
        twice += address in found
        values = dict(zip(names, map(str.strip, cells), strict=True))
        found.setdefault(address, Row(address, values))
    if not found:
        raise ListRefused("has no recipients")
    return Recipients(tuple(found.values()), frozenset(names or ()), twice, tuple(bad))


def _names(cells: list[str]) -> tuple[list[str], int]:
    """Return the columns' names, and which one has the addresses."""
    if "@" in cells[0]:
        return ["email", *(f"column{n}" for n in range(2, len(cells) + 1))], 0
    names = [cell.strip().lower() for cell in cells]
    for name in ADDRESS_COLUMNS:
        if name in names:
            return names, names.index(name)
    raise ListRefused(f'has no column "email", only {", ".join(filter(None, names))}')
