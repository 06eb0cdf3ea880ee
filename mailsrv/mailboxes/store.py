"""All mail of a process: accounts by their folders, and messages that come in."""

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.accounts.directory import Account
from mailsrv.doors.guest import Asked
from mailsrv.doors.telling import Telling
from mailsrv.mailboxes.account import AccountMailboxes, Surroundings
from mailsrv.mailboxes.incoming import Courier, Incoming
from mailsrv.mailboxes.text_filler import TextFiller
from mailsrv.mailboxes.watch import Watcher
from mailsrv.settings import StoreSettings
from mailsrv.store import maildir
from mailsrv.store.delivery import Delivery, Letter
from mailsrv.store.index import Connections
from mailsrv.store.texts import can_index
from mailsrv.store.values import Delivered, Target
from mailsrv.threads import Threads

log = Logger()

_CLEAN_S = 24 * 3600.0  # between clean-ups of tmp/


class MailStore:
    """What the servers hold: `account` for sessions, `receive` for SMTP."""

    def __init__(
        self,
        root: Path,
        *,
        threads: Threads,
        reactor: IReactorTime,
        settings: StoreSettings,
        now: Callable[[], float] = time.time,
        listeners: Iterable[Asked] = (),
    ) -> None:
        """`root` holds one directory for each account. Nothing is read yet.

        `listeners` hear of every change (`IChangeListener`).
        """
        self._settings = settings
        self._root = root
        self.now = now  # wall clock
        self._threads = threads
        self._reactor = reactor
        self._watcher = Watcher(reactor)
        courier = Courier(self._delivery(), threads, reactor)
        self._around = Surroundings(
            root,
            threads,
            reactor,
            Connections(),
            self._watcher,
            courier,
            TextFiller(reactor),
            now,
            lambda: self._settings,
            [Telling(listener, reactor) for listener in listeners],
        )
        self._accounts: dict[str, AccountMailboxes] = {}
        self._timer: IDelayedCall | None = None

    @property
    def settings(self) -> StoreSettings:
        """The section ``[store]``; a new one takes effect at once."""
        return self._settings

    @settings.setter
    def settings(self, settings: StoreSettings) -> None:
        self._settings = settings
        self._around.courier.delivery = self._delivery()

    def account(self, account: Account) -> AccountMailboxes:
        """Return the account's mailboxes, under the quota that it has now."""
        mailboxes = self._mailboxes(account.folder)
        _set(mailboxes, account)
        return mailboxes

    def receive(self, targets: Sequence[Target], header: bytes) -> Incoming:
        """Begin a message for one or more targets, after DATA's header block.

        `header` is the final one with CRLF and the empty line: Return-Path and
        Received on top, no Delivered-To. The rest comes by `Incoming.feed`.
        """
        boxes = [self._mailboxes(t.folder) for t in targets if t.is_mailbox]

        def grew(octets: int) -> None:
            for mailboxes in boxes:
                mailboxes.grew(octets)

        def delivered(copies: list[Delivered]) -> None:
            for copy in (c for c in copies if c.target.is_mailbox):
                self._mailboxes(copy.target.folder).arrivals.delivered([copy])

        return Incoming(
            self._around.courier,
            targets,
            header,
            grew=grew,
            delivered=delivered,
        )

    async def deliver(self, octets: bytes, target: Target) -> Delivered:
        """Make a small message durable where no account sees it. Raises StoreError.

        `octets` with LF, as they shall stand in the file.
        """
        return (await self._around.courier.deliver(Letter([octets], [target])))[0]

    def directory_of(self, target: Target) -> Path:
        """Return the folder of a target's mailbox. Raises InvalidName."""
        return self._around.courier.delivery.directory_of(target)

    async def has(self, target: Target) -> bool:
        """Whether a copy with the target's delivery id is in its mailbox already."""
        directory = self.directory_of(target)
        return await self._threads.read.run(lambda: _has(directory, target))

    async def accounts_changed(self, accounts: Iterable[Account]) -> None:
        """Follow the account database: quotas take effect, the deleted close.

        The servers cut the sessions of deleted accounts first.
        """
        there = {account.folder: account for account in accounts}
        for folder, mailboxes in list(self._accounts.items()):
            if folder in there:
                _set(mailboxes, there[folder])
            else:
                del self._accounts[folder]
                await mailboxes.close()
        for folder in there.keys() - self._accounts.keys():  # all, at the start
            self._around.texts.add(self._mailboxes(folder).index_texts)

    async def start(self) -> None:
        """Begin to watch for changes by others and to clean up."""
        if not can_index():
            log.warn("this SQLite has no FTS5 with trigrams: SEARCH reads all messages")
        self._watcher.start()
        self._clean()

    async def stop(self) -> None:
        """Index what was delivered, wait for all jobs, close all files."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watcher.stop()
        await self._around.courier.drained()
        await self._around.texts.stop()
        accounts, self._accounts = self._accounts, {}
        for mailboxes in accounts.values():
            await mailboxes.close()
        self._around.connections.close()

    def _mailboxes(self, folder: str) -> AccountMailboxes:
        mailboxes = self._accounts.get(folder)
        if mailboxes is None:
            mailboxes = AccountMailboxes(folder, None, self._around)
            self._accounts[folder] = mailboxes
        return mailboxes

    def _delivery(self) -> Delivery:
        return Delivery(
            self._root,
            host=os.uname().nodename,
            now=self.now,
            reserve_octets=self._settings.free_space_reserve_octets,
        )

    def _clean(self) -> None:
        """Remove what crashes left in ``tmp/`` and texts of no use, once a day."""
        self._timer = self._reactor.callLater(_CLEAN_S, self._clean)
        cleaning: Deferred[int] = self._threads.sync.run_sliced(
            self._around.courier.delivery.clean()
        )
        cleaning.addErrback(self._not_cleaned)
        for mailboxes in self._accounts.values():
            mailboxes.sweep_texts()

    def _not_cleaned(self, failure: Failure) -> None:
        if not failure.check(CancelledError):  # else the server ends
            log.failure("cleaning up tmp/ failed", failure)


def _has(directory: Path, target: Target) -> bool:
    if target.delivery_id is None:
        return False
    mark = maildir.delivery_mark(target.delivery_id)
    for subdirectory in ("new", "cur"):
        with suppress(FileNotFoundError):
            names = os.listdir(os.fsencode(directory / subdirectory))
            if any(mark in name for name in names):
                return True
    return False


def _set(mailboxes: AccountMailboxes, account: Account) -> None:
    mailboxes.quota_octets = account.quota_octets
    mailboxes.files_sent = account.files_sent
