"""The keywords of a folder: which letter or bit stands for which name.

`dovecot-keywords` has lines ``<index> <name>``; index 0 is the letter "a" of Maildir
file names, 25 is "z". `mailsrv-keywords` goes on with the indexes from 26 to 57 in
the same form, and says which messages have them, ``:<index>,… <base name>``, since
file names have no letters for these. Both are written under the uidlist lock.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mailsrv.store.durable import DISK, Disk, read, replace
from mailsrv.store.values import (
    FIRST_KEYWORD_BIT,
    LETTER_KEYWORDS,
    MAX_KEYWORDS,
    InvalidName,
    TooManyKeywords,
)

FILE = "dovecot-keywords"
EXTRA_FILE = "mailsrv-keywords"
MAX_FILE_OCTETS = 1 << 16
MAX_EXTRA_OCTETS = 1 << 26
LETTERS_MASK = (1 << FIRST_KEYWORD_BIT + LETTER_KEYWORDS) - 1
"""The flags that a file name can hold."""
_NAME = re.compile(r"[^\x00-\x20\x7f]{1,255}")
# What IMAP calls an atom (RFC 9051 section 9): US-ASCII without its specials.
_ATOM = re.compile(r"[!#$&'+-\[^-z|}~]+")


class Keywords:
    """The keywords of one folder as last read: call `refresh` first.

    A place without a name (Dovecot drops unused ones) is None in the list: a letter
    that is found in a file name all the same means nothing.
    """

    def __init__(self, directory: Path, disk: Disk = DISK) -> None:
        self._path = directory / FILE
        self._extra_path = directory / EXTRA_FILE
        self._disk = disk
        self._names: list[str | None] = []
        self._extra: dict[bytes, int] = {}

    @property
    def names(self) -> list[str | None]:
        """The names by index; bit 5 + index of a message's flags stands for each."""
        return list(self._names)

    @property
    def shown(self) -> tuple[str, ...]:
        """The names as a client can be told of them; "" where a bit has none.

        A name that another program has written, and that is no atom, would be
        several flags for the client, or none of what follows would be.
        """
        return tuple(n if n and _ATOM.fullmatch(n) else "" for n in self._names)

    @property
    def extra(self) -> Mapping[bytes, int]:
        """Base name -> the flags that its file name cannot hold."""
        return self._extra

    def refresh(self) -> None:
        """Read both files again."""
        places: dict[int, str] = {}
        self._extra = {}
        for line in read(self._path, MAX_FILE_OCTETS).split(b"\n"):
            index, _, name = line.partition(b" ")
            if _is_index(index, 0, LETTER_KEYWORDS) and name:
                places[int(index)] = name.decode("utf-8", "replace")
        for line in read(self._extra_path, MAX_EXTRA_OCTETS).split(b"\n"):
            index, _, name = line.partition(b" ")
            if index.startswith(b":"):
                self._extra[name] = _mask(index[1:])
                continue
            if _is_index(index, LETTER_KEYWORDS, MAX_KEYWORDS) and name:
                places[int(index)] = name.decode("utf-8", "replace")
        self._names = [places.get(n) for n in range(max(places, default=-1) + 1)]

    def flags(self, names: Iterable[str]) -> int:
        """Return the mask of those `names` that are known, compared without case.

        RFC 9051 section 2.3.2: keywords are compared without case.
        """
        known = self._known()
        flags = 0
        for name in names:
            if (index := known.get(name.lower())) is not None:
                flags |= 1 << FIRST_KEYWORD_BIT + index
        return flags

    def ensure(self, names: Iterable[str]) -> int:
        """Add what is new of `names`, durably, and return the mask of them all.

        Under the uidlist lock and after a `refresh` under it. Raises InvalidName
        or TooManyKeywords, and then adds nothing.
        """
        names = list(names)
        known = self._known()
        places: list[str | None] = list(self._names)
        for name in names:
            if not _NAME.fullmatch(name):
                raise InvalidName("a keyword has up to 255 characters, without spaces")
            if name.lower() not in known:
                known[name.lower()] = _place(places, name)
        if places != self._names:
            self._write(places)
        return self.flags(names)

    def set_extra(self, flags: Mapping[bytes, int]) -> None:
        """Set the flags past letter z of messages by base name, durably.

        Under the uidlist lock and after a `refresh` under it. Bits that file names
        hold are not looked at; a message without others is forgotten.
        """
        extra = {
            **self._extra,
            **{base: m & ~LETTERS_MASK for base, m in flags.items()},
        }
        extra = {base: mask for base, mask in extra.items() if mask}
        if extra != self._extra:
            self._write_extra(self._names, extra)

    def _known(self) -> dict[str, int]:
        return {name.lower(): n for n, name in enumerate(self._names) if name}

    def _write(self, places: list[str | None]) -> None:
        letters = places[:LETTER_KEYWORDS]
        if letters != self._names[:LETTER_KEYWORDS]:
            replace(self._path, _lines(letters, 0), self._disk)
        if places[LETTER_KEYWORDS:] != self._names[LETTER_KEYWORDS:]:
            self._write_extra(places, self._extra)
        self._names = places

    def _write_extra(self, places: list[str | None], extra: dict[bytes, int]) -> None:
        content = _lines(places[LETTER_KEYWORDS:], LETTER_KEYWORDS) + b"".join(
            b":%s %s\n" % (_indexes(mask), base) for base, mask in extra.items()
        )
        replace(self._extra_path, content, self._disk)
        self._extra = extra


def _place(places: list[str | None], name: str) -> int:
    """Put a new name at the end, or where a name was dropped if that is full.

    The end first: files may still have the letter of a name that was dropped.
    """
    if len(places) < MAX_KEYWORDS:
        places.append(name)
        return len(places) - 1
    if None in places:
        index = places.index(None)
        places[index] = name
        return index
    raise TooManyKeywords("the mailbox has no room for another keyword")


def _is_index(text: bytes, low: int, high: int) -> bool:
    return text.isdigit() and len(text) <= 2 and low <= int(text) < high


def _lines(places: list[str | None], first: int) -> bytes:
    return b"".join(
        b"%d %s\n" % (n, name.encode())
        for n, name in enumerate(places, first)
        if name is not None
    )


def _indexes(mask: int) -> bytes:
    keywords = mask >> FIRST_KEYWORD_BIT
    return b",".join(b"%d" % n for n in range(MAX_KEYWORDS) if keywords >> n & 1)


def _mask(indexes: bytes) -> int:
    mask = 0
    for index in indexes.split(b","):
        if _is_index(index, LETTER_KEYWORDS, MAX_KEYWORDS):
            mask |= 1 << FIRST_KEYWORD_BIT + int(index)
    return mask
