"""A POP3 server of a small office, on a transport without a network."""

from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from mailsrv.accounts import edits
from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import hash_password
from mailsrv.connections import ConnectionLimits
from mailsrv.mailboxes.maildrop import PIECE_OCTETS
from mailsrv.pop3.server import Pop3Factory
from mailsrv.settings import LoginSettings, Pop3Settings, TlsSettings
from tests.inline_threads import InlineThreads
from tests.mailboxes.office import Office

CHEAP = LoginSettings(argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1, scram="off")
ANNA = "anna@example.test"
PEER = "192.0.2.7"


def accounts(directory: Directory) -> Directory:
    directory = edits.add_domain(directory, "example.test")
    return edits.add_account(directory, ANNA, hash_password("secret", CHEAP))


class Wire(StringTransport):
    """A connection, with TLS at once or later."""

    def __init__(self, peer: str, tls: bool) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", peer, 4711))
        self.tls_context: object = None
        self.aborted = self.is_slow = False
        if tls:
            alsoProvides(self, ISSLTransport)

    def write(self, data: bytes) -> None:
        """As a socket whose buffer is full after one piece."""
        super().write(data)
        if self.is_slow and len(self.value()) >= PIECE_OCTETS:
            assert self.producer is not None
            self.producer.pauseProducing()

    def startTLS(self, context: object) -> None:
        self.tls_context = context
        alsoProvides(self, ISSLTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A socket option, without a socket."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """As above."""

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()


class Connection:
    """A client."""

    def __init__(self, case: "ServerCase", *, peer: str = PEER, tls: bool = True):
        self.case = case
        self.wire = Wire(peer, tls)
        self.server = case.factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)
        self.greeting = self.take()

    def take(self) -> bytes:
        self.case.office.clock.advance(0)
        octets: bytes = self.wire.value()
        self.wire.clear()
        return octets

    def send(self, octets: bytes) -> bytes:
        """Send, and return what came back."""
        self.server.dataReceived(octets)
        return self.take()

    def log_in(self) -> "Connection":
        self.case.assertIn(b"+OK", self.send(b"USER anna\r\nPASS secret\r\nNOOP\r\n"))
        return self

    def lose(self) -> None:
        self.server.connectionLost()
        self.case.office.clock.advance(0)


class ServerCase(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.office = Office(self, root)
        self.threads = InlineThreads()
        database = MemoryAccountDatabase()
        database.edit(accounts)
        live = LiveDirectory(database, threads=self.threads, reactor=self.office.clock)
        live.start()
        self.addCleanup(live.stop)
        self.factory = Pop3Factory(
            settings=Pop3Settings(),
            tls_settings=TlsSettings(),
            # Any: what TLS itself does is tested with real sockets.
            tls=self.context(),
            authenticator=Authenticator(
                live=live,
                threads=self.threads,
                reactor=self.office.clock,
                settings=CHEAP,
            ),
            mail_store=self.office.mail_store,
            connections=ConnectionLimits(max_all=3, max_per_address=2),
            reactor=self.office.clock,
        )

    def context(self) -> Any:
        return object()

    def deliver(self, *bodies: bytes) -> None:
        for number, body in enumerate(bodies, 1):
            self.office.deliver(ANNA, subject=b"%d" % number, body=body)

    def connect(self, **options: Any) -> Connection:
        # Any: the constructor's keywords.
        return Connection(self, **options)


def plain(text: str) -> bytes:
    return b64encode(text.encode())
