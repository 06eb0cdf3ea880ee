"""Commands on mailboxes as wholes (RFC 3501 6.3), and quotas (RFC 9208).

Also RFC 6154 (CREATE with a special use), RFC 8438 (STATUS=SIZE) and RFC 8474
(MAILBOXID). What LIST answers: mailsrv.imap.listing.
"""

import unicodedata
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from twisted.logger import Logger

from mailsrv.imap import format, listing
from mailsrv.imap.commands.rule import LOGGED_IN, Rule
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.listing import List
from mailsrv.imap.parser import Parser
from mailsrv.imap.session import Session
from mailsrv.store.names import INBOX, SEPARATOR
from mailsrv.store.values import MailboxInfo, MailboxStatus, NoSuchMailbox

log = Logger()

# RFC 6154 section 2. \All and \Flagged would be views of other mailboxes.
SPECIAL_USES = {
    use.lower(): use for use in ("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash")
}
STATUS_ITEMS: dict[bytes, Callable[[MailboxStatus], bytes]] = {
    b"MESSAGES": lambda status: b"%d" % status.messages,
    b"RECENT": lambda status: b"%d" % status.recent,
    b"UIDNEXT": lambda status: b"%d" % status.uid_next,
    b"UIDVALIDITY": lambda status: b"%d" % status.uid_validity,
    b"UNSEEN": lambda status: b"%d" % status.unseen,
    b"HIGHESTMODSEQ": lambda status: b"%d" % status.highest_mod_seq,
    b"DELETED": lambda status: b"%d" % status.deleted,
    b"DELETED-STORAGE": lambda status: b"%d" % status.deleted_octets,
    b"SIZE": lambda status: b"%d" % status.size_octets,
    b"MAILBOXID": lambda status: b"(%b)" % status.mailbox_id.encode("ascii"),
}
_SIZES = {b"SIZE", b"DELETED-STORAGE"}
# Items that are known only where one of these is offered.
_STATUS_EXTENSIONS = {
    b"APPENDLIMIT": (b"APPENDLIMIT",),
    b"DELETED": (b"IMAP4REV2",),
    b"DELETED-STORAGE": (b"QUOTA=RES-STORAGE",),
    b"HIGHESTMODSEQ": (b"CONDSTORE",),
    b"MAILBOXID": (b"OBJECTID",),
    b"SIZE": (b"STATUS=SIZE", b"IMAP4REV2"),
}


def parse_mailbox(arguments: Parser) -> str:
    arguments.space()
    return arguments.mailbox()


# CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE


@dataclass(frozen=True, slots=True)
class Create:
    """The arguments of CREATE."""

    mailbox: str
    special_uses: tuple[str, ...] = ()


def parse_create(arguments: Parser) -> Create:
    name = parse_mailbox(arguments)
    uses: list[str] = []

    def use() -> str:
        arguments.expect(b"\\")
        return "\\" + arguments.atom().decode("ascii")

    def parameter() -> None:
        arguments.uses(b"CREATE-SPECIAL-USE")
        if arguments.keyword() != b"USE":
            raise ProtocolViolation("Unknown parameter of CREATE")
        arguments.space()
        uses.extend(arguments.items(use, may_be_empty=True))

    if arguments.skip(b" "):
        arguments.items(parameter)
    return Create(name, tuple(uses))


async def create(session: Session, arguments: Create) -> bytes:
    try:
        uses = [SPECIAL_USES[use.lower()] for use in arguments.special_uses]
    except KeyError:
        # RFC 6154 section 3
        raise Refused("No such special use here", b"USEATTR") from None
    name = _name_to_create(session, arguments.mailbox)
    await session.account_mailboxes.create(name, uses)
    if name != arguments.mailbox:
        await write_list(session, name, arguments.mailbox)
    if not session.offers(b"OBJECTID"):
        return b""
    made = await session.account_mailboxes.status(name)
    return b"MAILBOXID (%b)" % made.mailbox_id.encode("ascii")


