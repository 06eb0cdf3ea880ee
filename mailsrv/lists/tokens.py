"""Signed tokens in addresses and links: nobody else can make one (RFC 2104).

A token names a row of the lists' database and the purpose for which it was made;
some end. Small letters and digits alone, since a local part may lose its case on the
way, and short, for its 64 octets.
"""

import base64
import hmac
import re
from collections.abc import Callable
from enum import StrEnum

MAC_OCTETS = 10  # 80 bits: 16 letters
_DAY_S = 86400
_TOKEN = re.compile(r"([0-9a-z]{1,12})-(?:([0-9a-z]{1,6})-)?([a-z2-7]{16})")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Purpose(StrEnum):
    """What a token may be used for."""

    BOUNCE = "bounce"
    UNSUBSCRIBE = "unsubscribe"
    CONFIRM = "confirm"
    MODERATE = "moderate"


class BadToken(Exception):
    """It was not made here for this purpose, or its time is over."""


class Tokens:
    """Makes and reads tokens with one secret key."""

    def __init__(self, key: bytes, now: Callable[[], float]) -> None:
        self._key = key
        self._now = now

    def make(self, purpose: Purpose, row: int, lifetime_days: int = 0) -> str:
        """Return a token for a row's number; 0 days: it never ends."""
        ends = ""
        if lifetime_days:
            ends = _base36(int(self._now() // _DAY_S) + lifetime_days + 1)
        text = _base36(row)
        return "-".join(filter(None, (text, ends, self._mac(purpose, text, ends))))

    def read(self, purpose: Purpose, token: str) -> int:
        """Return the number in a token. Raises `BadToken`."""
        found = _TOKEN.fullmatch(token.lower())
        if found is None:
            raise BadToken
        row, ends, mac = found[1], found[2] or "", found[3]
        if not hmac.compare_digest(mac, self._mac(purpose, row, ends)):
            raise BadToken
        if ends and int(ends, 36) * _DAY_S <= self._now():
            raise BadToken
        return int(row, 36)

    def _mac(self, purpose: Purpose, row: str, ends: str) -> str:
        signed = f"{purpose} {row} {ends}".encode()
        digest = hmac.digest(self._key, signed, "sha256")[:MAC_OCTETS]
        return base64.b32encode(digest).decode().lower()


def _base36(number: int) -> str:
    digits = []
    while True:
        number, digit = divmod(number, 36)
        digits.append(_DIGITS[digit])
        if not number:
            return "".join(reversed(digits))
