"""Mailboxes of many messages to read: delivered by the server, or found by it."""

import os
import shutil
import time
from pathlib import Path

from benchmarks.servers import HOST, Target
from benchmarks.smtp_load import Load

_APART_S = 60  # between the dates of two messages


def deliver(target: Target, users: list[str], messages: list[bytes]) -> None:
    """Let the server deliver all `messages` to each of `users`, as usual."""
    count = len(messages) * len(users)
    result = Load(
        (HOST, target.smtp_port),
        messages,
        [target.address(user) for user in users],
        run="box",
        count=count,
        connections=8,
        per_session=100,
        hello=target.hello,
    ).go()
    if len(result.accepted) != count:
        raise SystemExit(f"{target.name}: refused {dict(result.refused)}")
    time.sleep(3.0)  # what the server does after it has answered
    for user in users:
        maildir = Path(target.maildir.format(user=user))
        drop_cache(maildir)
        _drop_cache(maildir.parent)  # where an index may stand


def found(target: Target, user: str, messages: list[bytes]) -> None:
    """Put a Maildir with names of other programs in place of the user's own.

    No sizes in the names, no list of UIDs; every third message is unseen.
    """
    maildir = Path(target.maildir.format(user=user))
    owner = (maildir if maildir.exists() else maildir.parent).stat()
    shutil.rmtree(maildir, ignore_errors=True)
    for folder in (maildir, *(maildir / sub for sub in ("cur", "new", "tmp"))):
        folder.mkdir(mode=0o700)
        os.chown(folder, owner.st_uid, owner.st_gid)
    first_s = int(time.time()) - len(messages) * _APART_S
    for number, message in enumerate(messages):
        date_s = first_s + number * _APART_S
        flags = "" if number % 3 == 0 else "S"
        path = maildir / "cur" / f"{date_s}.M{number}P7.elsewhere:2,{flags}"
        path.write_bytes(message.replace(b"\r\n", b"\n"))
        os.chown(path, owner.st_uid, owner.st_gid)
        os.utime(path, (date_s, date_s))
    os.sync()
    drop_cache(maildir)


def drop_cache(folder: Path) -> None:
    """Drop what the kernel holds of the files' octets; names stay in memory."""
    for place, _, _ in os.walk(folder):
        _drop_cache(Path(place))


def _drop_cache(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)
