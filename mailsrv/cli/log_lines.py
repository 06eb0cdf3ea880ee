"""Reads log lines back: the fields of what `mailsrv.logs` has written, text or JSON.

A line may have something before it, as syslog and journalctl print them. Lines with
a tab (a traceback) belong to the line above.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

# A value in quotes holds none (`logs` writes ' for "), and so hides no field.
_FIELD = re.compile(r'(?<!\S)([a-z_]+)=(?:"([^"]*)"|(\S+))')
_JSON = re.compile(r'\{"time": ')


@dataclass(frozen=True, slots=True)
class Line:
    """One event as it stands in the log, and its fields."""

    text: str  # with the lines of its traceback
    fields: Mapping[str, str]

    def get(self, name: str) -> str:
        """Return a field, "" if the line has none of that name."""
        return self.fields.get(name, "")


def events(lines: Iterable[str]) -> Iterator[str]:
    """Join each event's lines; they keep their line ends."""
    event = ""
    for line in lines:
        if not line.startswith("\t") and event:
            yield event
            event = ""
        event += line
    if event:
        yield event


def parse(text: str) -> Line:
    """Find the fields of an event; what is no line of ours has none."""
    first = text.partition("\n")[0]
    if found := _JSON.search(first):
        try:
            row = json.loads(first[found.start() :])
        except ValueError:
            row = {}
        return Line(text, {name: str(value) for name, value in row.items()})
    fields: dict[str, str] = {}
    for name, quoted, bare in _FIELD.findall(first):
        # The first one counts: what a peer has chosen stands behind.
        fields.setdefault(name, quoted or bare)
    return Line(text, fields)
