"""Writing messages into Maildirs: durable when it returns, or not there at all.

A message is written once to `tmp/` of its first target, synced, linked to the other
targets and renamed into `new/` (or `cur/` if it has flags); then each folder is
synced, once for all messages of a batch. No UID is given here and no lock is taken:
a target's keywords, which need one, are set with the UID. What is called content has
LF line ends, as it shall stand in the file.
"""

import errno
import os
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

from mailsrv.store import maildir, names
from mailsrv.store.durable import DISK, Disk, sync_folder
from mailsrv.store.values import (
    Delivered,
    DeliveryFailed,
    FailureKind,
    NoSuchMailbox,
    PartlyDelivered,
    StoreError,
    Target,
)

TMP_LIFE_S = 36 * 3600  # cr.yp.to/proto/maildir.html
SPACE_CHECK_S = 1.0
COPY_OCTETS = 1 << 22
MAX_BATCH = 64  # so many files of a batch are open at once
_KINDS: dict[int | None, FailureKind] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
}


def failure(error: OSError) -> DeliveryFailed:
    """Return what a system call's error means to the one who sent the message."""
    return DeliveryFailed(_KINDS.get(error.errno, "io"))


def _store_error(error: OSError | StoreError) -> StoreError:
    if isinstance(error, StoreError):
        return error
    failed = failure(error)
    failed.__cause__ = error
    return failed


class LineCounter:
    """Counts octets, and those that CRLF line ends add when they are served."""

    __slots__ = ("_last", "added", "octets")

    def __init__(self) -> None:
        self.octets = 0
        self.added = 0
        self._last = b""

    def feed(self, data: bytes) -> None:
        if not data:
            return
        self.octets += len(data)
        # To take out an octet is four times as fast as to count it.
        self.added += len(data) - len(data.replace(b"\n", b""))
        if b"\r" in data:
            self.added -= data.count(b"\r\n")
        if self._last == b"\r" and data[:1] == b"\n":
            self.added -= 1
        self._last = data[-1:]


class StagedFile:
    """A message in `tmp/` that has no name yet for readers. Made by `Delivery.stage`.

    Any method may raise DeliveryFailed, and then the file is gone.
    """

    def __init__(self, path: bytes, fd: int, home: Target, disk: Disk) -> None:
        self.home = home  # in whose `tmp/` it is
        self._path = path
        self._fd = fd
        self._disk = disk
        self._count = LineCounter()

    @property
    def path(self) -> bytes:
        return self._path

    @property
    def file_octets(self) -> int:
        return self._count.octets

    @property
    def size_octets(self) -> int:
        """The size as served."""
        return self._count.octets + self._count.added

    def write(self, pieces: Sequence[bytes]) -> None:
        """Add content at the end."""
        try:
            self._disk.write(self._fd, pieces)
        except OSError as error:
            self.discard()
            raise failure(error) from error
        for piece in pieces:
            self._count.feed(piece)

    def duplicate(self) -> int:
        """Return a further descriptor of the file, to read from."""
        try:
            return os.dup(self._fd)
        except OSError as error:
            self.discard()
            raise failure(error) from error

    def replace_head(self, old_octets: int, head: bytes) -> None:
        """Put `head` in the place of the first `old_octets`, in a new file.

        Both must end with a line end. For headers that need the whole content: the
        rest is copied by the kernel, and shares its blocks where that can be.
        """
        path = self._path + b".h"
        try:
            fd = self._disk.create(path)
            try:
                old_head = os.pread(self._fd, old_octets, 0)
                self._disk.write(fd, [head])
                os.lseek(self._fd, old_octets, os.SEEK_SET)
                while _copy(self._disk, self._fd, fd):
                    pass
            except OSError:
                _unlink(path)
                os.close(fd)
                raise
        except OSError as error:
            self.discard()
            raise failure(error) from error
        self._take_over(path, fd, old_head, head)

    def _take_over(self, path: bytes, fd: int, old_head: bytes, head: bytes) -> None:
        _unlink(self._path)
        os.close(self._fd)
        self._path, self._fd = path, fd
        was, becomes = LineCounter(), LineCounter()
        was.feed(old_head)
        becomes.feed(head)
        self._count.octets += becomes.octets - was.octets
        self._count.added += becomes.added - was.added

    def sync(self, internal_date: float) -> None:
        """Set the mtime and make the content durable; OSError if it cannot be."""
        os.utime(self._fd, (internal_date, internal_date))
        self._disk.fsync(self._fd)

    def close(self) -> None:
        """Close the file; what it became stays. May be called again."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def discard(self) -> None:
        """Remove the file, if it is still in `tmp/`, and close it."""
        _unlink(self._path)
        self.close()


@dataclass(frozen=True, slots=True)
class Letter:
    """A message to be delivered: its content, and at least one target."""

    content: Sequence[bytes] | StagedFile
    targets: Sequence[Target]
    apart: bool = False  # a copy that fails does not take the others back


Outcome = list[Delivered] | StoreError
"""What became of a letter: a copy for each target in order, or none at all.

