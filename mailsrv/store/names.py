"""Mailbox names and their directories: the one way from a name to a path.

INBOX is the root of the Maildir++; "A/B" is the directory ".A.B" in it. Other letters
than US-ASCII are in modified UTF-7 there, or in UTF-8 if another server has made the
directory so (Dovecot's mailbox_list_utf8). Names are kept as given: no Unicode
normalisation, since the directory of a Maildir that another server made must be found
by the name that it shows.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from mailsrv.store import mutf7
from mailsrv.store.values import InvalidName

INBOX = "INBOX"
SEPARATOR = "/"
MAX_DIRECTORY_OCTETS = 255  # NAME_MAX of Linux file systems
# Cc: C0 and C1 controls with NUL and DEL; also the Unicode line separators.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def canonical(name: str) -> str:
    """Return the name as it is kept: INBOX in capitals (RFC 3501 section 5.1).

    Also where it is the first level of another name: clients spell both alike.
    """
    first, separator, rest = name.partition(SEPARATOR)
    return INBOX + separator + rest if first.upper() == INBOX else name


class Spellings(NamedTuple):
    """The directories below the root that can be a mailbox's."""

    modified_utf7: str
    utf8: str  # the same for most names


@lru_cache(1024)
def spellings(name: str) -> Spellings:
    """Return a mailbox's possible directories ("" for INBOX); raise InvalidName.

    One of the two may be too long to exist.
    """
    name = canonical(name)
    if name == INBOX:
        return Spellings("", "")
    if _FORBIDDEN.search(name):
        raise InvalidName("mailbox names hold no control characters")
    levels = name.split(SEPARATOR)
    if "" in levels:
        raise InvalidName("a level of the mailbox name is empty")
    if any("." in level for level in levels):
        # Maildir++ parts its levels by dots on disk.
        raise InvalidName('mailbox names hold no "."')
    try:
        coded = "." + ".".join(mutf7.encode(level).decode("ascii") for level in levels)
    except UnicodeEncodeError as error:
        raise InvalidName("the mailbox name is not Unicode text") from error
    plain = os.fsdecode(("." + ".".join(levels)).encode())
    if _decode(plain) is not None:
        plain = coded  # "A&-B" in UTF-8 would be "A&B" to all who read it
    if _too_long(coded) and _too_long(plain):
        raise InvalidName("the mailbox name is too long")
    return Spellings(coded, plain)


def directory(root: Path, name: str) -> Path:
    """Return the directory of a mailbox, which need not exist; raise InvalidName.

    A new one is spelled like most that the account has.
    """
    coded, plain = spellings(name)
    if coded == plain:
        return root / coded if coded else root
    for spelled in (coded, plain):
        if os.path.lexists(root / spelled):
            return root / spelled
    spelled = plain if in_utf8(root) else coded
    if _too_long(spelled):
        raise InvalidName("the mailbox name is too long")
    return root / spelled


def mailbox_name(directory_name: str) -> str | None:
    """Return the mailbox of a directory below the root; None if it can be none.

    What can be modified UTF-7 is. The way back must lead to the same directory: what
    it does not is not shown, since no command could reach it.
    """
    if not directory_name.startswith("."):
        return None
    try:
        name = _decode(directory_name)
        if name is None:
            text = os.fsencode(directory_name).decode()
            name = text[1:].replace(".", SEPARATOR)
        found = spellings(name)
    except (ValueError, InvalidName):
        return None
    return name if directory_name in found else None


def mailboxes(root: Path) -> list[str]:
    """List the mailboxes that have a directory, INBOX first, the rest by name."""
    return [INBOX, *sorted({name for _, name in directories(root)})]


def directories(root: Path) -> Iterator[tuple[str, str]]:
    """Yield each mailbox's directory and name, in no order; not INBOX.

    A mailbox that has one of either spelling is there twice.
    """
    with os.scandir(root) as entries:
        for entry in entries:
            name = mailbox_name(entry.name)
            if name is not None and entry.is_dir():
                yield entry.name, name


def in_utf8(root: Path) -> bool:
    """Return whether the directories of an account are rather in UTF-8."""
    more = 0
    with suppress(FileNotFoundError):  # an account that has no Maildir yet
        for found, name in directories(root):
            coded, plain = spellings(name)
            more += (found == plain) - (found == coded)
    return more > 0


def _decode(directory_name: str) -> str | None:
    """Return the name of a directory in modified UTF-7; None if it is not."""
    try:
        levels = directory_name[1:].encode("ascii").split(b".")
        return SEPARATOR.join(map(mutf7.decode, levels))
    except ValueError:
        return None


def _too_long(directory_name: str) -> bool:
    return len(os.fsencode(directory_name)) > MAX_DIRECTORY_OCTETS
