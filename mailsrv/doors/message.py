"""A message as policies and deliverers see it: its header block, and its content.

Small content is in memory. Of large content only a file in ``tmp/`` knows, and it is
read off the reactor thread.
"""

import os
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock

from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from mailsrv.doors.values import Sender
from mailsrv.interfaces import IContent
from mailsrv.threads import Pool

MAX_READ_OCTETS = 1024 * 1024  # of one call


class MessageClosed(Exception):
    """The message has been answered: there is nothing to read any more."""


@implementer(IContent)
class MemoryContent:
    """Content that is in memory; it is put together when somebody reads it."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces: tuple[bytes, ...] | None = pieces
        self.size_octets = sum(map(len, pieces))

    def read(self, start: int, octets: int) -> "Deferred[bytes]":
        return maybeDeferred(self.read_blocking, start, octets)

    def read_blocking(self, start: int, octets: int) -> bytes:
        _check(start, octets)
        pieces = self._pieces  # once: another thread may close it
        if pieces is None:
            raise MessageClosed
        if len(pieces) > 1:
            self._pieces = pieces = (b"".join(pieces),)
        return pieces[0][start : start + octets] if pieces else b""

    def close(self) -> None:
        self._pieces = None


@implementer(IContent)
class FileContent:
    """Content of a file, through a descriptor of its own."""

    def __init__(self, fd: int, size_octets: int, readers: Pool) -> None:
        """Takes `fd` over."""
        self._fd = fd
        self._readers = readers
        # A call whose time was over may still read when the file is closed, and a
        # closed descriptor's number may be that of another file by then.
        self._lock = Lock()
        self.size_octets = size_octets

    def read(self, start: int, octets: int) -> "Deferred[bytes]":
        return self._readers.run(lambda: self.read_blocking(start, octets))

    def read_blocking(self, start: int, octets: int) -> bytes:
        _check(start, octets)
        with self._lock:
            if self._fd < 0:
                raise MessageClosed
            return os.pread(self._fd, octets, start)

    def close(self) -> None:
        self._readers.run(self._close)

    def _close(self) -> None:
        with self._lock, suppress(OSError):
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)


@dataclass(frozen=True, slots=True)
class Message:
    """A whole message on its way in; not delivered yet."""

    transaction: str  # its id in the log
    sender: Sender
    recipients: tuple[str, ...]  # as the client named them
    header: bytes  # with CRLF, the empty line, and our Return-Path and Received
    _content: IContent = field(repr=False)

    @property
    def size_octets(self) -> int:
        """The size of header and body with the line ends of the file."""
        return self._content.size_octets

    def read(self, start: int, octets: int) -> Awaitable[bytes]:
        """Return `octets` (1 MiB at most) from `start` of the message; fewer at its
        end. The header comes first; line ends are LF.
        """
        return self._content.read(start, octets)

    def read_blocking(self, start: int, octets: int) -> bytes:
        """As `read`, for a plugin that runs in a thread (`IBlocking`)."""
        return self._content.read_blocking(start, octets)


def _check(start: int, octets: int) -> None:
    if start < 0 or not 0 <= octets <= MAX_READ_OCTETS:
        raise ValueError(f"cannot read {octets} octets from {start}")
