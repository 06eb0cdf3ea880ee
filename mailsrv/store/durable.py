"""Every system call of the store that makes something durable passes through here.

Tests hand over a `Disk` of their own that fails where they want it to.
"""

import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_SECRET_OCTETS = 32
NO_FOLLOW = os.O_NOFOLLOW | os.O_CLOEXEC
AnyPath = str | bytes | Path


class Disk:
    """The file system, as far as writing to it goes. No state."""

    def create(self, path: AnyPath) -> int:
        """Open a new file for writing; it must not exist, not even as a link."""
        flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | NO_FOLLOW
        return os.open(path, flags, FILE_MODE)

    def write(self, fd: int, pieces: Sequence[bytes]) -> None:
        """Write all of `pieces` in order."""
        left = sum(map(len, pieces)) - os.writev(fd, pieces[:_MAX_PIECES])
        if left:  # a signal, a full disk (the next call tells) or many pieces
            rest = memoryview(b"".join(pieces))[-left:]
            while rest:
                rest = rest[os.write(fd, rest) :]

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fdatasync(self, fd: int) -> None:
        os.fdatasync(fd)

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        os.rename(source, target)

    def link(self, source: AnyPath, target: AnyPath) -> None:
        os.link(source, target, follow_symlinks=False)

    def copy(self, source_fd: int, target_fd: int, octets: int) -> int:
        """Copy from one file's position to the other's; 0 at the end."""
        return os.copy_file_range(source_fd, target_fd, octets)

    def free_octets(self, path: AnyPath) -> int:
        """Return the space that is left to us on a file system."""
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize


DISK = Disk()
_MAX_PIECES = 512  # IOV_MAX is 1,024 on Linux


def sync_folder(path: AnyPath, disk: Disk = DISK) -> None:
    """Make the names in a folder durable: what was created, renamed, removed."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        disk.fsync(fd)
    finally:
        os.close(fd)


def make_folders(path: Path, disk: Disk = DISK) -> None:
    """Create a folder and those above it that are missing, durably."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        with suppress(FileExistsError):  # another process was as fast
            os.mkdir(folder, FOLDER_MODE)
        sync_folder(folder.parent, disk)


def replace(path: Path, content: bytes, disk: Disk = DISK) -> os.stat_result:
    """Write a small file whole: after a crash it has the old content or the new.

    The caller holds the lock under which this file is written: the name of the
    temporary file is fixed, so that what a crash leaves is overwritten. Returns
    the status of the new file.
    """
    temporary = path.with_name(path.name + ".tmp")
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    fd = disk.create(temporary)
    try:
        try:
            disk.write(fd, [content])
            disk.fdatasync(fd)
            status = os.fstat(fd)
        finally:
            os.close(fd)
        disk.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent, disk)
    return status


def read(path: Path, limit_octets: int) -> bytes:
    """Read a small file; b"" if there is none. More than the limit is an OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | NO_FOLLOW)
    except FileNotFoundError:
        return b""
    with open(fd, "rb") as file:
        content = file.read(limit_octets + 1)
    if len(content) > limit_octets:
        raise OSError(f"{path.name} is larger than {limit_octets} octets")
    return content


def secret(path: Path, disk: Disk = DISK) -> bytes:
    """Read a secret key; it is made at the first time, for the server's user alone."""
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        with suppress(FileNotFoundError):  # of a crash
            draft.unlink()
        fd = disk.create(draft)
        try:
            disk.write(fd, [secrets.token_bytes(_SECRET_OCTETS)])
            disk.fsync(fd)
        finally:
            os.close(fd)
        with suppress(FileExistsError):  # another process was as fast
            disk.link(draft, path)
        draft.unlink()
        sync_folder(path.parent, disk)
    return path.read_bytes()
