"""MTA-STS, read (RFC 8461): the TXT record and the policy file of a domain.

Both come from strangers. Nothing is fetched here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MAX_POLICY = 64 * 1024  # octets, RFC 8461 section 3.3
MAX_AGE_S = 31_557_600  # section 3.2: a year

Mode = Literal["enforce", "testing", "none"]

_FIELD = re.compile(rb"\s*([A-Za-z0-9][A-Za-z0-9_.-]{0,31})\s*=\s*([!-:<>-~]*)\s*")
_ID = re.compile(rb"[A-Za-z0-9]{1,32}")
_AGE = re.compile(r"[0-9]{1,10}")
_PATTERN = re.compile(r"(?:\*\.)?(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


class BadPolicy(Exception):
    """A policy file says nothing that counts; the text says why."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """What a domain demands."""

    mode: Mode
    max_age_s: int
    mx: tuple[str, ...]  # lower case, may begin with "*."

    def allows(self, host: str) -> bool:
        """Whether a pattern is for this host (section 4.1)."""
        host = host.lower().removesuffix(".")
        first, _, rest = host.partition(".")
        return host in self.mx or bool(first and rest and f"*.{rest}" in self.mx)

    @property
    def lines(self) -> tuple[str, ...]:
        """The policy as reports show it (RFC 8460 section 4.4)."""
        patterns = (f"mx: {pattern}" for pattern in self.mx)
        age = f"max_age: {self.max_age_s}"
        return ("version: STSv1", f"mode: {self.mode}", *patterns, age)


def parse_record(texts: Sequence[bytes]) -> str | None:
    """Return the id of the one record for MTA-STS; None: the domain has no policy."""
    # Section 3.1: what begins otherwise is something else; of two none counts.
    records = [text for text in texts if text.startswith(b"v=STSv1;")]
    if len(records) != 1:
        return None
    fields: dict[bytes, bytes] = {}
    for text in records[0].rstrip(b" \t").removesuffix(b";").split(b";"):
        field = _FIELD.fullmatch(text)
        if field is None:
            return None
        fields.setdefault(field[1], field[2])
    id = fields.get(b"id", b"")
    return id.decode("ascii") if _ID.fullmatch(id) else None


def parse_policy(octets: bytes) -> StsPolicy:
    """Read a policy file (section 3.2). Raises `BadPolicy`."""
    if len(octets) > MAX_POLICY:
        raise BadPolicy("the policy is too long")
    try:
        lines = octets.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadPolicy("the policy is no text") from error
    fields: dict[str, str] = {}
    patterns: dict[str, None] = {}
    for line in lines:
        key, colon, value = line.strip().partition(":")
        key, value = key.rstrip(), value.strip()
        if not colon:
            if key:
                raise BadPolicy("a line of the policy has no colon")
        elif key == "mx":
            patterns[_pattern(value)] = None
        else:
            fields.setdefault(key, value)
    return _policy(fields, tuple(patterns))


def _policy(fields: dict[str, str], patterns: tuple[str, ...]) -> StsPolicy:
    if fields.get("version") != "STSv1":
        raise BadPolicy("the policy has no version that is known")
    age = fields.get("max_age", "")
    if not _AGE.fullmatch(age):
        raise BadPolicy("the policy has no max_age")
    match fields.get("mode"):
        case "enforce" | "testing" | "none" as mode:
            if not patterns and mode != "none":
                raise BadPolicy("the policy has no mx")
            return StsPolicy(mode, min(int(age), MAX_AGE_S), patterns)
    raise BadPolicy("the policy has no mode that is known")


def _pattern(text: str) -> str:
    pattern = text.lower().removesuffix(".")
    if len(pattern) > 255 or not _PATTERN.fullmatch(pattern):
        raise BadPolicy("an mx of the policy is no name of a host")
    return pattern
