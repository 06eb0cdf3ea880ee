"""An account's store in a temporary folder, and other programs that change it."""

import os
import time
from pathlib import Path

from mailsrv.store import maildir
from mailsrv.store.account import AccountStore
from mailsrv.store.delivery import Delivery, Letter
from mailsrv.store.index import Connections
from mailsrv.store.values import Changes, Delivered, Target

MESSAGE = b"""From: Anna <anna@example.test>
To: ben@example.test
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=
Date: Tue, 24 Nov 2026 10:00:00 +0100
Message-ID: <1@example.test>

one
two
"""


def old(folder: Path, seconds: float = 5.0) -> None:
    """Make a folder look as if it was last changed some time ago."""
    then = time.time() - seconds
    os.utime(folder, (then, then))


class Office:
    """One account, `anna`, and what happens to it."""

    def __init__(self, root: Path, *, quota_octets: int | None = None) -> None:
        self.mail = root
        self.root = root / "anna"
        self.maildir = self.root / "Maildir"
        self.root.mkdir(parents=True)
        self.connections = Connections(8)
        self.delivery = Delivery(root, host="mail.example.test", reserve_octets=0)
        self.names = maildir.UniqueNames("other")
        self.store = self.another(quota_octets=quota_octets)
        self.store.ensure_default_folders()

    def another(self, *, quota_octets: int | None = None) -> AccountStore:
        """Return the store as another process has it."""
        return AccountStore(
            self.root,
            connections=self.connections,
            quota_octets=quota_octets,
            now=time.time,
        )

    def deliver(
        self, content: bytes = MESSAGE, mailbox: str = "INBOX", flags: int = 0
    ) -> Delivered:
        """Deliver as our own server does; the index does not know it yet."""
        target = Target("anna", mailbox, flags=flags)
        (done,) = self.delivery.deliver([Letter([content], [target])])
        if isinstance(done, Exception):
            raise done
        return done[0]

    def receive(
        self, content: bytes = MESSAGE, mailbox: str = "INBOX", flags: int = 0
    ) -> int:
        """Deliver and take in; return the UID."""
        delivered = self.deliver(content, mailbox, flags)
        self.store.ingest(mailbox, [delivered])
        (uid,) = self.store.uids_of(mailbox, [delivered.base])
        return uid

    def drop(
        self, content: bytes = MESSAGE, *, name: bytes | None = None, sub: str = "new"
    ) -> bytes:
        """Put a file into INBOX as another program does; return its name."""
        name = name or self.names.next() + (b":2," if sub == "cur" else b"")
        path = os.fsencode(self.maildir / sub) + b"/" + name
        with open(path, "xb") as file:
            file.write(content)
        return name

    def files(self, sub: str = "cur", mailbox: str = "") -> list[bytes]:
        return sorted(os.listdir(os.fsencode(self.maildir / mailbox / sub)))

    def settle(self, mailbox: str = "INBOX") -> Changes:
        """Sync when what was changed is some seconds old."""
        directory = self.maildir if mailbox == "INBOX" else self.maildir / f".{mailbox}"
        old(directory / "new")
        old(directory / "cur")
        return self.store.sync(mailbox, force=True)
