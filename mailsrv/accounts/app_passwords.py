"""Passwords for one device or program each: random, so that a digest is enough.

No wait and no costly hash stand before them: of 80 random bits nobody finds any by
guessing, and a wrong one is then tried as the account's own, with all that guards it.
"""

import hashlib
import hmac
from dataclasses import replace

from mailsrv.accounts.directory import Account

SENDS = ("submission",)  # the services of the scope "send"


def digest_of(password: str) -> str:
    """Return what is kept of an app password; how it is grouped does not matter."""
    plain = password.replace("-", "").replace(" ", "").lower()
    return hashlib.sha256(plain.encode()).hexdigest()


class NotForThis(Exception):
    """It is right, but not for this service, or its time is over."""


def log_in(
    account: Account, password: str, service: str, now_utc: float
) -> Account | None:
    """Return the account if an app password of it is given; None: it is none.

    Raises `NotForThis`.
    """
    if not account.app_passwords or not account.enabled:
        return None
    digest = digest_of(password)
    for app in account.app_passwords:
        if hmac.compare_digest(app.digest, digest):
            over = app.ends_at_utc is not None and app.ends_at_utc <= now_utc
            if over or (app.scope == "send" and service not in SENDS):
                raise NotForThis
            return replace(account, app=app.label)
    return None
