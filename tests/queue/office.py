"""A queue over a real database and spool, with carriers that a test holds in hand."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.live import LiveDirectory
from mailsrv.mailboxes.store import MailStore
from mailsrv.queue.alias import AliasCarrier
from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.dispatch import Carriers
from mailsrv.queue.local import LocalCarrier
from mailsrv.queue.queue import Queue
from mailsrv.queue.reports import Reporter
from mailsrv.queue.schedule import Schedule
from mailsrv.queue.settling import Rules
from mailsrv.queue.turns import Turns
from mailsrv.queue.values import Answer, Message, Recipient
from mailsrv.routing.router import Router
from mailsrv.settings import StoreSettings
from mailsrv.store.values import Target
from tests.inline_threads import InlineThreads

ANNA = "anna@example.test"
BERT = "bert@example.test"
RULES = Rules(Schedule((60, 600), 7200), warn_after_s=3600)


class MemoryCarrier:
    """Carries what it is given when a test says so, and what it was given first."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.waiting: list[tuple[Parcel, Deferred[Outcome]]] = []
        self.carried: list[tuple[Parcel, bytes]] = []
        self.way: Callable[[str], str] = str  # each destination has its own

    def route(self, reverse_path: str, destination: str) -> str:
        return self.way(destination)

    async def carry(self, parcel: Parcel) -> Outcome:
        pieces = [p async for p in parcel.content.pieces(parcel.recipients[0])]
        content = b"".join(pieces)
        octets = parcel.content.octets(parcel.recipients[0])
        assert len(content) == octets, (content, octets)
        self.carried.append((parcel, content))
        done: Deferred[Outcome] = Deferred()
        self.waiting.append((parcel, done))
        return await done

    def answer(self, *codes: int, peer: str = "mx [192.0.2.1]") -> Parcel:
        """Answer the oldest parcel, with one code for each recipient or one for all."""
        parcel, done = self.waiting.pop(0)
        if len(codes) == 1:
            codes *= len(parcel.recipients)
        answers = [
            Answer(code, f"{code // 100}.0.0", "so it is", self._now(), peer)
            for code in codes
        ]
        done.callback(Outcome(tuple(answers)))
        return parcel


class QueueCase(SynchronousTestCase):
    """Anna and Bert; mail elsewhere goes to `self.far`, to lists to `self.lists`."""

    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.clock = self.threads.clock
        self.clock.rightNow = 1_800_000_000.0
        self.wrong_s = 0.0  # so much does the wall clock go ahead
        self.data = Path(self.mktemp()).absolute()
        self.data.mkdir()
        database = MemoryAccountDatabase()
        database.edit(lambda d: edits.add_domain(d, "example.test"))
        for name in (ANNA, "bert@example.test"):
            database.edit(partial(edits.add_account, name=name, password_hash="hash"))
        self.accounts = database
        live = LiveDirectory(database, threads=self.threads, reactor=self.clock)
        live.start()
        self.addCleanup(live.stop)
        self.router = Router(live)
        self.mail_store = MailStore(
            self.data / "mail",
            threads=self.threads,
            reactor=self.clock,
            settings=StoreSettings(free_space_reserve_octets=0),
            now=self.now,
        )
        (self.data / "mail").mkdir()
        self.signatures = b""
        self.far = MemoryCarrier(self.now)
        self.lists = MemoryCarrier(self.now)
        self.queue = self.opened()
        self.start()

    def now(self) -> float:
        return float(self.clock.seconds()) + self.wrong_s

    def opened(self) -> Queue:
        return Queue(
            self.data,
            RULES,
            Turns(8, 20),
            router=self.router,
            mail_store=self.mail_store,
            reporter=Reporter("mail.example.test", self.router.is_own_domain),
            sign=self.sign,
            threads=self.threads,
            reactor=self.clock,
            now=self.now,
        )

    def start(self) -> None:
        local = LocalCarrier(
            self.router,
            self.mail_store,
            self.queue.spooled,
            (),
            reading=self.threads.read,
            now=self.now,
        )
        alias = AliasCarrier(self.now)
        self.wait(self.queue.start(Carriers(local, self.lists, self.far, alias)))

    def sign(self, header: bytes, body: Iterable[bytes]) -> bytes:
        self.signed = header + b"\r\n" + b"".join(body)
        return self.signatures

    def tearDown(self) -> None:
        while self.far.waiting or self.lists.waiting:
            for carrier in (self.far, self.lists):
                if carrier.waiting:
                    carrier.answer(451)
            self.settle()
        self.wait(self.queue.stop())
        self.wait(self.mail_store.stop())

    def settle(self) -> None:
        """Let all run that needs no time."""
        self.clock.pump([0] * 12)

    def wait(self, work: Any) -> Any:
        # Any: a coroutine, and its result.
        done = Deferred.fromCoroutine(work)
        self.settle()
        return self.successResultOf(done)

    def send(self, *to: str, content: bytes = b"Subject: x\n\ntext\n") -> str:
        """Submit a message of Anna's."""
        id: str = self.wait(
            self.queue.submit(
                content, reverse_path=ANNA, forward_paths=to, account=ANNA
            )
        )
        return id

    def spool_files(self) -> list[bytes]:
        return [
            p.read_bytes()
            for p in sorted((self.queue.spooled.maildir / "new").iterdir())
        ]

    def mails(self, folder: str = ANNA) -> list[bytes]:
        maildir = self.data / "mail" / folder / "Maildir"
        found = sorted([*maildir.glob("new/*"), *maildir.glob("cur/*")])
        return [path.read_bytes() for path in found]

    def spooled(self, octets: bytes) -> str:
        """Put a file into the spool; return its name."""
        delivered = self.wait(
            self.mail_store.deliver(octets, Target(str(self.data / "spool")))
        )
        name: str = delivered.base.decode()
        return name

    def take(self, message: Message, recipients: Sequence[Recipient]) -> None:
        self.wait(self.queue.take(message, recipients))
