"""The layer with real threads, a real reactor and inotify."""

import gc
import tracemalloc
from pathlib import Path
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from mailsrv.accounts.directory import Account
from mailsrv.mailboxes.account import AccountMailboxes
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.store import MailStore
from mailsrv.settings import StoreSettings
from mailsrv.store.values import Target
from mailsrv.threads import Threads
from tests.mailboxes.office import all_uids, flags_of

# Any: twisted.internet.reactor is typed as a module.
reactor: Any = the_reactor
ANNA = Account("anna@example.test", "anna", "")
TIMEOUT_S = 20.0


class LiveTestCase(TestCase):
    async def process(self) -> AccountMailboxes:
        """Start a mail store as a process of its own would have it."""
        threads = Threads(reactor, writers=2, readers=2, syncers=2, hashers=1)
        mail_store = MailStore(
            self.root,
            threads=threads,
            reactor=reactor,
            settings=StoreSettings(free_space_reserve_octets=0),
        )
        await mail_store.start()

        async def stop() -> None:
            await mail_store.stop()
            threads.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        self.stores.append(mail_store)
        return mail_store.account(ANNA)

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.stores: list[MailStore] = []

    async def deliver(self, store: MailStore, body: bytes = b"text\r\n") -> None:
        incoming = store.receive([Target("anna")], b"Subject: x\r\n\r\n")
        incoming.feed(body)
        if incoming.full:
            await incoming.drained()
        await incoming.commit()

    async def until(self, selected: Selected, count: int) -> None:
        """Wait as IDLE does until the session knows of `count` messages."""
        while selected.exists != count:
            news: Deferred[None] = Deferred()
            selected.on_news = lambda news=news: news.callback(None)
            if not selected.has_news:
                await news.addTimeout(TIMEOUT_S, reactor)
            selected.on_news = None
            selected.news(expunges=True)


class LiveTests(LiveTestCase):
    async def test_many_deliveries_at_once_reach_idle_sessions(self) -> None:
        anna = await self.process()
        idle = [await anna.select("INBOX") for _ in range(3)]
        large = b"x" * 700_000 + b"\r\n"
        await gatherResults(
            [
                Deferred.fromCoroutine(
                    self.deliver(self.stores[0], large if n % 20 == 7 else b"x\r\n")
                )
                for n in range(60)
            ]
        )
        for selected in idle:
            await self.until(selected, 60)
            self.assertEqual(all_uids(selected), list(range(1, 61)))

    async def test_outside_delivery_is_seen_by_inotify(self) -> None:
        anna = await self.process()
        selected = await anna.select("INBOX")
        path = self.root / "anna" / "Maildir"
        (path / "tmp" / "1.x.host").write_bytes(b"Subject: x\n\n")
        (path / "tmp" / "1.x.host").rename(path / "new" / "1.x.host")
        await self.until(selected, 1)

    async def test_two_processes_under_load_agree(self) -> None:
        here, there = await self.process(), await self.process()
        one, two = await here.select("INBOX"), await there.select("INBOX")

        async def work(store: MailStore, selected: Selected) -> None:
            for n in range(10):
                await self.deliver(store)
                await selected.refresh()
                selected.news(expunges=True)
                uids = all_uids(selected)
                await selected.store_flags(
                    uids[n::3], "+", ["\\Seen", "$k"], silent=True
                )
                if n % 4 == 3:
                    some = uids[:2]
                    await selected.store_flags(some, "+", ["\\Deleted"], silent=True)
                    await selected.expunge(some)

        await gatherResults(
            [
                Deferred.fromCoroutine(work(self.stores[0], one)),
                Deferred.fromCoroutine(work(self.stores[1], two)),
            ]
        )
        for selected in (one, two):
            await selected.refresh()
            selected.news(expunges=True)
            self.assertFalse(selected.gone)
        self.assertEqual(flags_of(one), flags_of(two))
        self.assertGreater(len(flags_of(one)), 10)

    async def test_idle_session_costs_little(self) -> None:
        anna = await self.process()
        first = await anna.select("INBOX")
        gc.collect()
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        sessions = [await anna.select("INBOX", read_only=True) for _ in range(50)]
        for selected in sessions:
            selected.on_news = first.leave
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        self.assertLess((after - before) / len(sessions), 2048)
