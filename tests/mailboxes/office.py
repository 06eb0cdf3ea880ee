"""A mail store over a real Maildir, without threads and with a clock of its own."""

import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import Account
from mailsrv.doors.guest import Asked
from mailsrv.mailboxes.account import AccountMailboxes
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import STAR
from mailsrv.mailboxes.store import MailStore
from mailsrv.settings import StoreSettings
from mailsrv.store.values import Target
from tests.mailboxes.twin import TwinThreads

T = TypeVar("T")
HEADER = b"Return-Path: <bert@example.test>\r\nSubject: %s\r\n\r\n"


class Office:
    """One process. Several over the same `root` stand for several processes."""

    def __init__(
        self,
        test: SynchronousTestCase,
        root: Path,
        clock: Clock | None = None,
        listeners: Sequence[Asked] = (),
    ) -> None:
        self.test = test
        self.root = root
        self.clock = clock or Clock()
        self.threads = TwinThreads(self.clock)
        self.ahead_s = 0.0  # of the file system's clock
        self.mail_store = MailStore(
            root,
            threads=self.threads,
            reactor=self.clock,
            settings=StoreSettings(free_space_reserve_octets=0),
            now=lambda: time.time() + self.ahead_s,
            listeners=listeners,
        )
        self.wait(self.mail_store.start())
        test.addCleanup(self.stop)

    def stop(self) -> None:
        self.wait(self.mail_store.stop())

    # Any: what a coroutine yields and is sent is Twisted's matter.
    def start(self, work: Coroutine[Any, Any, T]) -> "Deferred[T]":
        done = Deferred.fromCoroutine(work)
        self.clock.advance(0)
        return done

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Any: successResultOf is untyped.
        result: T = self.test.successResultOf(self.start(work))
        return result

    def account(
        self, folder: str = "anna", quota_octets: int | None = None
    ) -> AccountMailboxes:
        return self.mail_store.account(
            Account(f"{folder}@example.test", folder, "", quota_octets)
        )

    def deliver(
        self, *folders: str, subject: bytes = b"x", body: bytes = b"text\r\n"
    ) -> None:
        """Deliver a message, which is durable then, but perhaps not indexed."""
        targets = [
            Target(name, delivered_to=f"{name}@example.test".encode())
            for name in folders or ("anna",)
        ]
        incoming = self.mail_store.receive(targets, HEADER % subject)
        incoming.feed(body)
        self.wait(incoming.commit())

    def append(
        self, name: str, flags: Sequence[str] = (), body: bytes = b"A: b\r\n\r\n"
    ) -> int:
        arrivals = self.account().arrivals
        incoming = self.wait(arrivals.receive(name, flags))
        incoming.feed(body)
        (uid,) = self.wait(arrivals.append(name, [incoming])).uids
        return uid

    def select(self, name: str = "INBOX", *, read_only: bool = False) -> Selected:
        return self.wait(self.account().select(name, read_only=read_only))


def all_uids(selected: Selected) -> list[int]:
    return list(selected.uids([(1, STAR)], by_uid=True))


def flags_of(selected: Selected) -> dict[int, list[str]]:
    return {
        uid: selected.flag_names(mask)
        for _, uid, mask, _ in selected.walk(all_uids(selected))
    }
