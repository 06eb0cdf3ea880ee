"""SEARCH and UID SEARCH (RFC 3501 section 6.4.4; RFC 4731, RFC 5182, RFC 7162)."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from mailsrv.imap import format
from mailsrv.imap.commands.rule import both
from mailsrv.imap.search_arguments import Program, Return, parse_search
from mailsrv.imap.searching import Match, Scope, Searcher
from mailsrv.imap.session import Session
from mailsrv.mailboxes.flags import flag_mask

if TYPE_CHECKING:
    from mailsrv.store.account_reader import AccountReader

NUMBERS = 2000  # of an answer, written at once


async def search(session: Session, program: Program, *, by_uid: bool) -> bytes:
    """Answer with the numbers of the messages that match, ascending."""
    found = await matching(session, program)
    save(session, program, found)
    returns = program.returns
    if returns is None and session.is_rev2:
        returns = Return.ALL  # RFC 9051 section 6.4.4
    if returns is None:
        await write_numbers(session, b"SEARCH", program, found, by_uid=by_uid)
    else:
        await write_extended(session, returns, program, found, by_uid=by_uid)
    return b""


# Finding


async def matching(session: Session, program: Program) -> list[Match]:
    """Return the messages that match, ascending.

    If `program` saves, nothing is saved then: `save` what comes of it.
    """
    mailbox = session.mailbox
    saved = mailbox.saved
    if program.saves:
        mailbox.saved = ()  # RFC 5182 section 2.1, if this fails
    key = program.known_key
    if program.has_mod_seq:
        session.enable_condstore()
    messages = mailbox.snapshot()
    keywords = mailbox.keywords
    scope = Scope(
        mailbox.name,
        lambda name: flag_mask([name], keywords),
        mailbox.exists,
        messages.uids[-1] if messages.uids else 0,
        saved,
        int(session.services.mail_store.now()),
    )

    def run(store: "AccountReader") -> Generator[None, None, list[Match]]:
        return (yield from Searcher(store, scope, messages).find(key))

    return await mailbox.read_sliced(run)


def save(session: Session, program: Program, found: Sequence[Match]) -> None:
    """Keep the result for "$", if that is asked for (RFC 5182 section 2.4)."""
    if program.saves:
        to_save = _returned(program.returns, found)
        spans = format.spans(match.uid for match in to_save)
        session.mailbox.saved = tuple(spans)


def _returned(returns: Return | None, found: Sequence[Match]) -> Sequence[Match]:
    """Return what of `found` is spoken of: with MIN and MAX alone only those."""
    if returns is None or returns & (Return.ALL | Return.COUNT) or not found:
        return found
    least = [found[0]] if Return.MIN in returns else []
    most = [found[-1]] if Return.MAX in returns else []
    return least + most or found


# Answering


async def write_numbers(
    session: Session,
    name: bytes,
    program: Program,
    found: Sequence[Match],
    *,
    by_uid: bool,
) -> None:
    """Write ``* SEARCH`` or ``* SORT``."""
    session.write(b"* " + name)
    for start in range(0, len(found), NUMBERS):
        some = found[start : start + NUMBERS]
        numbers = (b" %d" % _number(match, by_uid=by_uid) for match in some)
        await session.write_some(b"".join(numbers))
    if found and program.has_mod_seq:  # RFC 7162 section 3.1.6
        session.write(b" (MODSEQ %d)" % max(match.mod_seq for match in found))
    session.write(b"\r\n")


async def write_extended(
    session: Session,
    returns: Return,
    program: Program,
    found: Sequence[Match],
    *,
    by_uid: bool,
) -> None:
    """Write ``* ESEARCH`` (RFC 4731); for SAVE alone nothing (RFC 5182)."""
    if returns == Return.SAVE:
        return
    # Always quoted: some clients read nothing else.
    words = [b'* ESEARCH (TAG "%b")' % session.tag]
    if by_uid:
        words.append(b"UID")
    if found and Return.MIN in returns:
        words.append(b"MIN %d" % _number(found[0], by_uid=by_uid))
    if found and Return.MAX in returns:
        words.append(b"MAX %d" % _number(found[-1], by_uid=by_uid))
    if Return.COUNT in returns:
        words.append(b"COUNT %d" % len(found))
    session.write(b" ".join(words))
    if Return.ALL in returns:
        for start in range(0, len(found), NUMBERS):
            some = found[start : start + NUMBERS]
            numbers = (_number(match, by_uid=by_uid) for match in some)
            separator = b"," if start else b" ALL "
            await session.write_some(separator + format.uid_set(numbers))
    if found and program.has_mod_seq:  # RFC 4731 section 3.2
        highest = max(match.mod_seq for match in _returned(returns, found))
        session.write(b" MODSEQ %d" % highest)
    session.write(b"\r\n")


def _number(match: Match, *, by_uid: bool) -> int:
    return match.uid if by_uid else match.seq


RULES = both(b"SEARCH", parse_search, search, holds_expunge=True)
