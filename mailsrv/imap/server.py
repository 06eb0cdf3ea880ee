"""IMAP over Twisted: connections, and the commands of a session one after another."""

import errno
import secrets
from collections.abc import Iterable
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Directory
from mailsrv.connections import ConnectionLimits
from mailsrv.imap.commands.rule import Rule
from mailsrv.imap.commands.session import capabilities
from mailsrv.imap.commands.table import RULES
from mailsrv.imap.connection import Disconnected
from mailsrv.imap.engine import (
    TLS_HELLO,
    Command,
    Malformed,
    Overrun,
)
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.session import Session
from mailsrv.interfaces import IListenerService
from mailsrv.mailboxes.store import MailStore
from mailsrv.settings import ImapSettings, TlsSettings
from mailsrv.store.index import IndexUnavailable
from mailsrv.store.values import (
    DeliveryFailed,
    InvalidName,
    LockHeld,
    MailboxExists,
    MessageGone,
    NoSuchMailbox,
    OverQuota,
    StoreError,
    TooManyKeywords,
)
from mailsrv.tls.contexts import TlsContexts

log = Logger()

_DISK = frozenset((errno.EROFS, errno.ENOSPC, errno.EDQUOT))

MAX_BAD = 20  # commands in a row answered BAD
COMMANDS_IN_A_TURN = 20  # pipelined ones run before others get the reactor
# An APPEND's message that was refused but comes nevertheless (a literal that does
# not wait) is read away up to this size; of a larger one the session ends.
MAX_DISCARDED = 256 * 1024 * 1024

# What the store raises, as RFC 5530's codes with a text ("": the error's own).
_CODES: dict[type[StoreError], tuple[bytes, str]] = {
    NoSuchMailbox: (b"NONEXISTENT", "No such mailbox"),
    MailboxExists: (b"ALREADYEXISTS", "The mailbox exists already"),
    InvalidName: (b"CANNOT", ""),
    MessageGone: (b"EXPUNGEISSUED", "Some of the messages are gone"),
    OverQuota: (b"OVERQUOTA", "The quota is used up"),
    TooManyKeywords: (b"LIMIT", "The mailbox has too many keywords"),
    DeliveryFailed: (b"UNAVAILABLE", "The message cannot be stored now"),
    LockHeld: (b"INUSE", "The mailbox is in use, try again"),
}


@implementer(IPushProducer)
class ImapProtocol(Protocol):
    """One connection. Its commands run in one coroutine, `_converse`."""

    # Any: Twisted's transports have more than one interface declares.
    transport: Any

    def __init__(self, factory: "ImapFactory", peer: str) -> None:
        self._factory = factory
        self._peer = peer  # "" of a UNIX socket
        self.session: Session | None = None

    def connectionMade(self) -> None:
        if not self._factory.connections.acquire(self._peer):
            self.transport.write(b"* BYE [UNAVAILABLE] Too many connections\r\n")
            self.transport.loseConnection()
            return
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)
            self.transport.setTcpKeepAlive(True)
        self.session = Session(
            transport=self.transport,
            services=self._factory,
            peer=self._peer,
            session_id=secrets.token_hex(4),
        )
        self._factory.opened(self)
        self.transport.registerProducer(self, True)
        Deferred.fromCoroutine(self._serve(self.session))

    def dataReceived(self, data: bytes) -> None:
        if self.session is not None:
            self.session.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.session is not None:
            self._factory.connections.release(self.session.peer)
            self.session.lost("the client closed the connection")

    def pauseProducing(self) -> None:
        if self.session is not None:
            self.session.pause()

    def resumeProducing(self) -> None:
        if self.session is not None:
            self.session.resume()

    def stopProducing(self) -> None:
        """The connection is being lost: `connectionLost` follows."""

    async def _serve(self, session: Session) -> None:
        """Hold the whole conversation; never fails."""
        try:
            await converse(session)
        except Disconnected:
            pass
        except Exception:
            log.failure("session failed", session=session.id, peer=session.peer)
            session.bye("Internal error", b"SERVERBUG")
        finally:
            session.unselect()
            self._factory.closed(self, session)


async def converse(session: Session) -> None:
    """Greet, then run one command after another. Raises `Disconnected`."""
    session.write(b"* OK [%b] mailsrv ready\r\n" % capabilities(session))
    bad = 0  # commands in a row that were
    while not session.closing:
        event = await session.event()
        good = False
        match event:
            case Command():
                good = await run(session, event)
            case Malformed(tag, text, code):
                session.reply(tag, b"NO" if code else b"BAD", text, code)
            case Overrun(text):
                session.bye(text)
            case _ if event is TLS_HELLO:
                # A client that tries TLS here waits for an answer: give none.
                session.close("TLS on a port without it")
        bad = 0 if good else bad + 1
        if bad > MAX_BAD:
            session.bye("Too many bad commands")
        session.engine.resume()
        await session.drained()
        if session.commands % COMMANDS_IN_A_TURN == 0:
            await deferLater(session.services.reactor, 0, lambda: None)


async def run(session: Session, command: Command) -> bool:
    """Run a command and send its tagged reply; return whether it was not BAD."""
    session.commands += 1
    session.busy = True
    session.tag = command.tag
    session.message = command.message
    rule = RULES.get(command.name)
    if session.services.log_wire:
        session.trace("C: " + _shown(command, rule))
    status, text, code = await _outcome(session, command, rule)
    if session.closing and not session.after_reply:
        raise Disconnected
    if rule is not None:
        await session.send_all_news(expunges=not rule.holds_expunge)
    if mod_seq := session.due_mod_seq():
        if code or status != b"OK":  # a reply has one code, and this one goes with OK
            session.write(b"* OK [%b] Highest.\r\n" % mod_seq)
        else:
            code = mod_seq
    session.reply(command.tag, status, text, code)
    after, session.after_reply = session.after_reply, None
    if after is not None:
        after()
    if session.message is not None:
        await _discard_message(session)
    session.busy = False
    if session.draining:
        session.drain()
    return status != b"BAD"


