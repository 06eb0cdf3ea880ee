"""HTTPS to strangers who send what they like."""

from typing import Any

from OpenSSL.crypto import X509, PKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    trustRootFromCertificates,
)
from twisted.internet.task import deferLater
from twisted.internet.tcp import Client
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS

from mailsrv.dns.memory import MemoryResolver
from mailsrv.tls.https import Https, HttpsFailed
from tests.tls import certificates

NAME = "mta-sts.far.test"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=x\r\n"


class Answering(Protocol):
    """Says its piece at the first octet; a flood goes on until nobody listens."""

    transport: Any  # of TLS

    def __init__(self, server: "Server") -> None:
        self.server = server

    def dataReceived(self, data: bytes) -> None:
        if self.server.flood:
            self.transport.write(self.server.answer)
            self.transport.registerProducer(self, False)
        else:
            self.transport.write(self.server.answer)
            self.transport.loseConnection()

    def resumeProducing(self) -> None:
        self.server.sent += len(self.server.flood)
        self.transport.write(self.server.flood)

    def stopProducing(self) -> None:
        """The client has gone."""

    def connectionLost(self, reason: object = None) -> None:
        self.server.gone.callback(None)


class Server(Factory):
    noisy = False

    def __init__(self, answer: bytes, flood: bytes = b"") -> None:
        self.answer, self.flood, self.sent = answer, flood, 0
        self.gone: Deferred[None] = Deferred()

    def buildProtocol(self, addr: object) -> Answering:
        return Answering(self)


class HttpsTests(TestCase):
    def setUp(self) -> None:
        authority = Certificate(X509.from_cryptography(certificates.ca().certificate))
        self.https = Https(
            MemoryResolver({(NAME, "A"): ["127.0.0.1"]}),
            reactor=reactor,
            private=True,
            tls=BrowserLikePolicyForHTTPS(trustRootFromCertificates([authority])),
        )

    async def get(self, server: Server, names: tuple[str, ...] = (NAME,)) -> Any:
        made = certificates.pair(*names)
        options = CertificateOptions(
            privateKey=PKey.from_cryptography_key(made.key),
            certificate=X509.from_cryptography(made.certificate),
        )
        real: Any = reactor
        port = real.listenSSL(0, server, options, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"https://{NAME}:{port.getHost().port}/x"
        try:
            return await self.https.get(url, max_octets=1000)
        finally:
            await server.gone
            await self.no_client()

    async def no_client(self) -> None:
        """Wait until our side of the connection is gone as well."""
        real: Any = reactor
        while any(
            isinstance(one, Client) for one in real.getReaders() + real.getWriters()
        ):
            await deferLater(real, 0.001)

    async def fails(self, server: Server, names: tuple[str, ...] = (NAME,)) -> str:
        try:
            answer = await self.get(server, names)
        except HttpsFailed as failed:
            return f"{failed.text}{', tls' * failed.tls}"
        self.fail(f"it is taken: {answer}")

    async def test_an_answer(self) -> None:
        answer = await self.get(Server(GOOD + b"Content-Length: 2\r\n\r\nhi"))
        self.assertEqual(
            (answer.status, answer.media_type, answer.body), (200, "text/plain", b"hi")
        )

    async def test_redirects_are_not_followed(self) -> None:
        """RFC 8461 section 3.3."""
        moved = b"HTTP/1.1 301 x\r\nLocation: https://else.test/\r\n\r\n"
        self.assertEqual((await self.get(Server(moved))).status, 301)

    async def test_body_that_is_too_long(self) -> None:
        for head in (b"\r\n", b"Content-Length: 1001\r\n\r\n"):
            said = await self.fails(Server(GOOD + head + b"x" * 1001))
            self.assertEqual(said, "the answer is too long")

    async def test_header_without_end(self) -> None:
        for answer, line in ((GOOD, b"A: %b\r\n" % (b"x" * 1000)), (GOOD, b" y\r\n")):
            server = Server(answer, line * 1000)
            await self.fails(server)
            self.assertLess(server.sent, 20_000_000)

    async def test_another_certificate(self) -> None:
        said = await self.fails(Server(GOOD + b"\r\n"), ("else.test",))
        self.assertEqual(said, "its host has no certificate that can be trusted, tls")
