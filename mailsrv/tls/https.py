"""HTTPS to strangers: short answers of verified hosts, no redirects, within a time.

Names are looked up by the resolver that all parts share.
"""

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    BrowserLikePolicyForHTTPS,
    FileBodyProducer,
    ResponseDone,
)
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName

CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 60.0  # RFC 8461 section 3.3, for all of it
# Of an answer with its header and its TLS: Twisted has no limit for headers.
MAX_RECEIVED = 512 * 1024
USER_AGENT = b"mailsrv"


class HttpsFailed(Exception):
    """There is no answer; `tls`: for want of a certificate that can be trusted."""

    def __init__(self, text: str, *, tls: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.tls = tls


@dataclass(frozen=True, slots=True)
class HttpsAnswer:
    """An answer, whatever its status."""

    status: int
    media_type: str  # lower case, without parameters
    body: bytes


class Https:
    """Asks. `private` allows hosts in private networks, as in a lab."""

    def __init__(
        self,
        resolver: IResolver,
        *,
        reactor: Any,  # the global one: TCP and time
        private: bool = False,
        tls: BrowserLikePolicyForHTTPS | None = None,
    ) -> None:
        self._reactor = reactor
        endpoints = _Endpoints(
            resolver, reactor, private, tls or BrowserLikePolicyForHTTPS()
        )
        self._agent = Agent.usingEndpointFactory(reactor, endpoints)

    async def get(self, url: str, *, max_octets: int) -> HttpsAnswer:
        """Ask for a page. Raises `HttpsFailed`."""
        return await self._ask(b"GET", url, Headers(), None, max_octets)

    async def post(self, url: str, media_type: str, body: Any) -> HttpsAnswer:
        """Hand a file-like `body` over. Raises `HttpsFailed`."""
        headers = Headers({"Content-Type": [media_type]})
        return await self._ask(b"POST", url, headers, FileBodyProducer(body), 64 * 1024)

    async def _ask(
        self, method: bytes, url: str, headers: Headers, body: Any, max_octets: int
    ) -> HttpsAnswer:
        headers.setRawHeaders(b"User-Agent", [USER_AGENT])
        asking = Deferred.fromCoroutine(
            self._exchange(method, url, headers, body, max_octets)
        )
        asking.addTimeout(TIMEOUT_S, self._reactor)
        try:
            return await asking
        except (NoSuchName, DnsUnavailable) as error:
            raise HttpsFailed("its host has no address") from error
        except DeferredTimeout as error:
            raise HttpsFailed("its host is too slow") from error
        except (SchemeNotSupported, UnicodeError, ValueError) as error:
            raise HttpsFailed("the address is none for HTTPS") from error
        except HttpsFailed:
            raise
        except Exception as error:  # of the many kinds that a broken peer brings
            if _is_about_trust(error):
                text = "its host has no certificate that can be trusted"
                raise HttpsFailed(text, tls=True) from error
            raise HttpsFailed("its host does not answer") from error

    async def _exchange(
        self, method: bytes, url: str, headers: Headers, body: Any, max_octets: int
    ) -> HttpsAnswer:
        response = await self._agent.request(method, url.encode("ascii"), headers, body)
        given = response.headers.getRawHeaders("Content-Type") or [""]
        media_type = given[-1].partition(";")[0].strip().lower()
        reader = _Body(max_octets)
        response.deliverBody(reader)
        return HttpsAnswer(response.code, media_type, await reader.done)


class _Body(Protocol):
    """Reads a body to its end, or to its limit."""

    def __init__(self, max_octets: int) -> None:
        self.done: Deferred[bytes] = Deferred(lambda _: self._give_up())
        self._room = max_octets
        self._read: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room >= 0:
            self._read.append(data)
        elif not self.done.called:
            self.done.errback(HttpsFailed("the answer is too long"))
            self._give_up()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self._read))
        else:
            self.done.errback(HttpsFailed("the answer breaks off"))

    def _give_up(self) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


class _Bounded(ProtocolWrapper):
    """A connection that ends when the peer has said too much."""

    transport: Any  # of TCP
    _room = MAX_RECEIVED

    def dataReceived(self, data: bytes) -> None:
        self._room -= len(data)
        if self._room < 0:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)  # type: ignore[no-untyped-call]  # Twisted's


class _BoundedFactory(WrappingFactory):
    noisy = False
    protocol = _Bounded


@implementer(IAgentEndpointFactory)
class _Endpoints:
    """Makes what an Agent connects by."""

    def __init__(
        self,
        resolver: IResolver,
        reactor: Any,
        private: bool,
        tls: BrowserLikePolicyForHTTPS,
    ) -> None:
        self._resolver = resolver
        self._reactor = reactor
        self._private = private
        self._tls = tls

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        if uri.scheme != b"https":
            raise SchemeNotSupported(uri.scheme)
        host = uri.host.decode("ascii")
        endpoint = _Endpoint(
            self._resolver, self._reactor, self._private, host, uri.port
        )
        return wrapClientTLS(self._tls.creatorForNetloc(uri.host, uri.port), endpoint)


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Connects to one of a host's addresses."""

    resolver: IResolver
    reactor: Any
    private: bool
    host: str
    port: int

    def connect(self, protocolFactory: IProtocolFactory) -> "Deferred[Any]":
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> Any:
        # Strangers choose the name: it must not lead into the office.
        ips = [
            ip
            for ip, _ in await self.resolver.addresses(self.host)
            if self.private or ip_address(ip).is_global
        ]
        bounded: Any = _BoundedFactory(factory)  # type: ignore[no-untyped-call]
        for number, ip in enumerate(ips, 1):
            endpoint = TCP4ClientEndpoint(  # for IPv6 as well
                self.reactor, ip, self.port, CONNECT_TIMEOUT_S
            )
            try:
                connected: Any = await endpoint.connect(bounded)
                return connected.wrappedProtocol
            except ConnectError:
                if number == len(ips):
                    raise
        raise NoSuchName(self.host)


def _is_about_trust(error: BaseException) -> bool:
    """Whether the certificate was the reason, which stands among others."""
    reasons = getattr(error, "reasons", None) or ()
    causes = [one.value for one in reasons if isinstance(one, Failure)]
    if any(_is_about_trust(cause) for cause in causes if cause is not None):
        return True
    return isinstance(error, SSL.Error | VerificationError | CertificateError)
