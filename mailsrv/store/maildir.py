"""Maildir folders and the names of their files (cr.yp.to/proto/maildir.html).

A name is ``base,S=octets,W=octets:2,letters``; all before the colon is the base
name, which a message keeps for ever. Names are octets: they need not be UTF-8.
S is the size of the file, W the size as served, with CRLF line ends.
"""

import hashlib
import itertools
import os
import re
import secrets
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mailsrv.store.durable import DISK, NO_FOLLOW, Disk, make_folders
from mailsrv.store.values import (
    ANSWERED,
    DELETED,
    DRAFT,
    FIRST_KEYWORD_BIT,
    FLAGGED,
    LETTER_KEYWORDS,
    SEEN,
    MessageGone,
)

SUBDIRECTORIES = ("cur", "new", "tmp")
_SETTLED_NS = 1_000_000_000  # Dovecot distrusts the last second as well
_LETTERS = {
    "D": DRAFT,
    "F": FLAGGED,
    "R": ANSWERED,
    "S": SEEN,
    "T": DELETED,
} | {chr(ord("a") + k): 1 << FIRST_KEYWORD_BIT + k for k in range(LETTER_KEYWORDS)}
_SIZE = re.compile(rb",([SW])=(\d{1,18})(?=,|\Z)")
_SAVED = re.compile(rb"(\d{9,10})[._]")  # from 1973 on
_SORT = re.compile(rb"(\d*)(?:\.[^.:M]*M(\d*))?")


@dataclass(frozen=True, slots=True)
class MaildirName:
    """A file name in its parts."""

    base: bytes
    letters: str = ""  # P (passed) and unknown ones as well
    rest: bytes = b""  # what stands behind the letters: another ``,x`` of the info
    file_octets: int | None = None  # S=
    size_octets: int | None = None  # W=

    def format(self, *, info: bool = True) -> bytes:
        """Return the file name; without `info` as it is in new/."""
        if not info:
            return self.base
        return self.base + b":2," + self.letters.encode("latin-1") + self.rest

    def with_flags(self, flags: int) -> "MaildirName":
        """Return the name with the letters of `flags`, unknown letters kept."""
        kept = {letter for letter in self.letters if letter not in _LETTERS}
        letters = "".join(sorted(kept | set(to_letters(flags))))
        # Not dataclasses.replace, which takes 3 us.
        return MaildirName(
            self.base, letters, self.rest, self.file_octets, self.size_octets
        )

    @property
    def flags(self) -> int:
        return to_flags(self.letters)


def parse(name: bytes) -> MaildirName:
    """Take a file name apart. Every name has a meaning: nothing is raised."""
    base, letters, rest = split(name)
    sizes = {key: int(octets) for key, octets in _SIZE.findall(base)}
    return MaildirName(base, letters, rest, sizes.get(b"S"), sizes.get(b"W"))


def split(name: bytes) -> tuple[bytes, str, bytes]:
    """Return base, letters and what stands behind these: the cheap part of parse."""
    base, colon, info = name.partition(b":")
    if not colon or not info.startswith(b"2,"):
        return base, "", b""  # as Dovecot: an info of another kind has no flags
    letters, comma, rest = info[2:].partition(b",")
    return base, letters.decode("latin-1"), comma + rest


@lru_cache(4096)
def to_flags(letters: str) -> int:
    """Return the mask of a name's letters; those that mean nothing are skipped."""
    flags = 0
    for letter in letters:
        flags |= _LETTERS.get(letter, 0)
    return flags


@lru_cache(4096)
def to_letters(flags: int) -> str:
    """Return the letters of a mask in ASCII order; keywords past z have none."""
    return "".join(sorted(letter for letter, bit in _LETTERS.items() if bit & flags))


def arrival_key(name: bytes) -> tuple[int, int, bytes]:
    """Order new files as Dovecot does: seconds, microseconds, then the name."""
    match = _SORT.match(name)
    assert match is not None  # noqa: S101  # it matches the empty name too
    return (
        int(match[1] or 0),
        int(match[2] or 0),
        name[match.end(1) :].partition(b":")[0],
    )


def saved_at(base: bytes, changed_at: int) -> int:
    """Return when a message came into its folder (RFC 8514), in seconds since 1970.

    It is the time that begins the name of whoever put the file there, and we give
    each copy and each message moved a new one: so it is the same in an index that
    is made anew. The file's ctime, which others take, changes with every flag;
    `changed_at` stands in only for a name that begins otherwise.
    """
    found = _SAVED.match(base)
    return int(found[1]) if found else changed_at


class UniqueNames:
    """Makes names that no other process and no other call makes."""

    def __init__(self, host: str, now: Callable[[], float] = time.time) -> None:
        # The escapes are those of the Maildir page.
        host = host.replace("/", "\\057").replace(":", "\\072").replace(",", "\\054")
        # Random, since in a container pid and host may be the same at each start.
        self._tail = f"R{secrets.token_hex(4)}.{host[:64]}"
        self._now = now
        self._counter = itertools.count()  # its next() is atomic

    def next(self) -> bytes:
        """Return a name without sizes; names sort in the order of their making."""
        seconds, microseconds = divmod(int(self._now() * 1_000_000), 1_000_000)
        unique = f"M{microseconds:06}P{os.getpid()}Q{next(self._counter)}{self._tail}"
        return os.fsencode(f"{seconds}.{unique}")


