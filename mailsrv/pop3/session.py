"""One POP3 session: what the commands do (RFC 1939 and its extensions)."""

import ipaddress
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.accounts import sasl
from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Account
from mailsrv.accounts.exchange import Attempt, BadCredentials, LoginUnavailable
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.mailboxes.maildrop import Maildrop, MaildropInUse, Retrieval
from mailsrv.mailboxes.store import MailStore
from mailsrv.pop3.engine import (
    Command,
    Event,
    LineTooLong,
    Pop3Engine,
    Rejected,
    Response,
    State,
    TlsHello,
)
from mailsrv.pop3.format import Stuffer, Top
from mailsrv.pop3.numbers import NoSuchMessage, Numbers
from mailsrv.settings import Pop3Settings, TlsSettings
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.values import MessageGone
from mailsrv.tls.contexts import TlsContexts

log = Logger()

LISTED_AT_ONCE = 1000  # lines of LIST and UIDL before the client has to keep up
COMMANDS_IN_A_ROW = 50  # pipelined ones, before other connections are served
MAX_REJECTED = 20  # lines that are no commands
LANGUAGES = {"*": "en", "en": "en", "i-default": "i-default"}  # RFC 6856 section 3


class Disconnected(Exception):
    """The connection is gone: raised in whatever waits for the client."""


class Refused(Exception):
    """The command fails; the text, with its response code, follows ``-ERR``."""


class Services(Protocol):
    """What a session uses of the server (the factory has it)."""

    settings: Pop3Settings
    tls_settings: TlsSettings
    tls: TlsContexts | None
    authenticator: Authenticator
    mail_store: MailStore
    reactor: IReactorTime


class Client(Protocol):
    """The other end (the Twisted protocol has it)."""

    engine: Pop3Engine
    ended_by: str
    account: Account | None  # after the log-in

    @property
    def is_tls(self) -> bool: ...
    @property
    def binding(self) -> ChannelBinding | None: ...
    def write(self, octets: bytes) -> None: ...
    async def written(self) -> None: ...
    async def next_event(self) -> Event: ...
    def start_tls(self, tls: TlsContexts) -> None: ...
    def end(self, ended_by: str) -> None: ...


