"""Who may send what to whom: the rules of every server, and those that plugins add.

The built-in rules come through the same doors as plugins (`mailsrv.interfaces`). The
first that says no has decided; of messages, edits and quarantine add up.
"""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.devices import Devices, HourlyLimit
from mailsrv.accounts.directory import Account
from mailsrv.connections import network_of
from mailsrv.doors.guest import Asked, BuiltIn
from mailsrv.doors.message import Message
from mailsrv.doors.values import (
    ACCEPT,
    Accept,
    Decision,
    Defer,
    Edit,
    Quarantine,
    Recipient,
    Reject,
    Sender,
    Verdict,
)
from mailsrv.interfaces import IMessagePolicy, IRecipientPolicy, ISenderPolicy
from mailsrv.routing.router import Outside, Router
from mailsrv.smtp.engine import Role
from mailsrv.smtp.header import Header
from mailsrv.smtp.reply import Refused

log = Logger()

NOT_YOUR_ADDRESS = Reject("You may not send as this address", 553, "5.7.1")
NOT_YOUR_FROM = Reject("You may not send as the address in From", 550, "5.7.1")
TOO_MANY_MESSAGES = Defer(
    "Too many messages of this device in an hour, try again later", 451, "4.7.1"
)
MAILBOX_FULL = Reject("Mailbox full", 552, "5.2.2")
MAILBOX_FULL_FOR_NOW = Defer("Mailbox full, try again later", 452, "4.2.2")


class Mailboxes(Protocol):
    """An account's mailboxes: see mailsrv.mailboxes.account."""

    def has_room(self, octets: int) -> Awaitable[bool]: ...
    def junk(self) -> Awaitable[str]: ...
    def sent(self) -> Awaitable[str]: ...


class Accounts(Protocol):
    """Where mail is kept: see mailsrv.mailboxes.store."""

    def account(self, account: Account) -> Mailboxes: ...


@dataclass(frozen=True, slots=True)
class Policies:
    """Who is asked, in this order."""

    sender: Sequence[Asked] = ()
    recipient: Sequence[Asked] = ()
    message: Sequence[Asked] = ()
    deliverers: Sequence[Asked] = ()


def with_rules(
    plugins: Policies,
    role: Role,
    router: Router,
    accounts: Accounts,
    over_quota: str,
    devices: Devices | None,
    limit: HourlyLimit,
) -> Policies:
    """Return the built-in rules, and `plugins` after them.

    `devices` says what the peer may do while nobody has logged in.
    """
    own: list[Asked] = []
    often: list[Asked] = []
    if role == "submission":
        own = [BuiltIn("own-addresses", OwnAddresses(router, devices))]
    if devices is not None:
        often = [BuiltIn("hourly-limit", DeviceLimit(devices, limit))]
    room = BuiltIn("room-for-mail", RoomForMail(router, accounts, over_quota))
    return Policies(
        [*own, *often, *plugins.sender],
        [room, *plugins.recipient],
        [*own, *plugins.message],
        plugins.deliverers,
    )


@implementer(ISenderPolicy, IMessagePolicy)
class OwnAddresses:
    """Users send as themselves, in MAIL (RFC 6409 section 6.1) and in From."""

    def __init__(self, router: Router, devices: Devices | None = None) -> None:
        self._router = router
        self._devices = devices

    async def sender(self, sender: Sender) -> Decision:
        if not sender.reverse_path:  # receipts and the like
            return ACCEPT
        good = await self._may_send_as(sender.account, sender.reverse_path)
        return ACCEPT if good else NOT_YOUR_ADDRESS

    async def message(self, message: Message) -> Verdict:
        try:
            senders = Header(message.header).senders()
        except Refused as refused:  # it is not plain who is meant
            reply = refused.reply
            return Reject(reply.text, reply.code, reply.enhanced_code)
        for address in senders:
            if not await self._may_send_as(message.sender.account, address):
                return NOT_YOUR_FROM
        return ACCEPT

    async def _may_send_as(self, name: str | None, address: str) -> bool:
        if name is None:
            return await self._may_device_send_as(address)
        account = self._router.account(name)
        if account is None:
            return False
        return await self._router.may_send_as(account, address)

    async def _may_device_send_as(self, address: str) -> bool:
        if self._devices is None:
            return False
        try:
            # Whatever the settings say: no address of another domain.
            if isinstance(await self._router.resolve(address), Outside):
                return False
            canonical = parse(address).canonical
            return self._devices.any_own_address or canonical in self._devices.send_as
        except InvalidAddress:
            return False


@implementer(ISenderPolicy)
class DeviceLimit:
    """Devices that do not log in send so many messages in an hour."""

    def __init__(self, devices: Devices, limit: HourlyLimit) -> None:
        self._devices = devices
        self._limit = limit

    def sender(self, sender: Sender) -> Decision:
        if sender.account is not None:
            return ACCEPT
        most = self._devices.max_messages_per_hour
        # A program of this machine has no address.
        who = network_of(sender.peer) or self._devices.network
        good = self._limit.take(who, most)
        return ACCEPT if good else TOO_MANY_MESSAGES


@implementer(IRecipientPolicy)
class RoomForMail:
    """Refuses mail if all mailboxes of a recipient are full.

    One full mailbox of a group does not keep mail from the others, nor does its
    owner silently miss it: that one goes beyond its quota.
    """

    def __init__(self, router: Router, accounts: Accounts, over_quota: str) -> None:
        self._router = router
        self._accounts = accounts
        self._full = MAILBOX_FULL_FOR_NOW if over_quota == "defer" else MAILBOX_FULL

    async def recipient(self, recipient: Recipient) -> Decision:
        if not recipient.accounts:  # the mail goes elsewhere
            return ACCEPT
        for name in recipient.accounts:
            account = self._router.account(name)
            if account is None:  # deleted in this moment
                continue
            if account.quota_octets is None:
                return ACCEPT
            mailboxes = self._accounts.account(account)
            if await mailboxes.has_room(recipient.sender.size_octets):
                return ACCEPT
        return self._full


@dataclass(slots=True)
class Judgement:
    """What the message policies have said together."""

    refusal: Reject | Defer | None = None
    quarantined: bool = False
    edits: list[Edit] = field(default_factory=list)

    def edit(self, edit: Edit) -> None:
        """Note an edit, if it is one."""
        if edit.add or edit.remove:
            self.edits.append(edit)


async def judge(
    policies: Sequence[Asked], message: Message, who: Mapping[str, Any]
) -> Judgement:
    """Ask all message policies, until one refuses. Raises `PluginFailed`.

    `who` are log fields: Any, as the log takes all values.
    """
    judgement = Judgement()
    for policy in policies:
        verdict: Verdict = await policy.ask(
            lambda provider: provider.message(message),
            *(Accept, Reject, Defer, Edit, Quarantine),
        )
        match verdict:
            case Reject(text) | Defer(text):
                judgement.refusal = verdict
                log.info(
                    "{policy} says no: {reason}", policy=policy.name, reason=text, **who
                )
                return judgement
            case Edit():
                judgement.edit(verdict)
            case Quarantine(reason, edit):
                judgement.quarantined = True
                judgement.edit(edit)
                log.info(
                    "{policy} quarantines: {reason}",
                    policy=policy.name,
                    reason=reason,
                    **who,
                )
    return judgement
