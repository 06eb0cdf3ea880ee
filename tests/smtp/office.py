"""An office for SMTP tests: accounts, an in-memory mail store, connections."""

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from mailsrv.accounts import edits
from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import hash_password
from mailsrv.connections import ConnectionLimits
from mailsrv.doors.message import MemoryContent
from mailsrv.mailboxes.incoming import Confirm
from mailsrv.queue.values import Message as Queued
from mailsrv.queue.values import Recipient as Waiting
from mailsrv.routing.router import Router
from mailsrv.settings import LoginSettings, SmtpSettings, TlsSettings
from mailsrv.smtp.engine import Role
from mailsrv.smtp.policies import Mailboxes
from mailsrv.smtp.server import SmtpFactory, SmtpServer
from mailsrv.smtp.transaction import Incoming
from mailsrv.store.values import (
    Delivered,
    DeliveryFailed,
    PartlyDelivered,
    StoreError,
    Target,
)
from tests.inline_threads import InlineThreads

CHEAP = LoginSettings(argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1, scram="off")
HOSTNAME = "mail.example.test"
ANNA, BERT, CARL = (f"{name}@example.test" for name in ("anna", "bert", "carl"))
NOW = 1_800_000_000.0
PEER = "192.0.2.7"
MAIL = b"MAIL FROM:<a@else.test>\r\n"
MESSAGE = b"From: <a@else.test>\r\nSubject: one\r\n\r\nbody\r\n"


def office(directory: Directory) -> Directory:
    """Anna and Bert, an alias, two groups, a disabled and a limited account."""
    hashed = hash_password("secret", CHEAP)
    directory = edits.add_domain(directory, "example.test")
    directory = edits.add_domain(directory, "bücher.test")
    for name in (ANNA, BERT, "gone@example.test", "jörg@bücher.test"):
        directory = edits.add_account(directory, name, hashed)
    directory = edits.add_account(directory, CARL, hashed, quota_octets=1000)
    directory = edits.set_enabled(directory, "gone@example.test", False)
    directory = edits.add_alias(directory, "postmaster@example.test", [ANNA])
    directory = edits.add_alias(directory, "sales@example.test", [ANNA])
    directory = edits.add_group(directory, "all@example.test", [ANNA, BERT, CARL])
    return edits.add_group(directory, "team@example.test", [ANNA, BERT], [BERT])


class MemoryIncoming:
    """A message that is kept in memory when it is committed."""

    def __init__(
        self, store: "MemoryMailStore", targets: Sequence[Target], header: bytes
    ) -> None:
        self.targets = targets
        self.header = header
        self.octets = header
        self.full = False
        self._store = store

    def feed(self, data: bytes) -> None:
        self.octets += data

    async def drained(self) -> None:
        await self._store.wait()

    async def content(self) -> MemoryContent:
        return MemoryContent(self.octets.replace(b"\r\n", b"\n"))

    def in_memory(self, most_octets: int) -> bytes | None:
        return self.octets.replace(b"\r\n", b"\n")

    async def replace_header(self, header: bytes) -> None:
        self.octets = header + self.octets[len(self.header) :]
        self.header = header

    def redirect(self, targets: Sequence[Target]) -> None:
        self.targets = targets

    async def commit(self, confirm: Confirm) -> None:
        await self._store.wait()
        if self._store.failure is not None:
            raise self._store.failure
        octets = len(self.octets)
        copies = [
            Delivered(target, b"name", b"name", True, octets, octets, 0, 0)
            for target in self.targets
            if not self._store.failing & {target.folder, target.mailbox}
        ]
        failed: dict[Target, StoreError] = {
            target: DeliveryFailed("io")
            for target in self.targets
            if self._store.failing & {target.folder, target.mailbox}
        }
        if not copies:
            raise DeliveryFailed("io")
        await confirm(copies, failed)
        self._store.messages.append(self)
        if failed:
            raise PartlyDelivered(copies, failed)

    async def abort(self) -> None:
        self._store.aborted.append(self)


class MemoryMailStore:
    """Keeps messages; while `held`, commits wait for `release`."""

    def __init__(self) -> None:
        self.messages: list[MemoryIncoming] = []
        self.aborted: list[MemoryIncoming] = []
        self.begun: set[int] = set()  # each one must be aborted in the end
        self.failure: Exception | None = None
        self.failing: set[str] = set()  # folders and mailboxes
        self.used: dict[str, int] = {}
        self.held = False
        self._waiting: list[Deferred[None]] = []

    def account(self, account: Account) -> Mailboxes:
        return MemoryMailboxes(account, self.used.get(account.folder, 0))

    def receive(self, targets: Sequence[Target], header: bytes) -> Incoming:
        incoming = MemoryIncoming(self, targets, header)
        self.begun.add(id(incoming))
        return incoming

    async def wait(self) -> None:
        if self.held:
            waiter: Deferred[None] = Deferred()
            self._waiting.append(waiter)
            await waiter

    def release(self) -> None:
        """Let all that waits go on."""
        self.held = False
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(None)


