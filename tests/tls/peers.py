"""Certificates of servers that we send to, good and bad, and handshakes with them."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey

from mailsrv.tls.peer import unverified_context

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key, and those above it that a server sends along."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    above: tuple[x509.Certificate, ...] = ()


def issue(
    *names: str,
    by: Issued | None = None,
    authority: bool = False,
    days: int = 10,
    common_name: str = "x",
) -> Issued:
    """Make a certificate; self-signed without `by`, expired with negative `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signer, issuer = (key, subject) if by is None else (by.key, by.certificate.subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
    )
    if names:
        dns = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(dns, critical=False)
    above = () if by is None else (by.certificate, *by.above)
    return Issued(builder.sign(signer, hashes.SHA256()), key, above)


def server_context(issued: Issued) -> SSL.Context:
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_privatekey(PKey.from_cryptography_key(issued.key))
    context.use_certificate(X509.from_cryptography(issued.certificate))
    for one in issued.above:
        context.add_extra_chain_cert(X509.from_cryptography(one))
    return context


def handshake(issued: Issued, host: str = "mx.far.test") -> SSL.Connection:
    """Return the client's side of a connection with a server, in memory."""
    client = SSL.Connection(unverified_context(), None)
    client.set_tlsext_host_name(host.encode())
    client.set_connect_state()
    server = SSL.Connection(server_context(issued), None)
    server.set_accept_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            try:
                one.do_handshake()
            except SSL.WantReadError:
                pass
            pump(one, other)
    return client


def pump(one: SSL.Connection, other: SSL.Connection) -> None:
    while True:
        try:
            other.bio_write(one.bio_read(1 << 16))
        except SSL.WantReadError:
            return
