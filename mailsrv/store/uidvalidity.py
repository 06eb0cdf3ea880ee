"""The next UIDVALIDITY of an account, as Dovecot counts it.

The root holds an empty file ``dovecot-uidvalidity.XXXXXXXX`` whose name is the last
value, and ``dovecot-uidvalidity`` with the same eight hexadecimal digits. To take
the next value is to rename the first: of two who try, one fails and tries again.
Ours also take turns: one who saw no counter yet would else make the first value
once more when others have gone past it.
"""

import fcntl
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from mailsrv.store.durable import DISK, FILE_MODE, NO_FOLLOW, Disk, read, sync_folder

NAME = "dovecot-uidvalidity"
_COUNTER = re.compile(rf"{NAME}\.([0-9a-f]{{8}})")
_HINT = re.compile(rb"[0-9a-f]{8}")
_ATTEMPTS = 100


def next_uid_validity(
    root: Path, now: Callable[[], float], *, above: int = 0, disk: Disk = DISK
) -> int:
    """Take a value that no mailbox of this account has had, and is over `above`.

    It is durable on return. The clock counts only where no counter is there yet.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        for _ in range(_ATTEMPTS):
            try:
                value = _advance(root, now, above, disk)
            except (FileNotFoundError, FileExistsError):
                continue  # Dovecot was faster
            _write_hint(root / NAME, value, disk)
            return value
    finally:
        os.close(folder)
    raise OSError("cannot take a UIDVALIDITY")


def counters(root: Path) -> list[int]:
    """Return the values that the files of an account's root hold, ascending: one."""
    return sorted(
        int(match[1], 16)
        for name in os.listdir(root)
        if (match := _COUNTER.fullmatch(name))
    )


def _advance(root: Path, now: Callable[[], float], above: int, disk: Disk) -> int:
    found = counters(root)
    for older in found[:-1]:
        with suppress(FileNotFoundError):
            os.unlink(_path(root, older))
    if found:
        value = max(found[-1], above) + 1
        disk.rename(_path(root, found[-1]), _path(root, value))
    else:
        # Not gone, perhaps: a scan can miss a file that Dovecot renames just then.
        value = max(int(now()), above + 1, _read_hint(root / NAME) + 1)
        os.close(disk.create(_path(root, value)))
    sync_folder(root, disk)
    return value


def _read_hint(path: Path) -> int:
    match = _HINT.match(read(path, 4096))
    return int(match[0], 16) if match else 0


def _write_hint(path: Path, value: int, disk: Disk) -> None:
    """Tell Dovecot where to look first; a wrong hint costs it a look at the folder."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | NO_FOLLOW, FILE_MODE)
    try:
        disk.write(fd, [b"%08x" % value])
    finally:
        os.close(fd)


def _path(root: Path, value: int) -> Path:
    return root / f"{NAME}.{value:08x}"
