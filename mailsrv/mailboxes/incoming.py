"""A message on its way into mailboxes: from octets of the wire to durable files.

Small messages stay in memory until `Courier` writes many of them in one job; a
large one streams to a file in ``tmp/``. Nothing is acknowledged before file and
folder are durable, and what fails leaves nothing behind (STORE.md, Content).
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.doors.message import FileContent, MemoryContent
from mailsrv.interfaces import IContent
from mailsrv.store.delivery import Delivery, Letter, Outcome, StagedFile
from mailsrv.store.values import (
    Delivered,
    DeliveryFailed,
    PartlyDelivered,
    StoreError,
    Target,
)
from mailsrv.threads import Threads

log = Logger()

Confirm = Callable[[Sequence[Delivered], Mapping[Target, StoreError]], Awaitable[None]]
"""Says yes to durable copies, and those that failed, or raises."""

MEMORY_OCTETS = 512 * 1024  # of one message, STORE.md
_SPILL_OCTETS = 256 * 1024  # least that is worth a job, once a message streams
_MAX_BATCH = 32  # messages in one job: 16 MiB at most
_MAX_JOBS = 3  # a disk syncs faster for a few threads than for one


class Courier:
    """Writes finished messages, those that are ready together in one thread job.

    While all jobs are busy, later messages gather for the next one. A message that
    was streamed has a job of its own: nobody waits for its long fsync.
    """

    def __init__(
        self, delivery: Delivery, threads: Threads, reactor: IReactorTime
    ) -> None:
        self.delivery = delivery  # replaced when the settings change
        self.threads = threads
        self._reactor = reactor
        self._waiting: list[tuple[Letter, Deferred[list[Delivered]]]] = []
        self._jobs = 0  # with messages from memory
        self._unanswered = 0
        self._scheduled = False
        self._idle: list[Deferred[None]] = []

    def deliver(self, letter: Letter) -> "Deferred[list[Delivered]]":
        """Make a message durable at all its targets, or fail by a StoreError."""
        done: Deferred[list[Delivered]] = Deferred()
        self._unanswered += 1
        if isinstance(letter.content, StagedFile):
            Deferred.fromCoroutine(self._run([(letter, done)]))
            return done
        self._waiting.append((letter, done))
        if not self._scheduled and self._jobs < _MAX_JOBS:
            # At the end of this turn, with what other connections have read in it.
            self._scheduled = True
            self._reactor.callLater(0, self._next_jobs)
        return done

    async def drained(self) -> None:
        """Wait until no message is being written."""
        while self._unanswered:
            waiter: Deferred[None] = Deferred()
            self._idle.append(waiter)
            await waiter

    def _next_jobs(self) -> None:
        self._scheduled = False
        while self._waiting and self._jobs < _MAX_JOBS:
            batch = self._waiting[:_MAX_BATCH]
            del self._waiting[:_MAX_BATCH]
            self._jobs += 1
            Deferred.fromCoroutine(self._run(batch, self._job_ended))

    def _job_ended(self) -> None:
        self._jobs -= 1
        self._next_jobs()

    async def _run(
        self,
        batch: list[tuple[Letter, "Deferred[list[Delivered]]"]],
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        letters = [letter for letter, _ in batch]
        delivery = self.delivery
        outcomes: list[Outcome]
        try:
            outcomes = await self.threads.sync.run(lambda: delivery.deliver(letters))
        except Exception:
            # The one boundary of this job: whoever waits must get an answer.
            log.failure("delivering a batch of messages failed")
            outcomes = [DeliveryFailed("io")] * len(batch)
        ended()  # first the next job, then the answers: the disk need not wait
        for (_, done), outcome in zip(batch, outcomes, strict=True):
            self._unanswered -= 1
            if isinstance(outcome, StoreError):
                done.errback(outcome)
            else:
                done.callback(outcome)
        if not self._unanswered:
            idle, self._idle = self._idle, []
            for waiter in idle:
                waiter.callback(None)


class Incoming:
    """One message: `feed` it, then `commit` or `abort`, whatever happens.

    The octets are those of the wire, with CRLF; files hold LF.
    """

    def __init__(
        self,
        courier: Courier,
        targets: Sequence[Target],
        header: bytes,
        *,
        grew: Callable[[int], None],
        delivered: Callable[[list[Delivered]], None],
    ) -> None:
        """Take a message for `targets`; `header` is its first part, ready to send.

        `grew` is told of each change of the octets in flight, `delivered` of the
        files once they are durable. A copy that fails does not take the others back.
        """
        self._courier = courier
        self.targets = _distinct(targets)
        self._grew = grew
        self._delivered = delivered
        self._pieces: list[bytes] = []
        self._held = 0  # octets in memory: in _pieces and in a running job
        self._total = 0
        self._keep = MEMORY_OCTETS  # so much may wait in memory
        self._half = b""  # a CR that ended the last chunk
        self._staged: StagedFile | None = None
        self._spilling: Deferred[None] | None = None
        self._waiters: list[Deferred[None]] = []
        self._failure: StoreError | None = None
        self._ended = False
        self._whole = False  # all has been fed
        self.feed(with_delivered_to(header, self.targets))
        self._head_octets = self._total

    @property
    def size_octets(self) -> int:
        """The octets so far, as they will be in the file."""
        return self._total

    @property
    def full(self) -> bool:
        """Whether the feeder should stop and await `drained`."""
        return self._held > MEMORY_OCTETS

    def in_memory(self, most_octets: int) -> bytes | None:
        """All of a message, as its files have it; None: longer, or not in memory."""
        if self._total > most_octets or sum(map(len, self._pieces)) != self._total:
            return None
        return b"".join(self._pieces)

    def feed(self, data: bytes) -> None:
        """Add the next octets. After a failure of the disk they go nowhere."""
        if self._half:
            data = self._half + data
        if data.endswith(b"\r"):
            self._half, data = b"\r", data[:-1]
        else:
            self._half = b""
        without_cr = data.replace(b"\r", b"")
        if len(data) - len(without_cr) == data.count(b"\r\n"):  # no CR alone
            self._take(without_cr)
        else:  # takes twice as long
            self._take(data.replace(b"\r\n", b"\n"))

    def _take(self, data: bytes) -> None:
        if not data or self._failure is not None:
            return
        self._pieces.append(data)
        self._held += len(data)
        self._total += len(data)
        self._grew(len(data))
        if self._held > self._keep and self._spilling is None:
            Deferred.fromCoroutine(self._write_out())

    async def drained(self) -> None:
        """Wait until `full` is false."""
        if self.full:
            waiter: Deferred[None] = Deferred()
            self._waiters.append(waiter)
            await waiter

    async def stage(self) -> None:
        """Write a whole message to ``tmp/``, for one that has to wait for others."""
        self._keep = 0
        if self._spilling is None:
            await self._write_out()
        else:
            await self._spilling

    async def commit(self, confirm: Confirm | None = None) -> list[Delivered]:
        """Make the message durable everywhere.

        `confirm` is awaited before anybody else sees the copies; if it raises, they
        are taken back. Raises `DeliveryFailed`: then nothing is left of it; or
        `PartlyDelivered`. What was in flight against quotas is released either way.
        """
        failed: dict[Target, StoreError] = {}
        try:
            await self._end_feeding()
            try:
                delivered = await self._written()
            except PartlyDelivered as error:
                delivered, failed = error.delivered, error.failed
            if confirm is not None:
                await self._confirm(confirm, delivered, failed)
        finally:
            await self.abort()
        self._delivered(delivered)
        if failed:
            raise PartlyDelivered(delivered, failed)
        return delivered

    async def _confirm(
        self,
        confirm: Confirm,
        delivered: list[Delivered],
        failed: dict[Target, StoreError],
    ) -> None:
        try:
            await confirm(delivered, failed)
        except BaseException:
            courier = self._courier
            undo = courier.delivery.undo
            await courier.threads.sync.run(lambda: undo(delivered))
            raise

    async def content(self) -> IContent:
        """Return what has been fed, to be read; close it in the end.

        Raises `DeliveryFailed`. Nothing more can be fed.
        """
        staged = await self._end_feeding()
        if staged is None:
            return MemoryContent(*self._pieces)
        threads = self._courier.threads
        fd = await threads.sync.run(staged.duplicate)
        return FileContent(fd, self._total, threads.read)

    async def replace_header(self, header: bytes) -> None:
        """Put `header` in the place of the first one. Raises `DeliveryFailed`."""
        staged = await self._end_feeding()
        head = with_delivered_to(header, self.targets).replace(b"\r\n", b"\n")
        old_octets, self._head_octets = self._head_octets, len(head)
        if staged is None:
            self._pieces[: 1 if old_octets else 0] = [head]
        else:
            await self._courier.threads.sync.run(
                lambda: staged.replace_head(old_octets, head)
            )
        self._total += len(head) - old_octets
        self._grew(len(head) - old_octets)

    def redirect(self, targets: Sequence[Target]) -> None:
        """Deliver to `targets`, one at least, instead."""
        self.targets = _distinct(targets)

    async def abort(self) -> None:
        """Forget the message and what is in ``tmp/`` of it. Again: no effect."""
        if self._ended:
            return
        self._end()
        if self._spilling is not None:
            await self._spilling
        if (staged := self._staged) is not None:
            self._staged = None
            await self._courier.threads.sync.run(staged.discard)

    async def _end_feeding(self) -> StagedFile | None:
        """Have all octets in memory, or all in the file that is returned."""
        if not self._whole:
            self._whole = True
            half, self._half = self._half, b""
            self._take(half)
        if self._spilling is not None:
            await self._spilling
        if self._failure is not None:
            raise self._failure
        if (staged := self._staged) is not None and self._pieces:
            pieces, self._pieces = self._pieces, []
            await self._courier.threads.sync.run(lambda: staged.write(pieces))
        return staged

    async def _written(self) -> list[Delivered]:
        # From here the staged file is the job's to publish or to remove.
        staged, self._staged = self._staged, None
        return await self._courier.deliver(
            Letter(self._pieces if staged is None else staged, self.targets, apart=True)
        )

    def _end(self) -> None:
        self._ended = True
        self._pieces = []
        self._grew(-self._total)
        self._total = 0
        self._failure = self._failure or DeliveryFailed("io")  # feed no more

    async def _write_out(self) -> None:
        """Write what is in memory, and what has come by then, to ``tmp/``."""
        threads, delivery = self._courier.threads, self._courier.delivery
        homes = self.targets
        spilling: Deferred[None] = Deferred()
        self._spilling = spilling
        while self._held > self._keep:
            pieces, self._pieces = self._pieces, []
            try:
                self._staged = await threads.sync.run(
                    partial(_stage, delivery, self._staged, homes, pieces)
                )
            except StoreError as failure:
                self._fail(failure)
            except Exception:
                # Whoever waits for `drained` must not wait for ever.
                log.failure("streaming a message to its file failed")
                self._fail(DeliveryFailed("io"))
            else:
                self._held -= sum(map(len, pieces))
                self._keep = min(self._keep, _SPILL_OCTETS)
            if not self.full:
                waiters, self._waiters = self._waiters, []
                for waiter in waiters:
                    waiter.callback(None)
        self._spilling = None
        spilling.callback(None)

    def _fail(self, failure: StoreError) -> None:
        self._failure = failure
        self._pieces = []
        self._held = 0


def _stage(
    delivery: Delivery,
    staged: StagedFile | None,
    homes: Sequence[Target],
    pieces: Sequence[bytes],
) -> StagedFile:
    """Write `pieces` behind the others, in a thread."""
    if staged is None:
        staged = delivery.stage(*homes)
    staged.write(pieces)
    return staged


def with_delivered_to(header: bytes, targets: Sequence[Target]) -> bytes:
    """Return `header` with Delivered-To, if one recipient alone gets the file.

    Below Return-Path, which stands first (RFC 5321 section 4.4). The file that
    several recipients share must not tell them of one another.
    """
    if len(targets) != 1 or targets[0].delivered_to is None:
        return header
    field = b"Delivered-To: %s\r\n" % targets[0].delivered_to
    at = 0
    if header[:12].lower() == b"return-path:":
        at = header.find(b"\r\n") + 2
    return header[:at] + field + header[at:]


def _distinct(targets: Iterable[Target]) -> tuple[Target, ...]:
    """Return each mailbox once: aliases may lead to it by several ways."""
    return tuple({(t.folder, t.mailbox): t for t in reversed(list(targets))}.values())
