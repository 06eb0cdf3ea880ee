"""One copy of a sent message, where both the client and the server file it.

The server's copy, known by its name, lacks what only the sender may see (Bcc) and
has trace fields on top. If Message-ID and body are equal, the client's stays where it
says more or came first, else the server's. Blocking.
"""

import os
from collections import Counter
from dataclasses import dataclass

from mailsrv.mime.header import MAX_HEADER, fields, unfold
from mailsrv.store import content
from mailsrv.store.flags import Message, load_messages
from mailsrv.store.maildir import delivery_mark
from mailsrv.store.reading import open_entry
from mailsrv.store.scanning import Folder
from mailsrv.store.sorting import thread_rows
from mailsrv.store.values import UID, MessageGone

FILED = "filed by the server"  # the delivery id of its copies
NEAR = 50  # messages before it: a client files soon after it has sent
STEP = 1 << 18

_TRACE = {b"return-path", b"received", b"delivered-to", b"dkim-signature"}
_TRACE |= {b"authentication-results"}


@dataclass(frozen=True, slots=True)
class Pair:
    """Two messages that are one."""

    kept: UID
    dropped: UID


def pair_of(folder: Folder, uid: UID) -> Pair | None:
    """Find the other copy of a message that has just come; None: there is none."""
    connection, box = folder.connection, folder.known_box()
    near = [
        found
        for (found,) in connection.execute(
            "SELECT uid FROM message WHERE mailbox = ? AND uid <= ?"
            " ORDER BY uid DESC LIMIT ?",
            (box.id, uid, NEAR + 1),
        )
    ]
    unready = content.unfilled(connection, box.id, near)
    content.fill(connection, folder.directory, unready)
    ids = {row.uid: row.message_id for row in thread_rows(connection, box.id, near)}
    if not (wanted := ids.get(uid)):
        return None
    alike = [other for other in near if ids.get(UID(other)) == wanted]
    messages = {m.uid: m for m in load_messages(folder, box, alike)}
    new = messages.pop(uid, None)
    for other in messages.values():
        if new is not None and _is_filed(other) != _is_filed(new):
            filed, client = (other, new) if _is_filed(other) else (new, other)
            try:
                return _judge(folder, filed, client)
            except MessageGone:
                continue
    return None


def _is_filed(message: Message) -> bool:
    return delivery_mark(FILED) in message.base


def _judge(folder: Folder, filed: Message, client: Message) -> Pair | None:
    """Return which of two messages stays, if they are the same one."""
    files = []
    try:
        for message in (filed, client):
            fd, _ = open_entry(folder.directory, message.entry)
            files.append(fd)
        headers = [_header(fd) for fd in files]
        if not _same_bodies(*zip(files, map(len, headers), strict=True)):
            return None
    finally:
        for fd in files:
            os.close(fd)
    more = client.flags & ~filed.flags or _more(headers[1], headers[0])
    if more or client.uid < filed.uid:  # its UID has been told
        return Pair(UID(client.uid), UID(filed.uid))
    return Pair(UID(filed.uid), UID(client.uid))


def _header(fd: int) -> bytes:
    """Return the header block with its empty line."""
    start = os.pread(fd, MAX_HEADER, 0)
    end = start.find(b"\n\n")
    return start if end < 0 else start[: end + 2]


def _more(client: bytes, filed: bytes) -> bool:
    """Whether the client's copy has a field that the server's lacks."""
    return bool(Counter(_fields(client)) - Counter(_fields(filed)))


def _fields(header: bytes) -> list[tuple[bytes, bytes]]:
    found = [(name.lower(), unfold(value)) for name, value in fields(header)]
    return [field for field in found if field[0] not in _TRACE]


def _same_bodies(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Compare what comes after the headers, but for empty lines at the end."""
    (fd, place), (other_fd, other_place) = one, other
    while True:
        a, b = os.pread(fd, STEP, place), os.pread(other_fd, STEP, other_place)
        common = min(len(a), len(b))
        if a[:common] != b[:common] or (a[common:] + b[common:]).strip(b"\n"):
            return False
        if not a and not b:
            return True
        place, other_place = place + len(a), other_place + len(b)
