"""The file `subscriptions` of an account's root, as Dovecot keeps it.

Version 2 begins with ``V<tab>2`` and an empty line, and parts the levels of a name
by tabs; without that head a line is a whole name, parted by the dots of the
directory names. Both are read; version 2 is written. Names are spelled as the
directories are; a line that is there stays as it is.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailsrv.store.durable import DISK, Disk, read, replace
from mailsrv.store.locks import Dotlock
from mailsrv.store.names import (
    INBOX,
    canonical,
    directory,
    mailbox_name,
)

FILE = "subscriptions"
MAX_FILE_OCTETS = 1 << 20
_HEAD = b"V\t2\n\n"


class Subscriptions:
    """The subscribed names of one account; a name need not be a mailbox's.

    RFC 3501 section 6.3.6: a deleted mailbox stays subscribed.
    """

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self._path = root / FILE
        self._disk = disk

    def names(self) -> list[str]:
        """Return the subscribed names in the order of the file."""
        return list(self._read())

    def add(self, names: Iterable[str]) -> None:
        """Subscribe, durably. Raises LockHeld, InvalidName."""
        added = {name: self._line(name) for name in map(canonical, names)}
        with Dotlock(self._path, self._disk):
            old = self._read()
            new = {n: line for n, line in added.items() if n not in old}
            self._write(old, {**old, **new})

    def remove(self, names: Iterable[str]) -> None:
        """Unsubscribe, durably; what is not subscribed is passed over."""
        with Dotlock(self._path, self._disk):
            old = self._read()
            gone = set(map(canonical, names))
            self._write(old, {n: line for n, line in old.items() if n not in gone})

    def exists(self) -> bool:
        """Return whether anybody has ever subscribed: a new account has no file."""
        return os.path.exists(self._path)

    def _read(self) -> dict[str, bytes]:
        """Return the lines of the file by their names."""
        found: dict[str, bytes] = {}
        for line, name in _parse(read(self._path, MAX_FILE_OCTETS)):
            if name:
                found.setdefault(name, line)
        return found

    def _line(self, name: str) -> bytes:
        if name == INBOX:
            return INBOX.encode()
        spelled = directory(self._path.parent, name).name
        return os.fsencode(spelled[1:]).replace(b".", b"\t")

    def _write(self, old: dict[str, bytes], new: dict[str, bytes]) -> None:
        if new != old or not self.exists():
            content = b"".join(line + b"\n" for line in new.values())
            replace(self._path, _HEAD + content, self._disk)


def broken_lines(root: Path) -> list[bytes]:
    """Return the lines of an account's file that mean no mailbox."""
    found = _parse(read(root / FILE, MAX_FILE_OCTETS))
    return [line for line, name in found if line and not name]


def _parse(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield each line, as version 2 has it, with its name: "" if it means none."""
    if content.startswith(_HEAD):
        for line in content[len(_HEAD) :].split(b"\n"):
            yield line, _decode([_unescape(level) for level in line.split(b"\t")])
    else:
        for line in content.split(b"\n"):
            yield line.replace(b".", b"\t"), _decode(line.split(b"."))


def _decode(levels: list[bytes]) -> str:
    """Return the name; "" for a line that means none."""
    if levels[0].upper() == INBOX.encode() and len(levels) == 1:
        return INBOX
    if any(b"." in level for level in levels):
        return ""  # of a layout that keeps dots
    return mailbox_name(os.fsdecode(b"." + b".".join(levels))) or ""


def _unescape(level: bytes) -> bytes:
    """Undo Dovecot's escapes of octets that would part lines and levels."""
    for escaped, octet in (
        (b"\x01t", b"\t"),
        (b"\x01n", b"\n"),
        (b"\x01r", b"\r"),
        (b"\x010", b"\0"),
        (b"\x011", b"\x01"),
    ):
        level = level.replace(escaped, octet)
    return level
