"""The drop folder: messages that programs leave while the server is down.

Everybody may put files there and nobody but the server can list them (mode 1733, as
Postfix's maildrop); whose a file is, the system says. Blocking.
"""

import contextlib
import json
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

MODE = 0o1733
SUFFIX = ".mail"
MAX_ENVELOPE_OCTETS = 1 << 20
MAX_RECIPIENTS = 1000
STEP = 1 << 16


class NotDropped(Exception):
    """The file is none that can be taken; the text says why."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """The envelope: the first line of the file, in JSON. The message follows."""

    reverse_path: str
    recipients: tuple[str, ...]
    notify: str = ""  # RFC 3461 section 4: of all recipients
    ret: str = ""
    envid: str = ""

    def write(self, folder: Path, content: IO[bytes]) -> Path:
        """Leave a message, durably. Raises `OSError`."""
        name = secrets.token_hex(16)  # which is all that keeps others from reading it
        begun = folder / f"{name}.begun"
        fd = os.open(begun, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            try:
                file.write(json.dumps(asdict(self)).encode() + b"\n")
                while piece := content.read(STEP):
                    file.write(piece)
                file.flush()
                os.fchmod(fd, 0o644)  # for the server, which is another user
                os.fsync(fd)
                done = begun.with_suffix(SUFFIX)
                os.rename(begun, done)
            except OSError:
                os.unlink(begun)
                raise
            # The folder cannot be opened by us to be synced. On Linux's file systems
            # to sync a file syncs its name as well.
            os.fsync(fd)
        return done


@dataclass(frozen=True, slots=True)
class Found:
    """A dropped message, opened. Close `file`."""

    path: Path
    uid: int  # of the user who has left it
    envelope: Dropped
    size_octets: int  # of the content that follows in `file`
    file: IO[bytes]

    def start(self, octets: int) -> bytes:
        """Return the beginning of the content."""
        self.file.seek(-self.size_octets, os.SEEK_END)
        return self.file.read(octets)


def make(folder: Path) -> None:
    """Make the folder, if it is missing, with its mode. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) != MODE:
        os.chmod(folder, MODE)


def waiting(folder: Path) -> Iterator[Path]:
    """Return what has been left, oldest first."""
    with os.scandir(folder) as entries:
        found = [
            (status.st_mtime, entry.path)
            for entry in entries
            if entry.name.endswith(SUFFIX) and (status := _status(entry))
        ]
    return (Path(path) for _, path in sorted(found))


def _status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    with contextlib.suppress(FileNotFoundError):  # its owner has taken it back
        return entry.stat(follow_symlinks=False)
    return None


def open_dropped(path: Path) -> Found:
    """Open a message that somebody has left. Raises `NotDropped`, `OSError`."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        os.close(fd)
        # A link to somebody else's file would be sent in that one's name.
        raise NotDropped("is no file, or has another name as well")
    file = open(fd, "rb")  # the caller closes it
    try:
        line = file.readline(MAX_ENVELOPE_OCTETS)
        envelope = _envelope(line)
    except BaseException:
        file.close()
        raise
    size_octets = status.st_size - len(line)
    return Found(path, status.st_uid, envelope, size_octets, file)


def _envelope(line: bytes) -> Dropped:
    try:
        fields = json.loads(line)
        wishes = [fields.get(name, "") for name in ("notify", "ret", "envid")]
        found = Dropped(fields["reverse_path"], tuple(fields["recipients"]), *wishes)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise NotDropped("has no envelope") from error
    texts = (found.reverse_path, *found.recipients, *wishes)
    if not all(isinstance(t, str) and t.isprintable() for t in texts):
        raise NotDropped("has no envelope")
    if not 1 <= len(found.recipients) <= MAX_RECIPIENTS:
        raise NotDropped(f"has {len(found.recipients)} recipients")
    return found
