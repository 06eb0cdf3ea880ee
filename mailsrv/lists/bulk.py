"""Hands a newsletter to the queue, in batches. Blocking, for the command line.

Each copy has a word by which the queue takes it one time for ever, so that a run that
was cut may be begun again: who has a copy gets no second one. Who has unsubscribed,
and whose address fails, gets none.
"""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailsrv.lists.members import Member, Members, Run, State
from mailsrv.lists.newsletter import LINK, Newsletter
from mailsrv.lists.post import unsubscribe_fields, unsubscribe_link
from mailsrv.lists.recipients import Row
from mailsrv.lists.tokens import Purpose, Tokens
from mailsrv.queue.control import MAX_MESSAGES
from mailsrv.queue.values import Priority
from mailsrv.routing.list_addresses import Command, write

_UNWANTED = (State.UNSUBSCRIBED, State.SUSPENDED)
MAX_BATCH_OCTETS = 512 * 1024

# Any: values of JSON.
Call = Callable[[Mapping[str, object]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Progress:
    """What became of some recipients."""

    sent: int = 0  # handed over just now
    before: int = 0  # had it already
    unwanted: int = 0  # have unsubscribed, or their mail fails

    def __add__(self, other: "Progress") -> "Progress":
        return Progress(
            self.sent + other.sent,
            self.before + other.before,
            self.unwanted + other.unwanted,
        )

    @property
    def rows(self) -> int:
        return self.sent + self.before + self.unwanted


@dataclass(frozen=True, slots=True)
class Bulk:
    """A newsletter, and what it is sent with."""

    newsletter: Newsletter
    members: Members
    tokens: Tokens
    base_url: str | None
    hostname: str
    now: Callable[[], float]

    def run(self, *, again: bool) -> Run:
        """Return the last run of the newsletter, to go on with, or a new one."""
        news = self.newsletter
        earlier = self.members.runs(news.key)
        if earlier and not again:
            return earlier[-1]
        return self.members.begin_run(news.key, news.sender, news.subject)

    def send(
        self, run: Run, rows: Sequence[Row], call: Call, at_a_time: int = MAX_MESSAGES
    ) -> Iterator[Progress]:
        """Hand over; yields what was done since the last time."""
        for first in range(0, len(rows), at_a_time):
            some = rows[first : first + at_a_time]
            wanted, progress = self._sorted(run, some)
            yield progress
            for batch in self._batches(run, wanted):
                messages = [message for _, message in batch]
                ids = call({"do": "submit-all", "messages": messages})["ids"]
                self.members.note_sent(run.id, [member.id for member, _ in batch])
                # Without an id: the queue had taken it when a run was cut.
                new = sum(map(bool, ids))
                yield Progress(sent=new, before=len(ids) - new)

    def foreseen(self, rows: Sequence[Row], *, again: bool) -> Progress:
        """Return what `send` would do, and change nothing."""
        news = self.newsletter
        earlier = [] if again else self.members.runs(news.key)
        found = {member.address: member for member in self.members.of_list(news.sender)}
        sent: set[int] = set()
        if earlier:
            sent = self.members.sent_to(earlier[-1].id, [m.id for m in found.values()])
        members = [found.get(row.address) for row in rows]
        before = sum(1 for m in members if m and m.id in sent)
        unwanted = sum(
            1 for m in members if m and m.id not in sent and m.state in _UNWANTED
        )
        return Progress(len(rows) - before - unwanted, before, unwanted)

    def preview(self, row: Row) -> bytes:
        """Return a copy whose links lead nowhere."""
        return self._copy("preview", row, 0)

    def _sorted(
        self, run: Run, rows: Sequence[Row]
    ) -> tuple[list[tuple[Row, Member]], Progress]:
        """Return who is to get it, and how many are not."""
        addresses = [row.address for row in rows]
        found = self.members.contacts(self.newsletter.sender, addresses)
        sent = self.members.sent_to(run.id, [member.id for member in found])
        wanted, before, unwanted = [], 0, 0
        for row, member in zip(rows, found, strict=True):
            if member.id in sent:
                before += 1
            elif member.state in _UNWANTED:
                unwanted += 1
            else:
                wanted.append((row, member))
        return wanted, Progress(before=before, unwanted=unwanted)

    def _batches(
        self, run: Run, wanted: Sequence[tuple[Row, Member]]
    ) -> Iterator[list[tuple[Member, dict[str, object]]]]:
        sender = self.newsletter.sender
        name = f"{self.newsletter.key[:16]}.{int(run.at_utc)}.{run.id}"
        batch: list[tuple[Member, dict[str, object]]] = []
        octets = 0
        for row, member in wanted:
            content = self._copy(name, row, member.id)
            if batch and octets + len(content) > MAX_BATCH_OCTETS:
                yield batch
                batch, octets = [], 0
            octets += len(content)
            token = self.tokens.make(Purpose.BOUNCE, member.id)
            message = {
                "once": f"{name}:{row.address}",
                "reverse_path": write(sender, Command.BOUNCES, token),
                "forward_paths": [row.address],
                "priority": Priority.BULK,
                "octets": b64encode(content).decode(),
            }
            batch.append((member, message))
        if batch:
            yield batch

    def _copy(self, name: str, row: Row, member: int) -> bytes:
        sender = self.newsletter.sender
        token = self.tokens.make(Purpose.UNSUBSCRIBE, member)
        if self.base_url is None:
            link = f"mailto:{write(sender, Command.UNSUBSCRIBE, token)}"
        else:
            link = unsubscribe_link(self.base_url, token)
        return self.newsletter.copy(
            row.address,
            {**row.values, LINK: link},
            unsubscribe_fields(sender, token, self.base_url),
            f"{name}.{member}@{self.hostname}",
            self.now(),
        )
