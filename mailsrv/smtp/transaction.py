"""One mail transaction: who may send to whom, and the way of the content.

The decisions of MAIL and RCPT, the header block's trace fields and mends, and the
delivery into all mailboxes before the 250. Waits for the router and the store;
knows nothing of connections.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress
from mailsrv.accounts.devices import Devices
from mailsrv.accounts.directory import Account
from mailsrv.accounts.scram import ChannelBinding
from mailsrv.doors.guest import Asked, PluginFailed, decide
from mailsrv.doors.message import Message
from mailsrv.doors.values import Accept, Defer, Recipient, Reject, Sender
from mailsrv.interfaces import IContent
from mailsrv.routing.router import Disabled, Local, Outside, Router, Unknown
from mailsrv.settings import SmtpSettings
from mailsrv.smtp.content import TOO_BIG
from mailsrv.smtp.engine import Role
from mailsrv.smtp.events import Mail
from mailsrv.smtp.header import (
    Block,
    Header,
    HeaderReader,
    date_time,
    protocol,
    received,
)
from mailsrv.smtp.policies import Accounts, Policies, judge
from mailsrv.smtp.reply import LOCAL_ERROR, OK, Refused, Replies, Reply
from mailsrv.store.values import (
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
NO_QUEUE = Reply(
    451, "4.3.0", "This server has no outbound queue yet: own domains only"
)
NEEDS_SMTPUTF8 = Reply(553, "5.6.7", "Such an address needs SMTPUTF8 in MAIL")
LOOP = Reply(554, "5.4.6", "Too many Received fields: a mail loop")
DISK_FULL = Reply(452, "4.3.1", "Not enough disk space, try again later")


class Incoming(Protocol):
    """A message on its way into mailboxes: see mailsrv.mailboxes.incoming."""

    @property
    def full(self) -> bool: ...
    def feed(self, data: bytes) -> None: ...
    def drained(self) -> Awaitable[None]: ...
    def content(self) -> Awaitable[IContent]: ...
    def replace_header(self, header: bytes) -> Awaitable[None]: ...
    def redirect(self, targets: Sequence[Target]) -> None: ...
    def commit(self) -> Awaitable[object]: ...
    def abort(self) -> Awaitable[None]: ...


class MailStore(Accounts, Protocol):
    """Where mail is kept: see mailsrv.mailboxes.store."""

    def receive(
        self, targets: Sequence[Target], header: bytes, *, apart: bool = False
    ) -> Incoming: ...


@dataclass(frozen=True, slots=True)
class Site:
    """What all transactions of a service work with."""

    service: str  # for the log
    hostname: str
    settings: SmtpSettings
    router: Router
    mail_store: MailStore
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

    @property
    def own_address(self) -> str:
        """The sender of what says none."""
        if self.account is not None:
            return self.account.name
        return self.devices.send_as[0] if self.devices is not None else ""


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
        self._folders: list[tuple[str, ...]] = []  # of each recipient
        self._failed: dict[str, Reply] = {}  # by folder: copies that are not there
        self._targets: dict[str, Target] = {}  # by folder: each mailbox once
        self._accounts: dict[str, Account] = {}  # those of the targets, by folder
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
        )

    async def check_sender(self) -> Reply:
        """Decide on MAIL."""
        if self.mail.size_octets > self._site.settings.max_message_octets:
            raise Refused(TOO_BIG)
        policies = self._site.policies.sender
        sender = self._sender
        await self._decide(policies, lambda policy: policy.sender(sender))
        return OK

    async def add_recipient(self, forward_path: str) -> Reply:
        """Decide on one RCPT."""
        if not forward_path.isascii() and not self.mail.smtputf8:
            raise Refused(NEEDS_SMTPUTF8)
        try:
            destination = await self._site.router.resolve(forward_path)
        except InvalidAddress as error:
            raise Refused(NOT_AN_ADDRESS) from error
        except PluginFailed as error:
            raise Refused(LOCAL_ERROR) from error
        match destination:
            case Outside():
                raise Refused(NO_QUEUE if self._submission else NO_RELAY)
            case Unknown():
                raise Refused(UNKNOWN_RECIPIENT)
            case Disabled():
                raise Refused(DISABLED_RECIPIENT)
            case Local(address, accounts):
                names = tuple(account.name for account in accounts)
                recipient = Recipient(self._sender, forward_path, names)
                policies = self._site.policies.recipient
                await self._decide(policies, lambda p: p.recipient(recipient))
                for account in accounts:
                    self._accounts[account.folder] = account
                    self._targets.setdefault(
                        account.folder,
                        Target(account.folder, delivered_to=address.encode()),
                    )
                self._folders.append(tuple(a.folder for a in accounts))
        self.recipients.append(forward_path)
        return OK

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
            if self._targets:  # else deliverers have taken all copies
                await self._incoming.commit()
        except PartlyDelivered as partly:
            for target, failed in partly.failed.items():
                self._failed[target.folder] = self._failure(failed)
        except StoreError as failed:  # the disk, or a mailbox that is locked for long
            return self._failure(failed)
        except PluginFailed:
            return LOCAL_ERROR
        return Reply(250, "2.0.0", f"Ok, id {self.name}")

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
            if self._targets:
                incoming.redirect([*self._targets.values()])

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
        incoming.redirect([*self._targets.values()])

    async def _deliver(self, message: Message) -> None:
        """Give copies to the deliverers that take them; the rest is for mailboxes."""
        for folder, account in self._accounts.items():
            try:
                taken = await self._take(message, account)
            except PluginFailed:
                if self._client.role != "lmtp":
                    raise
                self._failed[folder] = LOCAL_ERROR
                taken = True
            if taken:
                del self._targets[folder]

    async def _take(self, message: Message, account: Account) -> bool:
        for deliverer in self._site.policies.deliverers:
            if await deliverer.ask(lambda d: d.deliver(message, account.name), bool):
                log.info(
                    "{plugin} has taken the mail of {account}",
                    plugin=deliverer.name,
                    account=account.name,
                    **self._who,
                )
                return True
        return False

    def replies(self, reply: Reply) -> Replies:
        """Return LMTP's replies, `reply` to each recipient who has no other."""
        return Replies(
            tuple(
                next((self._failed[f] for f in folders if f in self._failed), reply)
                for folders in self._folders
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
        # RFC 5321 section 4.4: only the last server sets Return-Path, we.
        settled = header.without(b"return-path")
        if self._submission:
            settled = self._mended(header)
        self._header = HeaderReader()
        reverse_path = f"Return-Path: <{self.mail.reverse_path}>\r\n".encode()
        self._block = Block(reverse_path, self._received(), settled)
        # RFC 2033 section 4.2: LMTP's client learns of each recipient.
        apart = self._client.role == "lmtp"
        targets = [*self._targets.values()]
        block = self._block.octets
        return self._site.mail_store.receive(targets, block, apart=apart), body

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
