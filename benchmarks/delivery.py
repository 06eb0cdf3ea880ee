"""Messages a second, and CPU a message, from octets in memory to durable Maildirs.

    python benchmarks/delivery.py [--messages 5000] [--octets 5000]
        [--connections 10] [--accounts 50] [--no-fsync] [--dir DIR]

Only this layer: no SMTP, no socket; each "connection" commits its next message when
the last one is durable. With an index the deliveries are indexed as well, as for
mailboxes that nobody looks at.
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

from mailsrv.mailboxes.incoming import Courier, Incoming
from mailsrv.store.delivery import Delivery
from mailsrv.store.durable import Disk
from mailsrv.store.values import Delivered, Target
from mailsrv.threads import Threads

# Any: twisted.internet.reactor is typed as a module.
reactor: Any = the_reactor


class NoSync(Disk):
    """Leaves out what makes files durable: shows the cost of all the rest."""

    def fsync(self, fd: int) -> None:
        pass

    def fdatasync(self, fd: int) -> None:
        pass


class Load:
    """Some connections that deliver as fast as they are answered."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        self.options = options
        self.threads = Threads(reactor)
        disk = NoSync() if options.no_fsync else Disk()
        delivery = Delivery(root, host="bench", disk=disk)
        self.courier = Courier(delivery, self.threads, reactor)
        self.targets = [
            Target(f"user{n}", delivered_to=b"user%d@example.test" % n)
            for n in range(options.accounts)
        ]
        self.header = b"Return-Path: <a@example.test>\r\nSubject: benchmark\r\n\r\n"
        line = b"x" * 76 + b"\r\n"
        self.body = line * max(1, (options.octets - len(self.header)) // len(line))
        self.waits_s: list[float] = []
        self.left = options.messages

    async def connection(self) -> None:
        while self.left > 0:
            self.left -= 1
            begun_s = time.perf_counter()
            incoming = Incoming(
                self.courier,
                [self.targets[self.left % len(self.targets)]],
                self.header,
                grew=lambda octets: None,
                delivered=self.delivered,
            )
            incoming.feed(self.body)
            if incoming.full:
                await incoming.drained()
            await incoming.commit()
            self.waits_s.append(time.perf_counter() - begun_s)

    def delivered(self, copies: list[Delivered]) -> None:
        """The index would be told here."""

    async def run(self) -> None:
        warm_up, self.left = self.left, len(self.targets)
        await self.connection()  # makes the folders
        self.left, self.waits_s = warm_up, []
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        await gatherResults(
            [
                Deferred.fromCoroutine(self.connection())
                for _ in range(self.options.connections)
            ]
        )
        wall_s = time.perf_counter() - wall_s
        cpu_s = time.process_time() - cpu_s
        self.threads.stop()
        self.waits_s.sort()
        count = len(self.waits_s)
        print(
            json.dumps(
                {
                    "messages": count,
                    "per_s": round(count / wall_s),
                    "cpu_ms_each": round(cpu_s / count * 1000, 3),
                    "p50_ms": round(self.waits_s[count // 2] * 1000, 2),
                    "p99_ms": round(self.waits_s[count * 99 // 100] * 1000, 2),
                    "fsync": not self.options.no_fsync,
                }
            )
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--octets", type=int, default=5000)
    parser.add_argument("--connections", type=int, default=10)
    parser.add_argument("--accounts", type=int, default=50)
    parser.add_argument("--no-fsync", action="store_true")
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
