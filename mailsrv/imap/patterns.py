"""Matches mailbox names with LIST's patterns (RFC 3501 section 6.3.8), in linear time.

``*`` stands for anything, ``%`` for anything without the separator.
"""

import re

from mailsrv.store.names import INBOX, SEPARATOR, canonical

_WILDCARDS = re.compile(r"[*%]{2,}")


class Pattern:
    """One pattern. All its positions are tried at once, as the bits of an int."""

    __slots__ = ("_anything", "_end", "_level", "_literals")

    def __init__(self, text: str) -> None:
        # Of wildcards in a row one says it all: no position follows two of them.
        text = _WILDCARDS.sub(lambda run: "*" if "*" in run[0] else "%", text)
        text = canonical(text)
        self._literals: dict[str, int] = {}
        self._anything = 0  # positions of "*"
        self._level = 0  # positions of "%"
        for at, char in enumerate(text):
            if char == "*":
                self._anything |= 1 << at
            elif char == "%":
                self._level |= 1 << at
            else:
                self._literals[char] = self._literals.get(char, 0) | 1 << at
        self._end = 1 << len(text)

    def matches(self, name: str) -> bool:
        positions = self._past_wildcards(1)
        for char in name:
            literal = self._literals.get(char, 0)
            if name == INBOX:  # RFC 3501 section 5.1: in any case
                literal |= self._literals.get(char.lower(), 0)
            stay = self._anything
            if char != SEPARATOR:
                stay |= self._level
            positions = self._past_wildcards(
                positions & stay | (positions & literal) << 1
            )
            if not positions:
                return False
        return bool(positions & self._end)

    def _past_wildcards(self, positions: int) -> int:
        """Add the positions after wildcards, which may stand for nothing."""
        return positions | (positions & (self._anything | self._level)) << 1
