"""IMAP sessions over a real Maildir, without a network, threads or real time."""

import re
from collections.abc import Iterator
from pathlib import Path

from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.internet.task import Clock
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
from mailsrv.imap.server import ImapFactory
from mailsrv.settings import ImapSettings, LoginSettings, TlsSettings
from mailsrv.tls.contexts import TlsContexts, load_certificates
from tests.mailboxes.office import Office
from tests.tls import certificates

CHEAP = LoginSettings(argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1, scram="off")
PEER = "192.0.2.7"
DIALOGUES = Path(__file__).parent.parent / "data" / "imap"


def anna(directory: Directory) -> Directory:
    directory = edits.add_domain(directory, "example.test")
    hashed = hash_password("secret", CHEAP)
    return edits.add_account(directory, "anna@example.test", hashed)


class Wire(StringTransport):
    """A connection, with TLS at once or later."""

    def __init__(self, tls: bool) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", PEER, 4711))
        self.aborted = False
        if tls:
            alsoProvides(self, ISSLTransport)

    def startTLS(self, context: object) -> None:
        alsoProvides(self, ISSLTransport)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """A socket option, without a socket."""

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """A socket option, without a socket."""

    def abortConnection(self) -> None:
        self.aborted = True
        self.loseConnection()


class Client:
    """The other end of a session."""

    def __init__(self, factory: ImapFactory, *, tls: bool = True) -> None:
        assert isinstance(factory.reactor, Clock)
        self.clock = factory.reactor
        self.wire = Wire(tls)
        self.server = factory.buildProtocol(self.wire.getPeer())
        self.server.makeConnection(self.wire)

    def heard(self) -> bytes:
        """Return what the server said since the last call."""
        octets: bytes = self.wire.value()
        self.wire.clear()
        return octets

    def send(self, octets: bytes) -> bytes:
        """Send, let what is due at once happen, and return the answer."""
        self.server.dataReceived(octets)
        self.clock.advance(0)
        return self.heard()

    def lose(self) -> None:
        self.server.connectionLost()

    @property
    def ended(self) -> bool:
        return bool(self.wire.disconnecting)


class ImapCase(SynchronousTestCase):
    """`self.client()` connects; `self.office` is the mail store."""

    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.office = Office(self, root)
        self.clock = self.office.clock
        database = MemoryAccountDatabase()
        database.edit(anna)
        threads = self.office.threads
        self.live = LiveDirectory(database, threads=threads, reactor=self.clock)
        self.live.start()
        self.addCleanup(self.live.stop)
        self.connections = ConnectionLimits(max_all=10, max_per_address=5)

    def factory(
        self,
        settings: ImapSettings | None = None,
        *,
        tls: bool = False,
        clear_text: bool = False,
    ) -> ImapFactory:
        contexts = None
        if tls:
            folder = Path(self.mktemp())
            folder.mkdir()
            written = certificates.write(folder, certificates.pair("mail.test"))
            contexts = TlsContexts(load_certificates([written]))
        return ImapFactory(
            settings=settings or ImapSettings(),
            tls_settings=TlsSettings(clear_text_passwords_on_loopback=clear_text),
            tls=contexts,
            authenticator=Authenticator(
                live=self.live,
                threads=self.office.threads,
                reactor=self.clock,
                settings=CHEAP,
            ),
            mail_store=self.office.mail_store,
            connections=self.connections,
            reactor=self.clock,
        )

    def logged_in(self, settings: ImapSettings | None = None) -> Client:
        client = Client(self.factory(settings))
        heard = client.send(b"0 LOGIN anna secret\r\n")
        self.clock.advance(0)
        self.assertIn(b"0 OK", heard + client.heard())
        return client

    def deliver(self) -> None:
        """Deliver a message to Anna; sessions hear of it after 0.02 s."""
        self.office.deliver("anna@example.test")

    def play(self, name: str, client: Client) -> None:
        """Play a dialogue: ``C:`` lines are sent, ``S:`` lines must be heard.

        In an ``S:`` line a regular expression between ``{{`` and ``}}`` matches what
        varies. A ``C+`` line is sent without CR LF at its end. In what is sent
        ``<UIDVALIDITY>`` and ``<HIGHESTMODSEQ>`` stand for the number last heard.
        """
        last: dict[str, str] = {}
        heard: list[bytes] = client.heard().split(b"\r\n")[:-1]
        for number, kind, text in _lines(DIALOGUES / name):
            where = f"{name}:{number}"
            if kind == "S":
                self.assertTrue(heard, f"{where}: nothing heard, expected {text}")
                line = heard.pop(0).decode()
                last |= dict(re.findall(r"(UIDVALIDITY|HIGHESTMODSEQ) (\d+)", line))
                self.assertRegex(line, _pattern(text), where)
            else:
                self.assertEqual(heard, [], where)
                end = b"" if kind == "+" else b"\r\n"
                for word, value in last.items():
                    text = text.replace(f"<{word}>", value)
                heard = client.send(text.encode() + end).split(b"\r\n")[:-1]
        self.assertEqual(heard, [], name)


def _lines(file: Path) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(file.read_text().splitlines(), start=1):
        if line.startswith(("S: ", "C: ")) or line in ("S:", "C:"):
            yield number, line[0], line[3:]
        elif line.startswith("C+ "):
            yield number, "+", line[3:].replace("\\r\\n", "\r\n")
        else:
            assert not line or line.startswith("#"), f"{file}:{number}"


def _pattern(text: str) -> str:
    parts = re.split(r"\{\{(.*?)\}\}", text)
    return "".join(p if n % 2 else re.escape(p) for n, p in enumerate(parts)) + r"\Z"
