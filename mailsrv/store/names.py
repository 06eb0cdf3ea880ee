"""Mailbox names and their directories: the one way from a name to a path.

INBOX is the root of the Maildir++; "A/B" is the directory ".A.B" in it, in modified
UTF-7. Names are kept as given: no Unicode normalisation, since the directory of a
Maildir that another server made must be found by the name that it shows.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

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


@lru_cache(1024)
def directory_name(name: str) -> str:
    """Return the directory below the root ("" for INBOX); raise InvalidName."""
    name = canonical(name)
    if name == INBOX:
        return ""
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
    if len(coded) > MAX_DIRECTORY_OCTETS:
        raise InvalidName("the mailbox name is too long")
    return coded


def directory(root: Path, name: str) -> Path:
    """Return the directory of a mailbox, which need not exist; raise InvalidName."""
    coded = directory_name(name)
    return root / coded if coded else root


def mailbox_name(directory_name_: str) -> str | None:
    """Return the mailbox of a directory below the root; None if it can be none.

    The way back must lead to the same directory: what it does not is not shown,
    since no command could reach it.
    """
    if not directory_name_.startswith("."):
        return None
    try:
        levels = [
            mutf7.decode(level.encode("ascii"))
            for level in directory_name_[1:].split(".")
        ]
        name = SEPARATOR.join(levels)
        found = directory_name(name)
    except (ValueError, InvalidName):
        return None
    return name if found == directory_name_ else None


def mailboxes(root: Path) -> list[str]:
    """List the mailboxes that have a directory, INBOX first, the rest by name."""
    found = []
    with os.scandir(root) as entries:
        for entry in entries:
            name = mailbox_name(entry.name)
            if name is not None and entry.is_dir():
                found.append(name)
    return [INBOX, *sorted(found)]
