"""Whether Dovecot and we read a Maildir alike: what ``mailsrv maildir check`` asks.

UIDs, UIDVALIDITYs, POP3 UIDLs, flags, keywords, subscriptions, and the messages
themselves. Reads only, takes no lock, and needs no index: it is for a Maildir that
comes from elsewhere as well as for one of ours.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unicodedata import is_normalized

from mailsrv.store import maildir, names, subscriptions
from mailsrv.store.durable import NO_FOLLOW, read
from mailsrv.store.keywords import FILE as KEYWORDS
from mailsrv.store.keywords import LETTERS_MASK, Keywords
from mailsrv.store.locks import UIDLIST
from mailsrv.store.maildir import MaildirName
from mailsrv.store.uidlist import Inspection, inspect
from mailsrv.store.uidvalidity import counters
from mailsrv.store.values import FIRST_KEYWORD_BIT, LETTER_KEYWORDS, MessageGone
from mailsrv.store.verify import Finding

_HEAD_OCTETS = 8
# How files begin that plugins of Dovecot have written.
_CODED = {
    b"\x1f\x8b": "compressed (Dovecot's plugin zlib)",
    b"BZh": "compressed (Dovecot's plugin zlib)",
    b"\x28\xb5\x2f\xfd": "compressed (Dovecot's plugin zlib)",
    b"\x04\x22\x4d\x18": "compressed (Dovecot's plugin zlib)",
    b"Dovecot-LZ4": "compressed (Dovecot's plugin zlib)",
    b"\xfd7zXZ\x00": "compressed (Dovecot's plugin zlib)",
    b"CRYPTED\x03\x07": "encrypted (Dovecot's plugin mail_crypt)",
}


@dataclass(slots=True)
class Report:
    """What was found. Nothing in `wrong`: both servers show the same."""

    mailboxes: int = 0
    messages: int = 0
    wrong: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)  # of use to know, no harm


def check(root: Path) -> Report:
    """Look at the Maildir++ at `root`."""
    report = Report()
    if not maildir.is_maildir(root):
        report.wrong.append(Finding("", _no_maildir(root)))
        return report
    report.wrong += [Finding("", text) for text in _strange_folders(root)]
    validities = []
    report.notes += [Finding("", text) for text in spelling_notes(root)]
    for name in names.mailboxes(root):
        report.mailboxes += 1
        checked = _MailboxCheck(name, names.directory(root, name), report)
        checked.run()
        validities.append(checked.listed.uid_validity)
    _check_root(root, max(validities), report)
    return report


def _no_maildir(root: Path) -> str:
    if (root / "mailboxes").is_dir() or (root / "storage").is_dir():
        return "this is Dovecot's dbox, not a Maildir: convert it with doveadm sync"
    return f"there is no Maildir at {root}: it has no folder cur"


def _strange_folders(root: Path) -> Iterator[str]:
    """Look for mailboxes that cannot be shown."""
    with os.scandir(root) as entries:
        found = sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))
    for name in found:
        if name in maildir.SUBDIRECTORIES or not (root / name / "cur").is_dir():
            continue
        if not name.startswith("."):
            yield (
                f"the folder {name!r} belongs to another layout (LAYOUT=fs) and is"
                " not shown: convert it with doveadm sync"
            )
        elif not name.startswith("..") and names.mailbox_name(name) is None:
            yield (
                f"the folder {name!r} has no name in modified UTF-7 or UTF-8: it is"
                " not shown"
            )
    yield from _spelled_in_two_ways(root)


def _spelled_in_two_ways(root: Path) -> Iterator[str]:
    """Look for folders that one setting of Dovecot cannot all show by their names."""
    utf8 = names.in_utf8(root)
    for found, name in sorted(names.directories(root)):
        known = names.spellings(name)
        if names.directory(root, name).name != found:
            yield (
                f"the folder {found!r} is not shown: {known.modified_utf7!r} has the"
                " same name"
            )
        elif known.modified_utf7 != known.utf8 and found != known[utf8]:
            coding = "UTF-8" if utf8 else "modified UTF-7"
            yield (
                f"the folder {found!r} is not spelled in {coding} as others are, so"
                f" Dovecot shows another name than {name!r}: while no server runs,"
                f" rename it to {known[utf8]!r}"
            )


def spelling_notes(root: Path) -> Iterator[str]:
    """Tell what Dovecot needs, or does, for the names of the folders."""
    if names.in_utf8(root):
        yield (
            "the names of folders are in UTF-8: Dovecot reads them with"
            " mailbox_list_utf8 = yes, or in 2.3 with :UTF-8 in its mail_location"
        )
    for name in names.mailboxes(root):
        if not is_normalized("NFC", name):
            yield (
                f"Dovecot 2.4 will rename the folder {name!r} (its letters are not in"
                " Unicode's form NFC), and programs fetch it again"
            )


def _check_root(root: Path, highest: int, report: Report) -> None:
    for line in subscriptions.broken_lines(root):
        report.wrong.append(Finding("", f"the subscription {line!r} means no mailbox"))
    found = counters(root)
    if found and max(found) < highest:
        text = (
            f"dovecot-uidvalidity stands at {max(found)}, below the {highest} of a"
            " mailbox: a new mailbox could get the UIDVALIDITY of a deleted one"
        )
        report.wrong.append(Finding("", text))


class _MailboxCheck:
    """Looks at one mailbox and writes into the report."""

    def __init__(self, name: str, directory: Path, report: Report) -> None:
        self._name = name
        self._directory = directory
        self._report = report
        self._counts: Counter[str] = Counter()  # what is wrong with messages
        self._bases: set[bytes] = set()
        self._sub = ""
        self._keywords = Keywords(directory)
        self.listed: Inspection

    def run(self) -> None:
        self._keywords.refresh()
        self.listed = inspect(read(self._directory / UIDLIST, 1 << 30))
        self._owner = os.stat(self._directory).st_uid
        for sub in maildir.SUBDIRECTORIES:
            if not (self._directory / sub).is_dir():
                self._wrong(f"the folder {sub} is missing")
            elif sub != "tmp":
                self._sub = sub
                self._files(self._directory / sub)
        self._uidlist()
        self._letters()
        for text, count in self._counts.items():
            self._wrong(f"messages {text}: {count}")

    def _wrong(self, text: str) -> None:
        self._report.wrong.append(Finding(self._name, text))

    def _files(self, folder: Path) -> None:
        with os.scandir(os.fsencode(folder)) as entries:
            for entry in entries:
                if not entry.name.startswith(b"."):
                    self._file(entry.path, entry.name)

    def _file(self, path: bytes, octets: bytes) -> None:
        shown = f"{self._sub}/{os.fsdecode(octets)!r}"
        name = maildir.parse(octets)
        try:
            status = os.lstat(path)
            if not stat.S_ISREG(status.st_mode) or not name.base or b"\n" in octets:
                self._wrong(f"{shown} is no message, and is not shown")
                return
            head = _head(path)
        except FileNotFoundError:
            return  # renamed just now
        except (PermissionError, MessageGone):
            self._wrong(f"{shown} cannot be read")
            return
        self._report.messages += 1
        if name.base in self._bases:
            self._wrong(f"{shown} has the name of another message")
        self._bases.add(name.base)
        self._look_into(name, status, head)

    def _look_into(
        self, name: MaildirName, status: os.stat_result, head: bytes
    ) -> None:
        for magic, what in _CODED.items():
            if head.startswith(magic[:_HEAD_OCTETS]):
                self._counts[f"that mailsrv cannot read, {what}"] += 1
                return
        if status.st_uid != self._owner:
            self._counts["of another user than their folder's"] += 1
        if name.file_octets not in (None, status.st_size):
            self._counts["with a wrong size (S=) in their file names"] += 1
        places = self._keywords.names
        known = sum(
            1 << FIRST_KEYWORD_BIT + place
            for place, keyword in enumerate(places[:LETTER_KEYWORDS])
            if keyword
        )
        letters = (name.flags >> FIRST_KEYWORD_BIT) << FIRST_KEYWORD_BIT
        if letters & ~known:
            self._counts[f"with a keyword letter that is not in {KEYWORDS}"] += 1
        if self._keywords.extra.get(name.base, 0) & ~LETTERS_MASK:
            self._counts["with keywords past the 26 that Dovecot can show"] += 1

    def _uidlist(self) -> None:
        for text in self.listed.problems:
            self._wrong(f"{UIDLIST} {text}")
        if not self.listed.uid_validity and self._bases:
            self._wrong(
                f"there is no {UIDLIST} that can be read: all messages get new UIDs,"
                " and clients fetch them again. A Dovecot with CONTROL= in its"
                " mail_location keeps it elsewhere: put it here"
            )
            return
        unlisted = len(self._bases - self.listed.bases)
        if unlisted:
            text = f"messages without a UID, which get the next ones: {unlisted}"
            self._report.notes.append(Finding(self._name, text))

    def _letters(self) -> None:
        listed = [n for n in self._keywords.names[:LETTER_KEYWORDS] if n]
        for keyword, count in Counter(map(str.lower, listed)).items():
            if count > 1:
                self._wrong(f"the keyword {keyword} is in {KEYWORDS} {count} times")


def _head(path: bytes) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | NO_FOLLOW)
    try:
        return os.read(fd, _HEAD_OCTETS)
    finally:
        os.close(fd)
