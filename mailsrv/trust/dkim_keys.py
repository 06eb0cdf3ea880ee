"""DKIM's keys: made, kept and published (RFC 6376 section 3.6, RFC 8463).

A folder for each domain below ``data/dkim``: a private key in each ``SELECTOR.pem``,
and ``keys.json``, which says which of them sign. Blocking.
"""

import base64
import fcntl
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from mailsrv.store import durable

KEYS_FOLDER = "dkim"  # of the data
RSA_BITS = 2048  # RFC 8301 section 3.2; a longer key needs TCP at some resolvers
_MAX_FILE = 64 * 1024
_MANIFEST = "keys.json"
_STRING = 255  # octets of one string in a TXT record: RFC 1035 section 3.3

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class Algorithm(StrEnum):
    """What a= says."""

    RSA = "rsa-sha256"
    ED25519 = "ed25519-sha256"


class State(StrEnum):
    """What a key is used for; its record stays in the DNS through all of them."""

    NEXT = "next"  # to be published, does not sign yet
    ACTIVE = "active"
    RETIRED = "retired"  # signs no more; mail on its way still needs its record


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the manifest."""

    selector: str
    algorithm: Algorithm
    state: State
    made_at_utc: int


@dataclass(frozen=True, slots=True)
class Record:
    """The TXT record that publishes a key."""

    name: str
    value: str

    @property
    def zone_line(self) -> str:
        """A line for a zone file, in strings as short as they must be."""
        strings = [
            self.value[place : place + _STRING]
            for place in range(0, len(self.value), _STRING)
        ]
        quoted = "\n    ".join(f'"{string}"' for string in strings)
        text = f"(\n    {quoted} )" if len(strings) > 1 else quoted
        return f"{self.name}. IN TXT {text}"


class KeysRefused(Exception):
    """A change that makes no sense; the message says why, for people."""


class KeyFolder:
    """The keys of all domains. Domains are A-labels in lower case."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def domains(self) -> list[str]:
        with suppress(FileNotFoundError):
            return sorted(
                path.parent.name for path in self._root.glob(f"*/{_MANIFEST}")
            )
        return []

    def manifest(self, domain: str) -> Path:
        return self._root / domain / _MANIFEST

    def keys(self, domain: str) -> list[Key]:
        """Return a domain's keys, oldest first; none: it signs nothing.

        Raises OSError, and ValueError, KeyError or TypeError for a broken manifest.
        """
        content = durable.read(self.manifest(domain), _MAX_FILE)
        if not content:
            return []
        return [
            Key(
                line["selector"],
                Algorithm(line["algorithm"]),
                State(line["state"]),
                line["made_at_utc"],
            )
            for line in json.loads(content)["keys"]
        ]

    def private_key(self, domain: str, selector: str) -> PrivateKey:
        """Read a private key. Raises OSError, ValueError."""
        content = durable.read(self._file(domain, selector), _MAX_FILE)
        key = serialization.load_pem_private_key(content, None)
        if isinstance(key, rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
            return key
        raise ValueError(f"the key {selector} is neither RSA nor Ed25519")

    def record(self, domain: str, key: Key) -> Record:
        """Return what is to stand in the DNS."""
        public = self.private_key(domain, key.selector).public_key()
        if isinstance(public, rsa.RSAPublicKey):
            octets = public.public_bytes(
                serialization.Encoding.DER,
                serialization.PublicFormat.SubjectPublicKeyInfo,
            )
            kind = "rsa"
        else:
            octets = public.public_bytes_raw()  # RFC 8463 section 4
            kind = "ed25519"
        text = base64.b64encode(octets).decode()
        name = f"{key.selector}._domainkey.{domain}"
        return Record(name, f"v=DKIM1; k={kind}; p={text}")

    # Changes

    def make(self, domain: str, state: State, now_utc: float) -> list[Key]:
        """Make one key of each algorithm. Raises `KeysRefused`."""
        with self._editing(domain) as keys:
            if state is State.ACTIVE and keys:
                raise KeysRefused(f"{domain} has keys already")
            if state is State.NEXT and not _of(keys, State.ACTIVE):
                raise KeysRefused(f"{domain} has no keys that sign: make them first")
            if state is State.NEXT and _of(keys, State.NEXT):
                raise KeysRefused(f"{domain} has next keys already")
            day = time.strftime("%Y%m%d", time.gmtime(now_utc))
            used = {key.selector for key in keys}
            made = [
                Key(_free(f"{prefix}-{day}", used), algorithm, state, int(now_utc))
                for prefix, algorithm in (
                    ("rsa", Algorithm.RSA),
                    ("ed25519", Algorithm.ED25519),
                )
            ]
            for key in made:
                self._write(domain, key)
            keys += made
        return made

    def switch(self, domain: str) -> list[Key]:
        """Let the next keys sign, and the others no more. Raises `KeysRefused`."""
        with self._editing(domain) as keys:
            if not _of(keys, State.NEXT):
                raise KeysRefused(f"{domain} has no next keys: rotate makes them")
            after = {State.NEXT: State.ACTIVE}
            keys[:] = [
                replace(key, state=after.get(key.state, State.RETIRED)) for key in keys
            ]
        return keys

    def remove(self, domain: str, selector: str | None) -> list[Key]:
        """Forget a key that does not sign, or all keys of a domain.

        Returns those that are gone. Raises `KeysRefused`.
        """
        with self._editing(domain) as keys:
            gone = [key for key in keys if selector in (None, key.selector)]
            if not gone:
                raise KeysRefused(f"{domain} has no such keys")
            if selector is not None and gone[0].state is State.ACTIVE:
                raise KeysRefused(f"{selector} signs: rotate the keys first")
            keys[:] = [key for key in keys if key not in gone]
        for key in gone:
            with suppress(FileNotFoundError):
                self._file(domain, key.selector).unlink()
        return gone

    def _file(self, domain: str, selector: str) -> Path:
        return self._root / domain / f"{selector}.pem"

    @contextmanager
    def _editing(self, domain: str) -> Iterator[list[Key]]:
        """The keys of a domain, to be changed; they are written at the end."""
        folder = self._root / domain
        durable.make_folders(folder)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            keys = self.keys(domain)
            yield keys
            lines = {"keys": [asdict(key) for key in keys]}
            durable.replace(
                self.manifest(domain), json.dumps(lines, indent=2).encode() + b"\n"
            )
        finally:
            os.close(fd)

    def _write(self, domain: str, key: Key) -> None:
        private: PrivateKey
        if key.algorithm is Algorithm.RSA:
            private = rsa.generate_private_key(65537, RSA_BITS)
        else:
            private = ed25519.Ed25519PrivateKey.generate()
        content = private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        durable.replace(self._file(domain, key.selector), content)


def _of(keys: Sequence[Key], state: State) -> list[Key]:
    return [key for key in keys if key.state is state]


def _free(selector: str, used: set[str]) -> str:
    """Return a selector that no key has, nor had on this day."""
    found, number = selector, 1
    while found in used:
        number += 1
        found = f"{selector}-{number}"
    return found
