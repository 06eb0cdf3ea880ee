"""Asks deliverers whether one of them takes a copy, instead of the mailbox."""

from collections.abc import Sequence
from typing import Any

from twisted.logger import Logger

from mailsrv.doors.guest import Asked
from mailsrv.doors.message import Message

log = Logger()


async def take(
    deliverers: Sequence[Asked], message: Message, account: str, who: dict[str, Any]
) -> bool:
    """Return whether one has taken the copy of `account`. Raises `PluginFailed`.

    `who` are the log's fields. Any: it takes all.
    """
    for deliverer in deliverers:
        if await deliverer.ask(lambda d: d.deliver(message, account), bool):
            log.info(
                "{plugin} has taken the mail of {account}",
                plugin=deliverer.name,
                account=account,
                **who,
            )
            return True
    return False
