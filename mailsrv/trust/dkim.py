"""Signs messages with DKIM (RFC 6376), by RSA and by Ed25519 (RFC 8463).

Blocking, for threads, which it may serve at the same time. Signed are the fields that
RFC 6376 section 5.4.1 names; of the fields of the author none can be added later
without breaking the signature. The whole body counts always (no l=).
"""

import hashlib
import textwrap
from base64 import b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress, canonical_domain
from mailsrv.mime.address import addresses
from mailsrv.trust.dkim_canonical import BodyHash, fields, value
from mailsrv.trust.dkim_keys import Key, KeyFolder, PrivateKey, State

log = Logger()

MAX_AUTHORS = 10  # addresses in From that are looked at
MAX_SIGNED = 500  # fields: what has more is left unsigned

# Named once more than they are there: who adds another one breaks the signature
# (RFC 6376 section 8.15).
_OF_AUTHOR = (
    b"from sender reply-to subject date message-id to cc in-reply-to references"
    b" mime-version content-type content-transfer-encoding"
).split()
# Of these a list on the way may have its own.
_OTHERS = (
    b"resent-date resent-from resent-to resent-cc resent-message-id auto-submitted"
    b" list-id list-help list-unsubscribe list-unsubscribe-post list-subscribe"
    b" list-post list-owner list-archive"
).split()


@dataclass(frozen=True, slots=True)
class PreparedBody:
    """A body that is signed with many headers."""

    digest: str  # the value of bh=


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The keys of a domain that sign, as its manifest was at `version`."""

    version: tuple[int, int]
    keys: tuple[tuple[Key, PrivateKey], ...]


class Signer:
    """Signs for the domains whose keys are in a folder, as they are now."""

    def __init__(self, folder: Path, now: Callable[[], float]) -> None:
        self._folder = KeyFolder(folder)
        self._now = now
        self._loaded: dict[str, _Loaded] = {}

    def prepare(self, body: Iterable[bytes]) -> PreparedBody:
        """Read a body: what follows the header's blank line, with LF or CRLF."""
        body_hash = BodyHash()
        for piece in body:
            body_hash.feed(piece)
        return PreparedBody(body_hash.end())

    def sign(self, header: bytes, body: Iterable[bytes] | PreparedBody) -> bytes:
        """Return the DKIM-Signature fields to put above a header block.

        `header` is without its blank line, with LF or CRLF. Nothing is returned if
        the domain of From has no keys, nor one above it.
        """
        found = fields(header)
        domain, keys = self._of_author(found)
        if not keys:
            return b""
        if not isinstance(body, PreparedBody):
            body = self.prepare(body)
        names, signed = _signed(found)
        if len(names) > MAX_SIGNED:
            return b""
        tags = (
            f"d={domain}; t={int(self._now())};\r\n"
            f"\th={_listed(names)};\r\n"
            f"\tbh={body.digest};\r\n"
            "\tb="
        )
        return b"".join(_signature(key, private, tags, signed) for key, private in keys)

    def _of_author(
        self, found: list[tuple[bytes, bytes]]
    ) -> tuple[str, tuple[tuple[Key, PrivateKey], ...]]:
        """Return the domain that signs for the author, and its keys."""
        authors = [text for name, text in found if name == b"from"]
        if len(authors) == 1:  # with two of them it is not plain whose mail it is
            for member in islice(addresses(authors[0]), MAX_AUTHORS):
                if member.host is None:
                    continue
                domain = _domain(member.host)
                while "." in domain:
                    if keys := self._keys(domain):
                        return domain, keys
                    domain = domain.partition(".")[2]
        return "", ()

    def _keys(self, domain: str) -> tuple[tuple[Key, PrivateKey], ...]:
        """Return the keys that sign for just this domain; read anew when changed."""
        try:
            status = self._folder.manifest(domain).stat()
        except OSError:
            return ()
        version = status.st_mtime_ns, status.st_ino
        loaded = self._loaded.get(domain)
        if loaded is None or loaded.version != version:
            try:
                loaded = _Loaded(version, self._read(domain))
            except (OSError, ValueError, KeyError, TypeError):
                # Unsigned mail still goes out; the admin has to see to this.
                log.failure("the DKIM keys of {domain} cannot be read", domain=domain)
                return ()
            self._loaded[domain] = loaded
        return loaded.keys

    def _read(self, domain: str) -> tuple[tuple[Key, PrivateKey], ...]:
        return tuple(
            (key, self._folder.private_key(domain, key.selector))
            for key in self._folder.keys(domain)
            if key.state is State.ACTIVE
        )


def _domain(host: bytes) -> str:
    """Return the canonical name, empty for an address literal and junk."""
    try:
        domain = canonical_domain(host.decode("utf-8"))
    except (InvalidAddress, UnicodeDecodeError):
        return ""
    return "" if domain.startswith("[") else domain


def _signed(found: list[tuple[bytes, bytes]]) -> tuple[list[bytes], bytes]:
    """Choose the fields to sign; return the names for h= and the canonical fields.

    Of several with one name the last comes first (RFC 6376 section 5.4.2).
    """
    by_name: dict[bytes, list[bytes]] = {}
    for name, text in reversed(found):
        by_name.setdefault(name, []).append(text)
    chosen = [
        (name, text)
        for name in (*_OF_AUTHOR, *_OTHERS)
        for text in by_name.get(name, ())
    ]
    names = [name for name, _ in chosen]
    names += [name for name in _OF_AUTHOR if name in by_name]
    return names, b"".join(b"%b:%b\r\n" % field for field in chosen)


def _listed(names: list[bytes]) -> str:
    """Write the value of h= in lines."""
    text = ": ".join(name.decode() for name in names)
    lines = textwrap.wrap(text, 70, break_on_hyphens=False)
    return "\r\n\t  ".join(lines).replace(": ", ":")


def _signature(key: Key, private: PrivateKey, tags: str, signed: bytes) -> bytes:
    """Write one field, with its line end; `tags` are what all keys have alike."""
    text = f"v=1; a={key.algorithm}; c=relaxed/relaxed; s={key.selector};\r\n\t{tags}"
    # RFC 6376 section 3.7: the field itself comes last, with an empty b=, and without
    # a line end.
    canonical = value(text.replace("\r\n", "\n").encode())
    octets = signed + b"dkim-signature:" + canonical
    if isinstance(private, ed25519.Ed25519PrivateKey):
        # RFC 8463 section 3: what is signed is the digest.
        result = private.sign(hashlib.sha256(octets).digest())
    else:
        result = private.sign(octets, PKCS1v15(), hashes.SHA256())
    encoded = b64encode(result).decode()
    folded = "\r\n\t  ".join(encoded[i : i + 70] for i in range(0, len(encoded), 70))
    return f"DKIM-Signature: {text}{folded}\r\n".encode()
