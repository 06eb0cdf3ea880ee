"""DANE for SMTP (RFC 7672, 7671, 6698): the DNS says which certificate is right.

Asked for only where DNSSEC vouches for the MX and its addresses. Of the usages those
that RFC 7672 section 3.1 has for SMTP: DANE-TA(2) and DANE-EE(3).
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from dns.rdata import Rdata
from dns.rdtypes.ANY.TLSA import TLSA
from OpenSSL.crypto import X509, X509Store, X509StoreFlags

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName
from mailsrv.tls.peer_certificate import (
    NotTrusted,
    check_chain,
    check_names,
    readable,
)

DANE_TA, DANE_EE = 2, 3
CERTIFICATE, PUBLIC_KEY = 0, 1
FULL, SHA_256, SHA_512 = 0, 1, 2
_DIGEST_OCTETS = {SHA_256: 32, SHA_512: 64}


@dataclass(frozen=True, slots=True)
class Association:
    """One usable TLSA record."""

    usage: int
    selector: int
    matching: int
    data: bytes

    def fits(self, certificate: x509.Certificate) -> bool:
        """Whether it names this certificate, or its key."""
        if self.selector == CERTIFICATE:
            selected = certificate.public_bytes(Encoding.DER)
        else:
            selected = public_key_octets(certificate.tbs_certificate_bytes)
        match self.matching:
            case 1:
                selected = hashlib.sha256(selected).digest()
            case 2:
                selected = hashlib.sha512(selected).digest()
        return selected == self.data


@dataclass(frozen=True, slots=True)
class TlsaRecords:
    """What the DNS says of a host: `usable` may be empty, `texts` are all."""

    base: str  # the name at which they stand, and which the handshake names (SNI)
    usable: tuple[Association, ...]
    texts: tuple[str, ...]


async def look_up(resolver: IResolver, host: str, port: int) -> TlsaRecords | None:
    """Return the secure TLSA records of a secure host; None if it has none.

    Raises `NotTrusted` if that cannot be known: then the host must wait (RFC 7672
    section 2.1.2), since an attacker may be holding them back.
    """
    for base in dict.fromkeys((await _canonical(resolver, host), host)):
        try:
            found = await resolver.query(f"_{port}._tcp.{base}", "TLSA")
        except NoSuchName:
            continue
        except DnsUnavailable as error:
            text = f"the TLSA records of {base} cannot be had"
            raise NotTrusted(text, "dnssec-invalid") from error
        if found.secure and found.records:
            texts = tuple(record.to_text() for record in found.records)
            return TlsaRecords(base, usable(found.records), texts)
    return None


async def _canonical(resolver: IResolver, host: str) -> str:
    """Return where the CNAMEs of a host end (RFC 7672 section 2.1.3)."""
    for type in ("AAAA", "A"):
        try:
            found = await resolver.query(host, type)
        except (NoSuchName, DnsUnavailable):
            continue
        if found.secure:
            return found.canonical.lower()
    return host


def usable(records: Iterable[Rdata]) -> tuple[Association, ...]:
    """Return the records that can be used, the weaker digests left out."""
    found = []
    for record in cast(Iterable[TLSA], records):
        one = Association(record.usage, record.selector, record.mtype, record.cert)
        if _is_usable(one):
            found.append(one)
    # RFC 7671 section 9: of the digests only the strongest that is there.
    strong = {(one.usage, one.selector) for one in found if one.matching == SHA_512}
    return tuple(
        one
        for one in found
        if one.matching != SHA_256 or (one.usage, one.selector) not in strong
    )


def _is_usable(one: Association) -> bool:
    if one.usage not in (DANE_TA, DANE_EE) or one.selector not in (
        CERTIFICATE,
        PUBLIC_KEY,
    ):
        return False
    if one.matching == FULL:
        return bool(one.data)
    return len(one.data) == _DIGEST_OCTETS.get(one.matching)


def check(
    chain: Sequence[X509], associations: Iterable[Association], names: Sequence[str]
) -> None:
    """Check what a peer has shown. Raises `NotTrusted`.

    `names`: of which DANE-TA wants one in the certificate; DANE-EE looks at neither
    names nor times (RFC 7672 section 3.1.1).
    """
    certificates = [readable(one) for one in chain]
    anchors: list[X509] = []
    for one in associations:
        if one.usage == DANE_EE:
            if one.fits(certificates[0]):
                return
            continue
        anchors += [
            given
            for given, read in zip(chain[1:], certificates[1:], strict=True)
            if one.fits(read)
        ]
        anchors += _anchor(one)
    if not anchors:
        text = "the certificate is not the one that the DNS names (TLSA)"
        raise NotTrusted(text, "certificate-not-trusted")
    _check_anchored(list(chain), anchors, names)


def _check_anchored(
    chain: list[X509], anchors: Sequence[X509], names: Sequence[str]
) -> None:
    """Check a chain that ends at an anchor, of whatever kind (RFC 7671 5.2)."""
    store = X509Store()
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    for anchor in anchors:
        store.add_cert(anchor)
    check_chain(chain, store)
    check_names(chain[0], names, common_name=True)  # RFC 7672 section 3.2.3


def _anchor(one: Association) -> list[X509]:
    """Return the authority that stands in the record itself, if it is one."""
    if (one.selector, one.matching) != (CERTIFICATE, FULL):
        return []
    try:
        return [X509.from_cryptography(x509.load_der_x509_certificate(one.data))]
    except ValueError:
        return []


_SEQUENCE, _VERSION = 0x30, 0xA0


def public_key_octets(certificate: bytes) -> bytes:
    """Cut SubjectPublicKeyInfo out of a TBSCertificate (RFC 5280 section 4.1).

    As it was sent: written anew it may differ, and so would its digest. The octets
    have been read as a certificate before.
    """
    at, _ = _contents(certificate, 0)
    # Maybe the version; serial number, signature, issuer, validity, subject.
    before = 6 if certificate[at] == _VERSION else 5
    for _ in range(before):
        at = _contents(certificate, at)[1]
    return certificate[at : _contents(certificate, at)[1]]


def _contents(octets: bytes, at: int) -> tuple[int, int]:
    """Return where the contents of a DER element begin and end (X.690 8.1.3)."""
    length = octets[at + 1]
    start = at + 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(octets[start : start + size], "big")
        start += size
    return start, start + length
