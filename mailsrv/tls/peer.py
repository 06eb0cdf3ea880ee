"""TLS with the servers that we send to: what they have to show, and what it came to.

`PeerPolicies` says what a domain demands, `DomainPolicy` whether a host may have its
mail and, for each, `PeerTls`: how the handshake is made and judged.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, Protocol

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from mailsrv.tls.peer_certificate import NotTrusted

Need = Literal["never", "may", "must"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a handshake came to."""

    words: str  # version, cipher and trust
    failure: NotTrusted | None = None  # of a policy that is only tried, for reports


class PeerTls(Protocol):
    """How to speak TLS with one host."""

    @property
    def tls(self) -> Need: ...

    @property
    def source(self) -> str:
        """Who demands it: "opportunistic", "setting", "MTA-STS", "DANE", ..."""

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        """Return what ``startTLS`` of a transport takes."""

    def judge(self, connection: SSL.Connection) -> Judged:
        """Look at what the peer has shown. Raises `NotTrusted`."""

    def note(
        self,
        failure: NotTrusted | None,
        *,
        sending_ip: str = "",
        receiving_ip: str = "",
    ) -> None:
        """Count a success or a failure, for reports; no STARTTLS is one, too."""


class DomainPolicy(Protocol):
    """What a recipient domain demands of the way to its servers."""

    @property
    def text(self) -> str:
        """It in words."""

    async def for_host(self, host: str, *, secure: bool) -> PeerTls:
        """Return how to speak with a host; `secure`: DNSSEC vouches for MX and address.

        Raises `NotTrusted`: for now it must not have the domain's mail.
        """


class PeerPolicies(Protocol):
    """What domains demand."""

    async def for_domain(
        self, domain: str, *, require_tls: bool = False, tls_optional: bool = False
    ) -> DomainPolicy:
        """Return the policy for mail to `domain`.

        RFC 8689: `require_tls` by REQUIRETLS, `tls_optional` by ``TLS-Required: No``.
        """


@implementer(IOpenSSLClientConnectionCreator)
class Creator:
    """Makes the client's side of a connection that names its host (SNI)."""

    def __init__(self, context: SSL.Context, host: str) -> None:
        self._context = context
        self._host = host

    def clientConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if not _is_ip(self._host):  # RFC 6066 section 3: no addresses
            connection.set_tlsext_host_name(self._host.encode("ascii"))
        return connection


class Unverified:
    """TLS with whoever is there: against those who only listen (RFC 7435)."""

    source = "opportunistic"

    def __init__(self, tls: Need, context: SSL.Context) -> None:
        self.tls = tls
        self._context = context

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        return Creator(self._context, host)

    def judge(self, connection: SSL.Connection) -> Judged:
        return Judged(f"{version_and_cipher(connection)}, not verified")

    def note(
        self,
        failure: NotTrusted | None,
        *,
        sending_ip: str = "",
        receiving_ip: str = "",
    ) -> None:
        """Nobody wants to know."""


class Verified:
    """TLS with a host whose certificate is signed by a known authority."""

    source = "setting"
    tls: Need = "must"

    def __init__(self, host: str, context: SSL.Context) -> None:
        self._host = host
        self._context = context

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        return Creator(self._context, host)

    def judge(self, connection: SSL.Connection) -> Judged:
        verify = verify_ip_address if _is_ip(self._host) else verify_hostname
        try:
            verify(connection, self._host)
        except (VerificationError, CertificateError) as error:
            text = f"the certificate is not for {self._host}"
            raise NotTrusted(text, "certificate-host-mismatch") from error
        return Judged(f"{version_and_cipher(connection)}, verified")

    def note(
        self,
        failure: NotTrusted | None,
        *,
        sending_ip: str = "",
        receiving_ip: str = "",
    ) -> None:
        """Nobody wants to know."""


class AnyHost:
    """The policy of a domain that demands nothing."""

    text = "opportunistic TLS"

    def __init__(self, peer_tls: PeerTls) -> None:
        self._peer_tls = peer_tls

    async def for_host(self, host: str, *, secure: bool) -> PeerTls:
        return self._peer_tls


class Opportunistic:
    """TLS where it is offered, with any certificate; always with REQUIRETLS."""

    def __init__(self) -> None:
        context = unverified_context()
        self._may = AnyHost(Unverified("may", context))
        self._must = AnyHost(Unverified("must", context))

    async def for_domain(
        self, domain: str, *, require_tls: bool = False, tls_optional: bool = False
    ) -> DomainPolicy:
        return self._must if require_tls else self._may


def unverified_context() -> SSL.Context:
    """Return a context for clients that takes every certificate."""
    return CertificateOptions(enableSessions=False).getContext()


def verified_context() -> SSL.Context:
    """Return a context for clients that knows the authorities of the system."""
    return CertificateOptions(trustRoot=platformTrust()).getContext()


def version_and_cipher(connection: SSL.Connection) -> str:
    """Say what a connection is protected by."""
    version, cipher = (
        connection.get_protocol_version_name(),
        connection.get_cipher_name(),
    )
    return f"{version} {cipher}"


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
