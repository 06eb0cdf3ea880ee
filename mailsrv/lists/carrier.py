"""The carrier of mail to lists: posts go to the members, commands are done.

Nobody is answered whom a forger could have named: who may not post is refused in SMTP,
and what passes there waits for a moderator.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.directory import Directory, MailingList
from mailsrv.lists import bounces, posting
from mailsrv.lists.letters import Letter, Writer
from mailsrv.lists.members import Held, Member, Members, State
from mailsrv.lists.post import (
    Post,
    confirm_link,
    read,
    subject,
    unsubscribe_link,
)
from mailsrv.lists.posting import Distributor
from mailsrv.lists.tokens import BadToken, Purpose, Tokens
from mailsrv.queue.addressing import Addressing
from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.spool import Spool
from mailsrv.queue.values import LIST, Answer, Message, Priority, Recipient
from mailsrv.routing import list_addresses
from mailsrv.routing.list_addresses import Command, ListAddress
from mailsrv.threads import Pool

log = Logger()
T = TypeVar("T")

MAX_BOUNCE_OCTETS = 1024 * 1024
HELD_DAYS = 14
CONFIRM_DAYS = 7
SUSPEND_AFTER_DAYS = 3  # days with a failure for good
SUSPEND_WITHIN_DAYS = 30

_Said = tuple[int, str, str]
_DONE = (250, "2.0.0", "Done")
_NO_LIST = (550, "5.1.1", "No such list here")
_IGNORED = (250, "2.0.0", "Ignored")
_BAD_TOKEN = (250, "2.0.0", "Ignored: the address is none that was made here")


class Submit(Protocol):
    """See `queue.queue.Queue.submit`."""

    async def __call__(
        self,
        octets: bytes,
        *,
        reverse_path: str,
        forward_paths: Sequence[str],
        priority: Priority = Priority.LETTER,
        account: str | None = None,
        once: str = "",
    ) -> str: ...


@dataclass(frozen=True, slots=True)
class _Mail:
    """A message to one address of a list."""

    message: Message
    list: MailingList | None  # None: another entry, in whose name newsletters go
    to: ListAddress
    post: Post


class ListCarrier:
    """The carrier of `LIST`; a forward-path is an address of a list."""

    def __init__(
        self,
        members: Members,
        tokens: Tokens,
        distributor: Distributor,
        *,
        directory: Callable[[], Directory],
        addressing: Addressing,
        spool: Spool,
        submit: Submit,
        held_folder: Path,
        hostname: str,
        base_url: Callable[[], str | None],
        reading: Pool,
        now: Callable[[], float],
    ) -> None:
        self._members = members
        self._tokens = tokens
        self._distributor = distributor
        self._directory = directory
        self._addressing = addressing
        self._spool = spool
        self._submit = submit
        self._held_folder = held_folder
        self._hostname = hostname
        self._base_url = base_url
        self._reading = reading
        self._now = now

    def route(self, reverse_path: str, destination: str) -> str:
        return LIST

    async def carry(self, parcel: Parcel) -> Outcome:
        answers: list[Answer] = []
        new: list[tuple[Message, Sequence[Recipient]]] = []
        header = await self._reading.run(
            partial(self._spool.beginning, parcel.message, whole=False)
        )
        post = read(header)
        for recipient in parcel.recipients:
            said, more = await self._to(recipient.forward_path, parcel.message, post)
            answers.append(Answer(*said, self._now()))
            new += more
        return Outcome(tuple(answers), tuple(new))

    async def _to(
        self, forward_path: str, message: Message, post: Post
    ) -> tuple[_Said, posting.Entries]:
        directory = self._directory()
        try:
            to = list_addresses.find(directory, parse(forward_path))
        except InvalidAddress:
            to = None
        if to is None:
            return _NO_LIST, ()
        entry = directory.entries.get(to.name)
        mailing = entry if isinstance(entry, MailingList) else None
        mail = _Mail(message, mailing, to, post)
        if to.command is Command.BOUNCES:
            return await self._bounced(mail), ()
        if to.command is Command.UNSUBSCRIBE:
            return await self._unsubscribe(mail), ()
        if mailing is None:
            return _NO_LIST, ()
        if post.has_passed(mailing.name):
            return _IGNORED, ()
        if to.command in list_addresses.TO_PEOPLE:  # who also get our own notices
            return _DONE, await self._to_owners(mail, mailing)
        if to.command is Command.POST and not post.is_answer:
            return await self._post(mail, mailing)
        if post.is_automatic:
            return _IGNORED, ()
        if to.command is Command.SUBSCRIBE:
            return await self._subscribe(mail, mailing), ()
        if to.command is Command.CONFIRM:
            return await self._confirm(mail), ()
        return await self._moderate(mail, mailing)

    # Posts

    async def _post(
        self, mail: _Mail, mailing: MailingList
    ) -> tuple[_Said, posting.Entries]:
        _, author = mail.post.author
        member = await self._run(lambda: self._members.find(mailing.name, author))
        is_member = member is not None and member.state is State.SUBSCRIBED
        may_post = posting.may_post(mailing, author, is_member=is_member)
        if may_post and self._has_logged_in(mail.message, mailing, author):
            return _DONE, await self._distributor.entries(
                mail.message, mail.post, mailing
            )
        await self._hold(mail, mailing, author)
        return (250, "2.0.0", "Waits for a moderator"), ()

    def _has_logged_in(
        self, message: Message, mailing: MailingList, author: str
    ) -> bool:
        """Whether an author whose account is here is who has sent the message.

        Who uses our domains in the reverse-path was asked in SMTP (`ListPosting`); in
        From alone others could write it. Of authors elsewhere nothing is known.
        """
        own = self._directory().domains
        is_ours = author.rpartition("@")[2] in own
        sender_domain = message.reverse_path.rpartition("@")[2].lower()
        return mailing.posting == "anyone" or not is_ours or sender_domain in own

    async def _hold(self, mail: _Mail, mailing: MailingList, author: str) -> None:
        """Keep a post until a moderator has decided, and ask the owners."""
        message, about = mail.message, subject(mail.post)

        def keep() -> Held:
            self._held_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # an attempt before this one
                os.link(
                    self._spool.path(message.file), self._held_folder / message.file
                )
            return self._members.hold(
                mailing.name,
                message.file,
                message.reverse_path,
                author,
                about,
                require_tls=message.require_tls,
            )

        held = await self._run(keep)
        token = self._tokens.make(Purpose.MODERATE, held.id, HELD_DAYS)
        letter = self._writer(mailing).held(author, about, token, HELD_DAYS, held.id)
        await self._send(letter, once=f"held-{held.id}")

    async def _moderate(
        self, mail: _Mail, mailing: MailingList
    ) -> tuple[_Said, posting.Entries]:
        try:
            number = self._tokens.read(Purpose.MODERATE, mail.to.token)
        except BadToken:
            return _BAD_TOKEN, ()
        approved = mail.to.command is Command.APPROVE
        held = await self._run(lambda: self._members.held(number))
        if held is None or held.list != mailing.name:
            return _IGNORED, ()
        # The message that decided, since an attempt for it may be made again.
        decided = f"{mail.to.command} by {mail.message.id}"
        if not await self._run(lambda: self._members.decide(number, decided)):
            return _IGNORED, ()
        if not approved:
            await self._run(lambda: self._forget(held))
            return _DONE, ()
        message = await self._run(partial(self._restored, held, mail.message))
        header = await self._reading.run(
            partial(self._spool.beginning, message, whole=False)
        )
        return _DONE, await self._distributor.entries(message, read(header), mailing)

    def _restored(self, held: Held, asked: Message) -> Message:
        """Put a held post's file into the spool; blocking.

        The file in `held_folder` stays until the rows are there: `sweep` removes it.
        """
        source = self._held_folder / held.message
        with suppress(FileExistsError):
            os.link(source, self._spool.path(held.message))
        with open(source, "rb") as file:
            skip = len(file.readline())  # Return-Path
            eight_bit = not all(map(bytes.isascii, file))
        octets = posting.sent_octets(source, skip)
        return Message(
            f"{asked.id}.{held.id}",
            held.message,
            held.reverse_path,
            None,
            self._now(),
            Priority.BULK,
            octets,
            skip_octets=skip,
            eight_bit=eight_bit,
            require_tls=held.require_tls,
        )

    def _forget(self, held: Held) -> None:
        if not self._members.waits_elsewhere(held):
            with suppress(FileNotFoundError):
                os.unlink(self._held_folder / held.message)
        self._members.drop_held(held.id)

    def sweep(self) -> None:
        """Forget posts that nobody has decided on, and decided ones; blocking."""
        for held in self._members.overdue(HELD_DAYS * 86400.0):
            self._forget(held)

    async def _to_owners(self, mail: _Mail, mailing: MailingList) -> posting.Entries:
        id = f"{mail.message.id}.owner.{mailing.name}"
        owners = await self._addressing.recipients(id, mailing.owners, self._now())
        return (posting.same_for(mail.message, id, owners),) if owners else ()

    # Members

    async def _subscribe(self, mail: _Mail, mailing: MailingList) -> _Said:
        _, author = mail.post.author
        if mailing.joining != "open" or not author:
            return _IGNORED
        member = await self._run(lambda: self._members.find(mailing.name, author))
        if member is not None and member.state is State.SUBSCRIBED:
            return _IGNORED
        asked = await self._run(lambda: self._members.ask(mailing.name, author))
        if asked is None:
            return _IGNORED
        token = self._tokens.make(Purpose.CONFIRM, asked.id, CONFIRM_DAYS)
        base = self._base_url()
        link = None if base is None else confirm_link(base, token)
        await self._send(self._writer(mailing).question(author, token, link))
        return _DONE

    async def _confirm(self, mail: _Mail) -> _Said:
        return _DONE if await self.confirm(mail.to.token) else _BAD_TOKEN

    async def confirm(self, token: str) -> bool:
        """Make a member of who was asked, and welcome it. False: a bad token."""
        before = await self.named_by(Purpose.CONFIRM, token)
        if before is None:
            return False
        row = before.id
        if before.state is State.SUBSCRIBED:
            return True
        await self._run(lambda: self._members.set_state(row, State.SUBSCRIBED))
        if (mailing := self._list(before)) is not None:
            leave = self._tokens.make(Purpose.UNSUBSCRIBE, row)
            await self._send(self._writer(mailing).welcome(before.address, leave))
        return True

    async def _unsubscribe(self, mail: _Mail) -> _Said:
        if mail.to.token:
            return _DONE if await self.unsubscribe(mail.to.token) else _BAD_TOKEN
        _, author = mail.post.author
        name = mail.to.name
        if mail.post.is_automatic or not author or mail.list is None:
            return _IGNORED
        if mail.message.account != author:
            await self._ask_whether_to_leave(mail.list, author)
        elif await self._run(lambda: self._members.unsubscribe(name, author)):
            await self._say_goodbye(name, author, mail.message.id)
        return _DONE

    async def _ask_whether_to_leave(self, mailing: MailingList, author: str) -> None:
        """Ask a member, once a day: anybody can write its address into From."""
        member = await self._run(lambda: self._members.find(mailing.name, author))
        if member is None or member.state is State.UNSUBSCRIBED:
            return
        token = self._tokens.make(Purpose.UNSUBSCRIBE, member.id)
        base = self._base_url()
        link = None if base is None else unsubscribe_link(base, token)
        letter = self._writer(mailing).leave(author, token, link)
        await self._send(letter, once=f"leave-{member.id}-{int(self._now() // 86400)}")

    async def named_by(self, purpose: Purpose, token: str) -> Member | None:
        """Return whom a token names; None: a bad one."""
        try:
            row = self._tokens.read(purpose, token)
        except BadToken:
            return None
        return await self._run(lambda: self._members.get(row))

    async def unsubscribe(self, token: str) -> Member | None:
        """Take off whom a token names; None: a bad one."""
        member = await self.named_by(Purpose.UNSUBSCRIBE, token)
        if member is None:
            return None
        return await self._run(
            lambda: self._members.set_state(member.id, State.UNSUBSCRIBED)
        )

    async def _say_goodbye(self, name: str, address: str, key: str) -> None:
        entry = self._directory().entries.get(name)
        if isinstance(entry, MailingList):
            await self._send(self._writer(entry).goodbye(address, f"bye.{key}"))

    async def _bounced(self, mail: _Mail) -> _Said:
        try:
            row = self._tokens.read(Purpose.BOUNCE, mail.to.token)
        except BadToken:
            return _BAD_TOKEN
        message = mail.message
        if message.size_octets > MAX_BOUNCE_OCTETS:
            return _IGNORED

        def count() -> Member | None:
            content = self._spool.path(message.file).read_bytes()
            if bounces.read(content[message.skip_octets :]) is not bounces.Bounce.HARD:
                return None
            return self._members.bounced(row, SUSPEND_AFTER_DAYS, SUSPEND_WITHIN_DAYS)

        suspended = await self._run(count)
        if suspended is not None:
            log.info(
                "{address} is suspended from {list}: its mail fails",
                address=suspended.address,
                list=suspended.list,
                transaction=message.id,
            )
            if (mailing := self._list(suspended)) is not None:
                await self._send(
                    self._writer(mailing).suspended(suspended.address, suspended.id)
                )
        return _DONE

    # Inside

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._reading.run(call)

    def _list(self, member: Member) -> MailingList | None:
        entry = self._directory().entries.get(member.list)
        return entry if isinstance(entry, MailingList) else None

    def _writer(self, mailing: MailingList) -> Writer:
        return Writer(mailing, self._hostname, self._now())

    async def _send(self, letter: Letter, once: str = "") -> None:
        await self._submit(
            letter.octets,
            reverse_path="",
            forward_paths=[letter.forward_path],
            once=once,
        )
