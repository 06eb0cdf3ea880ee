"""The file `subscriptions` of an account's root, as Dovecot keeps it.

Version 2 begins with ``V<tab>2`` and an empty line, and parts the levels of a name
by tabs; without that head a line is a whole name, parted by the dots of the
directory names. Both are read; version 2 is written. Names are in modified UTF-7.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from mailsrv.store import mutf7
from mailsrv.store.durable import DISK, Disk, read, replace
from mailsrv.store.locks import Dotlock
from mailsrv.store.names import INBOX, SEPARATOR, canonical

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
        found = _parse(read(self._path, MAX_FILE_OCTETS))
        return list(dict.fromkeys(name for _, name in found if name))

    def add(self, names: Iterable[str]) -> None:
        """Subscribe, durably. Raises LockHeld."""
        with Dotlock(self._path, self._disk):
            old = self.names()
            self._write(old, list(dict.fromkeys([*old, *map(canonical, names)])))

    def remove(self, names: Iterable[str]) -> None:
        """Unsubscribe, durably; what is not subscribed is passed over."""
        with Dotlock(self._path, self._disk):
            old = self.names()
            gone = set(map(canonical, names))
            self._write(old, [name for name in old if name not in gone])

    def exists(self) -> bool:
        """Return whether anybody has ever subscribed: a new account has no file."""
        return os.path.exists(self._path)

    def _write(self, old: list[str], new: list[str]) -> None:
        if new != old or not self.exists():
            content = b"".join(_encode(name) + b"\n" for name in new)
            replace(self._path, _HEAD + content, self._disk)


def broken_lines(root: Path) -> list[bytes]:
    """Return the lines of an account's file that mean no mailbox."""
    found = _parse(read(root / FILE, MAX_FILE_OCTETS))
    return [line for line, name in found if line and not name]


def _parse(content: bytes) -> Iterator[tuple[bytes, str]]:
    """Yield each line, with its name: "" if it means none."""
    if content.startswith(_HEAD):
        for line in content[len(_HEAD) :].split(b"\n"):
            yield line, _decode([_unescape(level) for level in line.split(b"\t")])
    else:
        for line in content.split(b"\n"):
            yield line, _decode(line.split(b"."))


def _encode(name: str) -> bytes:
    return b"\t".join(mutf7.encode(level) for level in name.split(SEPARATOR))


def _decode(levels: list[bytes]) -> str:
    """Return the name; "" for a line that means none."""
    try:
        name = SEPARATOR.join(mutf7.decode(level) for level in levels)
    except ValueError:
        return ""
    return INBOX if name.upper() == INBOX else name


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
