"""Commands about the session itself: log-in, capabilities, IDLE (RFC 3501 6.1, 6.2).

Also RFC 2177 (IDLE), 2342 (NAMESPACE), 2971 (ID), 4959 (SASL-IR), 4978 (COMPRESS),
5161 (ENABLE).
"""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from mailsrv.accounts.directory import Account
from mailsrv.accounts.exchange import Attempt, BadCredentials, LoginUnavailable
from mailsrv.accounts.sasl import (
    Challenge,
    SaslCancelled,
    SaslError,
    decode_initial,
    decode_response,
    encode_challenge,
)
from mailsrv.imap.commands.rule import ANY, LOGGED_IN, Rule, no_arguments
from mailsrv.imap.engine import ImapEngine
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.extensions import ALWAYS, ENABLES, SPELLINGS, WORDS
from mailsrv.imap.parser import Parser
from mailsrv.imap.session import Session, State
from mailsrv.outlet import Outlet

log = Logger()

MAX_ID_FIELDS = 30  # RFC 2971 section 3.3, and the two that follow
MAX_ID_NAME = 30
MAX_ID_VALUE = 1024


def capabilities(session: Session) -> bytes:
    """Return what the session may use now (RFC 3501 section 7.2.1)."""
    logged_in = session.account is not None
    words = [b"CAPABILITY", b"IMAP4rev1"]
    for word in WORDS:
        if (logged_in or word in ALWAYS) and session.offers(word):
            if word == b"APPENDLIMIT":  # RFC 7889 section 2
                word += b"=%d" % session.settings.max_append_octets
            words.append(SPELLINGS.get(word, word))
    if logged_in:
        return b" ".join(words)
    if not session.tls_active and session.services.tls is not None:
        words.append(b"STARTTLS")
    if session.may_send_password:
        names = session.services.authenticator.mechanisms(
            can_bind=session.binding is not None
        )
        words += [b"AUTH=" + name.encode("ascii") for name in names]
    else:
        words.append(b"LOGINDISABLED")
    return b" ".join(words)


async def capability(session: Session, _: None) -> bytes:
    session.write(b"* %b\r\n" % capabilities(session))
    return b""


async def noop(session: Session, _: None) -> bytes:
    if session.selected is not None:
        await session.selected.refresh()
    return b""


async def logout(session: Session, _: None) -> bytes:
    session.write(b"* BYE Logging out\r\n")
    session.unselect()
    session.after_reply = lambda: session.close("logout")
    return b""


# ID


def parse_id(arguments: Parser) -> dict[str, str]:
    arguments.space()
    if arguments.skip(b"NIL"):
        return {}
    fields: dict[str, str] = {}

    def pair() -> None:
        name = arguments.string()
        arguments.space()
        value = arguments.nstring() or b""
        if len(name) > MAX_ID_NAME or len(value) > MAX_ID_VALUE:
            raise ProtocolViolation("ID field too long")
        if len(fields) == MAX_ID_FIELDS:
            raise ProtocolViolation("Too many ID fields")
        fields[name.decode(errors="replace").lower()] = value.decode(errors="replace")

    arguments.items(pair, may_be_empty=True)
    return fields


async def identify(session: Session, fields: dict[str, str]) -> bytes:
    words = (fields.get(name, "")[:40] for name in ("name", "version"))
    session.client = " ".join(filter(None, words))
    session.write(b'* ID ("name" "mailsrv")\r\n')
    return b""


# ENABLE


def parse_enable(arguments: Parser) -> list[bytes]:
    names = []
    while arguments.skip(b" "):
        names.append(arguments.keyword())
    if not names:
        raise ProtocolViolation("Expected a capability")
    return names


async def enable(session: Session, names: list[bytes]) -> bytes:
    # RFC 5161 section 3.1: what is unknown, or needs no enabling, is passed over.
    new = [
        name
        for name in dict.fromkeys(names)
        if name in ENABLES and name not in session.enabled and session.offers(name)
    ]
    if {b"CONDSTORE", b"QRESYNC"} & set(new):
        session.enable_condstore()
    session.enabled.update(new)
    shown = (SPELLINGS.get(name, name) for name in new)
    session.write(b" ".join((b"* ENABLED", *shown)) + b"\r\n")
    return b""


async def namespace(session: Session, _: None) -> bytes:
    session.write(b'* NAMESPACE (("" "/")) NIL NIL\r\n')
    return b""


# STARTTLS


async def starttls(session: Session, _: None) -> bytes:
    if session.tls_active:
        raise ProtocolViolation("TLS is active already")
    if session.services.tls is None:
        raise Refused("TLS is not available", b"UNAVAILABLE")
    if session.engine.buffered_octets:
        # Commands that an attacker put before the handshake would seem to come
        # out of it (RFC 9051 section 11.1).
        session.bye("Nothing may follow STARTTLS")
        return b""
    session.after_reply = lambda: _start_tls(session)
    return b""


def _start_tls(session: Session) -> None:
    session.transport.startTLS(session.services.tls)
    session.outlet = Outlet(session.transport)
    session.engine = ImapEngine()
    session.client = ""


# COMPRESS


def parse_compress(arguments: Parser) -> bytes:
    arguments.space()
    return arguments.keyword()


