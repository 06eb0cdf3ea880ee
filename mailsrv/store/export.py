"""A copy of an account's Maildir that Dovecot reads with the same UIDs and UIDLs.

Messages are hard links where that can be, since their files never change. What we
know only by our settings or the index (POP3 UIDLs) is written where Dovecot looks.
"""

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mailsrv.store import attributes, keywords, maildir, names, subscriptions
from mailsrv.store.account import AccountStore
from mailsrv.store.compatibility import spelling_notes
from mailsrv.store.durable import FILE_MODE, FOLDER_MODE, replace, sync_folder
from mailsrv.store.index import Clock, Connections
from mailsrv.store.maildir import Entry
from mailsrv.store.names import INBOX
from mailsrv.store.pop3_uidl import Uidl
from mailsrv.store.uidlist import Mark, Record, Uidlist
from mailsrv.store.uidvalidity import NAME as UIDVALIDITY
from mailsrv.store.uidvalidity import counters
from mailsrv.store.values import StoreError
from mailsrv.store.verify import Finding

_SCANS = 3
_TOUCH = 1000  # files between two signs of life on the lock
_ROOT_FILES = (subscriptions.FILE, attributes.FILE)
_FOLDER_FILES = (keywords.FILE, keywords.EXTRA_FILE, "maildirfolder")


class TargetExists(StoreError):
    """There is something where the copy should go."""


@dataclass(slots=True)
class Exported:
    """What was done, and what Dovecot will not show as we do."""

    mailboxes: int = 0
    linked: int = 0
    copied: int = 0
    notes: list[Finding] = field(default_factory=list)


class Exporter:
    """Copies the account at `root` to the folder `target`, which it makes.

    The server may run meanwhile. Raises LockHeld while another process works on a
    mailbox: call `run` again, it goes on where it stopped.
    """

    def __init__(
        self,
        root: Path,
        target: Path,
        *,
        connections: Connections,
        now: Clock,
        make_uidl: Uidl,
        link: bool,
    ) -> None:
        self._source = root / "Maildir"
        self._target = target
        self._part = target.with_name(target.name + ".part")
        self._store = AccountStore(
            root, connections=connections, quota_octets=None, now=now
        )
        self._make_uidl = make_uidl
        self._link = link
        self._left: list[str] | None = None
        self._done = Exported()

    def run(self) -> Exported:
        """Copy all; the target appears when it is whole."""
        if self._left is None:
            for path in (self._target, self._part):
                if os.path.lexists(path):
                    raise TargetExists(f"{path} exists already")
            os.mkdir(self._part, FOLDER_MODE)
            self._left = names.mailboxes(self._source)
            notes = spelling_notes(self._source)
            self._done.notes += [Finding("", text) for text in notes]
        while self._left:
            self._mailbox(self._left[0])
            self._left.pop(0)
            self._done.mailboxes += 1
        # At the end: a mailbox made meanwhile has taken a UIDVALIDITY.
        self._root_files()
        os.rename(self._part, self._target)
        sync_folder(self._target.parent)
        return self._done

    def _mailbox(self, name: str) -> None:
        self._store.sync(name, force=True, move_new=False)  # all have UIDs then
        directory = names.directory(self._source, name)
        target = self._part / directory.relative_to(self._source)  # spelled alike
        maildir.create(target)
        uidlist = Uidlist(directory, self._source)
        with uidlist.lock:
            records = uidlist.refresh().records
            bases = self._files(directory, target, uidlist)
            for file in _FOLDER_FILES:
                _copy_small(directory / file, target / file)
        self._note_keywords(name, target)
        for sub in ("new", "cur"):
            sync_folder(target / sub)
        if uidlist.mark is not None:
            live = [record for record in records if record.base in bases]
            self._write_uidlist(name, target, live, uidlist.mark)

    def _files(self, directory: Path, target: Path, uidlist: Uidlist) -> set[bytes]:
        """Copy the messages; return their base names.

        A foreign program may rename meanwhile: what one scan misses, or shows under
        a name that is gone, another has.
        """
        done: set[bytes] = set()
        for _ in range(_SCANS):
            for sub, in_new in (("new", True), ("cur", False)):
                for base, name in maildir.scan(directory / sub).names.items():
                    if base not in done and self._file(
                        directory, target, Entry(name, in_new)
                    ):
                        done.add(base)
                        if len(done) % _TOUCH == 0:
                            uidlist.lock.touch()
        return done

    def _file(self, directory: Path, target: Path, entry: Entry) -> bool:
        """Link or copy a message; False: it has no longer this name."""
        source = maildir.path_of(directory, entry)
        copy = maildir.path_of(target, entry)
        try:
            if self._link:
                os.link(source, copy, follow_symlinks=False)
                self._done.linked += 1
                return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
                raise
        if not _copy(source, copy):
            return False
        self._done.copied += 1
        return True

    def _write_uidlist(
        self, name: str, target: Path, records: Sequence[Record], mark: Mark
    ) -> None:
        if name == INBOX:
            records = self._with_uidls(records, mark.uid_validity)
        copy = Uidlist(target, self._part)
        with copy.lock:
            copy.write(
                records,
                uid_next=mark.uid_next,
                uid_validity=mark.uid_validity,
                mailbox_id=mark.mailbox_id,
            )

    def _with_uidls(self, records: Sequence[Record], uid_validity: int) -> list[Record]:
        """Write the POP3 UIDLs down, so that no setting of Dovecot matters."""
        found = []
        for record in records:
            if record.field(b"P") is None:
                guid = record.field(b"G") or record.base
                uidl = self._make_uidl(record.uid, uid_validity, guid, record.base)
                fields = b" ".join(filter(None, (b"P" + uidl, record.fields)))
                found.append(record._replace(fields=fields))
            else:
                found.append(record)
        return found

    def _note_keywords(self, name: str, target: Path) -> None:
        known = keywords.Keywords(target)
        known.refresh()
        if known.extra:
            text = f"messages with keywords past the 26 of Dovecot: {len(known.extra)}"
            self._done.notes.append(Finding(name, text))

    def _root_files(self) -> None:
        for file in _ROOT_FILES:
            _copy_small(self._source / file, self._part / file)
        for value in counters(self._source)[-1:]:
            replace(self._part / f"{UIDVALIDITY}.{value:08x}", b"")
            replace(self._part / UIDVALIDITY, b"%08x" % value)


def _copy_small(source: Path, target: Path) -> None:
    if source.exists():
        replace(target, source.read_bytes())


def _copy(source: bytes, target: bytes) -> bool:
    """Copy a message's octets and its date; False: it is gone."""
    try:
        fd, status = maildir.open_file(source)
    except FileNotFoundError:
        return False
    with open(fd, "rb") as old:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        with open(os.open(target, flags, FILE_MODE), "wb") as new:
            shutil.copyfileobj(old, new)
            new.flush()
            os.utime(new.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
            os.fsync(new.fileno())
    return True
