"""One mail transaction: who may send to whom, and the way of the content.

The decisions of MAIL and RCPT, the header block's trace fields and mends, and the
delivery into all mailboxes and the queue before the 250. Waits for the router, the
store and the queue; knows nothing of connections.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from os import fsdecode
from typing import Any, Protocol

from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress
from mailsrv.accounts.devices import Devices
from mailsrv.accounts.directory import Account
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.doors.delivering import take
from mailsrv.doors.guest import Asked, PluginFailed, decide
from mailsrv.doors.message import Message
from mailsrv.doors.values import Accept, Defer, Recipient, Reject, Sender
from mailsrv.interfaces import IContent
from mailsrv.mailboxes.incoming import Confirm
from mailsrv.mime.date import date_time
from mailsrv.queue.spool import SHORT_OCTETS
from mailsrv.queue.values import Message as Queued
from mailsrv.queue.values import Priority
from mailsrv.queue.values import Recipient as Waiting
from mailsrv.routing.router import (
    POSTMASTER,
    Destination,
    Disabled,
    Local,
    Outside,
    Router,
    Unknown,
)
from mailsrv.settings import SmtpSettings
from mailsrv.smtp import onward
from mailsrv.smtp.content import TOO_BIG
from mailsrv.smtp.engine import Role
from mailsrv.smtp.events import Mail, Rcpt
from mailsrv.smtp.header import (
    Block,
    Header,
    HeaderReader,
    at_domain,
    protocol,
    received,
)
from mailsrv.smtp.onward import Onward
from mailsrv.smtp.policies import Accounts, Policies, judge
from mailsrv.smtp.reply import LOCAL_ERROR, OK, Refused, Replies, Reply
from mailsrv.store import sent
from mailsrv.store.values import (
    SEEN,
    Delivered,
    DeliveryFailed,
    PartlyDelivered,
    StoreError,
    Target,
)

log = Logger()

UNKNOWN_RECIPIENT = Reply(550, "5.1.1", "No such user here")
DISABLED_RECIPIENT = Reply(550, "5.2.1", "This mailbox is disabled")
NOT_AN_ADDRESS = Reply(501, "5.1.3", "That is not an address")
NO_RELAY = Reply(550, "5.7.1", "Mail for that domain is not taken here")
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "Such an address needs SMTPUTF8 in MAIL")
LOCALHOST = "localhost"
LOOP = Reply(554, "5.4.6", "Too many Received fields: a mail loop")
DISK_FULL = Reply(452, "4.3.1", "Not enough disk space, try again later")


class Incoming(Protocol):
    """A message on its way into mailboxes: see mailsrv.mailboxes.incoming."""

    @property
    def full(self) -> bool: ...
    def in_memory(self, most_octets: int) -> bytes | None: ...
    def feed(self, data: bytes) -> None: ...
    def drained(self) -> Awaitable[None]: ...
    def content(self) -> Awaitable[IContent]: ...
    def replace_header(self, header: bytes) -> Awaitable[None]: ...
    def redirect(self, targets: Sequence[Target]) -> None: ...
    def commit(self, confirm: Confirm) -> Awaitable[object]: ...
    def abort(self) -> Awaitable[None]: ...


class MailStore(Accounts, Protocol):
    """Where mail is kept: see mailsrv.mailboxes.store."""

    def receive(self, targets: Sequence[Target], header: bytes) -> Incoming: ...


class MailQueue(Protocol):
    """Where mail goes on from: see mailsrv.queue.queue."""

    @property
    def spool(self) -> Target: ...
    def keep(self, delivered: Delivered) -> Awaitable[str]: ...
    def take(
        self,
        message: Queued,
        recipients: Sequence[Waiting],
        *,
        sign: bool = False,
        octets: bytes | None = None,
    ) -> Awaitable[object]: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What all transactions of a service work with."""

    service: str  # for the log
    hostname: str
    settings: SmtpSettings
    router: Router
    mail_store: MailStore
    queue: MailQueue
    policies: Policies
    now: Callable[[], float]  # seconds since 1970


