"""Password hashes: argon2id (RFC 9106). Slow on purpose: for the hash pool only."""

import secrets
import unicodedata

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHash

from mailsrv.settings import LoginSettings

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # none that look alike
_GROUPS, _GROUP_LENGTH = 4, 5  # 20 letters of 31: 99 bits


def hash_password(password: str, settings: LoginSettings) -> str:
    """Hash a password, as a PHC string. Takes as long as `verify_password`."""
    return _hasher(settings).hash(_prepared(password))


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password is the one of the hash; an unreadable hash has none."""
    try:
        return PasswordHasher().verify(password_hash, _prepared(password))
    except (Argon2Error, InvalidHash):
        return False


def needs_rehash(password_hash: str, settings: LoginSettings) -> bool:
    """Whether the hash was made with other parameters."""
    return _hasher(settings).check_needs_rehash(password_hash)


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
