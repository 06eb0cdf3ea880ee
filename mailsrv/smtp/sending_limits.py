"""Limits on what an account may send, against a password that was stolen.

A person writes to some new people a day; who has guessed a password writes to
thousands. What is too much waits in the mail program, and somebody is told.
"""

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from shlex import quote
from typing import Protocol

from twisted.logger import Logger
from zope.interface import implementer

from mailsrv.accounts.addresses import shown
from mailsrv.accounts.devices import HourlyLimit
from mailsrv.accounts.directory import Account
from mailsrv.accounts.sent_counts import Counts, SentCounts
from mailsrv.doors.values import ACCEPT, Decision, Defer, Recipient, Sender
from mailsrv.interfaces import IRecipientPolicy, ISenderPolicy
from mailsrv.mime.date import date_time
from mailsrv.settings import SendingSettings
from mailsrv.store.values import StoreError
from mailsrv.threads import Pool

log = Logger()

_MESSAGES = Defer("You have sent too many messages, try again later", 450, "4.7.1")
_APP = Defer("Too many messages of this app password, try again later", 450, "4.7.1")
_RECIPIENTS = Defer("Too many people whom you never wrote to before", 450, "4.7.1")

_NOTICE = """\
From: <postmaster@{domain}>
To: <{account}>
Cc: <postmaster@{domain}>
Date: {date}
Subject: A limit on sending was reached
Message-ID: <limit.{at}.{account}>
Auto-Submitted: auto-generated
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

The account {shown} has sent so much today ({what}) that the server
makes it wait. The last connection came from {peer}.

If that was you, nothing is lost: what could not be sent now can be sent later.
Your administrator can raise the limits ([sending] in the settings).

If it was not you, somebody knows the password that was used. End that now:

  mailsrv account {remedy}
"""


class Submit(Protocol):
    """See `queue.queue.Queue.submit`."""

    def __call__(
        self, octets: bytes, *, reverse_path: str, forward_paths: Sequence[str]
    ) -> Awaitable[str]: ...


@implementer(ISenderPolicy, IRecipientPolicy)
class SendingLimits:
    """Counts messages and new recipients of accounts that are logged in."""

    def __init__(
        self,
        counts: SentCounts,
        settings: SendingSettings,
        *,
        account: Callable[[str], Account | None],
        submit: Submit,
        pool: Pool,
        now: Callable[[], float],
    ) -> None:
        """`account` looks one up; `pool` runs what works on `counts`."""
        self.settings = settings  # may be replaced
        self._counts = counts
        self._account = account
        self._apps = HourlyLimit(now)
        self._submit = submit
        self._pool = pool
        self._now = now

    async def sender(self, sender: Sender) -> Decision:
        return await self._unless_it_fails(self._of_message(sender))

    async def recipient(self, recipient: Recipient) -> Decision:
        return await self._unless_it_fails(self._of_recipient(recipient))

    async def _unless_it_fails(self, deciding: Awaitable[Decision]) -> Decision:
        """A count that the disk refuses keeps nobody's mail; the disk itself may."""
        try:
            return await deciding
        except (sqlite3.Error, OSError) as error:
            log.error("sending is not counted: {reason}", reason=str(error))
            return ACCEPT

    async def _of_message(self, sender: Sender) -> Decision:
        account = sender.account
        if account is None:
            return ACCEPT
        now = self._now()
        if sender.app_password and not self._app_may_send(account, sender.app_password):
            return _APP
        counts = await self._pool.run(lambda: self._counts.message(account, now))
        most = self.settings.messages_per_hour, self.settings.messages_per_day
        if not _beyond(counts, most):
            return ACCEPT
        await self._pool.run(lambda: self._counts.forget_message(account, now))
        await self._tell(sender, account, f"{counts[1]} messages")
        return _MESSAGES

    def _app_may_send(self, account: str, label: str) -> bool:
        known = self._account(account)
        app = None if known is None else known.app_password(label)
        most = 0 if app is None else app.max_messages_per_hour
        return self._apps.take(f"{account} {label}", most)

    async def _of_recipient(self, recipient: Recipient) -> Decision:
        account, address = recipient.sender.account, recipient.forward_path
        if account is None or recipient.accounts:  # colleagues do not count
            return ACCEPT
        now, run = self._now(), self._pool.run
        counts = await run(lambda: self._counts.recipient(account, address, now))
        settings = self.settings
        most = settings.new_recipients_per_hour, settings.new_recipients_per_day
        if counts is None or not _beyond(counts, most):
            return ACCEPT
        await run(lambda: self._counts.forget(account, address))
        what = f"messages to {counts[1]} people whom it never wrote to before"
        await self._tell(recipient.sender, account, what)
        return _RECIPIENTS

    async def _tell(self, sender: Sender, account: str, what: str) -> None:
        """Write to the account and the postmaster, once a day."""
        now = self._now()
        log.warn("{user} has reached a limit: {what}", user=account, what=what)
        if not await self._pool.run(lambda: self._counts.may_tell(account, now)):
            return
        domain = account.rpartition("@")[2]
        text = _NOTICE.format(
            account=account,
            shown=shown(account),
            domain=domain,
            date=date_time(now),
            at=int(now),
            what=what,
            peer=sender.peer or "this machine",
            remedy=f"app-password remove {account} {quote(sender.app_password)}"
            if sender.app_password
            else f"passwd {account}",
        )
        try:
            await self._submit(
                text.encode(),
                reverse_path="",
                forward_paths=[account, f"postmaster@{domain}"],
            )
        except StoreError as error:
            log.error("nobody is told: {reason}", reason=str(error))


def _beyond(counts: Counts, most: Counts) -> bool:
    return counts[0] > most[0] or counts[1] > most[1]
