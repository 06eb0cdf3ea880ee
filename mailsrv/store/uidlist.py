"""`dovecot-uidlist`, version 3: which file of a folder has which UID.

A header ``3 V<uid_validity> N<uid_next> G<mailbox id>`` and a line
``<uid> [<fields>] :<base name>`` for each message, by ascending UID. The fields that
mean something: P (the POP3 UIDL), O (the order in POP3), G (the message's id).

No records are held here: a `Mark` says how far the file has been read, and the
index, which keeps them, is given what is new. Writing needs the lock::

    with uidlist.lock:
        news = uidlist.refresh()
        uids = uidlist.append([(base, b"")])

Whether a file is the one of a mark is told by its content, not by its status: ext4
gives the number of an old file to the second new one after it, and then size and
time can be the old ones too. A rewrite sets N to the next UID, so under an equal
header the lines of the mark are there unchanged, or are fewer; then its last line
is not where it was, since lines that were appended have higher UIDs.
"""

import os
import re
import secrets
import time
from collections.abc import Callable, Collection, Container, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from mailsrv.store.durable import DISK, NO_FOLLOW, Disk, replace
from mailsrv.store.locks import UIDLIST, UidlistLock
from mailsrv.store.uidvalidity import next_uid_validity
from mailsrv.store.values import MAX_UID, UID, StoreError

MAX_HEADER_OCTETS = 4096
# A UID this far above the next one was not given out: the line is broken.
MAX_GAP = 2**20
# What is compared before the mark: the last line, which has a file name and UIDL at
# most, and some more.
_TAIL_OCTETS = 1024
_FEW = 16  # base names to look for
_RECORD = re.compile(rb"(\d{1,10}) +((?:[A-Z][^ ]* +)*):([^:/]+)(?::[^/]*)?")
_RECORD_V1 = re.compile(rb"(\d{1,10}) +()([^:/]+)(?::[^/]*)?")
_MAILBOX_ID = re.compile(r"[0-9a-f]{32}")