async def delete(session: Session, name: str) -> bytes:
    try:
        await session.account_mailboxes.delete(name)
    except NoSuchMailbox:
        mailboxes = await session.account_mailboxes.mailboxes()
        if any(mailbox.name.startswith(name + SEPARATOR) for mailbox in mailboxes):
            # RFC 9051 section 6.3.5: there is no such mailbox, but a name.
            raise Refused("Only what is below it exists", b"HASCHILDREN") from None
        raise
    if session.selected is not None and session.selected.name == name:
        session.unselect()  # before its news, which would be BYE
    log.info(
        "mailbox deleted",
        session=session.id,
        peer=session.peer,
        user=session.user,
        mailbox=name,
    )
    return b""


def parse_rename(arguments: Parser) -> tuple[str, str]:
    return parse_mailbox(arguments), parse_mailbox(arguments)


async def rename(session: Session, names: tuple[str, str]) -> bytes:
    old, new = names
    new = _name_to_create(session, new)
    await session.account_mailboxes.rename(old, new)
    if old != INBOX:  # which goes on, without its messages
        await write_list(session, new, old)
    log.info(
        "mailbox renamed",
        session=session.id,
        peer=session.peer,
        user=session.user,
        mailbox=old,
        target=new,
    )
    return b""


def _name_to_create(session: Session, name: str) -> str:
    """Return the name in Unicode's form NFC (RFC 9051 section 5.1).

    Names in modified UTF-7 are as old clients have always made them.
    """
    return unicodedata.normalize("NFC", name) if session.utf8 else name


async def write_list(session: Session, name: str, old_name: str = "") -> None:
    """Tell a client of IMAP4rev2 how a mailbox is called (RFC 9051 section 6.3.9.7)."""
    if not session.is_rev2:
        return
    for mailbox in await _mailboxes(session):
        if mailbox.name == name:
            session.write(listing.list_response(mailbox, old_name))


async def subscribe(session: Session, name: str) -> bytes:
    await session.account_mailboxes.subscribe(name)
    return b""


async def unsubscribe(session: Session, name: str) -> bytes:
    await session.account_mailboxes.unsubscribe(name)
    return b""


# LIST, LSUB, XLIST


async def _mailboxes(session: Session) -> Sequence[MailboxInfo]:
    """Return all mailboxes, as far as LIST may show what they are for."""
    found = await session.account_mailboxes.mailboxes()
    if session.has(b"SPECIAL-USE"):
        return found
    return [replace(mailbox, special_uses=()) for mailbox in found]


async def list_mailboxes(session: Session, request: List) -> bytes:
    if request.asks_for_separator:
        session.write(b'* LIST (\\Noselect) "/" ""\r\n')
        return b""
    if request.status:
        _check_status_items(session, request.status)
    mailboxes = await _mailboxes(session)
    listed = list(listing.list_responses(request, mailboxes))
    if not request.status:
        session.write(b"".join(response for _, response in listed))
    for mailbox, response in listed if request.status else ():
        # RFC 5819 section 2: without a STATUS if it cannot be selected.
        if mailbox.selectable:
            with suppress(NoSuchMailbox):  # deleted since
                response += await _status_response(
                    session, mailbox.name, request.status
                )
        await session.write_some(response)
    return b""


async def lsub(session: Session, request: List) -> bytes:
    mailboxes = await session.account_mailboxes.mailboxes()
    session.write(b"".join(listing.lsub_responses(request, mailboxes)))
    return b""


async def xlist(session: Session, request: List) -> bytes:
    mailboxes = await session.account_mailboxes.mailboxes()
    session.write(b"".join(listing.xlist_responses(request, mailboxes)))
    return b""


# STATUS


def parse_status(arguments: Parser) -> tuple[str, list[bytes]]:
    name = parse_mailbox(arguments)
    arguments.space()
    return name, arguments.items(arguments.keyword)