class Session:
    """The conversation with one client, from greeting to end."""

    def __init__(
        self, client: Client, services: Services, peer: str, session_id: str
    ) -> None:
        self._client = client
        self._services = services
        self._peer = peer
        self._id = session_id
        self._attempt = Attempt(peer, session_id, "pop3")
        self._login = ""  # of USER, for PASS
        self._utf8 = False
        self._maildrop: Maildrop | None = None
        self._numbers = Numbers(())
        self._rejected = 0
        # For the line in the log.
        self._begun = services.reactor.seconds()
        self._retrieved = self._retrieved_octets = self._deleted = 0

    async def serve(self) -> None:
        """Greet, answer, and clean up; returns when the session has ended."""
        self._reply("+OK mailsrv ready")
        commands = 0
        try:
            while True:
                await self._answer(await self._client.next_event())
                commands += 1
                if commands % COMMANDS_IN_A_ROW == 0:
                    await deferLater(self._services.reactor, 0)
        except Disconnected:
            pass
        finally:
            if self._maildrop is not None:
                self._maildrop.close()
                self._log_end()

    async def _answer(self, event: Event) -> None:
        match event:
            case Command(verb=verb):
                await self._run(_HANDLERS[verb], event)
            case Rejected(text=text):
                self._reply(f"-ERR {text}")
                self._rejected += 1
                if self._rejected > MAX_REJECTED:
                    self._client.end("too many errors")
            case LineTooLong():
                self._reply("-ERR Line too long")
                self._client.end("line too long")
            case TlsHello():
                # Thunderbird's set-up probes all ports with TLS and waits for this.
                self._client.end("TLS on the port for clear text")
            case Response():
                raise AssertionError("a SASL response outside of AUTH")

    async def _run(self, handler: "_Handler", command: Command) -> None:
        try:
            await handler(self, command)
        except Refused as refused:
            self._reply(f"-ERR {refused}")
        except NoSuchMessage:
            self._reply("-ERR No such message")
        except Disconnected:
            raise
        except Exception:
            log.failure(
                "POP3 {verb} failed",
                verb=command.verb,
                session=self._id,
                peer=self._peer,
                user=self._user,
            )
            self._reply("-ERR [SYS/TEMP] Something went wrong here, try again later")

    def _reply(self, text: str) -> None:
        self._client.write(text.encode() + b"\r\n")

    async def _reply_lines(self, first: str, lines: Iterator[bytes]) -> None:
        """A multi-line response of lines that begin with no dot."""
        self._reply(first)
        while some := list(islice(lines, LISTED_AT_ONCE)):
            self._client.write(b"\r\n".join((*some, b"")))
            await self._client.written()
        self._reply(".")

    # Log-in

    @property
    def _may_send_password(self) -> bool:
        if self._client.is_tls:
            return True
        if not self._services.tls_settings.clear_text_passwords_on_loopback:
            return False
        return bool(self._peer) and ipaddress.ip_address(self._peer).is_loopback

    def _require_privacy(self) -> None:
        if not self._may_send_password:
            raise Refused("No passwords in clear text: use STLS or the port for TLS")

    async def _capa(self, command: Command) -> None:
        await self._reply_lines(
            "+OK Capabilities", map(str.encode, self._capabilities())
        )

    def _capabilities(self) -> Iterator[str]:
        """RFC 2449 section 6; may differ after STLS."""
        yield from ("TOP", "UIDL", "PIPELINING", "RESP-CODES", "AUTH-RESP-CODE")
        yield from ("EXPIRE NEVER", "UTF8 USER", "LANG", "IMPLEMENTATION mailsrv")
        if self._services.tls is not None and not self._client.is_tls:
            yield "STLS"
        if self._may_send_password:
            yield "USER"
            yield " ".join(("SASL", *self._mechanisms()))

    async def _stls(self, command: Command) -> None:
        """RFC 2595 section 4."""
        tls = self._services.tls
        if tls is None or self._client.is_tls:
            raise Refused("No STLS here")
        if self._utf8:  # RFC 6856 section 2.1
            raise Refused("STLS comes before UTF8")
        if self._client.engine.buffered_octets:
            # Sent in clear text, to be taken as if it had come inside TLS.
            self._reply("-ERR Nothing may follow STLS")
            self._client.end("octets behind STLS")
            return
        self._reply("+OK Begin TLS")
        self._login = ""
        self._client.start_tls(tls)

    async def _utf8_command(self, command: Command) -> None:
        """RFC 6856 section 2: messages go out as they are in any case."""
        self._utf8 = True
        self._reply("+OK UTF8")

    async def _lang(self, command: Command) -> None:
        """RFC 6856 section 3."""
        if not command.text:
            listed = iter((b"en English", b"i-default Default"))
            return await self._reply_lines("+OK Languages", listed)
        chosen = LANGUAGES.get(command.text.lower())
        if chosen is None:
            raise Refused("No such language")
        self._reply(f"+OK {chosen} English is spoken")

    async def _user_command(self, command: Command) -> None:
        self._require_privacy()
        self._login = command.text
        self._reply("+OK Password?")  # whether or not the name exists

    async def _pass(self, command: Command) -> None:
        self._require_privacy()
        login, self._login = self._login, ""
        if not login:
            raise Refused("USER comes first")
        authenticator = self._services.authenticator
        await self._log_in(authenticator.login(login, command.text, self._attempt))

    async def _auth(self, command: Command) -> None:
        """RFC 5034."""
        if not command.text:
            # Older Outlook asks so for the mechanisms.
            names = self._mechanisms() if self._may_send_password else ()
            return await self._reply_lines("+OK Mechanisms", map(str.encode, names))
        self._require_privacy()
        # Any number of spaces: Windows Mail sends two.
        name, *initial = command.text.split()
        authenticator = self._services.authenticator
        exchange = authenticator.exchange(
            name.upper(), self._attempt, self._client.binding
        )
        if exchange is None or len(initial) > 1:
            raise Refused("No such mechanism")

        async def decide() -> Account:
            outcome = await exchange.start(
                sasl.decode_initial(initial[0].encode() if initial else None)
            )
            while isinstance(outcome, sasl.Challenge):
                outcome = await exchange.step(await self._sasl_response(outcome))
            return outcome

        try:
            await self._log_in(decide())
        except sasl.SaslCancelled as error:
            raise Refused("Cancelled") from error
        except sasl.SaslError as error:
            raise Refused("Wrong SASL response") from error

    def _mechanisms(self) -> tuple[str, ...]:
        can_bind = self._client.binding is not None
        return self._services.authenticator.mechanisms(can_bind=can_bind)

    async def _sasl_response(self, challenge: sasl.Challenge) -> bytes:
        engine = self._client.engine
        engine.state = State.SASL
        self._client.write(b"+ " + sasl.encode_challenge(challenge) + b"\r\n")
        event = await self._client.next_event()
        engine.state = State.AUTHORIZATION
        if isinstance(event, Response):
            return sasl.decode_response(event.line)
        self._client.end("line too long")
        raise sasl.SaslError("line too long")

    async def _log_in(self, deciding: Awaitable[Account]) -> None:
        """Await the decision and lock the maildrop (RFC 1939 section 4)."""
        try:
            account = await deciding
        except BadCredentials as error:
            raise Refused("[AUTH] Wrong name or password") from error
        except LoginUnavailable as error:
            raise Refused("[SYS/TEMP] Too many log-ins, try again later") from error
        mailboxes = self._services.mail_store.account(account)
        try:
            self._maildrop = await mailboxes.open_maildrop()
        except MaildropInUse as error:
            raise Refused("[IN-USE] Another POP3 session has the maildrop") from error
        self._client.account = account
        self._numbers = Numbers(self._maildrop.messages)
        self._client.engine.state = State.TRANSACTION
        self._reply(f"+OK {self._numbers.count} messages")

    # Transaction

    async def _stat(self, command: Command) -> None:
        self._reply(f"+OK {self._numbers.count} {self._numbers.octets}")

    async def _list(self, command: Command) -> None:
        await self._listing(command, self._numbers.listing)

    async def _uidl(self, command: Command) -> None:
        await self._listing(command, self._numbers.unique_ids)

    async def _listing(
        self, command: Command, lines: Callable[[int | None], Iterator[bytes]]
    ) -> None:
        if command.numbers:
            (line,) = lines(command.numbers[0])
            self._client.write(b"+OK %b\r\n" % line)
            return
        first = f"+OK {self._numbers.count} messages"
        await self._reply_lines(first, lines(None))

    async def _dele(self, command: Command) -> None:
        self._numbers.delete(command.numbers[0])
        self._reply("+OK Marked")

    async def _rset(self, command: Command) -> None:
        self._numbers.reset()
        self._reply(f"+OK {self._numbers.count} messages")

    async def _noop(self, command: Command) -> None:
        self._reply("+OK")

    async def _retr(self, command: Command) -> None:
        octets = await self._send(command.numbers[0], None)
        self._retrieved += 1
        self._retrieved_octets += octets

    async def _top(self, command: Command) -> None:
        number, lines = command.numbers
        await self._send(number, Top(lines))

    async def _send(self, number: int, top: Top | None) -> int:
        """Stream a message, or the top of it; return its size."""
        self._numbers.check(number)
        maildrop = self._opened()
        message = maildrop.ahead(number)
        if message is None:
            try:
                message = await maildrop.retrieve(number)
            except MessageGone as error:
                gone = "The message is gone: another client deleted it"
                raise Refused(gone) from error
        stuffer = Stuffer()
        octets = [b"+OK %d octets\r\n" % message.size_octets]
        try:
            offset, piece = 0, message.first
            while True:
                offset += len(piece)
                octets.append(stuffer.feed(piece if top is None else top.feed(piece)))
                if offset >= message.size_octets or (top is not None and top.done):
                    break
                self._client.write(b"".join(octets))
                await self._client.written()
                octets.clear()
                piece = await maildrop.read(partial(_read_on, message, offset))
                if not piece:
                    # The file got shorter. No end: the client must not think that
                    # it has all, and delete it.
                    self._client.end("message file cut short")
                    raise Disconnected
        finally:
            message.close()
        octets.append(stuffer.end())
        self._client.write(b"".join(octets))
        return message.size_octets

    async def _quit(self, command: Command) -> None:
        """RFC 1939 section 6: only now is deleted what DELE has marked."""
        try:
            uids = self._numbers.deleted_uids()
            if uids:
                await self._opened().delete(uids)
                self._deleted = len(uids)
            if self._maildrop is not None:
                self._maildrop.close()  # a client may come again at once
            self._reply("+OK Goodbye")
        finally:
            self._client.end("QUIT")

    def _opened(self) -> Maildrop:
        if self._maildrop is None:
            raise AssertionError("no maildrop before the log-in")
        return self._maildrop

    @property
    def _user(self) -> str:
        return self._client.account.name if self._client.account else ""

    def _log_end(self) -> None:
        log.info(
            "POP3 session ended by {ended_by}",
            ended_by=self._client.ended_by,
            session=self._id,
            peer=self._peer,
            user=self._user,
            retrieved=self._retrieved,
            size_octets=self._retrieved_octets,
            deleted=self._deleted,
            elapsed_s=self._services.reactor.seconds() - self._begun,
        )


def _read_on(message: Retrieval, offset: int, _: AccountReader) -> bytes:
    return message.read(offset)


_Handler = Callable[[Session, Command], Awaitable[None]]
_HANDLERS: Mapping[str, _Handler] = {
    "CAPA": Session._capa,
    "LANG": Session._lang,
    "NOOP": Session._noop,
    "QUIT": Session._quit,
    "STLS": Session._stls,
    "UTF8": Session._utf8_command,
    "USER": Session._user_command,
    "PASS": Session._pass,
    "AUTH": Session._auth,
    "STAT": Session._stat,
    "LIST": Session._list,
    "UIDL": Session._uidl,
    "RETR": Session._retr,
    "DELE": Session._dele,
    "TOP": Session._top,
    "RSET": Session._rset,
}
