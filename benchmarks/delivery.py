"""Messages a second, and CPU a message, from octets in memory to durable Maildirs.

    python -m benchmarks.delivery [--messages 5000] [--octets 5000] [--connections 10]
        [--accounts 50] [--idle 0] [--no-fsync] [--no-index] [--dir DIR]

No SMTP, no socket: each "connection" commits its next message when the last one is
durable. Indexing is part of it, and `--idle` sessions of the mailboxes measure the
time from the acknowledgement to their news. CPU is user and system of the process.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as the_reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mailsrv.accounts.directory import Account
from mailsrv.mailboxes.incoming import Courier, Incoming
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import Exists
from mailsrv.mailboxes.store import MailStore
from mailsrv.settings import StoreSettings
from mailsrv.store.delivery import Delivery
from mailsrv.store.durable import Disk
from mailsrv.store.values import Delivered, Target
from mailsrv.threads import Threads

# Any: twisted.internet.reactor is typed as a module.
reactor: Any = the_reactor


class NoSync(Disk):
    """Leaves out what makes message files durable: shows the cost of the rest."""

    def fsync(self, fd: int) -> None:
        pass

    def fdatasync(self, fd: int) -> None:
        pass


class Load:
    """Some connections that deliver as fast as they are answered."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.options = options
        self.threads = Threads(reactor)
        self.mail_store = MailStore(
            root,
            threads=self.threads,
            reactor=reactor,
            settings=StoreSettings(free_space_reserve_octets=0),
        )
        disk = NoSync() if options.no_fsync else Disk()
        self.courier: Courier = self.mail_store._around.courier
        self.courier.delivery = Delivery(root, host="bench", disk=disk)
        self.folders = [f"user{n}" for n in range(options.accounts)]
        self.header = b"Return-Path: <a@example.test>\r\nSubject: benchmark\r\n\r\n"
        line = b"x" * 76 + b"\r\n"
        self.body = line * max(1, (options.octets - len(self.header)) // len(line))
        self.waits_s: list[float] = []
        self.left = options.messages
        self.acknowledged_s: dict[str, list[float]] = {f: [] for f in self.folders}
        self.news_s: list[float] = []

    def incoming(self, folder: str) -> Incoming:
        targets = [Target(folder, delivered_to=folder.encode())]
        if self.options.no_index:
            return Incoming(
                self.courier,
                targets,
                self.header,
                grew=lambda octets: None,
                delivered=_not_indexed,
            )
        return self.mail_store.receive(targets, self.header)

    async def connection(self) -> None:
        while self.left > 0:
            self.left -= 1
            folder = self.folders[self.left % len(self.folders)]
            begun_s = time.perf_counter()
            incoming = self.incoming(folder)
            incoming.feed(self.body)
            if incoming.full:
                await incoming.drained()
            await incoming.commit()
            now_s = time.perf_counter()
            self.waits_s.append(now_s - begun_s)
            self.acknowledged_s[folder].append(now_s)

    async def idle_for_once(self, folder: str) -> None:
        """Let the account make its mailboxes and its index."""
        mailboxes = self.mail_store.account(Account(folder, folder, ""))
        (await mailboxes.select("INBOX")).leave()

    async def idle(self, folder: str) -> None:
        mailboxes = self.mail_store.account(Account(folder, folder, ""))
        selected = await mailboxes.select("INBOX")
        selected.on_news = lambda: self.told(selected, folder)

    def told(self, selected: Selected, folder: str) -> None:
        before = selected.exists
        for one in selected.news(expunges=True):
            if isinstance(one, Exists):
                now_s = time.perf_counter()
                acknowledged = self.acknowledged_s[folder][before : one.count]
                self.news_s += [now_s - then_s for then_s in acknowledged]

    async def run(self) -> None:
        await self.mail_store.start()
        messages, self.left = self.left, len(self.folders)
        await self.connection()  # makes the folders
        for n in range(self.options.idle):
            await self.idle(self.folders[n % len(self.folders)])
        for folder in self.folders:
            if not self.options.no_index:
                await self.idle_for_once(folder)
        await deferLater(reactor, 3.0)  # what follows from the start is over
        self.left, self.waits_s = messages, []
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        connections = range(self.options.connections)
        await gatherResults(
            [Deferred.fromCoroutine(self.connection()) for _ in connections]
        )
        wall_s = time.perf_counter() - wall_s
        for folder in self.folders:
            await self.mail_store._mailboxes(folder).arrivals.flush()
        cpu_s = time.process_time() - cpu_s
        await self.mail_store.stop()
        self.threads.stop()
        self.report(wall_s, cpu_s)

    def report(self, wall_s: float, cpu_s: float) -> None:
        count = len(self.waits_s)
        found: dict[str, object] = {
            "messages": count,
            "per_s": round(count / wall_s),
            "cpu_ms_each": round(cpu_s / count * 1000, 3),
            "acknowledged_ms": _percentiles_ms(self.waits_s),
            "fsync": not self.options.no_fsync,
            "index": not self.options.no_index,
        }
        if self.news_s:
            found["told_after_ms"] = _percentiles_ms(self.news_s)
        print(json.dumps(found))


def _not_indexed(copies: list[Delivered]) -> None:
    """What `--no-index` does with durable files."""


def _percentiles_ms(times_s: list[float]) -> dict[str, float]:
    ordered = sorted(times_s)
    return {
        f"p{p}": round(ordered[len(ordered) * p // 100] * 1000, 2) for p in (50, 99)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--octets", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--idle", type=int, default=0)
    parser.add_argument("--no-fsync", action="store_true")
    parser.add_argument("--no-index", action="store_true")
    parser.add_argument("--dir", default=os.getcwd(), help="on the disk to measure")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(dir=options.dir))

    async def run() -> None:
        try:
            await Load(options, root).run()
        finally:
            shutil.rmtree(root)
            reactor.stop()

    def start() -> None:
        Deferred.fromCoroutine(run()).addErrback(lambda failure: print(failure))

    reactor.callWhenRunning(start)
    reactor.run()


if __name__ == "__main__":
    main()
