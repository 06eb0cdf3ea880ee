"""The spool: a Maildir that nobody reads but the queue, one file a message.

Files come into it by the same delivery as into mailboxes, so that what goes to
accounts and outside is written once. Rows of the queue name them: a file without a
row was never promised to anyone, or is done with.
"""

import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from mailsrv.mime.served import to_crlf
from mailsrv.queue.values import Message, Recipient
from mailsrv.store import maildir
from mailsrv.store.durable import NO_FOLLOW, sync_folder
from mailsrv.store.values import Delivered, Target
from mailsrv.threads import Pool

MAX_HEADER_OCTETS = 256 * 1024
_WHOLE_PIECES = 8
SHORT_OCTETS = 32 * 1024  # of a file that is worth to be in memory for a while
_PIECE_OCTETS = SHORT_OCTETS  # of a file; twice as much at most once it has CRLF
_PREFIX_OCTETS = 64 * 1024
_RECENT_OCTETS = 4 * 1024 * 1024  # in memory
_ENTRY_OCTETS = 400  # what one of these takes besides


class Spool:
    """The folder. Its methods block, but for `content`."""

    def __init__(self, root: Path, reading: Pool) -> None:
        root = root.absolute()
        self.target = Target(str(root))
        self.maildir = root / "Maildir"
        self._reading = reading
        self._recent = _Recent()

    def path(self, file: str) -> Path:
        return self.maildir / "new" / file

    def create(self) -> None:
        """Make the folder, if it is missing. Raises OSError."""
        maildir.create(self.maildir)

    def link(self, delivered: Delivered, directory: Path) -> str:
        """Have a copy that was delivered here as well, durably; return its name.

        Raises OSError.
        """
        file = os.fsdecode(delivered.base)
        subdirectory = "new" if delivered.in_new else "cur"
        source = directory / subdirectory / os.fsdecode(delivered.name)
        os.link(source, self.path(file), follow_symlinks=False)
        sync_folder(self.maildir / "new")
        return file

    def remember(self, message: Message, octets: bytes) -> None:
        """Keep what a short file has, of a message that is about to be sent."""
        self._recent.put(message, octets[message.skip_octets :])

    def remove(self, files: Iterable[str]) -> None:
        """Remove files that no row names. What remains after a crash is a left-over."""
        for file in files:
            with suppress(OSError):
                os.unlink(self.path(file))

    def remove_leftovers(self, used: set[str]) -> int:
        """Remove files that no row names: what a crash has left. Return how many.

        Only while nothing comes in: a file has no row yet when it is new.
        """
        files = [file for file in os.listdir(self.maildir / "new") if file not in used]
        self.remove(files)
        return len(files)

    def beginning(self, message: Message, *, whole: bool) -> bytes:
        """Return a message as it is sent: its header block, or all of a short one."""
        with self.open(message) as (header, body):
            octets = message.prefix + header
            if whole:
                octets += b"\r\n" + b"".join(islice(body, _WHOLE_PIECES))
            return octets

    @contextmanager
    def open(self, message: Message) -> Iterator[tuple[bytes, Iterator[bytes]]]:
        """Give the header block in the file, and the pieces of the body; CRLF.

        Of a header that is longer than `MAX_HEADER_OCTETS` the rest is body.
        """
        with self._file(message) as file:
            octets = file.read(MAX_HEADER_OCTETS)
            end = octets.find(b"\n\n") + 1
            if octets[:1] == b"\n":  # all header fields are in the prefix
                end = 0
            elif not end:
                end = len(octets)
            yield to_crlf(octets[:end]), _pieces(octets[end + 1 :], file)

    def _file(self, message: Message) -> BinaryIO:
        """Open what follows the Return-Path."""
        if (octets := self._recent.get(message)) is not None:
            return BytesIO(octets)
        file = open(self.path(message.file), "rb")
        file.seek(message.skip_octets)
        return file

    def content(self, message: Message) -> "Spooled":
        """Return what carriers read."""
        path = self.path(message.file)
        return Spooled(path, message, self._recent, self._reading)


def _pieces(first: bytes, file: BinaryIO) -> Iterator[bytes]:
    after_cr = False
    octets = first
    while octets:
        yield to_crlf(octets, after_cr=after_cr)
        after_cr = octets[-1:] == b"\r"
        octets = file.read(_PIECE_OCTETS)


class _Recent:
    """What short files have behind the Return-Path, of those that came last.

    Most messages are sent as soon as they are there, newsletters to one after another.
    """

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._octets = 0

    def get(self, message: Message) -> bytes | None:
        """Return it, if it is there; from any thread."""
        return self._found.get((message.file, message.skip_octets))

    def put(self, message: Message, octets: bytes) -> None:
        """Keep `octets`, unless they are many. In the reactor thread."""
        key = message.file, message.skip_octets
        if len(octets) > SHORT_OCTETS or key in self._found:
            return
        self._found[key] = octets
        self._octets += len(octets) + _ENTRY_OCTETS
        while self._octets > _RECENT_OCTETS:
            _, oldest = self._found.popitem(last=False)
            self._octets -= len(oldest) + _ENTRY_OCTETS


class Spooled:
    """The content of a message, as it is sent (see `carrying.SpooledMessage`)."""

    def __init__(
        self, path: Path, message: Message, recent: _Recent, reading: Pool
    ) -> None:
        self._path = path
        self._message = message
        self._recent = recent
        self._reading = reading

    def octets(self, recipient: Recipient) -> int:
        message = self._message
        return len(recipient.prefix) + len(message.prefix) + message.size_octets

    async def pieces(self, recipient: Recipient) -> AsyncIterator[bytes]:
        prefix = recipient.prefix + self._message.prefix
        for start in range(0, len(prefix), _PREFIX_OCTETS):
            yield prefix[start : start + _PREFIX_OCTETS]
        if (known := self._recent.get(self._message)) is not None:
            yield to_crlf(known)
            return
        fd, octets = await self._reading.run(self._open)
        if len(octets) < _PIECE_OCTETS:  # it is all of it
            self._recent.put(self._message, octets)
        try:
            after_cr = False
            while octets:
                yield to_crlf(octets, after_cr=after_cr)
                after_cr = octets[-1:] == b"\r"
                if len(octets) < _PIECE_OCTETS:
                    break
                octets = await self._reading.run(lambda: os.read(fd, _PIECE_OCTETS))
        finally:
            os.close(fd)

    def _open(self) -> tuple[int, bytes]:
        """Open the file, and read its first piece: most have no other."""
        fd = os.open(self._path, os.O_RDONLY | NO_FOLLOW)
        try:
            os.lseek(fd, self._message.skip_octets, os.SEEK_SET)
            return fd, os.read(fd, _PIECE_OCTETS)
        except OSError:
            os.close(fd)
            raise