def _shown(command: Command, rule: Rule[Any] | None) -> str:
    """Return a command for the log. What is unknown may be a password."""
    if rule is None:
        return "an unknown command"
    if rule.secret:
        return f"{command.tag.decode('ascii')} {command.name.decode('ascii')} ..."
    return command.arguments.data.decode("ascii", "backslashreplace")


async def _outcome(
    session: Session, command: Command, rule: Rule[Any] | None
) -> tuple[bytes, str, bytes]:
    """Run a command; return its status, text and response code.

    The one place where what a command raises becomes a reply.
    """
    try:
        if rule is None or not session.has(rule.extension):
            raise ProtocolViolation("Unknown command")
        if session.state not in rule.states:
            raise ProtocolViolation("Not allowed in this state")
        command.arguments.utf8 = session.utf8
        arguments = rule.parse(command.arguments)
        command.arguments.end()
        _check_extensions(session, command.arguments.extensions)
        code = await rule.run(session, arguments)
    except ProtocolViolation as error:
        return b"BAD", error.text, b""
    except Refused as error:
        return b"NO", error.text, error.code
    except StoreError as error:
        code, text = _CODES.get(type(error), (b"UNAVAILABLE", "Try again later"))
        if isinstance(error, IndexUnavailable):
            _log_disk(session, command, error)
        elif code == b"UNAVAILABLE":
            _log_failure(session, command)
        return b"NO", text or str(error), code
    except OSError as error:
        if error.errno in _DISK:
            _log_disk(session, command, error)
        else:
            _log_failure(session, command)
        return b"NO", "Try again later", b"UNAVAILABLE"
    except Disconnected:
        raise
    except Exception:
        _log_failure(session, command)
        return b"NO", "Internal error", b"SERVERBUG"
    return b"OK", command.name.decode("ascii") + " completed", code


def _check_extensions(session: Session, used: Iterable[bytes]) -> None:
    for extension in used:
        if not session.has(extension):
            raise ProtocolViolation(f"{extension.decode('ascii')} is not available")


def _log_disk(session: Session, command: Command, error: OSError | StoreError) -> None:
    """Say in one line what needs no traceback; it will be said often."""
    log.error(
        "{command} failed: {reason}",
        session=session.id,
        peer=session.peer,
        user=session.user,
        command=command.name.decode("ascii"),
        reason=error.strerror if isinstance(error, OSError) else str(error),
    )


def _log_failure(session: Session, command: Command) -> None:
    log.failure(
        "{command} failed",
        session=session.id,
        peer=session.peer,
        user=session.user,
        command=command.name.decode("ascii"),
    )


async def _discard_message(session: Session) -> None:
    """Read away the messages of a refused APPEND that come all the same."""
    while (message := session.message) is not None:
        if message.synchronising:  # it has met the refusal and does not come
            session.message = None
            return
        if message.size_octets > MAX_DISCARDED:
            session.bye("Message too large", b"TOOBIG")  # RFC 7888 section 4
            raise Disconnected
        try:
            while isinstance(await session.message_data(), bytes):
                pass
        except ProtocolViolation:
            pass  # the command was answered already


@implementer(IListenerService)
class ImapFactory(Factory):
    """Makes the sessions of imap and imaps, and counts them.

    `settings` and `tls_settings` may be replaced at any time: they hold for new
    connections.
    """

    noisy = False

    def __init__(
        self,
        *,
        settings: ImapSettings,
        tls_settings: TlsSettings,
        tls: TlsContexts | None,
        authenticator: Authenticator,
        mail_store: MailStore,
        connections: ConnectionLimits,
        reactor: IReactorTime,
        log_wire: bool = False,
    ) -> None:
        self.settings = settings
        self.tls_settings = tls_settings
        self.tls = tls
        self.authenticator = authenticator
        self.mail_store = mail_store
        self.connections = connections
        self.reactor = reactor
        self.log_wire = log_wire  # commands and responses, at level debug
        self._open: set[ImapProtocol] = set()
        self._drained: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> ImapProtocol:
        peer = addr.host if isinstance(addr, IPv4Address | IPv6Address) else ""
        protocol = ImapProtocol(self, peer)
        protocol.factory = self
        return protocol

    def opened(self, protocol: ImapProtocol) -> None:
        self._open.add(protocol)

    def closed(self, protocol: ImapProtocol, session: Session) -> None:
        """A session has ended: tell its story in one line."""
        self._open.discard(protocol)
        log.info(
            "session ended: {reason}",
            session=session.id,
            peer=session.peer,
            user=session.user,
            client=session.client,
            compressed=session.compressed,
            commands=session.commands,
            octets_in=session.octets_in,
            octets_out=session.octets_out,
            elapsed_s=round(self.reactor.seconds() - session.since_s, 3),
            reason=session.ended_by,
        )
        if not self._open:
            drained, self._drained = self._drained, []
            for waiting in drained:
                waiting.callback(None)

    def accounts_changed(self, directory: Directory) -> None:
        """End the sessions of accounts that are deleted or disabled."""
        for protocol in list(self._open):
            session = protocol.session
            if session is not None and session.account is not None:
                if not directory.admits(session.account):
                    session.bye("The account is closed")

    async def drain(self) -> None:
        """Say BYE to all sessions, those that run a command after it; wait."""
        for protocol in list(self._open):
            if protocol.session is not None:
                protocol.session.drain()
        if self._open:
            waiting: Deferred[None] = Deferred()
            self._drained.append(waiting)
            await waiting