def delivery_mark(delivery_id: str) -> bytes:
    """Return the part of a base name that tells the delivery that made it."""
    # A digest, since it holds an address, of any length and characters.
    digest = hashlib.blake2b(delivery_id.encode(), digest_size=12)
    return b",D=" + digest.hexdigest().encode()


def base_name(
    unique: bytes, file_octets: int, size_octets: int, delivery_id: str | None = None
) -> bytes:
    """Return the base name of a new message; D= tells the delivery that made it."""
    if delivery_id is not None:
        unique += delivery_mark(delivery_id)
    return unique + b",S=%d,W=%d" % (file_octets, size_octets)


class Entry(NamedTuple):
    """A file as the folder shows it."""

    name: bytes
    in_new: bool


@dataclass(frozen=True, slots=True)
class Scan:
    """One look at `cur/` or `new/`; STORE.md's rules of trust stand behind it."""

    mtime_ns: int  # of the folder, before the scan
    final: bool  # nothing can have changed unseen: no second scan is needed
    names: dict[bytes, bytes]  # base name -> file name; each base name once
    doubles: tuple[bytes, ...]  # further names of a base name seen already


def mtime_ns(folder: Path) -> int:
    """Return the time of a folder's last change; FileNotFoundError if it is gone."""
    return os.stat(folder).st_mtime_ns


def scan(folder: Path, now_ns: Callable[[], int] = time.time_ns) -> Scan:
    """List the messages of a folder without a look at the files.

    While another program renames, a scan may miss live files and show one twice:
    a file that is missing is expunged only if it is missing from a second scan
    under the uidlist lock, with the folder's mtime unchanged by it.
    """
    started_ns = now_ns()
    before_ns = mtime_ns(folder)
    names: dict[bytes, bytes] = {}
    doubles: list[bytes] = []
    with os.scandir(os.fsencode(folder)) as entries:
        for entry in entries:
            name = entry.name
            base = name.partition(b":")[0]
            # No uidlist line could hold these.
            if not base or b"\n" in base:
                continue
            # A link is no message: it could lead to a file of somebody else.
            if name.startswith(b".") or not entry.is_file(follow_symlinks=False):
                continue
            if base in names:
                doubles.append(name)
            else:
                names[base] = name
    settled = before_ns + _SETTLED_NS < started_ns
    final = settled and mtime_ns(folder) == before_ns
    return Scan(before_ns, final, names, tuple(doubles))


def path_of(directory: Path, entry: Entry) -> bytes:
    """Return the path of a message's file."""
    subdirectory = b"new" if entry.in_new else b"cur"
    return b"/".join((_octets(directory), subdirectory, entry.name))


@lru_cache(1024)
def _octets(directory: Path) -> bytes:
    return os.fsencode(directory)


def open_file(path: bytes) -> tuple[int, os.stat_result]:
    """Open a message's file for reading; return its descriptor and status.

    Raises FileNotFoundError, which means: scan again; the file may have another
    name. Raises MessageGone for what is no regular file (never followed, never
    waited for).
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | NO_FOLLOW)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        if os.path.islink(path):
            raise MessageGone("the message's file is a link") from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise MessageGone("the message's file is no regular file")
    return fd, status


def rename(directory: Path, old: Entry, new: Entry, disk: Disk = DISK) -> bool:
    """Rename a message's file; False if it has another name by now: scan again.

    Nothing is synced: the caller does that once for all its renames.
    """
    try:
        disk.rename(path_of(directory, old), path_of(directory, new))
    except FileNotFoundError:
        return False
    return True


def part_doubles(directory: Path, kept: Entry, double: Entry, new_base: bytes) -> bool:
    """Settle two files of one base name, as a final scan has shown them.

    Two links to one file become one; two different files are two messages, of
    which the second gets `new_base`. False if one of them is gone: scan again.
    """
    first, second = path_of(directory, kept), path_of(directory, double)
    try:
        if os.path.samestat(os.lstat(first), os.lstat(second)):
            os.unlink(second)
        else:
            _, colon, info = double.name.partition(b":")
            new_name = new_base + colon + info  # new/ can hold flags as well
            os.rename(second, path_of(directory, Entry(new_name, double.in_new)))
    except FileNotFoundError:
        return False
    return True


def create(directory: Path, disk: Disk = DISK) -> None:
    """Make a folder a Maildir, durably; what is there already is kept."""
    for name in SUBDIRECTORIES:
        make_folders(directory / name, disk)


def is_maildir(directory: Path) -> bool:
    """Return whether a folder holds messages (Dovecot: it has a `cur`)."""
    return (directory / "cur").is_dir()