async def status(session: Session, arguments: tuple[str, list[bytes]]) -> bytes:
    name, items = arguments
    _check_status_items(session, items)
    session.write(await _status_response(session, name, items))
    return b""


def _check_status_items(session: Session, items: Sequence[bytes]) -> None:
    for item in items:
        words = _STATUS_EXTENSIONS.get(item, ())
        known = item in STATUS_ITEMS or item == b"APPENDLIMIT"
        if not known or (words and not any(map(session.offers, words))):
            raise ProtocolViolation("Unknown status item")
    if b"HIGHESTMODSEQ" in items:
        session.enable_condstore()


async def _status_response(
    session: Session, name: str, items: Sequence[bytes]
) -> bytes:
    # RFC 8438 section 3: SIZE may not be under the sum of what FETCH tells.
    found: MailboxStatus = await session.account_mailboxes.status(
        name, exact=not _SIZES.isdisjoint(items)
    )
    values = {item: write(found) for item, write in STATUS_ITEMS.items()}
    # RFC 7889 section 3.1
    values[b"APPENDLIMIT"] = b"%d" % session.settings.max_append_octets
    pairs = [b"%b %b" % (item, values[item]) for item in dict.fromkeys(items)]
    return b"* STATUS %b %b\r\n" % (
        format.mailbox(name, utf8=session.utf8),
        format.parenthesised(pairs),
    )


# Quotas: one root, named "", of all mailboxes of an account that has a limit


def parse_quota_root(arguments: Parser) -> bytes:
    arguments.space()
    return arguments.astring()


async def get_quota(session: Session, root: bytes) -> bytes:
    if root or not (answer := await _quota(session)):
        raise Refused("No such quota root", b"NONEXISTENT")
    session.write(answer)
    return b""


async def get_quota_root(session: Session, name: str) -> bytes:
    mailboxes = await session.account_mailboxes.mailboxes()
    if not any(mailbox.name == name and mailbox.selectable for mailbox in mailboxes):
        raise Refused("No such mailbox", b"NONEXISTENT")
    answer = await _quota(session)
    session.write(
        b"* QUOTAROOT %b%b\r\n%b"
        % (format.mailbox(name, utf8=session.utf8), b' ""' * bool(answer), answer)
    )
    return b""


async def _quota(session: Session) -> bytes:
    """Return the QUOTA response in units of 1024 octets, b"" without a limit."""
    limit_octets = session.account_mailboxes.quota_octets
    if limit_octets is None:  # then nobody has to count
        return b""
    quota = await session.account_mailboxes.quota()
    used = -(-quota.used_octets // 1024)
    return b'* QUOTA "" (STORAGE %d %d)\r\n' % (used, limit_octets // 1024)


# Any: each rule has arguments of its own type.
RULES: dict[bytes, Rule[Any]] = {
    b"CREATE": Rule(LOGGED_IN, parse_create, create),
    b"DELETE": Rule(LOGGED_IN, parse_mailbox, delete),
    b"RENAME": Rule(LOGGED_IN, parse_rename, rename),
    b"SUBSCRIBE": Rule(LOGGED_IN, parse_mailbox, subscribe),
    b"UNSUBSCRIBE": Rule(LOGGED_IN, parse_mailbox, unsubscribe),
    b"LIST": Rule(LOGGED_IN, listing.parse_list, list_mailboxes),
    b"LSUB": Rule(LOGGED_IN, listing.parse_plain, lsub),
    b"XLIST": Rule(LOGGED_IN, listing.parse_plain, xlist, extension=b"XLIST"),
    b"STATUS": Rule(LOGGED_IN, parse_status, status),
    b"GETQUOTA": Rule(LOGGED_IN, parse_quota_root, get_quota, extension=b"QUOTA"),
    b"GETQUOTAROOT": Rule(LOGGED_IN, parse_mailbox, get_quota_root, extension=b"QUOTA"),
}