async def compress(session: Session, mechanism: bytes) -> bytes:
    """Compress all that follows the tagged OK, and the client's next octets."""
    if mechanism != b"DEFLATE":
        raise Refused("No such mechanism", b"CANNOT")
    if session.compressed:
        raise Refused("DEFLATE is active already", b"COMPRESSIONACTIVE")
    session.after_reply = session.compress
    return b""


# LOGIN and AUTHENTICATE


def parse_login(arguments: Parser) -> tuple[bytes, bytes]:
    arguments.space()
    name = arguments.astring()
    arguments.space()
    return name, arguments.astring()


async def login(session: Session, arguments: tuple[bytes, bytes]) -> bytes:
    _check_secure(session)
    try:
        name, password = (part.decode() for part in arguments)
    except UnicodeDecodeError:
        raise Refused("Log-in failed", b"AUTHENTICATIONFAILED") from None
    authenticator = session.services.authenticator
    return await _log_in(
        session, authenticator.login(name, password, _attempt(session))
    )


@dataclass(frozen=True, slots=True)
class Authenticate:
    """The arguments of AUTHENTICATE."""

    mechanism: bytes
    initial: bytes | None = field(repr=False)


def parse_authenticate(arguments: Parser) -> Authenticate:
    arguments.space()
    mechanism = arguments.keyword()
    if not arguments.skip(b" "):
        return Authenticate(mechanism, None)
    rest, arguments.at = arguments.data[arguments.at :], len(arguments.data)
    return Authenticate(mechanism, rest)


async def authenticate(session: Session, arguments: Authenticate) -> bytes:
    _check_secure(session)
    exchange = session.services.authenticator.exchange(
        arguments.mechanism.decode("ascii"), _attempt(session), session.binding
    )
    if exchange is None:
        raise Refused("No such mechanism", b"CANNOT")

    async def decide() -> Account:
        outcome = await exchange.start(decode_initial(arguments.initial))
        while isinstance(outcome, Challenge):
            session.write(b"+ %b\r\n" % encode_challenge(outcome))
            outcome = await exchange.step(decode_response(await session.line()))
        return outcome

    try:
        return await _log_in(session, decide())
    except SaslCancelled:
        raise ProtocolViolation("Authentication cancelled") from None
    except SaslError:
        raise ProtocolViolation("Malformed response") from None


def _check_secure(session: Session) -> None:
    if not session.may_send_password:
        raise Refused("Passwords are taken after STARTTLS only", b"PRIVACYREQUIRED")


def _attempt(session: Session) -> Attempt:
    return Attempt(session.peer, session.id, "imap")


async def _log_in(session: Session, deciding: Awaitable[Account]) -> bytes:
    try:
        account = await deciding
    except BadCredentials:
        raise Refused("Log-in failed", b"AUTHENTICATIONFAILED") from None
    except LoginUnavailable:
        raise Refused("Try again later", b"UNAVAILABLE") from None
    session.logged_in(account)
    return capabilities(session)


# IDLE


async def idle(session: Session, _: None) -> bytes:
    """Tell news as it happens until the client says DONE (RFC 2177)."""
    session.write(b"+ idling\r\n")

    def tell() -> None:
        if not session.writable or session.send_news(expunges=True):
            return  # or there is more, and it will wake us
        if mod_seq := session.due_mod_seq():
            session.write(b"* OK [%b] Highest.\r\n" % mod_seq)

    def keep_alive() -> None:
        if session.writable:
            session.write(b"* OK Still here\r\n")

    still_here = LoopingCall(keep_alive)
    still_here.clock = session.services.reactor
    still_here.start(session.settings.keep_alive_s, now=False)
    session.wake = tell
    if session.selected is not None:
        session.selected.on_news = session.woken
    try:
        tell()
        line = await session.line()
    finally:
        session.wake = None
        if session.selected is not None:
            session.selected.on_news = None
        still_here.stop()
    if line.strip().upper() != b"DONE":
        raise ProtocolViolation("Expected DONE")
    return b""


# Any: each rule has arguments of its own type.
RULES: dict[bytes, Rule[Any]] = {
    b"CAPABILITY": Rule(ANY, no_arguments, capability),
    b"NOOP": Rule(ANY, no_arguments, noop),
    b"LOGOUT": Rule(ANY, no_arguments, logout),
    b"ID": Rule(ANY, parse_id, identify, extension=b"ID"),
    b"STARTTLS": Rule(State.NOT_AUTHENTICATED, no_arguments, starttls),
    b"LOGIN": Rule(State.NOT_AUTHENTICATED, parse_login, login, secret=True),
    b"AUTHENTICATE": Rule(
        State.NOT_AUTHENTICATED, parse_authenticate, authenticate, secret=True
    ),
    b"ENABLE": Rule(LOGGED_IN, parse_enable, enable, extension=b"ENABLE"),
    b"COMPRESS": Rule(
        LOGGED_IN, parse_compress, compress, extension=b"COMPRESS=DEFLATE"
    ),
    b"NAMESPACE": Rule(LOGGED_IN, no_arguments, namespace, extension=b"NAMESPACE"),
    b"IDLE": Rule(LOGGED_IN, no_arguments, idle, extension=b"IDLE"),
}
