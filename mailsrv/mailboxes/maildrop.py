"""INBOX as POP3 sees it: fixed at the login, deleted from at QUIT (RFC 1939)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from mailsrv.store.account import AccountStore
from mailsrv.store.names import INBOX
from mailsrv.store.values import UID, StoreError

if TYPE_CHECKING:
    from mailsrv.mailboxes.account import AccountMailboxes

T = TypeVar("T")
_SLICE = 200  # messages that one job deletes


class MaildropInUse(StoreError):
    """Another POP3 session of the account is open: -ERR [IN-USE]."""


class Maildrop:
    """The messages of one POP3 session. `close` it, whatever happens.

    `messages` are (UID, unique id, size as served), oldest first; message number
    n is ``messages[n - 1]``.
    """

    name = INBOX

    def __init__(self, mailboxes: "AccountMailboxes") -> None:
        self.messages: Sequence[tuple[UID, bytes, int]] = ()
        self._mailboxes = mailboxes

    async def open(self) -> None:
        """Read the list; `AccountMailboxes.open_maildrop` does this."""
        await self._mailboxes.refresh(INBOX)
        self.messages = await self.read(lambda store: store.uidls(INBOX))

    async def read(self, call: Callable[[AccountStore], T]) -> T:
        """Run `call` among the readers, such as ``store.open_message``."""
        return await self._mailboxes.read(call)

    async def delete(self, uids: Sequence[UID]) -> None:
        """Delete for good: the UPDATE state of RFC 1939 section 6."""
        for at in range(0, len(uids), _SLICE):
            some = uids[at : at + _SLICE]
            await self._mailboxes.write(
                partial(
                    AccountStore.expunge, name=INBOX, uids=some, only_deleted=False
                ),
                lambda changes: [changes],
            )

    def close(self) -> None:
        """Let the next POP3 session in. Again: no effect."""
        if self._mailboxes.maildrop is self:
            self._mailboxes.maildrop = None