class MemoryQueue:
    """Keeps what it takes, or fails."""

    def __init__(self) -> None:
        self.spool = Target("/spool")
        self.taken: list[tuple[Queued, Sequence[Waiting], bool]] = []
        self.kept: list[Delivered] = []
        self.failure: StoreError | None = None

    async def keep(self, delivered: Delivered) -> str:
        self.kept.append(delivered)
        return "kept"

    async def take(
        self,
        message: Queued,
        recipients: Sequence[Waiting],
        *,
        sign: bool = False,
        octets: bytes | None = None,
    ) -> None:
        if self.failure is not None:
            raise self.failure
        self.taken.append((message, recipients, sign))


class MemoryMailboxes:
    """What RCPT asks of an account."""

    def __init__(self, account: Account, used: int) -> None:
        self._limit = account.quota_octets
        self._used = used

    async def has_room(self, octets: int) -> bool:
        return self._limit is None or self._used + max(octets, 1) <= self._limit

    async def junk(self) -> str:
        return "Junk"

    async def sent(self) -> str:
        return "Sent"


class Wire(StringTransport):
    """A connection, with TLS at once or later."""

    def __init__(self, tls: bool) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", PEER, 4711))
        self.tls_context: object = None
        self.aborted = False
        if tls:
            alsoProvides(self, ISSLTransport)

    def startTLS(self, context: object) -> None:
        self.tls_context = context

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A socket option, without a socket."""

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def take(self) -> bytes:
        octets: bytes = self.value()
        self.clear()
        return octets


class Connection:
    """A client of a factory."""

    def __init__(self, factory: SmtpFactory, *, tls: bool = False) -> None:
        self.wire = Wire(tls)
        server = factory.buildProtocol(self.wire.getPeer())
        assert isinstance(server, SmtpServer)
        self.server = server
        self.server.makeConnection(self.wire)
        self.greeting = self.wire.take()

    def send(self, octets: bytes) -> bytes:
        """Send, and return what came back."""
        self.server.dataReceived(octets)
        return self.wire.take()

    def codes(self, octets: bytes) -> list[int]:
        """Send, and return the codes of the replies."""
        lines = self.send(octets).split(b"\r\n")[:-1]
        return [int(line[:3]) for line in lines if line[3:4] == b" "]

    def lose(self) -> None:
        self.server.connectionLost()

    @property
    def ended(self) -> bool:
        return self.wire.disconnecting


class OfficeCase(SynchronousTestCase):
    """A factory for each role, on `self.store`."""

    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.clock = self.threads.clock
        self.database = MemoryAccountDatabase()
        self.database.edit(office)
        live = LiveDirectory(self.database, threads=self.threads, reactor=self.clock)
        live.start()
        self.addCleanup(live.stop)
        self.router = Router(live)
        self.logins = Authenticator(
            live=live, threads=self.threads, reactor=self.clock, settings=CHEAP
        )
        self.store = MemoryMailStore()
        self.queue = MemoryQueue()
        self.connections = ConnectionLimits(max_all=10, max_per_address=5)
        self.events: list[LogEvent] = []
        observer: ILogObserver = self.events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def factory(
        self, role: Role = "mx", settings: SmtpSettings | None = None, **options: Any
    ) -> SmtpFactory:
        # Any: the constructor's keywords.
        options.setdefault("mail_store", self.store)
        options.setdefault("queue", self.queue)
        options.setdefault("tls", object())
        options.setdefault("tls_settings", TlsSettings())
        return SmtpFactory(
            role,
            hostname=HOSTNAME,
            settings=settings or SmtpSettings(),
            router=self.router,
            authenticator=self.logins,
            connections=self.connections,
            reactor=self.clock,
            now=lambda: NOW + self.clock.seconds(),
            **options,
        )

    def mx(self, **settings: Any) -> Connection:
        connection = Connection(self.factory("mx", SmtpSettings(**settings)))
        connection.send(b"EHLO client.test\r\n")
        return connection

    def submission(self, login: str = ANNA, **settings: Any) -> Connection:
        """A client that is logged in."""
        factory = self.factory("submission", SmtpSettings(**settings))
        connection = Connection(factory, tls=True)
        connection.send(b"EHLO client.test\r\nAUTH PLAIN " + plain(login) + b"\r\n")
        return connection

    def infos(self, text: str) -> list[LogEvent]:
        """The log events whose format begins so."""
        return [e for e in self.events if str(e["log_format"]).startswith(text)]


def plain(login: str, password: str = "secret") -> bytes:
    return b64encode(f"\0{login}\0{password}".encode())


def rcpt(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{a}>\r\n".encode() for a in addresses)
