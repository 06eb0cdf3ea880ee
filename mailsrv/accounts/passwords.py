"""Password hashes: argon2id (RFC 9106). Slow on purpose: for the hash pool only.

Hashes of other servers (see `mailsrv.accounts.schemes`) count until the next log-in.
"""

import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHash

from mailsrv.accounts import schemes
from mailsrv.accounts.scram import make_keys
from mailsrv.settings import LoginSettings

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike
_GROUPS, _GROUP_LENGTH = 4, 5  # 20 letters of 31: 99 bits


def hash_password(password: str, settings: LoginSettings) -> str:
    """Hash a password, as a PHC string. Takes as long as `verify_password`."""
    return _hasher(settings).hash(_prepared(password))


def verify_password(password_hash: str, password: str, settings: LoginSettings) -> bool:
    """Whether the password is the one of the hash; an unreadable hash has none."""
    if schemes.is_foreign(password_hash):
        return _verify_foreign(password_hash, password, settings)
    try:
        return PasswordHasher().verify(password_hash, _prepared(password))
    except (Argon2Error, InvalidHash):
        return False


def _verify_foreign(password_hash: str, password: str, settings: LoginSettings) -> bool:
    # Others hashed what the client sent; by now it may be another client.
    sent = password.encode("utf-8", "surrogatepass")
    try:
        is_password = schemes.parse(password_hash)
        if any([is_password(form) for form in {sent, _prepared(password)}]):
            return True
    except ValueError:  # no hash; or a password with NUL, or of thousands of octets
        pass
    # A cheap scheme must not tell by its speed that the account is there.
    hash_password(password, settings)
    return False


def needs_rehash(password_hash: str, settings: LoginSettings) -> bool:
    """Whether the hash was made with other parameters, or by another server."""
    if schemes.is_foreign(password_hash):
        return True
    return _hasher(settings).check_needs_rehash(password_hash)


def new_keys(password: str, settings: LoginSettings) -> str | None:
    """The keys of SCRAM to store beside a hash, None if none are wanted. Slow."""
    return None if settings.scram == "off" else str(make_keys(password))


def random_password() -> str:
    """A strong password that can be read out and typed."""
    return "-".join(
        "".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_LENGTH))
        for _ in range(_GROUPS)
    )


def _hasher(settings: LoginSettings) -> PasswordHasher:
    return PasswordHasher(
        time_cost=settings.argon2_passes,
        memory_cost=settings.argon2_memory_kib,
        parallelism=settings.argon2_lanes,
    )


def _prepared(password: str) -> bytes:
    """RFC 8265 section 4.2.2: one form for what keyboards type differently."""
    spaced = "".join(" " if unicodedata.category(c) == "Zs" else c for c in password)
    return unicodedata.normalize("NFC", spaced).encode("utf-8", "surrogatepass")
