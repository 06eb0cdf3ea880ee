"""What the store costs on this machine: `python -m benchmarks.store [MESSAGES]`.

Opening and scanning a large mailbox, taking in deliveries, STORE, header fields and
a large message read in pieces. Prints milliseconds of wall clock and of CPU.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mailsrv.store.account import AccountStore
from mailsrv.store.content import header_key
from mailsrv.store.delivery import Delivery, Letter
from mailsrv.store.index import Connections
from mailsrv.store.maildir import UniqueNames, base_name
from mailsrv.store.values import Delivered, StoreError, Target

HEADER = (
    b"Return-Path: <a@example.test>\nReceived: from a by b; Tue, 24 Nov 2026 10:00:00"
    b" +0000\nFrom: Anna <anna@example.test>\nTo: Ben <ben@example.test>\n"
    b"Subject: The usual\nDate: Tue, 24 Nov 2026 10:00:00 +0000\n"
    b"Message-ID: <1@example.test>\nContent-Type: text/plain; charset=utf-8\n\n"
)
FIVE_KB = HEADER + (b"x" * 72 + b"\n") * 64
SMALL = HEADER + b"text\n"


def measure(name: str, call: Callable[[], object], count: int = 1) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{name:48} {wall / count * 1e3:10.3f} ms {cpu / count * 1e3:10.3f} ms CPU")


def fill_maildir(folder: Path, count: int) -> None:
    """Write a Maildir as another server left it."""
    names = UniqueNames("bench")
    served = len(SMALL) + SMALL.count(b"\n")
    for _ in range(count):
        name = base_name(names.next(), len(SMALL), served) + b":2,S"
        with open(os.fsencode(folder / "cur") + b"/" + name, "wb") as file:
            file.write(SMALL)


def deliver(delivery: Delivery, content: bytes, count: int) -> list[Delivered]:
    letters = [Letter([content], [Target("anna")]) for _ in range(count)]
    found = []
    for done in delivery.deliver(letters):
        if isinstance(done, StoreError):
            raise done
        found += done
    return found


def quiet(store: AccountStore) -> None:
    for _ in range(100):
        store.sync("INBOX")


def run(root: Path, messages: int) -> None:
    (root / "anna").mkdir()
    store = AccountStore(
        root / "anna", connections=Connections(), quota_octets=None, now=time.time
    )
    store.ensure_default_folders()
    maildir = root / "anna" / "Maildir"
    fill_maildir(maildir, messages)
    print(f"{messages} messages")
    measure("first open: adopt all", lambda: store.open("INBOX"))
    measure("sync: scan all again", lambda: store.sync("INBOX", force=True))
    for sub in ("new", "cur"):
        os.utime(maildir / sub, (time.time() - 9,) * 2)
    store.sync("INBOX")
    measure("open", lambda: store.open("INBOX"))
    measure("sync: nothing has changed", lambda: quiet(store), 100)
    uids = store.open("INBOX").uids[:2000]
    key = header_key([b"from", b"to", b"subject", b"date", b"message-id"])
    n = len(uids)
    measure("header fields, cold", lambda: store.header_fields("INBOX", uids, key), n)
    measure("header fields, kept", lambda: store.header_fields("INBOX", uids, key), n)
    columns = ["size_octets", "envelope", "bodystructure"]
    measure("rows", lambda: store.rows("INBOX", uids, columns), n)
    flag = ["\\Flagged"]
    measure("STORE", lambda: store.store_flags("INBOX", uids, "+", flag), n)
    measure("MOVE", lambda: store.move("INBOX", uids, "Trash"), n)
    delivery = Delivery(root, host="bench", reserve_octets=0)
    for size, rounds in ((1, 100), (10, 30)):
        batches = [deliver(delivery, FIVE_KB, size) for _ in range(rounds)]

        def ingest(batches: list[list[Delivered]] = batches) -> None:
            for batch in batches:
                store.ingest("INBOX", batch)

        measure(f"ingest of 5 KB in batches of {size}", ingest, size * rounds)
    (large,) = deliver(delivery, HEADER + (b"x" * 72 + b"\n") * 180_000, 1)
    store.ingest("INBOX", [large])
    (uid,) = store.uids_of("INBOX", [large.base])
    store.fill("INBOX", [uid])

    def pieces() -> None:
        for offset in range(0, large.size_octets, 65536):
            with store.open_message("INBOX", uid) as file:
                file.read(offset, 65536)

    measure("13 MB read in pieces of 64 KiB", pieces)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="mailsrv-store-") as folder:
        run(Path(folder), int(sys.argv[1]) if sys.argv[1:] else 100_000)
