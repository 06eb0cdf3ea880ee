"""Who may post to a list, and how a post becomes messages to its members.

Each member has a message of his own as far as the header goes: a reverse-path that
names him (VERP) and a way to leave. The body is that of the post, from the same file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from mailsrv.accounts.directory import MailingList
from mailsrv.dns.resolver import IResolver
from mailsrv.lists.dmarc import is_strict
from mailsrv.lists.members import Member, Members, State
from mailsrv.lists.post import (
    Post,
    changes_signed,
    distributed,
    unsubscribe_fields,
)
from mailsrv.lists.tokens import Purpose, Tokens
from mailsrv.queue.addressing import Addressing
from mailsrv.queue.spool import Spool
from mailsrv.queue.values import Message, Priority, Recipient
from mailsrv.routing.list_addresses import Command, write
from mailsrv.store.delivery import LineCounter
from mailsrv.threads import Pool
from mailsrv.trust.dkim import PreparedBody, Signer

Entries = Sequence[tuple[Message, Sequence[Recipient]]]

_AT_A_TIME = 50  # signatures in one job of a thread


def may_post(mailing: MailingList, address: str, *, is_member: bool) -> bool:
    """Whether an author's post goes to the members at once."""
    if address in mailing.posters or address in mailing.owners:
        return True
    match mailing.posting:
        case "anyone":
            return True
        case "members":
            return is_member
    return False  # moderated, announce


def same_for(
    message: Message, id: str, recipients: Sequence[Recipient]
) -> tuple[Message, Sequence[Recipient]]:
    """Return the message as it is, for others, once."""
    return replace(message, id=id, once=id), recipients


def sent_octets(path: Path, skip_octets: int) -> int:
    """Return the size of a file's rest as it is sent, with CRLF; blocking."""
    count = LineCounter()
    with path.open("rb") as file:
        file.seek(skip_octets)
        while octets := file.read(1 << 16):
            count.feed(octets)
    return count.octets + count.added


@dataclass(frozen=True, slots=True)
class Distributor:
    """Makes the queue's rows of posts."""

    members: Members
    tokens: Tokens
    signer: Signer
    addressing: Addressing
    spool: Spool
    resolver: IResolver
    base_url: Callable[[], str | None]
    reading: Pool
    now: Callable[[], float]

    async def entries(
        self, message: Message, post: Post, mailing: MailingList
    ) -> Entries:
        """Return the message to all members; none: nobody is on the list."""
        _, author = post.author
        rewrite_from = await self._must_rewrite(post, mailing, author)
        header = distributed(post, mailing, rewrite_from=rewrite_from)
        run = self.reading.run
        subscribed = await run(
            lambda: self.members.of_list(mailing.name, State.SUBSCRIBED)
        )
        # Once: an alias may lead to a list that the message names as well.
        id = f"{message.id}.{mailing.name}"
        made, body = await run(lambda: self._made(message, header, id, mailing))
        rows: list[Recipient] = []
        for first in range(0, len(subscribed), _AT_A_TIME):
            some = subscribed[first : first + _AT_A_TIME]
            prefixes = await run(partial(self._prefixes, some, header, body))
            for member, prefix in zip(some, prefixes, strict=True):
                rows += await self._rows(id, member, prefix)
        return ((made, rows),) if rows else ()

    async def _must_rewrite(
        self, post: Post, mailing: MailingList, author: str
    ) -> bool:
        """Whether the author's domain would have the members' servers refuse it."""
        domain = author.partition("@")[2]
        if not domain or domain == mailing.name.partition("@")[2]:
            return False
        if post.is_signed_by(domain) and not changes_signed(post, mailing):
            return False
        return await is_strict(self.resolver, domain)

    def _made(
        self, message: Message, header: bytes, id: str, mailing: MailingList
    ) -> tuple[Message, PreparedBody]:
        """Return the message with the list's header, and its body for signatures."""
        with self.spool.open(message) as (old, body):
            prepared = self.signer.prepare(body)
        in_file = len(old.replace(b"\r\n", b"\n"))
        made = replace(
            message,
            id=id,
            reverse_path=mailing.name,
            arrived_at_utc=self.now(),
            priority=Priority.BULK,
            prefix=header,
            skip_octets=message.skip_octets + in_file,
            size_octets=message.size_octets - len(old),
            ret="",
            envid="",
            once=id,
        )
        return made, prepared

    def _prefixes(
        self, members: Sequence[Member], header: bytes, body: PreparedBody
    ) -> list[bytes]:
        """Return the fields of each member's own, signed together with the others."""
        base = self.base_url()
        prefixes = []
        for member in members:
            token = self.tokens.make(Purpose.UNSUBSCRIBE, member.id)
            own = unsubscribe_fields(member.list, token, base)
            prefixes.append(self.signer.sign(own + header, body) + own)
        return prefixes

    async def _rows(
        self, id: str, member: Member, prefix: bytes
    ) -> Sequence[Recipient]:
        token = self.tokens.make(Purpose.BOUNCE, member.id)
        reverse_path = write(member.list, Command.BOUNCES, token)
        found = await self.addressing.recipients(id, [member.address], self.now())
        return [
            replace(r, reverse_path=reverse_path, prefix=prefix, notify="FAILURE")
            for r in found
        ]