class Record(NamedTuple):
    """One message: its line in the list."""

    uid: UID
    base: bytes
    fields: bytes = b""  # as they stand, separated by spaces

    def field(self, key: bytes) -> bytes | None:
        """Return the value of the field `key`, one capital letter; None: absent."""
        for field in self.fields.split():
            if field[:1] == key:
                return field[1:]
        return None


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a reader has read; flat, so that the index can keep it."""

    inode: int
    octets: int  # up to here, all whole lines
    digest: bytes  # of the header line and the octets before `octets`
    uid_validity: int
    uid_next: int
    last_uid: int
    mailbox_id: str  # 32 hexadecimal digits; "": an old list, that has none yet
    broken: bool = False  # the next `append`, even of nothing, writes the file anew


@dataclass(frozen=True, slots=True)
class Reading:
    """What `refresh` found: all records if `whole`, else those that are new."""

    whole: bool
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class _Header:
    version: int
    uid_validity: int
    uid_next: int
    mailbox_id: str
    extensions: bytes  # of others, kept


class Uidlist:
    """The list of one folder. `root` holds the account's UIDVALIDITY counter.

    `mark` is None before the first `refresh` and while there is no usable list.
    """

    def __init__(
        self,
        directory: Path,
        root: Path,
        mark: Mark | None = None,
        *,
        disk: Disk = DISK,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.lock = UidlistLock(directory, disk)
        self.mark = mark
        self._path = directory / UIDLIST
        self._root = root
        self._disk = disk
        self._now = now

    def refresh(self) -> Reading:
        """Read what came since the mark, or all if the file is another one.

        Under the lock what stands behind the last line end is a torn write, and
        the next write will be of the whole file; without it, it may be growing.
        """
        try:
            fd = os.open(self._path, os.O_RDONLY | NO_FOLLOW)
        except FileNotFoundError:
            self.mark = None
            return Reading(True, ())
        with open(fd, "rb") as file:
            return self._read(fd, file.read)

    def in_step(self) -> bool:
        """Return whether the file is as the mark has it: nothing to read or mend."""
        mark = self.mark
        if mark is None or mark.broken:
            return False
        try:
            fd = os.open(self._path, os.O_RDONLY | NO_FOLLOW)
        except FileNotFoundError:
            return False
        try:
            status = os.fstat(fd)
            return status.st_size == mark.octets and _continues(mark, status, fd)
        finally:
            os.close(fd)

    def append(
        self, entries: Sequence[tuple[bytes, bytes]], *, floor: int = 0
    ) -> list[UID]:
        """Give UIDs to (base name, fields) in this order; durable on return.

        Only under the lock and after a `refresh` under it. `floor` is the index's
        UIDNEXT: no UID below it is given out, whatever became of the file. On
        OSError nothing was given out.
        """
        self._check_current()
        mark = self.mark
        first = max(floor, mark.uid_next if mark else 1)
        if first + len(entries) > MAX_UID:
            raise StoreError("the mailbox has no UIDs left")
        new = [
            Record(UID(first + n), base, fields)
            for n, (base, fields) in enumerate(entries)
        ]
        if mark is None:
            self.write(new, uid_next=first + len(new))
        elif mark.broken:
            self._rewrite(lambda record: True, new, first + len(new))
        elif new:
            self._append(mark, new)
        return [record.uid for record in new]

    def drop(self, uids: Container[int], *, floor: int = 0) -> None:
        """Write the list anew without `uids`, under the lock, after a `refresh`."""
        self._check_current()
        if self.mark is not None:
            uid_next = max(floor, self.mark.uid_next)
            self._rewrite(lambda record: record.uid not in uids, [], uid_next)

    def uids_of(self, bases: Collection[bytes]) -> set[int]:
        """Return what UIDs the list gives to these base names; it is read whole."""
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return set()
        # A search for each of a few is quicker than to take the lines apart.
        if len(bases) <= _FEW and not any(b":%b\n" % b in content for b in bases):
            return set()
        lines = (line.rpartition(b":") for line in content.split(b"\n"))
        return {
            int(fields.split()[0])
            for fields, _, base in lines
            if base in bases and fields[:1].isdigit()
        }

    def write(
        self,
        records: Sequence[Record],
        *,
        uid_next: int = 1,
        uid_validity: int | None = None,
        mailbox_id: str | None = None,
    ) -> None:
        """Make the list whole from `records` (ascending), under the lock.

        For a folder that has none: the index gives what it remembers; without a
        `uid_validity` the account's next one is taken. The id is made if None.
        """
        if uid_validity is None:
            above = self.mark.uid_validity if self.mark else 0
            uid_validity = next_uid_validity(
                self._root, self._now, above=above, disk=self._disk
            )
        if mailbox_id is None or not _MAILBOX_ID.fullmatch(mailbox_id):
            mailbox_id = secrets.token_hex(16)
        self._write(_Header(3, uid_validity, uid_next, mailbox_id, b""), records)

    def _read(self, fd: int, read: Callable[[], bytes]) -> Reading:
        status = os.fstat(fd)
        mark = self.mark
        first_line, newline, _ = os.pread(fd, MAX_HEADER_OCTETS, 0).partition(b"\n")
        header = _parse_header(first_line) if newline else None
        if header is None:
            self.mark = None
            return Reading(True, ())
        whole = not (mark and _continues(mark, status, fd))
        if whole:
            mark = _start(header, status.st_ino, len(first_line) + 1)
        assert mark is not None  # noqa: S101  # mypy: else `whole` is True
        os.lseek(fd, mark.octets, os.SEEK_SET)
        lines = read().split(b"\n")
        torn = lines.pop()
        records, broken = _parse_records(
            lines, mark.last_uid, max(header.uid_next, mark.uid_next), header.version
        )
        last_uid = records[-1].uid if records else mark.last_uid
        octets = mark.octets + sum(map(len, lines)) + len(lines)
        self.mark = changed(
            mark,
            octets=octets,
            digest=_digest_of(fd, octets),
            uid_next=max(mark.uid_next, header.uid_next, last_uid + 1),
            last_uid=last_uid,
            broken=mark.broken or broken or (bool(torn) and self.lock.held),
        )
        return Reading(whole, records)

    def _check_current(self) -> None:
        if not self.lock.held:
            raise RuntimeError("the uidlist is written under its lock")
        if self.mark and not self.mark.broken and not self.in_step():
            raise RuntimeError("the uidlist is written after a refresh")

    def _append(self, mark: Mark, new: Sequence[Record]) -> None:
        fd = os.open(self._path, os.O_RDWR | os.O_APPEND | NO_FOLLOW)
        lines = _lines(new)
        octets = mark.octets + len(lines)
        try:
            self._disk.write(fd, [lines])
            self._disk.fdatasync(fd)
            digest = _digest_of(fd, octets)
        except OSError:
            # What a failed fsync leaves is unknown: take the lines back, and let
            # the next write be of a whole new file.
            self.mark = changed(mark, broken=True)
            os.ftruncate(fd, mark.octets)
            raise
        finally:
            os.close(fd)
        self.mark = changed(
            mark,
            octets=octets,
            digest=digest,
            uid_next=new[-1].uid + 1,
            last_uid=new[-1].uid,
        )

    def _rewrite(
        self, keep: Callable[[Record], bool], new: Sequence[Record], uid_next: int
    ) -> None:
        content = self._path.read_bytes()
        first_line, _, rest = content.partition(b"\n")
        header = _parse_header(first_line)
        if header is None:
            raise RuntimeError("the uidlist is written after a refresh")
        lines = rest.split(b"\n")[:-1]  # a torn line was never read by anybody
        old, _ = _parse_records(lines, 0, header.uid_next, header.version)
        kept = [record for record in old if keep(record)]
        mailbox_id = header.mailbox_id or secrets.token_hex(16)
        header = changed(header, uid_next=uid_next, mailbox_id=mailbox_id)
        self._write(header, [*kept, *new])

    def _write(self, header: _Header, records: Sequence[Record]) -> None:
        fields = f"V{header.uid_validity} N{header.uid_next} G{header.mailbox_id}"
        first_line = b" ".join(filter(None, (fields.encode(), header.extensions)))
        first_line = b"3 " + first_line
        content = first_line + b"\n" + _lines(records)
        status = replace(self._path, content, self._disk)
        self.mark = Mark(
            status.st_ino,
            len(content),
            _digest(first_line, content[-_TAIL_OCTETS:]),
            header.uid_validity,
            header.uid_next,
            records[-1].uid if records else 0,
            header.mailbox_id,
        )


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a list says, and what is wrong with it, in plain words."""

    uid_validity: int  # 0: there is no list that could be read
    uid_next: int
    bases: frozenset[bytes]
    problems: tuple[str, ...]


