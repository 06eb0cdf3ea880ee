"""The queue, as the other parts of the server know it.

What `take` or `submit` has returned from is durable, and is delivered or reported. One
process owns a queue: all its writes go through one writer, its attempts through one
dispatcher.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from fcntl import LOCK_EX, LOCK_NB, flock
from functools import partial
from itertools import groupby
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.mailboxes.store import MailStore
from mailsrv.queue import reports
from mailsrv.queue.addressing import Addressing
from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.database import Filter, QueueDatabase, QueueUnavailable
from mailsrv.queue.dispatch import Carriers, Dispatcher
from mailsrv.queue.report_text import Kind
from mailsrv.queue.reports import Report, Reporter
from mailsrv.queue.settling import Rules, settle
from mailsrv.queue.spool import Spool
from mailsrv.queue.tls_required import is_tls_optional
from mailsrv.queue.turns import Turns
from mailsrv.queue.values import (
    Entry,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)
from mailsrv.queue.writer import Writer
from mailsrv.routing.router import Router
from mailsrv.store.values import Delivered, DeliveryFailed, StoreError, Target
from mailsrv.threads import Threads

log = Logger()

_LAST_ATTEMPTS_S = 5.0  # to end, once their connections are cut
_ONCE_S = 366 * 86400.0  # a newsletter that was cut is sent again within days
_REPORT_AGAIN_S = 300.0  # when the disk refuses a report

Sign = Callable[[bytes, Iterable[bytes]], bytes]
"""Returns the signatures for a header block and the pieces of a body; blocking."""


class QueueInUse(QueueUnavailable):
    """Another process owns the queue."""


class Queue:
    """Takes mail, and sees to it until it is delivered or reported."""

    def __init__(
        self,
        data: Path,
        rules: Rules,
        turns: Turns,
        *,
        router: Router,
        mail_store: MailStore,
        reporter: Reporter,
        sign: Sign,
        threads: Threads,
        reactor: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        """Open the rows, blocking; nothing is sent before `start`.

        Raises QueueInUse, OSError, sqlite3.Error.
        """
        self.rules = rules  # replaced when the settings change
        self.turns = turns
        self._lock_fd = _lock(data / "queue.lock")
        self.database = QueueDatabase(data / "queue.sqlite")
        self.spooled = Spool(data / "spool", threads.read)
        self.spooled.create()
        self.spooled.remove_leftovers(self.database.files())
        self._addressing = Addressing(router)
        self._mail_store = mail_store
        self._reporter = reporter
        self._sign = sign
        self._threads = threads
        self._writer = Writer(
            self.database.write, self._finished, threads.queue, reactor
        )
        self._now = now
        self._reactor = reactor
        self._made = 0  # messages of our own
        self.dispatcher: Dispatcher | None = None  # from `start` on

    async def start(self, carriers: Carriers) -> None:
        """Begin to deliver what waits, and what is taken from now on."""
        self.dispatcher = Dispatcher(
            self.database,
            self.spooled,
            carriers,
            self._settle,
            self.turns,
            longest_s=lambda: self.rules.schedule.longest_s,
            reading=self._threads.read,
            reactor=self._reactor,
            now=self._now,
        )
        await self.dispatcher.start()

    async def drain(self) -> None:
        """Begin no more attempts, and wait for those that run."""
        if self.dispatcher is not None:
            await self.dispatcher.stop()

    async def stop(self) -> None:
        """Close the rows. An attempt that runs for too long is made again one day."""
        drained = Deferred.fromCoroutine(self.drain())
        drained.addTimeout(_LAST_ATTEMPTS_S, self._reactor)
        drained.addErrback(lambda failure: log.warn("stops with attempts that run"))
        await drained
        await self._threads.queue.run(self.database.close)
        os.close(self._lock_fd)

    # Taking mail

    @property
    def spool(self) -> Target:
        """Where a copy for the queue is delivered to."""
        return self.spooled.target

    async def keep(self, delivered: Delivered) -> str:
        """Have a copy in the spool that was made in a mailbox; return its file.

        Raises StoreError.
        """
        directory = self._mail_store.directory_of(delivered.target)
        return await self._threads.sync.run(
            lambda: self.spooled.link(delivered, directory)
        )

    async def take(
        self,
        message: Message,
        recipients: Sequence[Recipient],
        *,
        sign: bool = False,
        octets: bytes | None = None,
    ) -> bool:
        """Take a message whose file is in the spool: from now on it is safe.

        `octets`: what the file has, if that is in memory. False: it is to be taken
        once, and was before. Raises StoreError.
        """
        if octets is not None:
            self.spooled.remember(message, octets)
        if sign:
            message = await self._threads.read.run(lambda: self._signed(message))
        entries = await self._writer.write([(message, tuple(recipients))])
        self._added(entries)
        return bool(entries)

    async def submit(
        self,
        octets: bytes,
        *,
        reverse_path: str,
        forward_paths: Sequence[str],
        priority: Priority = Priority.LETTER,
        account: str | None = None,
        once: str = "",
        report: bool = False,
    ) -> str:
        """Send a message that a part of the server has written; return its id.

        `octets`: a whole message with LF or CRLF. The id is empty if a message with
        this `once` was taken before, or nobody is there to get it. Raises StoreError.
        `report`: see `Addressing.recipients`.
        """
        id = self._id()
        recipients = await self._addressing.recipients(
            id, forward_paths, self._now(), report=report
        )
        if not recipients:
            return ""
        entry = await self._own(
            id, octets, reverse_path, recipients, priority, account, once
        )
        try:
            entries = await self._writer.write([entry])
        except StoreError:
            self._unwritten([entry])
            raise
        self._added(entries)
        if not entries:
            self._unwritten([entry])
        return id if entries else ""

    async def report_refused(
        self, message: Message, results: Sequence[Result], beginning: bytes
    ) -> None:
        """Tell the sender of a message that never was in the queue. As `submit`."""
        report = self._report(message, results, Kind.FAILED, beginning)
        await self.submit(
            report.octets,
            report=True,
            reverse_path="",
            forward_paths=[report.forward_path],
            priority=Priority.REPORT,
        )

    async def forget_words(self) -> None:
        """Forget what was taken once, and will not come again."""
        before_utc = self._now() - _ONCE_S
        await self._threads.queue.run(lambda: self.database.forget_words(before_utc))

    # What an admin does

    async def find(
        self, wanted: Filter, limit: int, after: int = 0
    ) -> list[tuple[Message, Recipient]]:
        """As the database."""
        read = partial(self.database.find, wanted, limit, after)
        return await self._threads.read.run(read)

    async def last_row(self) -> int:
        """As the database."""
        return await self._threads.read.run(self.database.last_row)

    async def change(
        self,
        rows: Sequence[tuple[Message, Recipient]],
        result: Callable[[Message, Recipient], Result],
    ) -> int:
        """Give recipients new states, and tell senders who are to hear of it.

        Those that are being sent to just now, or have another state than when they
        were read, stay as they are: returns how many were changed. Raises StoreError.
        """
        dispatcher = self.dispatcher
        if dispatcher is None:
            return 0
        rows = dispatcher.claim(rows)
        if not rows:
            return 0
        changes: list[tuple[Message, Result]] = []
        new: list[Entry] = []
        try:
            now = await self._now_of(rows)
            changes = [
                (message, result(message, current))
                for message, recipient in rows
                if (current := now[recipient.id]).state is recipient.state
            ]
            for message, group in _by_message(changes):
                new += await self.reports(message, group)
            entries = await self._writer.write(new, [one for _, one in changes])
        except BaseException:
            self._unwritten(new)
            dispatcher.changed((m, _unchanged(r)) for m, r in rows)
            raise
        done = {one.recipient.id for _, one in changes}
        left = [(m, now[r.id]) for m, r in rows if r.id not in done]
        dispatcher.changed([*changes, *((m, _unchanged(r)) for m, r in left)])
        self._added(entries)
        return len(changes)

    async def _now_of(
        self, rows: Sequence[tuple[Message, Recipient]]
    ) -> dict[int, Recipient]:
        """Return rows as they are; one that is gone was settled since."""
        ids = [recipient.id for _, recipient in rows]
        found = await self._threads.read.run(lambda: self.database.rows(ids))
        return {
            recipient.id: replace(recipient, state=State.DELIVERED, next_at_utc=None)
            for _, recipient in rows
        } | found

    def _id(self) -> str:
        self._made += 1
        return f"{int(self._now() * 1000):x}.queue.{self._made}"

    async def _own(
        self,
        id: str,
        octets: bytes,
        reverse_path: str,
        recipients: tuple[Recipient, ...],
        priority: Priority,
        account: str | None = None,
        once: str = "",
    ) -> Entry:
        """Put a message of our own into the spool, signed."""
        octets = octets.replace(b"\r\n", b"\n")
        header = octets[: octets.find(b"\n\n") + 1]
        delivered = await self._mail_store.deliver(octets, self.spool)
        message = Message(
            id,
            os.fsdecode(delivered.base),
            reverse_path,
            account,
            self._now(),
            priority,
            delivered.size_octets,
            eight_bit=not octets.isascii(),
            smtputf8=not (header.isascii() and reverse_path.isascii()),
            tls_optional=is_tls_optional(header),
            once=once,
        )
        self.spooled.remember(message, octets)
        message = await self._threads.read.run(lambda: self._signed(message))
        return message, recipients

    def _signed(self, message: Message) -> Message:
        """Return the message with its signatures, in a thread."""
        try:
            with self.spooled.open(message) as (header, body):
                signatures = self._sign(message.prefix + header, body)
        except Exception:
            # Unsigned mail arrives, if less surely; mail that is refused does not.
            log.failure("{transaction}: signing failed", transaction=message.id)
            return message
        return replace(message, prefix=signatures + message.prefix)

    def _finished(self, files: Sequence[str]) -> None:
        # Beside the commits: to remove a file can take as long.
        removing = self._threads.sync.run(partial(self.spooled.remove, files))
        removing.addErrback(lambda failure: log.failure("spool", failure))

    def _unwritten(self, entries: Iterable[Entry]) -> None:
        """Remove files of our own whose rows are not there."""
        if files := [message.file for message, _ in entries]:
            self._finished(files)

    def _added(self, entries: Iterable[Entry]) -> None:
        if self.dispatcher is not None:
            for entry in entries:
                self.dispatcher.added(entry)

    # What attempts came to

    async def _settle(self, parcel: Parcel, outcome: Outcome) -> Sequence[Result]:
        pairs = zip(parcel.recipients, outcome.answers, strict=True)
        results = [
            settle(parcel.message, recipient, answer, self.rules, random.random())  # noqa: S311  # no secret
            for recipient, answer in pairs
        ]
        for result in results:
            self._log(parcel, result)
        new = [(message, tuple(recipients)) for message, recipients in outcome.new]
        told: list[Entry] = []
        try:
            told = await self.reports(parcel.message, results)
        except Exception:
            log.failure("{transaction}: no report", transaction=parcel.message.id)
            results = [_without_report(result, self._now()) for result in results]
        try:
            self._added(await self._writer.write([*new, *told], results))
        except DeliveryFailed:  # a bug of a carrier: what it has made is left out
            self._unwritten(told)
            results = [_again(result, self._now()) for result in results]
            await self._writer.write((), results)
        return results

    async def reports(self, message: Message, results: Sequence[Result]) -> list[Entry]:
        """Write what senders are to be told of results; not in the queue yet.

        Raises StoreError, OSError: then nothing is left of them.
        """
        entries: list[Entry] = []
        try:
            await self._write_reports(message, results, entries)
        except BaseException:
            self._unwritten(entries)
            raise
        return entries

    async def _write_reports(
        self, message: Message, results: Sequence[Result], entries: list[Entry]
    ) -> None:
        for kind, group in reports.grouped(message, results):
            whole = reports.returns_whole(message, kind)
            original = await self._beginning(message, whole=whole)
            report = self._report(message, group, kind, original)
            id = self._id()
            recipients = await self._addressing.recipients(
                id, [report.forward_path], self._now(), notify="NEVER", report=True
            )
            if not recipients:
                log.warn("nobody can be told of {transaction}", transaction=message.id)
                continue
            own, to = await self._own(
                id, report.octets, "", recipients, Priority.REPORT
            )
            # RFC 8689 section 5: it tells of the message, and is protected like it.
            entries.append((replace(own, require_tls=message.require_tls), to))
            log.info(
                "{kind} report for {transaction}",
                kind=str(kind),
                transaction=message.id,
                report=id,
                message_id=report.message_id,
                forward_path=report.forward_path,
            )

    def _report(
        self, message: Message, results: Sequence[Result], kind: Kind, original: bytes
    ) -> Report:
        ends_at_utc = self.rules.schedule.ends_at_utc(message.arrived_at_utc)
        return self._reporter.report(
            message,
            results,
            kind,
            original,
            now_utc=self._now(),
            ends_at_utc=ends_at_utc,
        )

    async def _beginning(self, message: Message, *, whole: bool) -> bytes:
        read = partial(self.spooled.beginning, message, whole=whole)
        try:
            return await self._threads.read.run(read)
        except OSError:  # the sender hears of the failure all the same
            log.failure(
                "{transaction}: the spool is unreadable", transaction=message.id
            )
            return b""

    def _log(self, parcel: Parcel, result: Result) -> None:
        recipient, answer = result.recipient, result.answer
        assert answer is not None  # noqa: S101  # of an attempt
        log.info(
            "{forward_path}: {state}",
            transaction=parcel.message.id,
            reverse_path=parcel.reverse_path,
            forward_path=recipient.forward_path,
            state=str(result.state),
            reply_code=answer.code,
            enhanced_code=answer.enhanced_code,
            reason=answer.text,
            mx=answer.peer,
            tls=answer.tls,
            attempts=recipient.attempts + 1,
            delay_s=round(answer.at_utc - parcel.message.arrived_at_utc, 3),
        )


def _again(result: Result, now_utc: float) -> Result:
    """Return what becomes of a recipient whose result could not be kept."""
    again_at = now_utc + _REPORT_AGAIN_S
    return replace(result, state=State.WAITING, next_at_utc=again_at, warned=False)


def _without_report(result: Result, now_utc: float) -> Result:
    """Return what becomes of a recipient whose sender cannot be told just now."""
    if result.state is State.FAILED:  # tried again, to fail when it can be told
        again_at = now_utc + _REPORT_AGAIN_S
        return replace(result, state=State.WAITING, next_at_utc=again_at)
    return replace(result, warned=False)


def _by_message(
    changes: Iterable[tuple[Message, Result]],
) -> Iterator[tuple[Message, list[Result]]]:
    for _, group in groupby(changes, key=lambda change: change[0].id):
        found = list(group)
        yield found[0][0], [result for _, result in found]


def _unchanged(recipient: Recipient) -> Result:
    return Result(recipient, recipient.state, recipient.next_at_utc, None)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        flock(fd, LOCK_EX | LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise QueueInUse(f"{path}: another mailsrv runs on this folder") from error
    return fd
