"""Good log-ins of the last minutes, so that a client's next ones cost no hash.

No password is kept, only digests under a key that dies with the process.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict

from mailsrv.accounts.directory import Account

MAX_REMEMBERED_LOGINS = 20_000


class RememberedLogins:
    """Knows passwords by their digests; the time is passed in."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._forgotten_at: OrderedDict[bytes, float] = OrderedDict()

    def has(self, account: Account, password: str, now: float) -> bool:
        """Whether this password was good for the account as it is now."""
        digest = self.digest(account.name, account.password_hash, password)
        forgotten_at = self._forgotten_at.get(digest)
        return account.enabled and forgotten_at is not None and now < forgotten_at

    def add(self, account: Account, password: str, forgotten_at: float) -> None:
        """Remember a password that has just been verified."""
        digest = self.digest(account.name, account.password_hash, password)
        self._forgotten_at[digest] = forgotten_at
        self._forgotten_at.move_to_end(digest)
        if len(self._forgotten_at) > MAX_REMEMBERED_LOGINS:
            self._forgotten_at.popitem(last=False)

    def digest(self, name: str, password_hash: str, password: str) -> bytes:
        """Stands for a password of an account and, through its hash, of this moment."""
        text = "\0".join((name, password_hash, password))
        octets = text.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, octets, hashlib.sha256)