def inspect(content: bytes) -> Inspection:
    """Judge the content of a list as Dovecot would; for reports."""
    first_line, newline, rest = content.partition(b"\n")
    header = _parse_header(first_line) if newline else None
    if header is None:
        problems = ("has no header that could be read",) if content else ()
        return Inspection(0, 1, frozenset(), problems)
    lines = rest.split(b"\n")[:-1]  # what follows is being written just now
    records, broken = _parse_records(lines, 0, header.uid_next, header.version)
    last_uid = max((record.uid for record in records), default=0)
    return Inspection(
        header.uid_validity,
        max(header.uid_next, last_uid + 1),
        frozenset(record.base for record in records),
        ("has broken lines: their messages get new UIDs",) if broken else (),
    )


def _continues(mark: Mark, status: os.stat_result, fd: int) -> bool:
    """Return whether the file is the one of the mark, and has only grown."""
    return (
        status.st_ino == mark.inode
        and status.st_size >= mark.octets
        and _digest_of(fd, mark.octets) == mark.digest
    )


def _digest_of(fd: int, octets: int) -> bytes:
    first_line, _, _ = os.pread(fd, MAX_HEADER_OCTETS, 0).partition(b"\n")
    start = max(0, octets - _TAIL_OCTETS)
    return _digest(first_line, os.pread(fd, octets - start, start))


def _digest(first_line: bytes, tail: bytes) -> bytes:
    return blake2b(first_line + b"\n" + tail, digest_size=16).digest()


def _start(header: _Header, inode: int, octets: int) -> Mark:
    return Mark(
        inode,
        octets,
        b"",  # until its end is known
        header.uid_validity,
        header.uid_next,
        0,
        header.mailbox_id,
        # Version 1 has no fields, and a list without G gets its id now.
        broken=header.version != 3 or not header.mailbox_id,
    )


def _parse_header(line: bytes) -> _Header | None:
    version, _, rest = line.partition(b" ")
    values = rest.split()
    try:
        if version == b"1":
            uid_validity, uid_next = map(int, values)
            header = _Header(1, uid_validity, uid_next, "", b"")
        elif version == b"3":
            header = _parse_header_fields(values)
        else:
            return None
    except ValueError:
        return None
    valid = 0 < header.uid_validity < 2**32 and 0 < header.uid_next < 2**32
    return header if valid else None


def _parse_header_fields(values: Sequence[bytes]) -> _Header:
    uid_validity = uid_next = 0
    mailbox_id = ""
    extensions = []
    for value in values:
        match value[:1]:
            case b"V":
                uid_validity = int(value[1:])
            case b"N":
                uid_next = int(value[1:])
            case b"G":
                mailbox_id = value[1:].decode("ascii").lower()
            case _:
                extensions.append(value)
    if mailbox_id and not _MAILBOX_ID.fullmatch(mailbox_id):
        mailbox_id = ""
    return _Header(3, uid_validity, uid_next, mailbox_id, b" ".join(extensions))


def _parse_records(
    lines: Sequence[bytes], last_uid: int, uid_next: int, version: int
) -> tuple[list[Record], bool]:
    """Return the good records, and whether a line was broken.

    A broken line is left out: its file gets a new UID. Of two lines for a file the
    later one holds, as Dovecot has it.
    """
    pattern = _RECORD if version == 3 else _RECORD_V1
    records: dict[bytes, Record] = {}
    broken = False
    for line in lines:
        match = pattern.fullmatch(line)
        uid = int(match[1]) if match else 0
        if match is None or not last_uid < uid < max(uid_next, last_uid) + MAX_GAP:
            broken = True
            continue
        last_uid = uid
        base = match[3]
        if base in records:
            del records[base]
            broken = True
        records[base] = Record(UID(uid), base, match[2].rstrip())
    return list(records.values()), broken


def _lines(records: Sequence[Record]) -> bytes:
    return b"".join(
        b"%d %s:%s\n"
        % (record.uid, record.fields + b" " if record.fields else b"", record.base)
        for record in records
    )
