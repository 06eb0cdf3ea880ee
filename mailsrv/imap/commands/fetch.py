"""FETCH and UID FETCH (RFC 3501 sections 6.4.5 and 6.4.8; RFC 7162)."""

from array import array
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.imap import format
from mailsrv.imap.commands.rule import Rule
from mailsrv.imap.connection import Disconnected
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.fetch_items import (
    Attribute,
    Fetch,
    Item,
    parse_fetch,
    parse_uid_fetch,
)
from mailsrv.imap.fetching import Batch, Message, Shortened
from mailsrv.imap.session import Session, State
from mailsrv.mailboxes.sequence import OutOfRange
from mailsrv.store.values import SEEN, StoreError

log = Logger()

# Messages of one job: more at once while the index has all that is asked, since a
# job costs as much as some ten rows; few again when files are read.
BATCH, MAX_BATCH = 64, 256
SHORT_S = 0.01
LINES = 1000  # responses of flags alone that are written at once
_TEMPLATES: dict[Item, bytes] = {
    Attribute.UID: b"UID %d",
    Attribute.FLAGS: b"FLAGS %b",
    Attribute.MODSEQ: b"MODSEQ (%d)",
}


async def fetch(session: Session, request: Fetch) -> bytes:
    mailbox = session.mailbox
    try:
        uids = mailbox.uids(request.messages, by_uid=request.by_uid)
    except OutOfRange:
        raise ProtocolViolation("No such message") from None
    if request.vanished and b"QRESYNC" not in session.enabled:
        raise ProtocolViolation("ENABLE QRESYNC first")
    if Attribute.MODSEQ in request.items:
        session.enable_condstore()
    if (since := request.changed_since) is not None:
        if request.vanished:  # before any FETCH (RFC 7162 section 3.2.6)
            gone_uids = await mailbox.vanished(since, request.messages)
            await session.write_some(format.vanished(gone_uids, earlier=True))
        uids = mailbox.newer(uids, since)
    if _TEMPLATES.keys() >= set(request.items):
        await write_flags(session, request.items, uids)
        return b""
    gone = undecodable = False
    start, count = 0, BATCH
    while start < len(uids):
        begun_s = session.services.reactor.seconds()
        batch = await _write_batch(session, request, uids[start : start + count])
        gone = gone or bool(batch.gone)
        undecodable = undecodable or batch.undecodable
        start += count
        took_s = session.services.reactor.seconds() - begun_s
        count = min(2 * count, MAX_BATCH) if took_s < SHORT_S else BATCH
    if undecodable:
        raise Refused("Some of the parts cannot be decoded", b"UNKNOWN-CTE")
    # RFC 5530 section 3 has it with OK, as Dovecot does: a NO is shown to people, who
    # can do nothing about it.
    return b"EXPUNGEISSUED" if gone else b""


async def write_flags(
    session: Session, items: Sequence[Item], uids: "array[int]"
) -> None:
    """Answer from the view alone: what clients ask of whole mailboxes."""
    parts = b" ".join(_TEMPLATES[item] for item in items)
    template = b"* %%d FETCH (%b)\r\n" % parts
    for start in range(0, len(uids), LINES):
        if start:  # a socket may take all of it at once: others want the reactor, too
            await deferLater(session.services.reactor, 0)
        seqs, columns = _columns(session, uids[start : start + LINES])
        rows = zip(seqs, *(columns[item] for item in items), strict=True)
        await session.write_some(b"".join(map(template.__mod__, rows)))


def _columns(
    session: Session, uids: "array[int]"
) -> tuple[Sequence[int], dict[Item, Sequence[Any]]]:
    """Return the numbers of those `uids` that are known, and what the view has.

    Any: numbers, and of flags octets.
    """
    mailbox = session.mailbox
    if mailbox.takes_keywords():  # by another session; FETCH is not to show them first
        session.write(session.flags_of_mailbox())
    rows = list(mailbox.walk(uids))
    seqs, known, masks, mod_seqs = zip(*rows, strict=True) if rows else ((),) * 4
    return seqs, {
        Attribute.UID: known,
        Attribute.FLAGS: mailbox.shown_flags(
            known, masks, with_recent=not session.is_rev2
        ),
        Attribute.MODSEQ: mod_seqs,
    }


async def _write_batch(session: Session, request: Fetch, uids: "array[int]") -> Batch:
    """Write some responses; return the batch, which knows what got none."""
    mailbox = session.mailbox
    newly_seen = await _set_seen(session, request, uids)
    also: tuple[Attribute, ...] = (Attribute.FLAGS,)
    if session.tells_mod_seqs:  # RFC 7162 section 3.2.4
        also = (Attribute.UID, Attribute.FLAGS, Attribute.MODSEQ)
    seqs, columns = _columns(session, uids)
    known = zip(seqs, *columns.values(), strict=True)
    batch = Batch(
        mailbox.name,
        request,
        [
            Message(seq, uid, flags, mod_seq, also if uid in newly_seen else ())
            for seq, uid, flags, mod_seq in known
        ],
        is_rev2=session.is_rev2,
    )
    try:
        while not batch.ended:
            if piece := await mailbox.read(batch.next_piece):
                await session.write_some(piece)
    except Shortened:
        log.failure("message cannot be read to its end", session=session.id)
        session.close("a message cannot be read to its end")
        raise Disconnected from None
    finally:
        batch.close()
    return batch


async def _set_seen(
    session: Session, request: Fetch, uids: "array[int]"
) -> frozenset[int]:
    """Set \\Seen where that is due; return whose flags the client must be told."""
    mailbox = session.mailbox
    if not request.sets_seen or mailbox.read_only:
        return frozenset()
    unseen = [uid for _, uid, mask, _ in mailbox.walk(uids) if not mask & SEEN]
    if not unseen:
        return frozenset()
    try:
        await mailbox.store_flags(unseen, "+", ["\\Seen"], silent=True)
    except (StoreError, OSError):
        # With a full disk, say, mail can still be read.
        log.failure("cannot set \\Seen", session=session.id)
        return frozenset()
    return frozenset(unseen)


RULES = {
    b"FETCH": Rule(State.SELECTED, parse_fetch, fetch, holds_expunge=True),
    b"UID FETCH": Rule(State.SELECTED, parse_uid_fetch, fetch, holds_expunge=True),
}
