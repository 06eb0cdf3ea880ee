"""The mailboxes of one account, for IMAP and POP3 sessions and for deliveries.

All work on the store goes through `AccountMailboxes.write`, the account's serial
queue, or `read`, the pool of readers. What a write has committed is given to the
open views in the reactor thread, in the order of the queue, before its caller
goes on: commit, then announce, then answer (DESIGN.md).
"""

from collections.abc import Awaitable, Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.doors.telling import Telling
from mailsrv.doors.values import Change
from mailsrv.mailboxes.arrivals import Arrivals
from mailsrv.mailboxes.incoming import Courier
from mailsrv.mailboxes.maildrop import Maildrop, MaildropInUse
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import Tracker
from mailsrv.mailboxes.text_filler import TextFiller
from mailsrv.mailboxes.view import MailboxView, SilentStore
from mailsrv.mailboxes.views import SETTLE_S, Views
from mailsrv.mailboxes.watch import Watcher
from mailsrv.settings import StoreSettings
from mailsrv.store import pop3_uidl
from mailsrv.store.account import AccountStore
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.durable import DISK
from mailsrv.store.index import Connections
from mailsrv.store.names import INBOX, canonical
from mailsrv.store.pop3_uidl import Uidl
from mailsrv.store.values import (
    Changes,
    LockHeld,
    MailboxExists,
    MailboxInfo,
    MailboxState,
    MailboxStatus,
    NoSuchMailbox,
    Quota,
)
from mailsrv.threads import Later, Threads

log = Logger()
T = TypeVar("T")

JUNK, JUNK_USE = "Junk", "\\Junk"  # RFC 6154
SENT, SENT_USE = "Sent", "\\Sent"