Of a letter whose copies stand apart it may be `PartlyDelivered`.
"""


@dataclass(slots=True)
class _Job:
    """A letter on its way through the steps of a batch."""

    letter: Letter
    internal_date: float  # of all copies: links share their mtime
    staged: StagedFile | None = None
    copies: dict[Target, Delivered] = field(default_factory=dict)
    failed: dict[Target, StoreError] = field(default_factory=dict)
    error: StoreError | None = None  # of the whole letter

    def fail(self, target: Target, error: OSError | StoreError) -> None:
        """Note what keeps a copy from its target; raise if no copy may go alone."""
        if not self.letter.apart:
            raise error
        self.copies.pop(target, None)
        self.failed[target] = _store_error(error)
        if len(self.failed) == len(self.letter.targets):
            raise self.failed[target]

    @property
    def outcome(self) -> Outcome:
        copies = [self.copies[t] for t in self.letter.targets if t in self.copies]
        if self.error is None and self.failed:
            return PartlyDelivered(copies, self.failed)
        return self.error or copies


class Delivery:
    """Delivers into the Maildirs below `mail_root`. Any thread may call it.

    `reserve_octets`: with less free space nothing is accepted any more.
    """

    def __init__(
        self,
        mail_root: Path,
        *,
        host: str,
        reserve_octets: int = 0,
        now: Callable[[], float] = time.time,
        disk: Disk = DISK,
    ) -> None:
        self._mail_root = mail_root
        self._names = maildir.UniqueNames(host, now)
        self._now = now
        self._disk = disk
        self._reserve_octets = reserve_octets
        self._checked_at = float("-inf")
        self._short_of_space = False

    def maildir_of(self, folder: str) -> Path:
        """Return the root of an account's Maildir++, its INBOX."""
        return Path(os.fsdecode(_directory(str(self._mail_root), folder, "")))

    def directory_of(self, target: Target) -> Path:
        """Return the folder of a target; raise InvalidName."""
        return Path(os.fsdecode(self._octets_of(target)))

    def stage(self, *targets: Target) -> StagedFile:
        """Open a new file in the `tmp/` of the first target where that can be done.

        Raises DeliveryFailed, or NoSuchMailbox; only an INBOX is made if missing.
        """
        self._check_space()
        for target in targets:
            try:
                return self._create(target)
            except (OSError, StoreError) as error:
                if target is targets[-1]:
                    raise _store_error(error) from error
        raise AssertionError("a letter has targets")

    def deliver(self, letters: Sequence[Letter]) -> list[Outcome]:
        """Deliver a batch; return the outcome of each letter in order.

        An outcome that is no list is DeliveryFailed, NoSuchMailbox or InvalidName,
        and nothing of that letter is left behind. A letter's staged file is gone on
        return, whatever the outcome.
        """
        outcomes: list[Outcome] = []
        for first in range(0, len(letters), MAX_BATCH):
            outcomes += self._deliver(letters[first : first + MAX_BATCH])
        return outcomes

    def _deliver(self, letters: Sequence[Letter]) -> list[Outcome]:
        now = self._now()
        jobs = [_Job(letter, _internal_date(letter, now)) for letter in letters]
        # Step by step for all: the first fsync of a step brings along what the
        # others wait for (one commit of the file system's journal).
        for step in (self._write, self._sync, self._publish):
            for job in jobs:
                if job.error is None:
                    self._try(step, job)
        self._sync_folders([job for job in jobs if job.error is None])
        for job in jobs:
            if job.error is None and job.staged is not None:
                job.staged.close()
        return [job.outcome for job in jobs]

    def undo(self, delivered: Iterable[Delivered]) -> None:
        """Take copies back where that can still be done; nothing is raised.

        A copy that a client has been shown already may be gone from its view.
        """
        for copy in delivered:
            directory = self.directory_of(copy.target)
            if not _unlink(self._path(copy)):
                with suppress(OSError):
                    found = maildir.scan(directory / "cur").names.get(copy.base)
                    if found is not None:
                        _unlink(maildir.path_of(directory, maildir.Entry(found, False)))

    def clean(self) -> Generator[None, None, int]:
        """Run `clean_tmp` on each folder of each account, one a step."""
        removed = 0
        for account in sorted(os.listdir(self._mail_root)):
            root = self.maildir_of(account)
            if root.is_dir():
                for name in names.mailboxes(root):
                    removed += self.clean_tmp(names.directory(root, name))
                    yield
        return removed

    def clean_tmp(self, directory: Path) -> int:
        """Remove what crashed writers left in `tmp/` long ago; return how many."""
        removed = 0
        with suppress(FileNotFoundError), os.scandir(directory / "tmp") as entries:
            for entry in entries:
                with suppress(OSError):
                    changed_at = entry.stat(follow_symlinks=False).st_mtime
                    if changed_at < self._now() - TMP_LIFE_S:
                        os.unlink(entry.path)
                        removed += 1
        return removed

    def _try(self, step: Callable[[_Job], None], job: _Job) -> None:
        """Run a step; after an error nothing of the letter is left."""
        try:
            step(job)
        except (OSError, StoreError) as error:
            job.error = _store_error(error)
            self._take_back(job)

    def _take_back(self, job: _Job) -> None:
        self.undo(job.copies.values())
        job.copies.clear()
        if job.staged is not None:
            job.staged.discard()

    def _write(self, job: _Job) -> None:
        content = job.letter.content
        if isinstance(content, StagedFile):
            job.staged = content
            return
        targets = job.letter.targets
        job.staged = self.stage(*(targets if job.letter.apart else targets[:1]))
        job.staged.write(content)

    def _sync(self, job: _Job) -> None:
        assert job.staged is not None  # noqa: S101  # made by _write
        job.staged.sync(job.internal_date)

    def _publish(self, job: _Job) -> None:
        """Name the file in every target; last where it is, by a rename.

        Where it is may be no target any more: mail is redirected when all is read.
        """
        staged = job.staged
        assert staged is not None  # noqa: S101  # made by _write
        for target in sorted(job.letter.targets, key=lambda t: t is staged.home):
            place = self._rename if target is staged.home else self._link
            copy = self._copy_for(target, job, staged)
            try:
                place(staged, copy)
                job.copies[target] = copy
            except (OSError, StoreError) as error:
                job.fail(target, error)
        if staged.home not in job.copies:
            staged.discard()

    def _copy_for(self, target: Target, job: _Job, staged: StagedFile) -> Delivered:
        """Choose the name of a copy."""
        base = maildir.base_name(
            self._names.next(),
            staged.file_octets,
            staged.size_octets,
            target.delivery_id,
        )
        name = maildir.MaildirName(base, maildir.to_letters(target.flags))
        return Delivered(
            target,
            base,
            name.format(info=bool(target.flags)),
            not target.flags,
            staged.file_octets,
            staged.size_octets,
            int(job.internal_date),
            target.flags,
        )

    def _rename(self, staged: StagedFile, copy: Delivered) -> None:
        self._disk.rename(staged.path, self._path(copy))

    def _link(self, staged: StagedFile, copy: Delivered) -> None:
        path = self._path(copy)
        try:
            self._disk.link(staged.path, path)
        except FileNotFoundError:
            self._make(copy.target)
            self._disk.link(staged.path, path)
        except OSError as error:
            # Another file system, too many links, or one that has no links.
            if error.errno not in (errno.EXDEV, errno.EMLINK, errno.EPERM):
                raise
            self._copy_file(staged, copy)

    def _copy_file(self, staged: StagedFile, copy: Delivered) -> None:
        own = self._create(copy.target)
        try:
            with open(staged.path, "rb") as source:
                while data := source.read(COPY_OCTETS):
                    own.write([data])
            own.sync(copy.internal_date)
            self._disk.rename(own.path, self._path(copy))
        except OSError:
            own.discard()
            raise
        own.close()

    def _path(self, copy: Delivered) -> bytes:
        subdirectory = b"new" if copy.in_new else b"cur"
        return b"/".join((self._octets_of(copy.target), subdirectory, copy.name))

    def _octets_of(self, target: Target) -> bytes:
        coded, plain = names.spellings(target.mailbox)
        if coded == plain:
            return _directory(str(self._mail_root), target.folder, coded)
        # Which of the two it is may change.
        root = self.maildir_of(target.folder)
        return os.fsencode(names.directory(root, target.mailbox))

    def _sync_folders(self, jobs: Sequence[_Job]) -> None:
        """Sync each folder once; take back what is in one that cannot be."""
        folders: dict[bytes, list[tuple[_Job, Delivered]]] = {}
        for job in jobs:
            for copy in job.copies.values():
                path = os.path.dirname(self._path(copy))
                folders.setdefault(path, []).append((job, copy))
        for path, concerned in folders.items():
            try:
                sync_folder(path, self._disk)
            except OSError as error:
                for job, copy in concerned:
                    if job.error is None:
                        self._try(partial(self._unsynced, copy=copy, error=error), job)

    def _unsynced(self, job: _Job, copy: Delivered, error: OSError) -> None:
        if job.letter.apart:
            self.undo([copy])
        job.fail(copy.target, error)

    def _create(self, target: Target) -> StagedFile:
        path = b"/".join((self._octets_of(target), b"tmp", self._names.next()))
        try:
            fd = self._disk.create(path)
        except FileNotFoundError:
            self._make(target)
            fd = self._disk.create(path)
        return StagedFile(path, fd, target, self._disk)

    def _make(self, target: Target) -> None:
        """Create what is missing of a folder; a mailbox itself only if INBOX."""
        directory = self.directory_of(target)
        if directory != self.maildir_of(target.folder) and not directory.is_dir():
            raise NoSuchMailbox(target.mailbox)
        maildir.create(directory, self._disk)

    def _check_space(self) -> None:
        if not self._reserve_octets:
            return
        now = time.monotonic()
        if now - self._checked_at >= SPACE_CHECK_S:
            self._checked_at = now
            free_octets = self._disk.free_octets(self._mail_root)
            self._short_of_space = free_octets < self._reserve_octets
        if self._short_of_space:
            raise DeliveryFailed("full")


def _internal_date(letter: Letter, now: float) -> float:
    date = letter.targets[0].internal_date
    return now if date is None else date


@lru_cache(4096)
def _directory(mail_root: str, folder: str, coded: str) -> bytes:
    return os.fsencode(Path(mail_root, folder, "Maildir", coded))


def _copy(disk: Disk, source_fd: int, target_fd: int) -> int:
    """Copy the next stretch; 0 at the end."""
    try:
        return disk.copy(source_fd, target_fd, COPY_OCTETS)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise
    data = os.read(source_fd, COPY_OCTETS)
    disk.write(target_fd, [data])
    return len(data)


def _unlink(path: bytes) -> bool:
    """Remove a file if that can be done; return whether it could."""
    with suppress(OSError):
        os.unlink(path)
        return True
    return False
