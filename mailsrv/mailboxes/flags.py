"""Flag masks of a mailbox as the names and octets of IMAP (RFC 3501 section 2.3.2)."""

from collections.abc import Iterable, Sequence

from mailsrv.store.values import FIRST_KEYWORD_BIT, SYSTEM_FLAGS

_SYSTEM = {name.lower(): bit for name, bit in SYSTEM_FLAGS.items()}


def flag_mask(names: Iterable[str], keywords: Sequence[str]) -> int:
    """Return the mask of `names`; what the mailbox does not have is left out.

    Flags and keywords compare without case.
    """
    bits = {
        keyword.lower(): 1 << FIRST_KEYWORD_BIT + k
        for k, keyword in enumerate(keywords)
    }
    mask = 0
    for name in names:
        name = name.lower()
        mask |= _SYSTEM.get(name, 0) or bits.get(name, 0)
    return mask


def flag_names(mask: int, keywords: Sequence[str]) -> list[str]:
    """Return the names of a mask, system flags first."""
    names = [name for name, bit in SYSTEM_FLAGS.items() if mask & bit]
    for k, keyword in enumerate(keywords):
        if keyword and mask & 1 << FIRST_KEYWORD_BIT + k:  # "": a letter without name
            names.append(keyword)
    return names


def split_flags(names: Iterable[str]) -> tuple[int, tuple[str, ...]]:
    """Return the system flags of `names` as a mask, and the keywords."""
    mask = 0
    keywords: dict[str, str] = {}
    for name in names:
        if bit := _SYSTEM.get(name.lower()):
            mask |= bit
        else:
            keywords.setdefault(name.lower(), name)
    return mask, tuple(keywords.values())
