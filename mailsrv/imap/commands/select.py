"""SELECT and EXAMINE (RFC 3501 6.3.1, 6.3.2) with resynchronising (RFC 7162).

A client that was away tells what it knows, and is told what has changed since.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from mailsrv.imap import format
from mailsrv.imap.commands.fetch import write_flags
from mailsrv.imap.commands.mailboxes import write_list
from mailsrv.imap.commands.rule import LOGGED_IN, Rule
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.fetch_items import Attribute
from mailsrv.imap.grammar import SequenceSet
from mailsrv.imap.parser import Parser
from mailsrv.imap.session import Session
from mailsrv.mailboxes.selected import Selected


@dataclass(frozen=True, slots=True)
class Known:
    """The parameter QRESYNC: what the client has of the mailbox (section 3.2.5)."""

    uid_validity: int
    mod_seq: int
    uids: SequenceSet | None = None  # None: all there ever were
    # Some sequence numbers and their UIDs, in step and ascending.
    match: tuple[SequenceSet, SequenceSet] = ((), ())


@dataclass(frozen=True, slots=True)
class Select:
    """The arguments of SELECT and EXAMINE."""

    mailbox: str
    condstore: bool = False
    known: Known | None = None


def parse_select(arguments: Parser) -> Select:
    arguments.space()
    mailbox = arguments.mailbox()
    condstore = False
    known: list[Known] = []

    def parameter() -> None:
        nonlocal condstore
        match arguments.keyword():
            case b"CONDSTORE":
                condstore = True
            case b"QRESYNC" if not known:
                arguments.expect(b" (")
                known.append(_parse_known(arguments))
            case _:
                raise ProtocolViolation("Unknown parameter of SELECT")

    if arguments.skip(b" "):
        arguments.items(parameter)
    return Select(mailbox, condstore, known[0] if known else None)


def _parse_known(arguments: Parser) -> Known:
    uid_validity = arguments.number()
    arguments.space()
    mod_seq = arguments.number64()
    uids: SequenceSet | None = None
    match: tuple[SequenceSet, SequenceSet] = ((), ())
    if arguments.skip(b" ") and arguments.peek() != b"(":
        uids = arguments.known_set()
        arguments.skip(b" ")
    if arguments.skip(b"("):
        seqs = arguments.known_set()
        arguments.space()
        match = seqs, arguments.known_set()
        arguments.expect(b")")
        if not _ascends(seqs) or not _ascends(match[1]):
            raise ProtocolViolation("Sequence match data must ascend")
        if _count(seqs) != _count(match[1]):
            raise ProtocolViolation("Sequence match data must be of equal length")
    arguments.expect(b")")
    return Known(uid_validity, mod_seq, uids, match)


def _ascends(ranges: SequenceSet) -> bool:
    numbers = [number for pair in ranges for number in dict.fromkeys(pair)]
    return all(a < b for a, b in pairwise(numbers))


def _count(ranges: SequenceSet) -> int:
    return sum(last - first + 1 for first, last in ranges)


async def select(session: Session, arguments: Select, *, read_only: bool) -> bytes:
    known = arguments.known
    if known is not None and b"QRESYNC" not in session.enabled:
        raise ProtocolViolation("ENABLE QRESYNC first")
    if arguments.condstore and not session.offers(b"CONDSTORE"):
        raise ProtocolViolation("Unknown parameter of SELECT")
    # RFC 3501 section 6.3.1: whatever comes of it, the old mailbox is left.
    if session.selected is not None:
        session.unselect()
        session.write(b"* OK [CLOSED] The previous mailbox is closed.\r\n")
    if arguments.condstore:
        session.enable_condstore()
    mailbox = await session.account_mailboxes.select(
        arguments.mailbox, read_only=read_only
    )
    session.selected = mailbox
    _write_state(session, mailbox)
    if session.is_rev2:  # RFC 9051 section 6.3.2
        await write_list(session, mailbox.name)
    if known is not None and known.uid_validity == mailbox.uid_validity:
        await _resynchronise(session, mailbox, known)
    return b"READ-ONLY" if read_only else b"READ-WRITE"


def _write_state(session: Session, mailbox: Selected) -> None:
    lines = [session.flags_of_mailbox(), b"* %d EXISTS\r\n" % mailbox.exists]
    if not session.is_rev2:  # RFC 9051 appendix E: these two are no more
        lines.append(b"* %d RECENT\r\n" % mailbox.recent)
        if (unseen := mailbox.first_unseen) is not None:
            lines.append(b"* OK [UNSEEN %d] First unseen.\r\n" % unseen)
    lines.append(b"* OK [UIDVALIDITY %d] UIDs valid.\r\n" % mailbox.uid_validity)
    lines.append(b"* OK [UIDNEXT %d] Next UID.\r\n" % mailbox.uid_next)
    if session.offers(b"CONDSTORE"):
        # Before a CONDSTORE enabling command too: clients look for it.
        lines.append(b"* OK [%b] Highest.\r\n" % session.highest_mod_seq())
    if session.offers(b"OBJECTID"):  # RFC 8474 section 4.2
        identifier = mailbox.mailbox_id.encode("ascii")
        lines.append(b"* OK [MAILBOXID (%b)] Its identifier.\r\n" % identifier)
    session.write(b"".join(lines))


async def _resynchronise(session: Session, mailbox: Selected, known: Known) -> None:
    """Tell what was expunged and whose flags were changed (section 3.2.5.1)."""
    uids = known.uids
    if uids is None:
        uids = ((1, mailbox.uid_next - 1),) if mailbox.uid_next > 1 else ()
    vanished = await mailbox.vanished(known.mod_seq, uids, known.match)
    await session.write_some(format.vanished(vanished, earlier=True))
    changed = mailbox.newer(mailbox.uids(uids, by_uid=True), known.mod_seq)
    items = (Attribute.UID, Attribute.FLAGS, Attribute.MODSEQ)
    await write_flags(session, items, changed)


# Any: each rule has arguments of its own type.
RULES: dict[bytes, Rule[Any]] = {
    b"SELECT": Rule(LOGGED_IN, parse_select, partial(select, read_only=False)),
    b"EXAMINE": Rule(LOGGED_IN, parse_select, partial(select, read_only=True)),
}
