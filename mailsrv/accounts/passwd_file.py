"""Reads Dovecot's passwd-file: accounts with the hashes of their passwords.

``user:password:uid:gid:gecos:home:shell:extra_fields``, as its manual has it; only
user, password and a quota in the extra fields say something here. Pure. Problems are
collected, and no text of theirs holds a password or its hash.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from mailsrv.accounts import schemes
from mailsrv.accounts.addresses import InvalidAddress, parse, shown

_UNITS = {"B": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
# quota_rule of Dovecot 2.3, whose storage is in kilobytes; quota_storage_size of 2.4.
_LIMIT = re.compile(
    r"(?:userdb_)?quota(?:_rule\d*=[*?]:(?:[^:]+:)?|_)"
    r"(storage|bytes|storage_size)=(\d{1,15})([BKMGT]?)(?::.*)?",
    re.IGNORECASE,
)
_USER = re.compile(r"[\w.@+=&'-]{1,320}")
# What sets a limit of the whole account, in any way of writing. INBOX, Trash and the
# like have limits of their own there, which are left out.
_OWN_LIMIT = re.compile(
    r"(?:userdb_)?quota(?:_rule\d*=[*?]:(?!messages=\d+$)|_storage_size=).*",
    re.IGNORECASE,
)
# Fields that narrow who may log in: without them here, more could than before.
_NARROWING = ("allow_nets", "allow_real_nets", "nologin", "deny")
_PROTECTED = ":protected"  # behind a field's name: unless it is set elsewhere


@dataclass(frozen=True, slots=True)
class Imported:
    """One line, ready to become an account."""

    line: int
    address: str
    password_hash: str = field(repr=False)
    quota_octets: int | None


@dataclass(frozen=True, slots=True)
class Wrong:
    """One line that cannot."""

    line: int
    problem: str


def read(content: bytes, domain: str | None) -> Iterator[Imported | Wrong]:
    """Read all lines; `domain` is that of users without one."""
    seen: dict[str, int] = {}
    for number, octets in enumerate(content.split(b"\n"), 1):
        line = octets.removesuffix(b"\r")
        if not line.strip() or line.lstrip().startswith(b"#"):
            continue
        try:
            found = _account(line.decode(), number, domain)
        except UnicodeDecodeError:
            yield Wrong(number, "is not in UTF-8")
        except ValueError as error:
            yield Wrong(number, str(error))
        else:
            first = seen.setdefault(found.address, number)
            if first == number:
                yield found
            else:
                again = f"{shown(found.address)} was in line {first} already"
                yield Wrong(number, again)


def _account(line: str, number: int, domain: str | None) -> Imported:
    user, password, *others = [*line.split(":", 7), ""]
    if not _USER.fullmatch(user):  # and not shown: who knows what it is
        raise ValueError("does not begin with a user name and a colon")
    if "@" not in user:
        if domain is None:
            raise ValueError(f"{user!r} has no domain: name it by --domain")
        user = f"{user}@{domain}"
    try:
        address = parse(user).canonical
    except InvalidAddress as error:
        raise ValueError(f"{user!r} is no address: {error}") from error
    extra = [_plain(item) for item in others[5].split()] if len(others) > 5 else []
    names = {item.partition("=")[0] for item in extra}
    for narrowing in _NARROWING:
        if narrowing in names:
            raise ValueError(
                f"{narrowing} cannot be kept: take it out if everybody with the"
                " password may log in, or leave the line out"
            )
    if names & {"user", "userdb_user"}:
        raise ValueError(
            "user= leads to the mailbox of another name: take it out, or leave the"
            " line out and make an alias"
        )
    return Imported(number, address, _hash(password, extra), _quota(extra))


def _plain(item: str) -> str:
    """A field without what its name may have behind it."""
    name, sign, value = item.partition("=")
    return name.removesuffix(_PROTECTED) + sign + value


def _hash(password: str, extra: list[str]) -> str:
    if not password or any(item.partition("=")[0] == "nopassword" for item in extra):
        raise ValueError("has no password: give it one")
    if not password.startswith("{"):
        password = "{CRYPT}" + password  # Dovecot's default for such files
    schemes.parse(password)
    return password


def _quota(extra: list[str]) -> int | None:
    """The limit of the whole account, None without one; 0 is none as well."""
    for item in extra:
        if (limit := _LIMIT.fullmatch(item)) is not None:
            unit = limit[3].upper() or ("K" if limit[1].lower() == "storage" else "B")
            return int(limit[2]) * _UNITS[unit] or None
        if _OWN_LIMIT.fullmatch(item) is not None:
            raise ValueError(
                f"{item!r} is no quota that is known: write it as"
                " userdb_quota_rule=*:storage=5G, or take it out"
            )
    return None
