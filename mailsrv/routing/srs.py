"""Reverse-paths of mail that is forwarded elsewhere (SRS, the Sender Rewriting Scheme).

A server elsewhere asks whether we may send in the name of the reverse-path's domain
(RFC 7208), and we may only in our own. So the reverse-path is put into an address of
ours: what fails there comes back here, and from here to the sender. A signature and a
day keep others from sending through us to whom they like. The content is untouched.
"""

import base64
import hmac
import re
from collections.abc import Callable

from mailsrv.accounts.addresses import Address

LIFETIME_DAYS = 21  # twice the days that queues try, and some
MAX_PATH = 254  # RFC 5321 section 4.5.3.1.3, without the angle brackets
_MAC_OCTETS = 10  # 80 bits: 16 letters
_DAY_S = 86400
_CYCLE = 32 * 32  # days that two letters can tell apart
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"

# Without regard to case, which a local part may lose on its way.
_OURS = re.compile(
    r"SRS(?:0=([a-z2-7]{16})=([a-z2-7]{2})=([^=@\s]+)=(.+)"
    r"|1=([a-z2-7]{16})=([^=@\s]+)=(.+))",
    re.IGNORECASE | re.DOTALL,
)
_OTHERS = re.compile(
    r"SRS(?:0([=+-].+)|1[=+-][^=]*=([^=@\s]+)=(.+))", re.IGNORECASE | re.DOTALL
)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)


class Srs:
    """Writes and reads such addresses with one secret key."""

    def __init__(self, secret: bytes, now: Callable[[], float]) -> None:
        self._secret = secret
        self._now = now

    def forward(self, reverse_path: str, domain: str) -> str | None:
        """Return the address in `domain` that stands for a reverse-path.

        None: there is none to stand for, or the address would be too long.
        """
        local, at, sender_domain = reverse_path.rpartition("@")
        if not at:
            return None
        local = _unquoted(local)
        if found := _OTHERS.fullmatch(local):
            # Another forwarder's: what fails goes back to the first one directly.
            host, rest = found[2] or sender_domain, found[3] or found[1]
            text = f"SRS1={self._mac('1', host, rest)}={host}={rest}"
        else:
            day = self._today
            letters = _LETTERS[day // 32] + _LETTERS[day % 32]
            mac = self._mac("0", letters, sender_domain, local)
            text = f"SRS0={mac}={letters}={sender_domain}={local}"
        # Longer than 64 octets if the original was long, as it is with all who
        # write one address into another.
        address = str(Address(text, domain))
        return address if len(address.encode()) <= MAX_PATH else None

    def back(self, local: str) -> str | None:
        """Return the reverse-path that a local part stands for; None: for none."""
        found = _OURS.fullmatch(_unquoted(local))
        if found is None:
            return None
        mac, letters, domain, original, mac1, host, rest = found.groups()
        if host is not None:
            good = hmac.compare_digest(self._mac("1", host, rest), mac1.lower())
            return str(Address(f"SRS0{rest}", host)) if good else None
        good = hmac.compare_digest(
            self._mac("0", letters, domain, original), mac.lower()
        )
        day = 0
        for letter in letters.lower():
            day = day * 32 + _LETTERS.index(letter)
        if not good or (self._today - day) % _CYCLE > LIFETIME_DAYS:
            return None
        return str(Address(original, domain))

    @property
    def _today(self) -> int:
        return int(self._now() // _DAY_S) % _CYCLE

    def _mac(self, *signed: str) -> str:
        text = " ".join(signed).lower().encode("utf-8", "surrogatepass")
        digest = hmac.digest(self._secret, b"srs" + text, "sha256")[:_MAC_OCTETS]
        return base64.b32encode(digest).decode().lower()


def is_srs(forward_path: str) -> bool:
    """Whether an address looks like one of ours, good or not."""
    return forward_path.lstrip('"')[:5].upper() in ("SRS0=", "SRS1=")


def _unquoted(local: str) -> str:
    if len(local) > 1 and local[0] == local[-1] == '"':
        return _QUOTED_PAIR.sub(r"\1", local[1:-1])
    return local
