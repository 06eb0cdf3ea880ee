"""Whether a server's certificate is good: who has signed it, and whom it names.

Looked at when the handshake is done and before anything else is said, so that an
opportunistic connection goes on whatever comes out, and every failure has its words
and its result type of RFC 8460 section 4.3.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509Store, X509StoreContext, X509StoreContextError
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, DNSPattern, verify_service_identity

MAX_CHAIN = 10  # certificates of a peer that are looked at

_EXPIRED = "certificate-expired"
_NOT_TRUSTED = "certificate-not-trusted"
_MISMATCH = "certificate-host-mismatch"

# OpenSSL's X509_V_ERR_*.
_ERRORS = {
    9: ("the certificate is not valid yet", _EXPIRED),
    10: ("the certificate has expired", _EXPIRED),
    18: ("the certificate is self-signed", _NOT_TRUSTED),
    19: ("the certificate is of an unknown authority", _NOT_TRUSTED),
    20: ("the certificate is of an unknown authority", _NOT_TRUSTED),
    21: ("the certificate is of an unknown authority", _NOT_TRUSTED),
}
# What the parsers raise for a certificate that is none.
_UNREADABLE = (
    ValueError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class NotTrusted(Exception):
    """The peer did not show what it has to; `result_type` is of RFC 8460 4.3."""

    def __init__(self, text: str, result_type: str = "validation-failure") -> None:
        super().__init__(text)
        self.text = text
        self.result_type = result_type


def system_authorities() -> X509Store:
    """Return the authorities of the system. Blocking."""
    return _system_context().get_cert_store() or X509Store()


@cache
def _system_context() -> SSL.Context:
    """The context to whom the store belongs: with it the store would go as well."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_default_verify_paths()
    return context


def authorities_of(file: Path) -> X509Store:
    """Return the authorities of a PEM file. Blocking. Raises OSError, ValueError."""
    certificates = x509.load_pem_x509_certificates(file.read_bytes())
    store = X509Store()
    for certificate in certificates:
        store.add_cert(X509.from_cryptography(certificate))
    return store


def shown(connection: SSL.Connection) -> list[X509]:
    """Return the chain that the peer showed, its own certificate first."""
    chain = connection.get_peer_cert_chain()
    if not chain:
        raise NotTrusted("the other server shows no certificate", _NOT_TRUSTED)
    return chain[:MAX_CHAIN]


def check_chain(chain: list[X509], authorities: X509Store) -> None:
    """Check signatures, times and purpose (RFC 5280). Raises `NotTrusted`."""
    try:
        X509StoreContext(authorities, chain[0], chain[1:]).verify_certificate()
    except X509StoreContextError as error:
        code, _, text = error.errors
        words = _ERRORS.get(code, (f"the certificate: {text}", _NOT_TRUSTED))
        raise NotTrusted(*words) from error
    if not _is_for_servers(readable(chain[0])):
        raise NotTrusted("the certificate is not one for servers", _NOT_TRUSTED)


def readable(certificate: X509) -> x509.Certificate:
    """Return a certificate with all that it says. Raises `NotTrusted`."""
    try:
        read = certificate.to_cryptography()
        _ = read.extensions
    except _UNREADABLE as error:
        raise NotTrusted("the certificate cannot be read", _NOT_TRUSTED) from error
    return read


def _is_for_servers(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return True
    oids = (
        ExtendedKeyUsageOID.SERVER_AUTH,
        ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    )
    return any(oid in usage.value for oid in oids)


def check_names(
    certificate: X509, names: Iterable[str], *, common_name: bool = False
) -> None:
    """Check that the certificate is for one of `names`. Raises `NotTrusted`.

    `common_name`: it counts where the certificate has no DNS names.
    """
    names = tuple(names)
    read = readable(certificate)
    try:
        patterns = [p for p in extract_patterns(read) if isinstance(p, DNSPattern)]
        if not patterns and common_name:
            patterns = [
                DNSPattern.from_bytes(str(one.value).encode("ascii"))
                for one in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            ]
    except (CertificateError, *_UNREADABLE) as error:
        raise NotTrusted("the certificate cannot be read", _NOT_TRUSTED) from error
    for name in names:
        try:
            verify_service_identity(patterns, [DNS_ID(name)], [])
        except (VerificationError, CertificateError, ValueError):
            continue
        return
    raise NotTrusted(f"the certificate is not for {' or '.join(names)}", _MISMATCH)
