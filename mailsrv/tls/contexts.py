"""TLS for all services: certificates by name (SNI), session tickets, reload.

TLS 1.2 and later (RFC 8996); no renegotiation, no compression. ALPN is not
selected, so that a client may offer what it likes (Outlook does).
"""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsrv.settings import Certificate

Stamp = tuple[int, int, int]


class UnusableCertificate(Exception):
    """A chain or key cannot be used; `file` and the text say which and why."""

    def __init__(self, file: Path, wrong: str) -> None:
        super().__init__(f"{file}: {wrong}")
        self.file = file
        self.wrong = wrong


@dataclass(frozen=True, slots=True)
class LoadedCertificates:
    """Contexts made of one state of the files; `stamps` tell that state."""

    certificates: tuple[Certificate, ...]
    default: SSL.Context
    by_name: dict[str, SSL.Context]  # lower case, may begin with "*."
    stamps: tuple[Stamp, ...]

    def renewed(self) -> "LoadedCertificates | None":
        """Load the files again if one has changed. Blocking.

        Raises `UnusableCertificate`, as between two steps of a renewal.
        """
        if _stamps(self.certificates) == self.stamps:
            return None
        return load_certificates(self.certificates)

    def for_name(self, server_name: bytes | None) -> SSL.Context:
        """The context for a name that the client sent (RFC 6066 section 3)."""
        if server_name is None:
            return self.default
        # Looser than RFC 6066: Microsoft's cloud sends the name with its last dot.
        name = server_name.decode("ascii", "replace").lower().removesuffix(".")
        wildcard = "*." + name.partition(".")[2]
        return self.by_name.get(name) or self.by_name.get(wildcard) or self.default


def load_certificates(certificates: Sequence[Certificate]) -> LoadedCertificates:
    """Read all files. Blocking. Raises `UnusableCertificate`."""
    stamps = _stamps(certificates)  # first: a later change is then seen as one
    by_name: dict[str, SSL.Context] = {}
    contexts = []
    for certificate in certificates:
        context = _context(certificate)
        contexts.append(context)
        for name in _names(certificate.chain):
            by_name.setdefault(name, context)
    loaded = LoadedCertificates(tuple(certificates), contexts[0], by_name, stamps)

    def chosen(connection: SSL.Connection) -> None:
        connection.set_context(loaded.for_name(connection.get_servername()))

    # OpenSSL asks the context that a connection began with: the default one.
    loaded.default.set_tlsext_servername_callback(chosen)
    return loaded


@implementer(IOpenSSLServerConnectionCreator)
class TlsContexts:
    """Makes the TLS side of connections; `replace` serves those that come next.

    Use it as ``transport.startTLS(tls)`` or in a `TLSMemoryBIOFactory`.
    """

    def __init__(self, loaded: LoadedCertificates) -> None:
        self.loaded = loaded

    def replace(self, loaded: LoadedCertificates) -> None:
        """Use `loaded` from now on; connections that stand keep what they have."""
        self.loaded = loaded

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return SSL.Connection(self.loaded.default)


def _context(certificate: Certificate) -> SSL.Context:
    _check_key_mode(certificate.key)
    # Twisted's options: TLS 1.2+, its ciphers, no compression. Without tickets
    # TLS 1.3 clients resume nothing, and phones reconnect all day.
    options = CertificateOptions(enableSessions=True, enableSessionTickets=True)
    context = options.getContext()
    context.set_options(SSL.OP_NO_RENEGOTIATION)
    # A key with a pass phrase is an error here: nobody sits at a server to type it.
    context.set_passwd_cb(lambda *_: b"")
    # Twisted's own choice fails the handshake when nothing offered is known.
    context.set_alpn_select_callback(lambda *_: SSL.NO_OVERLAPPING_PROTOCOLS)
    try:
        certificate.chain.read_bytes()
        context.use_certificate_chain_file(str(certificate.chain))
    except OSError as error:
        raise UnusableCertificate(certificate.chain, str(error.strerror)) from error
    except SSL.Error as error:
        raise UnusableCertificate(
            certificate.chain, "is no chain of certificates in PEM"
        ) from error
    try:
        context.use_privatekey_file(str(certificate.key))
    except SSL.Error as error:
        raise UnusableCertificate(
            certificate.key,
            f"is not the key of {certificate.chain}, in PEM without a pass phrase",
        ) from error
    return context


def _check_key_mode(key: Path) -> None:
    """A key is for its owner, and at most its group (Debian's ssl-cert)."""
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise UnusableCertificate(key, str(error.strerror)) from error
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise UnusableCertificate(
            key, f"has mode {stat.S_IMODE(mode):04o}; allowed: 0600 or 0640"
        )


def _names(chain: Path) -> Iterable[str]:
    """The DNS names of the first certificate in `chain`, in lower case."""
    try:
        certificate = x509.load_pem_x509_certificate(chain.read_bytes())
        extension = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except x509.ExtensionNotFound:
        return ()
    except ValueError as error:
        raise UnusableCertificate(chain, "is not a certificate") from error
    names = extension.value.get_values_for_type(x509.DNSName)
    return [name.lower() for name in names]


def _stamps(certificates: Iterable[Certificate]) -> tuple[Stamp, ...]:
    return tuple(
        _stamp(file)
        for certificate in certificates
        for file in (certificate.chain, certificate.key)
    )


def _stamp(file: Path) -> Stamp:
    try:
        status = file.stat()
    except OSError:
        return (0, 0, 0)  # missing just now, as between two steps of a renewal
    return (status.st_mtime_ns, status.st_ino, status.st_size)
