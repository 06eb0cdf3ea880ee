"""Messages that come into one account: from an APPEND or a delivery to UIDs.

A file is durable before it comes here (`incoming`). What an APPEND brought is indexed
before the client is answered, deliveries soon after.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from twisted.logger import Logger

from mailsrv.mailboxes.flags import split_flags
from mailsrv.mailboxes.incoming import Incoming
from mailsrv.mailboxes.indexer import Indexer
from mailsrv.store.account import AccountStore
from mailsrv.store.names import canonical, directory
from mailsrv.store.sent import FILED
from mailsrv.store.values import (
    UID,
    Changes,
    Delivered,
    NoSuchMailbox,
    StoreError,
    Target,
)

if TYPE_CHECKING:
    from mailsrv.mailboxes.account import AccountMailboxes, Surroundings

log = Logger()


@dataclass(frozen=True, slots=True)
class Appended:
    """Where messages were appended (RFC 4315 section 3, APPENDUID)."""

    uid_validity: int
    uids: tuple[UID, ...]  # empty: not known


class Arrivals:
    """Of one account; `AccountMailboxes.arrivals`."""

    def __init__(
        self,
        mailboxes: "AccountMailboxes",
        around: "Surroundings",
        watched: Callable[[str], bool],
    ) -> None:
        """`watched` tells whether a session looks at a mailbox."""
        self._mailboxes = mailboxes
        self._folder = mailboxes.folder
        self._maildir = around.root / mailboxes.folder / "Maildir"
        self._courier = around.courier
        self._threads = around.threads
        self._watched = watched
        self._indexer = Indexer(around.reactor, self._ingest)

    async def flush(self) -> None:
        """Index what was delivered."""
        await self._indexer.flush()

    async def receive(
        self,
        name: str,
        flags: Iterable[str] = (),
        internal_date: float | None = None,
    ) -> Incoming:
        """Begin an APPEND: feed what comes back, then give it to `append`.

        Raises `NoSuchMailbox` ([TRYCREATE]) before a literal is asked for.
        """
        name = canonical(name)
        await self._mailboxes.prepare()
        if not await self._is_there(name):
            raise NoSuchMailbox("no such mailbox")
        mask, keywords = split_flags(flags)
        target = Target(self._folder, name, None, mask, keywords, internal_date)
        return Incoming(
            self._courier,
            [target],
            b"",
            grew=self._mailboxes.grew,
            delivered=lambda delivered: None,
        )

    async def append(self, name: str, messages: Sequence[Incoming]) -> Appended:
        """Make messages durable and give them UIDs, in their order.

        All or none: the first `DeliveryFailed` takes back the others (RFC 3502
        section 6.3.11). Raises `NoSuchMailbox` if it was deleted meanwhile.
        """
        name = canonical(name)
        delivered: list[Delivered] = []
        try:
            for message in messages:
                delivered += await message.commit()
            appended = await self._take_in(name, delivered)
        except Exception as error:
            # The client will try again: what it was not told of must not stay.
            undo = self._courier.delivery.undo
            await self._threads.sync.run(lambda: undo(delivered))
            if not await self._is_there(name):
                raise NoSuchMailbox("no such mailbox") from error
            raise
        if len(appended.uids) < len(messages):
            # Stored, but another program has taken a file away: no UIDs to tell.
            return Appended(appended.uid_validity, ())
        if self._mailboxes.files_sent and name == await self._mailboxes.sent():
            await self._indexer.flush()  # perhaps the server's copy waits there
            appended = Appended(
                appended.uid_validity, await self._one_copy(name, appended.uids)
            )
        for uid, message in zip(appended.uids, messages, strict=True):
            if keywords := message.targets[0].keywords:
                await self._add_keywords(name, uid, keywords)
        return appended

    async def _is_there(self, name: str) -> bool:
        there = (directory(self._maildir, name) / "cur").is_dir
        return await self._threads.read.run(there)

    async def _add_keywords(self, name: str, uid: UID, keywords: Sequence[str]) -> None:
        add = partial(
            AccountStore.store_flags,
            name=name,
            uids=[uid],
            operation="+",
            flag_names=keywords,
        )
        try:
            await self._mailboxes.write(add, lambda stored: [stored.changes])
        except (StoreError, OSError):
            # The message is there to stay: after a refusal the client would append
            # it again. RFC 3501 section 6.3.11: flags SHOULD be set, no more.
            log.failure("setting keywords of an appended message failed")

    async def _take_in(self, name: str, delivered: Sequence[Delivered]) -> Appended:
        bases = [copy.base for copy in delivered]

        def ingest(store: AccountStore) -> tuple[Changes, Sequence[UID]]:
            return store.ingest(name, delivered), store.uids_of(name, bases)

        changes, uids = await self._mailboxes.write(ingest, lambda result: [result[0]])
        if len(uids) < len(bases):  # another program has renamed a file already
            await self._mailboxes.refresh(name, move_new=False)
            uids = await self._mailboxes.write(lambda store: store.uids_of(name, bases))
        return Appended(changes.uid_validity, tuple(uids))

    async def _one_copy(self, name: str, uids: Sequence[UID]) -> tuple[UID, ...]:
        """Keep one copy of what the client and the server have filed; return which."""
        kept = list(uids)
        for place, uid in enumerate(uids):
            one_copy = partial(AccountStore.one_copy, name=name, uid=uid)
            try:
                kept[place], _ = await self._mailboxes.write(one_copy, _second)
            except (StoreError, OSError):
                log.failure("looking for another copy failed", user=self._folder)
        return tuple(kept)

    def delivered(self, copies: Sequence[Delivered]) -> None:
        """Index durable files soon: at once if a session looks at the mailbox."""
        for copy in copies:
            self._mailboxes.grew(copy.file_octets)
            name = copy.target.mailbox
            self._indexer.add(name, copy, watched=self._watched(name))

    async def _ingest(self, waiting: dict[str, list[Delivered]]) -> None:
        for name, copies in waiting.items():
            try:
                await self._mailboxes.write(
                    partial(AccountStore.ingest, name=name, delivered=copies),
                    _one,
                )
                filed = [c.base for c in copies if c.target.delivery_id == FILED]
                if filed:
                    uids_of = partial(AccountStore.uids_of, name=name, bases=filed)
                    await self._one_copy(name, await self._mailboxes.write(uids_of))
            except Exception:
                # The files are durable; the next sync of the mailbox finds them.
                log.failure("indexing deliveries failed", user=self._folder)
            self._mailboxes.grew(-sum(copy.file_octets for copy in copies))


def _one(changes: Changes) -> tuple[Changes]:
    return (changes,)


def _second(result: tuple[object, Changes | None]) -> Iterable[Changes]:
    return () if result[1] is None else (result[1],)
