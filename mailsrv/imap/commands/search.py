"""SEARCH and UID SEARCH (RFC 3501 sections 6.4.4 and 6.4.8)."""

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

from mailsrv.imap.commands.rule import Rule
from mailsrv.imap.search_keys import Key, Search, parse_search, parse_uid_search
from mailsrv.imap.searching import Message, Searcher
from mailsrv.imap.session import Session, State
from mailsrv.mailboxes.flags import flag_mask
from mailsrv.mailboxes.selected import Selected
from mailsrv.store.values import UID

if TYPE_CHECKING:
    from mailsrv.store.account import AccountStore

CHUNK = 2000  # messages searched at once: some ms of the reactor to list them
ALL = ((1, 0),)


async def search(session: Session, request: Search) -> bytes:
    """Answer with the numbers of the messages that match, ascending."""
    mailbox = session.mailbox
    found = await matching(mailbox, request.key)
    numbers = (uid if request.by_uid else seq for seq, uid in found)
    words = [b"* SEARCH", *(b"%d" % number for number in numbers)]
    await session.write_some(b" ".join(words) + b"\r\n")
    return b""


async def matching(mailbox: Selected, key: Key) -> list[tuple[int, UID]]:
    """Return sequence number and UID of the messages that match, ascending."""
    uids = mailbox.uids(ALL, by_uid=True)
    keywords = mailbox.keywords
    last_seq, last_uid = mailbox.exists, uids[-1] if uids else 0
    found: list[tuple[int, UID]] = []
    for start in range(0, len(uids), CHUNK):
        messages = _snapshot(mailbox, uids[start : start + CHUNK])

        def run(
            store: "AccountStore", messages: dict[UID, Message] = messages
        ) -> Generator[None, None, set[UID]]:
            return Searcher(
                store,
                mailbox.name,
                messages,
                lambda name: flag_mask([name], keywords),
                last_seq,
                last_uid,
            ).find(key)

        uids_found = await mailbox.read_sliced(run)
        found += sorted((messages[uid].seq, uid) for uid in uids_found)
    return found


def _snapshot(mailbox: Selected, uids: Sequence[int]) -> dict[UID, Message]:
    return {
        UID(uid): Message(seq, mask, mailbox.is_recent(uid))
        for seq, uid, mask, _ in mailbox.walk(uids)
    }


RULES = {
    b"SEARCH": Rule(State.SELECTED, parse_search, search, holds_expunge=True),
    b"UID SEARCH": Rule(State.SELECTED, parse_uid_search, search, holds_expunge=True),
}
