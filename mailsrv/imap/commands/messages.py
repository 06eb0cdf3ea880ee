"""Commands that add, change and remove messages (RFC 3501 6.3.11, 6.4).

Also RFC 3691 (UNSELECT), 4315 (UIDPLUS) and 6851 (MOVE), and for APPEND RFC 3502
(MULTIAPPEND). Reading messages is in `fetch` and `search`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twisted.logger import Logger

from mailsrv.imap import format
from mailsrv.imap.commands.rule import LOGGED_IN, Rule, both, no_arguments
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.grammar import SequenceSet
from mailsrv.imap.parser import Parser
from mailsrv.imap.session import Session, State
from mailsrv.mailboxes.incoming import MEMORY_OCTETS, Incoming
from mailsrv.mailboxes.sequence import OutOfRange
from mailsrv.mime.base64_parts import code_binary
from mailsrv.store.values import Moved, NoSuchMailbox, OverQuota

log = Logger()

# APPEND

# Messages of one APPEND, which become visible together: each may hold an open file.
MAX_MESSAGES = 100
HELD_OCTETS = 1024 * 1024  # of them in memory; what comes after is written to files
MAX_BINARY = 8 * 1024 * 1024  # octets of a literal8, which is held in memory


@dataclass(frozen=True, slots=True)
class MessageArguments:
    """What stands before one message of APPEND."""

    flags: tuple[str, ...] = ()
    internal_date: int | None = None  # seconds since 1970; None: now
    utf8: bool = False  # UTF8 (...) is around it, RFC 6855 section 4


@dataclass(frozen=True, slots=True)
class Append:
    """The arguments of APPEND before its first message."""

    mailbox: str
    first: MessageArguments = MessageArguments()


def parse_append(arguments: Parser) -> Append:
    arguments.space()
    return Append(arguments.mailbox(), parse_message_arguments(arguments))


def parse_message_arguments(arguments: Parser) -> MessageArguments:
    arguments.space()
    flags: tuple[str, ...] = ()
    if arguments.peek() == b"(":
        flags = _texts(arguments.flags())
        arguments.space()
    internal_date = None
    if arguments.peek() == b'"':
        internal_date = arguments.date_time()
        arguments.space()
    return MessageArguments(flags, internal_date, arguments.skip(b"UTF8 ("))


async def append(session: Session, arguments: Append) -> bytes:
    """Stream messages to the store, all or none (RFC 3501 6.3.11, RFC 3502)."""
    arrivals = session.account_mailboxes.arrivals
    messages: list[Incoming] = []
    next_one: MessageArguments | None = arguments.first
    held = 0
    try:
        while next_one is not None:
            await _check_next(session, len(messages))
            incoming = await arrivals.receive(
                arguments.mailbox, next_one.flags, next_one.internal_date
            )
            messages.append(incoming)
            next_one = await _feed(session, incoming, next_one)
            held += incoming.size_octets
            if held > HELD_OCTETS and next_one is not None:
                await incoming.stage()
        appended = await arrivals.append(arguments.mailbox, messages)
    except NoSuchMailbox:
        raise Refused("No such mailbox", b"TRYCREATE") from None
    finally:
        for incoming in messages:
            await incoming.abort()
    if not appended.uids or not session.has(b"UIDPLUS"):
        return b""
    return b"APPENDUID %d %b" % (
        appended.uid_validity,
        format.uid_set(appended.uids),
    )


async def _check_next(session: Session, before: int) -> None:
    """Check that the message that was announced may come."""
    message = session.message
    if message is None:
        raise ProtocolViolation("Expected a literal")
    if before and not session.offers(b"MULTIAPPEND"):
        raise ProtocolViolation("One message in an APPEND")
    if before == MAX_MESSAGES:
        raise Refused("Too many messages in an APPEND", b"LIMIT")
    if message.size_octets == 0:  # RFC 3502 section 6.3.11: it cancels all
        raise Refused("The message is empty", b"CANNOT")
    most = session.settings.max_append_octets
    if message.size_octets > (min(most, MAX_BINARY) if message.binary else most):
        raise Refused("The message is too large", b"TOOBIG")
    if not await session.account_mailboxes.has_room(message.size_octets):
        raise OverQuota


async def _feed(
    session: Session, incoming: Incoming, arguments: MessageArguments
) -> MessageArguments | None:
    """Pass a message on; return the arguments of the next one of its command."""
    binary = session.message is not None and session.message.binary
    held: list[bytes] = []  # of a literal8, which may have to be coded
    while isinstance(data := await session.message_data(), bytes):
        if binary:
            held.append(data)
            continue
        incoming.feed(data)
        if incoming.full:
            await incoming.drained()
    rest = Parser(data.rest)
    if arguments.utf8:
        rest.expect(b")")
    following = None
    if data.message is not None:
        following = parse_message_arguments(rest)
    rest.end()
    if held:
        await _feed_coded(session, incoming, b"".join(held))
    return following


async def _feed_coded(session: Session, incoming: Incoming, message: bytes) -> None:
    """Pass a literal8 on, with the parts in base64 that need it."""
    mailboxes = session.account_mailboxes
    message = await mailboxes.read_sliced(lambda _: code_binary(message))
    for at in range(0, len(message), MEMORY_OCTETS):
        incoming.feed(message[at : at + MEMORY_OCTETS])
        if incoming.full:
            await incoming.drained()


# STORE


@dataclass(frozen=True, slots=True)
class Store:
    """The arguments of STORE."""

    messages: SequenceSet
    operation: Literal["+", "-", "="]
    flags: tuple[str, ...]
    silent: bool
    unchanged_since: int | None = None  # RFC 7162 section 3.1.3


def parse_store(arguments: Parser) -> Store:
    arguments.space()
    messages = arguments.sequence_set()
    arguments.space()
    unchanged_since = None
    if arguments.skip(b"(UNCHANGEDSINCE "):
        unchanged_since = arguments.number64()
        arguments.expect(b") ")
    operation: Literal["+", "-", "="] = "="
    if arguments.skip(b"+"):
        operation = "+"
    elif arguments.skip(b"-"):
        operation = "-"
    arguments.expect(b"FLAGS")
    silent = arguments.skip(b".SILENT")
    arguments.space()
    if arguments.peek() == b"(":
        flags = arguments.flags()
    else:
        flags = [arguments.flag()]
        while not arguments.at_end():
            arguments.space()
            flags.append(arguments.flag())
    return Store(messages, operation, _texts(flags), silent, unchanged_since)


async def store(session: Session, arguments: Store, *, by_uid: bool) -> bytes:
    uids = _messages(session, arguments.messages, by_uid=by_uid)
    mailbox = session.writable_mailbox
    if arguments.unchanged_since is not None:
        session.enable_condstore()
    # The flags of the messages are news of the mailbox, told before the tagged OK.
    modified = await mailbox.store_flags(
        uids,
        arguments.operation,
        arguments.flags,
        silent=arguments.silent,
        unchanged_since=arguments.unchanged_since,
        tell_mod_seqs=session.tells_mod_seqs,
        stored=lambda: session.send_news(expunges=False),
    )
    numbers = modified if by_uid else [mailbox.seq(uid) for uid in modified]
    code = b"MODIFIED " + format.uid_set(filter(None, numbers)) if modified else b""
    if by_uid or arguments.silent or not mailbox.has_gone(uids):
        return code
    if arguments.unchanged_since is not None:  # RFC 7162 example 11
        raise Refused("Some of the messages are gone", code or b"EXPUNGEISSUED")
    # As of FETCH: the rest was done, and a NO would be shown to people.
    return b"EXPUNGEISSUED"


# COPY and MOVE


@dataclass(frozen=True, slots=True)
class Transfer:
    """The arguments of COPY and MOVE."""

    messages: SequenceSet
    target: str


def parse_transfer(arguments: Parser) -> Transfer:
    arguments.space()
    messages = arguments.sequence_set()
    arguments.space()
    return Transfer(messages, arguments.mailbox())


async def copy(session: Session, arguments: Transfer, *, by_uid: bool) -> bytes:
    uids = _messages(session, arguments.messages, by_uid=by_uid)
    if not uids:
        return b""
    try:
        # RFC 2180 section 4.4: by number all of them, or NO and none.
        copied = await session.mailbox.copy(uids, arguments.target, whole=not by_uid)
    except NoSuchMailbox:
        raise Refused("No such mailbox", b"TRYCREATE") from None
    if not copied.source_uids:
        raise Refused("The messages are gone", b"EXPUNGEISSUED")
    if not session.has(b"UIDPLUS"):
        return b""
    return _copy_uid(copied.uid_validity, copied.source_uids, copied.target_uids)


async def move(session: Session, arguments: Transfer, *, by_uid: bool) -> bytes:
    uids = _messages(session, arguments.messages, by_uid=by_uid)
    mailbox = session.writable_mailbox
    if not uids:
        return b""
    moved: list[Moved] = []
    try:
        await mailbox.move(uids, arguments.target, moved.append)
    except NoSuchMailbox:
        raise Refused("No such mailbox", b"TRYCREATE") from None
    finally:  # of many messages some may be there when others cannot be moved
        sources = [uid for part in moved for uid in part.source_uids]
        if sources:
            _tell_moved(session, arguments.target, sources, moved)
    if not sources:
        raise Refused("The messages are gone", b"EXPUNGEISSUED")
    return b""


def _tell_moved(
    session: Session, target: str, sources: Sequence[int], moved: Sequence[Moved]
) -> None:
    """Tell COPYUID before the EXPUNGEs, which are news sent later (RFC 6851 4.3)."""
    _log_gone("moved", session, sources, target=target)
    if session.has(b"UIDPLUS"):
        targets = [uid for part in moved for uid in part.target_uids]
        code = _copy_uid(moved[0].uid_validity, sources, targets)
        session.write(b"* OK [%b] Moved.\r\n" % code)


def _copy_uid(
    uid_validity: int, sources: Sequence[int], targets: Sequence[int]
) -> bytes:
    return b"COPYUID %d %b %b" % (
        uid_validity,
        format.uid_set(sources),
        format.uid_set(targets),
    )


# EXPUNGE, CHECK, CLOSE, UNSELECT


async def expunge(session: Session, _: None) -> bytes:
    _log_gone("expunged", session, await session.writable_mailbox.expunge())
    return b""


def parse_uid_expunge(arguments: Parser) -> SequenceSet:
    arguments.space()
    return arguments.sequence_set()


async def uid_expunge(session: Session, messages: SequenceSet) -> bytes:
    uids = _messages(session, messages, by_uid=True)
    _log_gone("expunged", session, await session.writable_mailbox.expunge(uids))
    return b""


async def check(session: Session, _: None) -> bytes:
    await session.mailbox.refresh()
    return b""


async def close(session: Session, _: None) -> bytes:
    """Remove what is \\Deleted, without EXPUNGE responses, and leave (6.4.2)."""
    _log_gone("expunged", session, await session.mailbox.close())
    session.selected = None
    return b""


async def unselect(session: Session, _: None) -> bytes:
    session.unselect()
    return b""


def _log_gone(what: str, session: Session, uids: Sequence[int], **more: str) -> None:
    """Tell the admin, who is asked where mail has gone, who took it away."""
    if uids:
        log.info(
            what,
            session=session.id,
            peer=session.peer,
            user=session.user,
            mailbox=session.mailbox.name,
            uids=format.uid_set(uids).decode("ascii"),
            messages=len(uids),
            **more,
        )


def _messages(
    session: Session, messages: SequenceSet, *, by_uid: bool
) -> Sequence[int]:
    """Return the UIDs of a sequence set of the selected mailbox."""
    try:
        return session.mailbox.uids(messages, by_uid=by_uid)
    except OutOfRange:
        raise ProtocolViolation("No such message") from None


def _texts(flags: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(flag.decode("ascii") for flag in flags)


# Any: each rule has arguments of its own type.
RULES: dict[bytes, Rule[Any]] = {
    b"APPEND": Rule(LOGGED_IN, parse_append, append),
    b"CHECK": Rule(State.SELECTED, no_arguments, check),
    b"CLOSE": Rule(State.SELECTED, no_arguments, close),
    b"UNSELECT": Rule(State.SELECTED, no_arguments, unselect, extension=b"UNSELECT"),
    b"EXPUNGE": Rule(State.SELECTED, no_arguments, expunge),
    b"UID EXPUNGE": Rule(
        State.SELECTED, parse_uid_expunge, uid_expunge, extension=b"UIDPLUS"
    ),
    **both(b"STORE", parse_store, store, holds_expunge=True),
    **both(b"COPY", parse_transfer, copy),
    **both(b"MOVE", parse_transfer, move, extension=b"MOVE"),
}