_OWN_EVENTS_S = 0.1  # so long after a write of ours events may still be its own
_USAGE_AGE_S = 5.0  # what other processes deliver shows after this
_FILL_MOST = 500  # content rows computed ahead; of more, on demand
_FILL_SLICE = 16
_STEP_S = 0.02  # of work in the background


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all accounts of a process share."""

    root: Path  # holds one directory for each account
    threads: Threads
    reactor: IReactorTime
    connections: Connections
    watcher: Watcher
    courier: Courier
    texts: TextFiller
    now: Callable[[], float]  # wall clock
    settings: Callable[[], StoreSettings]
    listeners: Sequence[Telling] = ()


class AccountMailboxes:
    """One for each account and process; `MailStore.account` hands it out.

    Reactor thread only. Methods raise the errors of `mailsrv.store.values`:
    `StoreError`s have texts for clients, anything else is the machine's failure.
    """

    def __init__(
        self, folder: str, quota_octets: int | None, around: Surroundings
    ) -> None:
        self.folder = folder
        self.maildrop: Maildrop | None = None  # the one POP3 session
        self.files_sent = False  # the server files what the account submits
        # Of messages that come in or are not indexed yet: against the quota.
        self.in_flight_octets = 0
        self._quota_octets = quota_octets
        self._usage: Quota | None = None
        self._usage_at_s = 0.0
        self._texts_after = 0  # the content number up to which they are taken up
        self._around = around
        self._root = around.root / folder
        self._maildir = self._root / "Maildir"
        self._store: AccountStore | None = None
        self._views = Views(
            self._maildir,
            around.watcher,
            around.reactor,
            busy=self._busy,
            look=self._look,
            reread=self._reread,
        )
        self._writes = 0
        self._quiet_from_s = 0.0
        self.arrivals = Arrivals(self, around, self._views.watched)

    @property
    def pop3_uidl(self) -> Uidl:
        """What makes POP3's unique ids, under the settings of now."""
        return pop3_uidl.compiled(self._around.settings().pop3_uidl_format)

    # Mailboxes

    async def mailboxes(self) -> list[MailboxInfo]:
        """Return all mailboxes, for LIST."""
        return await self.write(lambda store: store.mailboxes())

    async def create(self, name: str, special_uses: Sequence[str] = ()) -> None:
        await self.write(lambda store: store.create(name, special_uses))

    async def delete(self, name: str) -> None:
        """Delete a mailbox; sessions that have it selected get `Gone`."""
        name = canonical(name)
        await self.write(lambda store: store.delete(name))
        if view := self._views.get(name):
            self._views.end(view)

    async def rename(self, old: str, new: str) -> None:
        """Rename a mailbox and those below it. INBOX: move its messages."""
        pairs = await self.write(lambda store: store.rename(old, new))
        self._views.rename(pairs)
        if not pairs and (view := self._views.get(INBOX)):
            self._views.reread(view)

    async def subscribe(self, name: str) -> None:
        await self.write(lambda store: store.subscribe(name))

    async def unsubscribe(self, name: str) -> None:
        await self.write(lambda store: store.unsubscribe(name))

    async def status(self, name: str, *, exact: bool = False) -> MailboxStatus:
        """Answer STATUS; with `exact`, its octets are counted and not guessed."""
        view = self._views.get(canonical(name))
        claimed = view.messages.recent_from if view is not None else 0
        status = await self.write(lambda store: store.status(name, claimed))
        if exact and await self.read_sliced(lambda store: store.settle_sizes(name)):
            status = await self.write(lambda store: store.status(name, claimed))
        return status

    async def junk(self) -> str:
        """Return the name of the mailbox for junk; it is made if there is none."""
        return await self._special(JUNK_USE, JUNK)

    async def sent(self) -> str:
        """Return the name of the mailbox for sent mail; it is made if need be."""
        return await self._special(SENT_USE, SENT)

    async def _special(self, use: str, usual_name: str) -> str:
        for info in await self.mailboxes():
            if use in info.special_uses and info.selectable:
                return info.name
        with suppress(MailboxExists):  # it has lost its use
            await self.create(usual_name, (use,))
        return usual_name

    # Quota

    @property
    def quota_octets(self) -> int | None:
        return self._quota_octets

    @quota_octets.setter
    def quota_octets(self, octets: int | None) -> None:
        if octets != self._quota_octets:
            self._quota_octets = octets
            self._usage = None
            if self._store is not None:
                self._store.quota_octets = octets

    async def quota(self) -> Quota:
        """Return limit and usage, without what is still on its way in.

        Of an account that was moved in all mailboxes are read for it, one at a time.
        """
        for name in await self.write(lambda store: store.uncounted()):
            with suppress(NoSuchMailbox):
                await self.status(name)
        self._usage = await self.write(lambda store: store.quota())
        self._usage_at_s = self._around.reactor.seconds()
        return self._usage

    async def has_room(self, octets: int) -> bool:
        """Tell whether a message of `octets` (0: unknown) fits under the quota.

        What other sessions of this process are sending counts. Ask at RCPT and
        before an APPEND's literal is taken.
        """
        limit = self._quota_octets
        if limit is None:
            return True
        usage = self._usage
        now_s = self._around.reactor.seconds()
        if usage is None or now_s > self._usage_at_s + _USAGE_AGE_S:
            usage = await self.quota()
        used = usage.used_octets + self.in_flight_octets
        return used + max(octets, 1) <= limit

    def grew(self, octets: int) -> None:
        """Count octets of a message in flight; negative when it has landed."""
        self.in_flight_octets += octets

    def _fill_ahead(self, changes: Changes) -> None:
        """Compute what clients ask of messages that another program brought.

        Ingesting does this for ours.
        """
        uids = [uid for uid, _, _ in changes.added]
        if not uids or len(uids) > _FILL_MOST:
            return

        def fill(store: AccountReader) -> Generator[None, None, None]:
            for at in range(0, len(uids), _FILL_SLICE):
                store.fill(changes.mailbox, uids[at : at + _FILL_SLICE])
                yield

        self._in_background(self.read_sliced(fill), "computing index rows ahead failed")

    # Texts for SEARCH

    async def index_texts(self) -> bool:
        """Take up some texts that search lacks; return whether there are more.

        First the mailboxes that nobody has opened yet: what another server has left
        is ready when its first client comes.
        """
        run = self._around.threads.read.run
        if self._store is None and not await run(self._maildir.exists):
            return False  # no mail has ever come here
        reserve = self._around.settings().free_space_reserve_octets
        if await run(lambda: DISK.free_octets(self._root)) < reserve:
            return False
        if self._texts_after == 0 and await self._take_over():
            return True
        after = self._texts_after
        self._texts_after, more = await self.read_sliced(
            lambda store: store.index_texts(after)
        )
        return more

    async def _take_over(self) -> bool:
        """Take in mailboxes that nobody has opened; return whether there are more."""
        seconds = self._around.reactor.seconds
        until_s = seconds() + _STEP_S
        for name in await self.write(lambda store: store.uncounted()):
            if seconds() > until_s:
                return True
            with suppress(NoSuchMailbox):
                await self.status(name)
        return False

    def sweep_texts(self) -> None:
        """Go through all texts again, to drop those of messages that are gone."""
        self._texts_after = 0
        self._around.texts.add(self.index_texts)

    # Sessions

    async def select(self, name: str, *, read_only: bool = False) -> Selected:
        """Open a mailbox for a session; `Selected.close` or `leave` ends it.

        `read_only` is EXAMINE.
        """
        name = canonical(name)
        view = self._views.get(name)
        if view is None or view.stale:
            state = await self.write(partial(_open, name=name, read_only=read_only))
            view = self._views.adopt(state)
            self._around.texts.add(self.index_texts)
        else:
            await self.refresh(name, move_new=not read_only)
            if self._views.get(name) is not view:  # dropped meanwhile
                return await self.select(name, read_only=read_only)
        self._views.resume(view)
        return Selected(self, view, Tracker(view.messages, not read_only))

    async def refresh(self, name: str, *, move_new: bool = True) -> None:
        """Look for changes that other programs made to a mailbox."""

        def sync(store: AccountStore) -> tuple[Changes, bool]:
            return store.sync(name, move_new=move_new), store.unsettled(name)

        try:
            changes, unsettled = await self.write(sync, _first)
        except NoSuchMailbox:  # another program has removed its folder
            if view := self._views.get(name):
                self._views.end(view)
            raise
        self._fill_ahead(changes)
        view = self._views.get(name)
        if unsettled and view is not None:
            self._views.look_in(view, SETTLE_S)

    def left(self, view: MailboxView) -> None:
        """A session has left; the last one settles what it was told."""
        if view.sessions:
            self.told(view)  # perhaps it was the last one to know of an expunge
            return
        self._views.park(view)
        name, told = view.name, view.take_told()
        claims = view.messages.recent_from > view.claimed_recent
        view.claimed_recent = view.messages.recent_from
        if (told or claims) and not view.gone:

            def leave(store: AccountStore) -> None:
                with suppress(NoSuchMailbox):  # another program has removed it
                    if claims:
                        store.claim_recent(name)
                    if told:
                        store.forget(name, told)

            self._in_background(self.write(leave), "closing a mailbox failed")

    def soon(self, call: Callable[[], None]) -> None:
        """Call in the reactor's next turn."""
        self._around.reactor.callLater(0, call)

    def told(self, view: MailboxView) -> None:
        """All sessions know of some expunges: the store may drop what it kept."""
        name, uids = view.name, view.take_told()
        if uids:
            self._in_background(
                self.write(lambda store: store.forget(name, uids)),
                "dropping rows of expunged messages failed",
            )

    async def open_maildrop(self) -> Maildrop:
        """Open INBOX for POP3, fixed as it is now (RFC 1939 section 4).

        Raises `MaildropInUse`. IMAP sessions are not shut out.
        """
        if self.maildrop is not None:
            raise MaildropInUse("the maildrop is in use by another POP3 session")
        self.maildrop = maildrop = Maildrop(self)
        try:
            await maildrop.open()
        except BaseException:
            self.maildrop = None
            raise
        return maildrop

    # The way to the store

    async def write(
        self,
        call: Callable[[AccountStore], T],
        changes: Callable[[T], Iterable[Changes]] = lambda result: (),
        silent: SilentStore | None = None,
    ) -> T:
        """Run `call` in the account's queue; announce the `changes` of its result."""
        # A Deferred of our own: a caller that was cancelled must not keep the
        # changes of a job, which runs on, from the views.
        done: Deferred[T] = Deferred()

        def ended(result: T | Failure) -> None:
            self._writes -= 1
            self._quiet_from_s = self._around.reactor.seconds() + _OWN_EVENTS_S
            try:
                if not isinstance(result, Failure):
                    for one in changes(result):
                        self._usage = None
                        self._views.apply(one, silent)
                        self._tell(one)
                        if one.added or one.rebuilt:
                            self._around.texts.add(self.index_texts)
            finally:
                done.callback(result)  # a Failure fires the errback chain

        def job() -> T:
            try:
                return call(self._opened())
            except LockHeld as held:
                raise Later(held.retry_s) from held

        self._writes += 1
        self._around.texts.others_work()
        self._around.threads.write(self.folder, job).addBoth(ended)
        return await done

    def _tell(self, changes: Changes) -> None:
        """Let the change listeners know; they hear of it when the views have."""
        if not self._around.listeners:
            return
        change = Change(
            self.folder,
            changes.mailbox,
            tuple(uid for uid, _, _ in changes.added),
            tuple(uid for uid, _, _ in changes.flagged),
            tuple(changes.expunged),
            changes.rebuilt,
        )
        if change.added or change.flagged or change.expunged or change.rebuilt:
            for listener in self._around.listeners:
                listener.tell(change)

    async def read(self, call: Callable[[AccountReader], T]) -> T:
        """Run `call` among the readers; its work should take under 20 ms."""
        store = await self.prepare()
        return await self._unlocked(
            lambda: self._around.threads.read.run(lambda: call(store))
        )

    async def read_sliced(
        self, call: Callable[[AccountReader], Generator[None, None, T]]
    ) -> T:
        """Run a generator among the readers; between its steps others run."""
        store = await self.prepare()
        return await self._unlocked(
            lambda: self._around.threads.read.run_sliced(call(store))
        )

    async def _unlocked(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read; again if it needed a lock: the index was deleted and is made anew."""
        self._around.texts.others_work()
        while True:
            try:
                return await read()
            except LockHeld as held:
                await deferLater(self._around.reactor, held.retry_s, lambda: None)

    async def prepare(self) -> AccountStore:
        """Return the store; its folders exist from then on."""
        if self._store is not None:
            return self._store
        return await self.write(lambda store: store)

    async def close(self) -> None:
        """Index what was delivered, end all jobs, close the store."""
        await self.arrivals.flush()
        self._around.texts.discard(self.index_texts)
        for view in self._views:
            self._views.end(view)
        await self.write(lambda store: store.close())

    def _opened(self) -> AccountStore:
        if self._store is None:
            store = AccountStore(
                self._root,
                connections=self._around.connections,
                quota_octets=self._quota_octets,
                now=self._around.now,
            )
            store.ensure_default_folders()
            self._store = store
        return self._store

    def _in_background(self, work: Awaitable[object], message: str) -> None:
        async def run() -> None:
            try:
                await work
            except CancelledError:
                pass  # the server ends
            except Exception:
                log.failure(message, user=self.folder)

        Deferred.fromCoroutine(run())

    def _busy(self) -> bool:
        """Whether what the watcher sees may be this process's own work."""
        return (
            self._writes > 0
            or self.in_flight_octets > 0
            or self._around.reactor.seconds() < self._quiet_from_s
        )

    def _look(self, view: MailboxView) -> None:
        async def look() -> None:
            with suppress(NoSuchMailbox):  # its sessions were told
                await self.refresh(view.name, move_new=view.writable)

        self._in_background(look(), "looking for changes by other programs failed")

    def _reread(self, view: MailboxView) -> None:
        async def reread() -> None:
            try:
                state = await self.write(partial(_open_view, view=view))
            except BaseException:
                self._views.end(view)  # better than sessions that hear nothing
                raise
            if self._views.get(view.name) is view:
                self._views.adopt(state)

        self._in_background(reread(), "reading a mailbox again failed")


def _first(result: tuple[Changes, object]) -> tuple[Changes]:
    return (result[0],)


def _open_view(store: AccountStore, view: MailboxView) -> MailboxState:
    return store.open(view.name, move_new=view.writable)


def _open(store: AccountStore, name: str, read_only: bool) -> MailboxState:
    state = store.open(name, move_new=not read_only)
    if not read_only:
        store.claim_recent(name)
    return state
