"""Password hashes that other servers made, in Dovecot's notation ``{SCHEME}hash``.

They are read and verified as Dovecot does, and never made: a log-in replaces them.
Slow and blocking, as hashes are. What is wrong with one is said without showing it.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping

import bcrypt
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import Argon2Error, InvalidHash
from passlib.hash import md5_crypt, sha256_crypt, sha512_crypt

# A verification holds a hashing thread: hashes that cost more are not taken.
MAX_CRYPT_ROUNDS = 500_000
MAX_BCRYPT_COST = 14
MAX_PBKDF2_ROUNDS = 1_000_000
MAX_ARGON2_KIB = 512 * 1024
MAX_ARGON2_PASSES = 20

BCRYPT_OCTETS = 72  # of a password; bcrypt knows no more, and Dovecot cuts there

_SCHEME = re.compile(r"\{([A-Za-z0-9-]{1,32})(?:\.(b64|base64|hex))?\}", re.IGNORECASE)
_SHA_CRYPT = re.compile(rb"\$[56]\$(?:rounds=(\d{1,9})\$)?[./0-9A-Za-z]{0,16}\$.+")
_BCRYPT = re.compile(rb"\$2[abxy]\$(\d\d)\$[./0-9A-Za-z]{53}")
_PBKDF2 = re.compile(rb"\$1\$([^$]{1,64})\$(\d{1,8})\$([0-9a-fA-F]{40})")

# Whether these octets are the password. ValueError: none of this scheme can be so.
Check = Callable[[bytes], bool]


class UnusableHash(ValueError):
    """The text is no hash that can be verified; the message does not show it."""


def is_foreign(password_hash: str) -> bool:
    """Whether it is in Dovecot's notation, and so none of our own."""
    return password_hash.startswith("{")


def scheme(password_hash: str) -> str:
    """The name of the scheme, for the admin."""
    found = _SCHEME.match(password_hash)
    if found is not None:
        return found[1].upper()
    return password_hash.removeprefix("$").partition("$")[0].upper()  # PHC string


def parse(password_hash: str) -> Check:
    """Read ``{SCHEME}hash`` or ``{SCHEME.b64}hash``. Raises `UnusableHash`."""
    found = _SCHEME.match(password_hash)
    read = _SCHEMES.get(found[1].upper()) if found else None
    if found is None or read is None:
        name = found[0] if found else "no {SCHEME}"
        raise UnusableHash(f"{name} is not one of {', '.join(_SCHEMES)}")
    data = password_hash[found.end() :].encode("utf-8", "surrogatepass")
    encoding = (found[2] or _ENCODINGS.get(found[1].upper(), "")).lower()
    try:
        return read(_decoded(data, encoding))
    except UnusableHash as error:
        raise UnusableHash(f"{found[0]} {error}") from None
    except (ValueError, Argon2Error, InvalidHash):
        # Not from the error: its text could show the hash.
        raise UnusableHash(f"{found[0]} is followed by no such hash") from None


def _decoded(data: bytes, encoding: str) -> bytes:
    if encoding == "hex":
        return binascii.unhexlify(data)
    return base64.b64decode(data, validate=True) if encoding else data


def _bounded(cost: int, limit: int) -> None:
    if cost > limit:
        raise UnusableHash(f"costs too much: {cost}, and {limit} is the most")


def _plain(data: bytes) -> Check:
    if not data:
        raise ValueError
    return lambda password: hmac.compare_digest(password, data)


def _salted(name: str) -> Callable[[bytes], Check]:
    """The digest of password and salt, and then the salt."""
    size = hashlib.new(name, usedforsecurity=False).digest_size

    def read(data: bytes) -> Check:
        digest, salt = data[:size], data[size:]
        if len(digest) != size:
            raise ValueError

        def check(password: bytes) -> bool:
            found = hashlib.new(name, password + salt, usedforsecurity=False)
            return hmac.compare_digest(found.digest(), digest)

        return check

    return read


def _pbkdf2(data: bytes) -> Check:
    """``$1$salt$rounds$hex``: Dovecot takes HMAC-SHA1, and the salt as it stands."""
    found = _PBKDF2.fullmatch(data)
    if found is None:
        raise ValueError
    salt, rounds, digest = found[1], int(found[2]), bytes.fromhex(found[3].decode())
    _bounded(rounds, MAX_PBKDF2_ROUNDS)

    def check(password: bytes) -> bool:
        made = hashlib.pbkdf2_hmac("sha1", password, salt, rounds, len(digest))
        return hmac.compare_digest(made, digest)

    return check


def _sha_crypt(data: bytes) -> Check:
    found = _SHA_CRYPT.fullmatch(data)
    if found is None:
        raise ValueError
    _bounded(int(found[1] or 0), MAX_CRYPT_ROUNDS)
    kind = sha512_crypt if data.startswith(b"$6$") else sha256_crypt
    return _by_passlib(kind, data)


def _md5_crypt(data: bytes) -> Check:
    return _by_passlib(md5_crypt, data)


def _by_passlib(
    kind: type[md5_crypt | sha256_crypt | sha512_crypt], data: bytes
) -> Check:
    text = data.decode("ascii")
    if kind.from_string(text).checksum is None:
        raise ValueError

    return lambda password: bool(kind.verify(password, text))


def _blf_crypt(data: bytes) -> Check:
    found = _BCRYPT.fullmatch(data)
    if found is None:
        raise ValueError
    _bounded(int(found[1]), MAX_BCRYPT_COST)
    return lambda password: bcrypt.checkpw(password[:BCRYPT_OCTETS], data)


def _argon2(data: bytes) -> Check:
    text = data.decode("ascii")
    costs = extract_parameters(text)
    _bounded(costs.memory_cost, MAX_ARGON2_KIB)
    _bounded(costs.time_cost, MAX_ARGON2_PASSES)

    def check(password: bytes) -> bool:
        try:
            return PasswordHasher().verify(text, password)
        except (Argon2Error, InvalidHash):
            return False

    return check


def _crypt(data: bytes) -> Check:
    """What crypt(3) of the system would know by the beginning."""
    for prefix, read in _CRYPTS.items():
        if data.startswith(prefix):
            return read(data)
    raise ValueError


_CRYPTS: Mapping[bytes, Callable[[bytes], Check]] = {
    b"$1$": _md5_crypt,
    b"$2": _blf_crypt,
    b"$5$": _sha_crypt,
    b"$6$": _sha_crypt,
}
_SCHEMES: Mapping[str, Callable[[bytes], Check]] = {
    "ARGON2ID": _argon2,
    "ARGON2I": _argon2,
    "BLF-CRYPT": _blf_crypt,
    "SHA512-CRYPT": _sha_crypt,
    "SHA256-CRYPT": _sha_crypt,
    "MD5-CRYPT": _md5_crypt,
    "CRYPT": _crypt,
    "PBKDF2": _pbkdf2,
    "SSHA512": _salted("sha512"),
    "SSHA256": _salted("sha256"),
    "SSHA": _salted("sha1"),
    "PLAIN": _plain,
    "CLEARTEXT": _plain,
    "CLEAR": _plain,
}
_ENCODINGS = {"SSHA512": "b64", "SSHA256": "b64", "SSHA": "b64"}  # without a suffix
