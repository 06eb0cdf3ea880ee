"""Takes what programs have dropped while the server was down."""

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.queue.reports import called_for
from mailsrv.queue.values import (
    LOCAL,
    Answer,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)
from mailsrv.routing.router import POSTMASTER
from mailsrv.smtp import drop, grammar
from mailsrv.smtp.drop import Found, NotDropped
from mailsrv.smtp.events import ContentEnd, Event, Hello
from mailsrv.smtp.local_users import LocalUsers
from mailsrv.smtp.reply import Refused, Replies, Reply
from mailsrv.smtp.server import SmtpFactory
from mailsrv.smtp.session import Session
from mailsrv.threads import Threads

log = Logger()

PICK_UP_S = 10.0
STEP = 1 << 16
HEADER_OCTETS = 64 * 1024  # of a refused message, for the report

Refusals = Sequence[tuple[str, Reply]]
Report = Callable[[Message, Sequence[Result], bytes], Awaitable[None]]
"""Tells a message's reverse-path, durably, who was refused (see queue.queue.Queue).

The octets are the message's beginning, with its header.
"""


class PickUp:
    """Looks into the drop folder at the start and now and then."""

    def __init__(
        self,
        folder: Path,
        users: LocalUsers,
        submission: SmtpFactory,
        report: Report,
        threads: Threads,
        reactor: IReactorTime,
    ) -> None:
        self._folder = folder
        self._users = users
        self._submission = submission
        self._report = report
        self._threads = threads
        self._strange: set[Path] = set()  # the admin was told
        # Sent, but their files are there yet: a report that fails must not send again.
        self._ended: dict[Path, tuple[str, Refusals]] = {}
        self._loop = LoopingCall(self._begin)
        self._loop.clock = reactor

    async def start(self) -> None:
        """Make the folder if that can be done, and begin to look."""
        try:
            await self._threads.read.run(lambda: drop.make(self._folder))
        except OSError as error:
            log.warn(
                "programs cannot leave mail in {folder}: {reason}",
                folder=str(self._folder),
                reason=error.strerror,
            )
            return
        self._loop.start(PICK_UP_S)

    def stop(self) -> None:
        """Look no more; what is being taken is taken, or stays for the next start."""
        if self._loop.running:
            self._loop.stop()

    def _begin(self) -> "Deferred[None]":
        looking = Deferred.fromCoroutine(self.look())
        return looking.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        log.failure("picking up dropped mail failed", failure)

    async def look(self) -> None:
        """Take all that is there now."""
        run = self._threads.read.run
        paths = await run(lambda: [*drop.waiting(self._folder)])
        self._strange &= set(paths)
        for path in paths:
            try:
                found = await run(partial(drop.open_dropped, path))
            except (NotDropped, OSError) as error:
                self._tell_once(path, error)
                continue
            self._strange.discard(path)
            try:
                if await self._take(found):
                    await run(path.unlink)
                    del self._ended[path]
            except Exception:  # whatever it is, it must not keep the others waiting
                log.failure("{path} waits for the next time", path=str(path))
            finally:
                await run(found.file.close)

    def _tell_once(self, path: Path, error: Exception) -> None:
        """Tell the admin; it is looked at again, since it may be a fault of ours."""
        if path not in self._strange:
            self._strange.add(path)
            log.error(
                "{path} cannot be sent: it {reason}",
                path=str(path),
                reason=str(error),
            )

    async def _take(self, found: Found) -> bool:
        """Submit a message, and report; False: it has to wait for the next time."""
        if found.path not in self._ended:
            reverse_path, refusals = await self._submit(found)
            if any(reply.code < 500 for _, reply in refusals):
                return False
            self._ended[found.path] = reverse_path, refusals
        reverse_path, refusals = self._ended[found.path]
        if refusals and reverse_path:
            run = self._threads.read.run
            start = await run(partial(found.start, HEADER_OCTETS))
            now_utc = self._submission.now()
            message = _message(found, reverse_path, now_utc)
            notify = found.envelope.notify
            results = [_result(message, *one, now_utc, notify) for one in refusals]
            if results := [one for one in results if called_for(message, one)]:
                await self._report(message, results, start)
        return True

    async def _submit(self, found: Found) -> tuple[str, Refusals]:
        """Send; return who is to be told of whom the server does not take mail for."""
        client = self._users.client(await self._users.of(found.uid))
        submission = self._submission
        site = submission.site(client.devices)
        session = Session(site, submission.authenticator, client, _no_hello)
        try:
            mail = await _decide(session, partial(grammar.mail, _argument(found)))
            if mail.positive:
                refusals = await self._to_all(session, found)
                return client.at_home(found.envelope.reverse_path), refusals
            # That address may be anybody's: he shall know whose the file is.
            own = client.own_address or f"{POSTMASTER}@{client.domain}"
            return own, [(path, mail) for path in found.envelope.recipients]
        finally:
            await session.give_up()

    async def _to_all(self, session: Session, found: Found) -> Refusals:
        """Send to all whom the server takes mail for; return whom it does not."""
        refusals = []
        notify = found.envelope.notify and f" NOTIFY={found.envelope.notify}"
        for forward_path in found.envelope.recipients:
            recipient = f"TO:<{forward_path}>{notify}".encode()
            reply = await _decide(session, partial(grammar.rcpt, recipient))
            if not reply.positive:
                refusals.append((forward_path, reply))
        refused = {forward_path for forward_path, _ in refusals}
        accepted = [p for p in found.envelope.recipients if p not in refused]
        # All at once: a second time must not send again to those accepted now.
        if not accepted or any(reply.code < 500 for _, reply in refusals):
            return refusals
        left = found.size_octets  # more may be written to the file meanwhile
        while left:
            read = partial(found.file.read, min(left, STEP))
            if not (piece := await self._threads.read.run(read)):
                raise OSError("the file has become shorter")
            left -= len(piece)
            await session.content(piece)
        end = ContentEnd(found.size_octets, None)
        reply = await _decide(session, lambda: end)
        if not reply.positive:
            refusals += [(forward_path, reply) for forward_path in accepted]
        return refusals


def _argument(found: Found) -> bytes:
    """Return what MAIL says for a message."""
    envelope = found.envelope
    ascii_only = all(map(str.isascii, (envelope.reverse_path, *envelope.recipients)))
    utf8 = "" if ascii_only else " SMTPUTF8"
    words = [f"FROM:<{envelope.reverse_path}> SIZE={found.size_octets}{utf8}"]
    words += [f"RET={envelope.ret}"] if envelope.ret else []
    words += [f"ENVID={envelope.envid}"] if envelope.envid else []
    return " ".join(words).encode()


def _message(found: Found, reverse_path: str, now_utc: float) -> Message:
    """Return what a report needs to know of a message that never was in the queue."""
    return Message(
        found.path.stem,
        "",
        reverse_path,
        None,
        now_utc,
        Priority.LETTER,
        found.size_octets,
    )


def _result(
    message: Message, forward_path: str, reply: Reply, now_utc: float, notify: str
) -> Result:
    recipient = Recipient(message.id, forward_path, LOCAL, None, notify=notify)
    answer = Answer(reply.code, reply.enhanced_code, reply.text, now_utc)
    return Result(recipient, State.FAILED, None, answer)


async def _decide(session: Session, event: Callable[[], Event]) -> Reply:
    try:
        reply = await session.decide(event())
    except Refused as refused:  # by the grammar
        return refused.reply
    if isinstance(reply, Replies):
        raise AssertionError("only LMTP has a reply for each recipient")
    return reply


def _no_hello(hello: Hello) -> Reply:
    raise AssertionError("nobody greets")
