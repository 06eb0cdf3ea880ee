"""SORT and THREAD (RFC 5256, ESORT of RFC 5267), by number and by UID."""

from collections.abc import Generator
from typing import TYPE_CHECKING

from mailsrv.imap.commands.rule import both
from mailsrv.imap.commands.search import (
    matching,
    save,
    write_extended,
    write_numbers,
)
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.search_arguments import Sort, Thread, parse_sort, parse_thread
from mailsrv.imap.searching import Match
from mailsrv.imap.session import Session
from mailsrv.imap.threading import ALGORITHMS, written

if TYPE_CHECKING:
    from mailsrv.store.account_reader import AccountReader


async def sort(session: Session, request: Sort, *, by_uid: bool) -> bytes:
    """Answer with the numbers of the messages that match, in order."""
    program = request.program
    mailbox = session.mailbox
    matches = await matching(session, program)

    def run(store: "AccountReader") -> Generator[None, None, list[Match]]:
        by_uid = {match.uid: match for match in matches}
        uids = yield from store.sorted_uids(
            mailbox.name, list(by_uid), request.criteria
        )
        return [by_uid[uid] for uid in uids]

    found = await mailbox.read_sliced(run)
    save(session, program, found)
    if program.returns is None:
        await write_numbers(session, b"SORT", program, found, by_uid=by_uid)
    else:
        await write_extended(session, program.returns, program, found, by_uid=by_uid)
    return b""


async def thread(session: Session, request: Thread, *, by_uid: bool) -> bytes:
    """Answer with the messages that match, in threads."""
    algorithm = ALGORITHMS.get(request.algorithm)
    if algorithm is None or not session.offers(b"THREAD=" + request.algorithm):
        raise ProtocolViolation("Unknown threading algorithm")
    mailbox = session.mailbox
    found = await matching(session, request.program)

    def run(store: "AccountReader") -> Generator[None, None, list[bytes]]:
        numbers = {match.uid: match.uid if by_uid else match.seq for match in found}
        rows = yield from store.thread_rows(mailbox.name, list(numbers))
        forest = yield from algorithm(rows)
        pieces = []
        for piece in written(forest, [numbers[row.uid] for row in rows]):
            pieces.append(piece)
            yield
        return pieces

    pieces = await mailbox.read_sliced(run)
    session.write(b"* THREAD " if found else b"* THREAD")
    for piece in pieces:
        await session.write_some(piece)
    session.write(b"\r\n")
    return b""


RULES = {
    **both(b"SORT", parse_sort, sort, holds_expunge=True, extension=b"SORT"),
    **both(b"THREAD", parse_thread, thread, holds_expunge=True),
}
