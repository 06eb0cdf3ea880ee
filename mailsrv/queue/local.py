"""Delivers into mailboxes here what could not be delivered when it came in.

And what parts of the server write to accounts. A copy bears the id of its row in its
file name: one that was made just before a crash is recognised.
"""

import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

from twisted.logger import Logger

from mailsrv.accounts.directory import Account
from mailsrv.doors.delivering import take
from mailsrv.doors.guest import Asked, PluginFailed
from mailsrv.doors.message import Message as Shown
from mailsrv.doors.values import Sender
from mailsrv.mailboxes.store import MailStore
from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.spool import Spool
from mailsrv.queue.values import LOCAL, Answer, Recipient
from mailsrv.routing.router import Router
from mailsrv.store.values import PartlyDelivered, StoreError, Target
from mailsrv.threads import Pool

log = Logger()

_Said = tuple[int, str, str]
_DELIVERED = (250, "2.0.0", "Delivered")
_GONE = (550, "5.1.1", "No such user here")
_DISABLED = (550, "5.2.1", "This mailbox is disabled")
_FULL = (452, "4.2.2", "The mailbox is full")
_FILTER = (451, "4.3.0", "A filter of this server has failed")
_DISK = (451, "4.3.0", "The mailbox could not be written")


class LocalCarrier:
    """The carrier of `LOCAL`; a forward-path is an account's name."""

    def __init__(
        self,
        router: Router,
        mail_store: MailStore,
        spool: Spool,
        deliverers: Sequence[Asked],
        *,
        reading: Pool,
        now: Callable[[], float],
    ) -> None:
        self._router = router
        self._mail_store = mail_store
        self._spool = spool
        self._deliverers = deliverers
        self._reading = reading
        self._now = now
        self._begun_at_utc = now()

    def route(self, reverse_path: str, destination: str) -> str:
        return LOCAL

    async def carry(self, parcel: Parcel) -> Outcome:
        said: dict[int, _Said] = {}
        targets: dict[Target, int] = {}
        accounts: dict[int, Account] = {}
        for recipient in parcel.recipients:
            account = self._router.account(recipient.forward_path)
            if account is None:
                said[recipient.id] = _GONE
                continue
            target = _target(account, recipient)
            try:
                why = await self._settled(account, parcel, recipient, target)
            except (StoreError, OSError, sqlite3.Error) as error:  # of this one alone
                reason = f"{account.name}: {type(error).__name__}: {error}"
                log.warn("{transaction}: {reason}", reason=reason, **_who(parcel))
                why = _DISK
            if why is not None:
                said[recipient.id] = why
            else:
                targets[target] = recipient.id
                accounts[recipient.id] = account
        if targets:
            said |= await self._deliver(parcel, targets, accounts)
        now = self._now()
        answers = [Answer(*said[r.id], now) for r in parcel.recipients]
        return Outcome(tuple(answers))

    async def _settled(
        self, account: Account, parcel: Parcel, recipient: Recipient, target: Target
    ) -> _Said | None:
        """Say why there is no copy to be made; None: there is."""
        if not account.enabled:
            return _DISABLED
        mailboxes = self._mail_store.account(account)
        if not await mailboxes.has_room(parcel.message.size_octets):
            return _FULL
        if await self._is_there(parcel, recipient, target):
            return _DELIVERED
        return None

    async def _is_there(
        self, parcel: Parcel, recipient: Recipient, target: Target
    ) -> bool:
        again = recipient.attempts or parcel.message.arrived_at_utc < self._begun_at_utc
        return bool(again) and await self._mail_store.has(target)

    async def _deliver(
        self,
        parcel: Parcel,
        targets: dict[Target, int],
        accounts: dict[int, Account],
    ) -> dict[int, _Said]:
        said = dict.fromkeys(targets.values(), _DELIVERED)
        return_path = f"Return-Path: <{parcel.reverse_path}>\r\n".encode()
        incoming = self._mail_store.receive([*targets], return_path)
        try:
            async for piece in parcel.content.pieces(parcel.recipients[0]):
                incoming.feed(piece)
                if incoming.full:
                    await incoming.drained()
            if self._deliverers:
                header = await self._reading.run(
                    lambda: self._spool.beginning(parcel.message, whole=False)
                )
                for target, id in list(targets.items()):
                    content = await incoming.content()
                    sender = _sender(parcel)
                    names = (accounts[id].name,)
                    shown = Shown(parcel.message.id, sender, names, header, content)
                    try:
                        taken = await take(
                            self._deliverers, shown, names[0], _who(parcel)
                        )
                    except PluginFailed:
                        said[id], taken = _FILTER, True
                    finally:
                        content.close()
                    if taken:
                        del targets[target]
                if targets:
                    incoming.redirect([*targets])
            if targets:
                await incoming.commit()
        except PartlyDelivered as partly:
            said |= {targets[target]: _DISK for target in partly.failed}
        except StoreError as error:
            log.warn("{transaction}: {reason}", reason=str(error), **_who(parcel))
            said |= dict.fromkeys(targets.values(), _DISK)
        finally:
            await incoming.abort()
        return said


def _target(account: Account, recipient: Recipient) -> Target:
    to = (recipient.original or recipient.forward_path).encode()
    # The row's id alone would begin anew where the rows are lost.
    delivery_id = f"queue {recipient.message} {recipient.id}"
    return Target(account.folder, delivered_to=to, delivery_id=delivery_id)


def _sender(parcel: Parcel) -> Sender:
    message = parcel.message
    return Sender(
        "queue",
        "",
        "",
        False,
        message.account,
        parcel.reverse_path,
        message.size_octets,
    )


def _who(parcel: Parcel) -> dict[str, Any]:
    # Any: the log takes all.
    return {"transaction": parcel.message.id}