@dataclass(slots=True)
class Client:
    """What is known of the peer."""

    session: str
    peer: str  # IP address; empty: a UNIX socket
    role: Role
    name: str = ""  # as EHLO gave it
    extended: bool = False
    tls: str = ""  # version and cipher
    account: Account | None = None
    binding: ChannelBinding | None = None  # of its TLS
    devices: Devices | None = None  # what it may do without a log-in
    # Of a program of this machine: what stands for "localhost" in its addresses.
    domain: str = ""

    @property
    def own_address(self) -> str:
        """The sender of what says none."""
        if self.account is not None:
            return self.account.name
        return next(iter(self.devices.send_as if self.devices else ()), "")

    def at_home(self, address: str) -> str:
        """Return an address with the domain of this machine's mail."""
        local, _, domain = address.rpartition("@")
        return f"{local}@{self.domain}" if self.is_here(domain) else address

    def is_here(self, domain: str) -> bool:
        """Whether a program means this machine by `domain`."""
        return bool(self.domain) and domain.lower() == LOCALHOST


class Transaction:
    """From MAIL to the reply after the content. `abort` it in the end."""

    def __init__(self, site: Site, client: Client, mail: Mail, name: str) -> None:
        """`name` is unique for the transaction, here and elsewhere."""
        self.name = name
        self.mail = mail
        self.recipients: list[str] = []
        self.message_id = ""
        self.refusal: Reply | None = None
        self.begun_at_utc = site.now()
        self._site = site
        self._client = client
        self._submission = client.role == "submission"
        self._rcpts: list[tuple[Rcpt, Local | Outside]] = []
        self._onward = Onward(name, self.begun_at_utc)
        self._priority = Priority.LETTER
        self._eight_bit = False
        self._failed: dict[str, Reply] = {}  # by folder: copies that are not there
        self._targets: dict[str, Target] = {}  # by folder: each mailbox once
        self._accounts: dict[str, Account] = {}  # those of the targets, by folder
        self._sent: Target | None = None  # the sender's own copy
        self._header = HeaderReader()
        self._block = Block()
        self._incoming: Incoming | None = None

    @property
    def _who(self) -> dict[str, Any]:
        """The log fields that tell whose line it is. Any: the log takes all."""
        return {"session": self._client.session, "transaction": self.name}

    @property
    def _sender(self) -> Sender:
        """The sender, as policies are shown it; the account may be disabled by now."""
        client, mail = self._client, self.mail
        return Sender(
            self._site.service,
            client.peer,
            client.name,
            bool(client.tls),
            None if client.account is None else client.account.name,
            mail.reverse_path,
            mail.size_octets,
            "" if client.account is None else client.account.app,
        )

    async def check_sender(self) -> Reply:
        """Decide on MAIL."""
        here = self._client.at_home(self.mail.reverse_path)
        self.mail = replace(self.mail, reverse_path=here)
        if self.mail.size_octets > self._site.settings.max_message_octets:
            raise Refused(TOO_BIG)
        policies = self._site.policies.sender
        sender = self._sender
        await self._decide(policies, lambda policy: policy.sender(sender))
        return OK

    async def add_recipient(self, rcpt: Rcpt) -> Reply:
        """Decide on one RCPT."""
        if not rcpt.forward_path.isascii() and not self.mail.smtputf8:
            raise Refused(NEEDS_SMTPUTF8)
        try:
            destination = await self._resolve(rcpt.forward_path)
        except InvalidAddress as error:
            raise Refused(NOT_AN_ADDRESS) from error
        except PluginFailed as error:
            raise Refused(LOCAL_ERROR) from error
        if isinstance(destination, Unknown):
            raise Refused(UNKNOWN_RECIPIENT)
        if isinstance(destination, Disabled):
            raise Refused(DISABLED_RECIPIENT)
        if isinstance(destination, Outside) and not self._submission:
            raise Refused(NO_RELAY)
        accounts = destination.accounts if isinstance(destination, Local) else ()
        names = tuple(account.name for account in accounts)
        recipient = Recipient(self._sender, rcpt.forward_path, names)
        policies = self._site.policies.recipient
        await self._decide(policies, lambda p: p.recipient(recipient))
        self._add(rcpt, destination)
        return OK

    def _add(self, rcpt: Rcpt, destination: Local | Outside) -> None:
        self.recipients.append(rcpt.forward_path)
        if isinstance(destination, Local) and destination.is_several:
            rcpt = self._onward.expanded(rcpt, destination.address)
        self._rcpts.append((rcpt, destination))
        if isinstance(destination, Outside):
            self._onward.outside(rcpt, destination.address)
            return
        reverse_path = self._site.router.forwarder(
            self.mail.reverse_path, destination.address
        )
        self._onward.forwarded(rcpt, destination, reverse_path)
        for account in destination.accounts:
            self._accounts[account.folder] = account
            if "SUCCESS" in rcpt.notify:  # the queue delivers, and reports
                self._onward.account(rcpt, account)
                continue
            to = destination.address.encode()
            target = Target(account.folder, delivered_to=to)
            self._targets.setdefault(account.folder, target)

    async def _resolve(self, forward_path: str) -> Destination:
        """Find who receives it; mail to users of this machine goes to somebody."""
        router, client = self._site.router, self._client
        here = client.at_home(forward_path)
        destination = await router.resolve(here)
        if here != forward_path and isinstance(destination, Unknown):
            return await router.resolve(f"{POSTMASTER}@{client.domain}")
        return destination

    async def _decide(
        self, policies: Sequence[Asked], call: Callable[[Any], Any]
    ) -> None:
        """Refuse what a policy does not accept. Any: policies of each door."""
        try:
            decision = await decide(policies, call, self._who)
        except PluginFailed as error:
            raise Refused(LOCAL_ERROR) from error
        if not isinstance(decision, Accept):
            raise Refused(_reply(decision))

    async def feed(self, octets: bytes) -> None:
        """Take content. After a failure the rest goes nowhere."""
        if self.refusal is not None:
            return
        self._eight_bit = self._eight_bit or not octets.isascii()
        if self._incoming is None:
            parts = self._header.feed(octets)
            if parts is None:
                return
            self._incoming, octets = await self._begin(*parts)
        self._incoming.feed(octets)
        if self._incoming.full:
            await self._incoming.drained()

    async def finish(self) -> Reply:
        """Deliver; the reply is positive only when every copy is durable."""
        if self.refusal is not None:
            return self.refusal
        if self._incoming is None:
            self._incoming, body = await self._begin(*self._header.finish())
            self._incoming.feed(body)
        try:
            await self._judge(self._incoming)
            if not all(map(self._site.router.exists, self._accounts.values())):
                # Deleted since RCPT: nobody would ever see what is put there, but an
                # account that is made later under that name. The retry is refused.
                return LOCAL_ERROR
            if self._all_targets():  # else deliverers have taken all
                await self._incoming.commit(self._confirm)
        except PartlyDelivered:  # the others wait, or their replies say so
            pass
        except StoreError as failed:  # the disk, or a mailbox that is locked for long
            return self._failure(failed)
        except PluginFailed:
            return LOCAL_ERROR
        return Reply(250, "2.0.0", f"Ok, id {self.name}")

    async def _confirm(
        self, delivered: Sequence[Delivered], failed: Mapping[Target, StoreError]
    ) -> None:
        """Hand to the queue what is to go on. Raises StoreError: all is taken back."""
        queue = self._site.queue
        if (error := failed.get(queue.spool)) is not None:
            raise error
        for target, reason in failed.items():
            reply = self._failure(reason)
            if target != self._sent:  # which may be missing: the mail goes out
                self._fail(target.folder, reply)
        self._keep_rest()
        if not self._onward:
            return
        spooled = next((c for c in delivered if c.target == queue.spool), None)
        copy = delivered[0] if spooled is None else spooled
        file = fsdecode(copy.base) if spooled else await queue.keep(copy)
        recipients = self._onward.recipients
        message = onward.message(
            self.name,
            self.mail,
            None if self._client.account is None else self._client.account.name,
            self._block.octets,
            copy,
            file,
            at_utc=self._onward.at_utc,
            priority=self._priority,
            eight_bit=self._eight_bit,
        )
        incoming = self._incoming
        octets = incoming.in_memory(SHORT_OCTETS) if incoming else None
        await queue.take(message, recipients, sign=self._submission, octets=octets)

    def _fail(self, folder: str, reply: Reply) -> None:
        """See to a copy that cannot be made now: it waits, or LMTP's client does."""
        self._failed[folder] = reply
        if self._client.role != "lmtp":
            self._let_wait(folder)

    def _let_wait(self, folder: str) -> None:
        for rcpt, destination in self._rcpts:
            for account in getattr(destination, "accounts", ()):
                if account.folder == folder:
                    self._onward.account(rcpt, account)

    def _keep_rest(self) -> None:
        """Have the rest wait of what LMTP's client could not send in part again.

        An alias has one reply: if it were a refusal, its other members would get the
        message again, each time that the client tries.
        """
        if self._client.role != "lmtp" or not self._failed:
            return
        reached = [
            (
                {account.folder for account in getattr(destination, "accounts", ())},
                bool(getattr(destination, "outside", ()))
                or bool(getattr(destination, "lists", ())),
            )
            for _, destination in self._rcpts
        ]
        found = True
        while found:  # what waits is kept, and so may be a part of another alias
            found = False
            for folders, elsewhere in reached:
                failed = folders & self._failed.keys()
                if failed and (elsewhere or folders > failed):
                    for folder in failed:
                        del self._failed[folder]
                        self._let_wait(folder)
                    found = True

    def _all_targets(self) -> list[Target]:
        targets = [*self._targets.values()]
        if self._onward:
            targets.append(self._site.queue.spool)
        if self._sent is not None:
            targets.append(self._sent)
        return targets

    async def _file_sent(self) -> None:
        """Have a copy filed for a sender who wants it."""
        known = self._client.account
        account = None if known is None else self._site.router.account(known.name)
        if account is None or not account.files_sent:
            return
        try:
            mailbox = await self._site.mail_store.account(account).sent()
        except StoreError as error:
            self._failure(error)  # for the log: the mail goes out without
            return
        self._sent = Target(account.folder, mailbox, flags=SEEN, delivery_id=sent.FILED)

    async def _judge(self, incoming: Incoming) -> None:
        """Do what message policies and deliverers say, before any copy is there."""
        policies = self._site.policies
        if policies.message:
            async with self._read(incoming) as message:
                judgement = await judge(policies.message, message, self._who)
            if judgement.refusal is not None:
                raise Refused(_reply(judgement.refusal))
            if judgement.edits:
                self._block.edit(judgement.edits)
                await incoming.replace_header(self._block.octets)
            if judgement.quarantined:
                await self._quarantine(incoming)
                return
        if policies.deliverers:
            async with self._read(incoming) as message:
                await self._deliver(message)
            if targets := self._all_targets():
                incoming.redirect(targets)

    @asynccontextmanager
    async def _read(self, incoming: Incoming) -> AsyncIterator[Message]:
        content = await incoming.content()
        try:
            recipients = tuple(self.recipients)
            octets = self._block.octets
            yield Message(self.name, self._sender, recipients, octets, content)
        finally:
            content.close()

    async def _quarantine(self, incoming: Incoming) -> None:
        for folder, target in self._targets.items():
            mailboxes = self._site.mail_store.account(self._accounts[folder])
            junk = await mailboxes.junk()
            self._targets[folder] = replace(target, mailbox=junk)
        incoming.redirect(self._all_targets())

    async def _deliver(self, message: Message) -> None:
        """Give copies to the deliverers that take them; the rest is for mailboxes."""
        taken = 0
        for folder in list(self._targets):
            try:
                name = self._accounts[folder].name
                deliverers = self._site.policies.deliverers
                if not await take(deliverers, message, name, self._who):
                    continue
                taken += 1
            except PluginFailed:
                self._fail(folder, LOCAL_ERROR)
            del self._targets[folder]
        self._keep_rest()
        waiting = len(self._onward.recipients)
        if (
            self._client.role != "lmtp"
            and waiting == len(self._failed)
            and not (taken or self._targets)
        ):
            raise PluginFailed("all copies")  # the sender keeps it

    def replies(self, reply: Reply) -> Replies:
        """Return LMTP's replies, `reply` to each recipient who has no other."""
        return Replies(
            tuple(
                next(
                    (
                        self._failed[account.folder]
                        for account in getattr(destination, "accounts", ())
                        if account.folder in self._failed
                    ),
                    reply,
                )
                for _, destination in self._rcpts
            )
        )

    def _failure(self, failed: StoreError) -> Reply:
        """Tell the admin what the disk said; the peer only hears that it failed."""
        why = failed.__cause__ or failed
        log.warn(
            "delivery failed: {reason}",
            session=self._client.session,
            transaction=self.name,
            reason=f"{type(why).__name__}: {why}",
        )
        full = isinstance(failed, DeliveryFailed) and failed.kind == "full"
        return DISK_FULL if full else LOCAL_ERROR

    async def refuse(self, reply: Reply) -> None:
        """Settle the message's reply; what comes of it goes nowhere."""
        self.refusal = reply
        await self.abort()

    async def abort(self) -> None:
        """Take back what was begun."""
        incoming, self._incoming = self._incoming, None
        self._header = HeaderReader()
        if incoming is not None:
            await incoming.abort()

    async def _begin(self, fields: bytes, body: bytes) -> tuple[Incoming, bytes]:
        """Settle the header block, and open the delivery with it."""
        header = Header(fields)
        self.message_id = header.value(b"message-id")
        if header.count(b"received") > self._site.settings.max_received:
            raise Refused(LOOP)
        self._priority = onward.priority(self.mail.reverse_path, header)
        # RFC 5321 section 4.4: only the last server sets Return-Path, we.
        settled = header.without(b"return-path")
        if self._submission:
            settled = self._mended(header)
            await self._file_sent()
        if self._client.domain:
            settled = at_domain(settled, self._client.domain)
        self._header = HeaderReader()
        reverse_path = f"Return-Path: <{self.mail.reverse_path}>\r\n".encode()
        self._block = Block(reverse_path, self._received(), settled)
        targets = self._all_targets()
        return self._site.mail_store.receive(targets, self._block.octets), body

    def _mended(self, header: Header) -> bytes:
        """Make the header of a new message whole (RFC 6409 section 8)."""
        added = []
        if not header.count(b"date"):
            added.append(f"Date: {date_time(self._site.now())}\r\n")
        if not header.count(b"from"):
            sender = self.mail.reverse_path or self._client.own_address
            added.append(f"From: <{sender}>\r\n")
        if not header.count(b"message-id"):
            self.message_id = f"<{self.name}@{self._site.hostname}>"
            added.append(f"Message-ID: {self.message_id}\r\n")
        # RFC 5322 section 3.6.3: the others must not learn of them.
        kept = header.without(b"bcc", b"resent-bcc", b"return-path")
        return "".join(added).encode() + kept

    def _received(self) -> bytes:
        client = self._client
        return received(
            client_name=client.name,
            peer=client.peer,
            hostname=self._site.hostname,
            protocol=protocol(
                extended=client.extended,
                lmtp=client.role == "lmtp",
                utf8=self.mail.smtputf8,
                tls=bool(client.tls),
                authenticated=client.account is not None,
            ),
            tls=client.tls,
            transaction=self.name,
            forward_path=self.recipients[0] if len(self.recipients) == 1 else "",
            date=date_time(self._site.now()),
        )


def _reply(decision: Reject | Defer) -> Reply:
    return Reply(decision.code, decision.enhanced_code, decision.text)
