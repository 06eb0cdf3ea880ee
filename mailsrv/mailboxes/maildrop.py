"""INBOX as POP3 sees it: fixed at the login, deleted from at QUIT (RFC 1939)."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from mailsrv.store.account import AccountStore
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.names import INBOX
from mailsrv.store.reading import Located, MessageFile
from mailsrv.store.values import UID, MessageGone, StoreError

if TYPE_CHECKING:
    from mailsrv.mailboxes.account import AccountMailboxes

T = TypeVar("T")
PIECE_OCTETS = 64 * 1024  # read of a message at once
_SLICE = 200  # messages that one job deletes
_AHEAD = 64  # messages that one job reads, and
_AHEAD_OCTETS = 128 * 1024  # their size in all


class MaildropInUse(StoreError):
    """Another POP3 session of the account is open: -ERR [IN-USE]."""


class Retrieval(NamedTuple):  # made for every message: cheaper than a dataclass
    """A message that is being read; `close` it, whatever happens."""

    size_octets: int
    first: bytes  # the first octets, as many as `PIECE_OCTETS`
    file: MessageFile | None  # for the octets behind these; None: there are none

    def read(self, offset: int) -> bytes:
        """Return a further piece, b"" at the end of the file; for a reader."""
        return self.file.read(offset, PIECE_OCTETS) if self.file else b""

    def close(self) -> None:
        if self.file is not None:
            self.file.close()


class Maildrop:
    """The messages of one POP3 session. `close` it, whatever happens.

    `messages` are (UID, unique id, size as served), oldest first; message number
    n is ``messages[n - 1]``.
    """

    name = INBOX

    def __init__(self, mailboxes: "AccountMailboxes") -> None:
        self.messages: Sequence[tuple[UID, bytes, int]] = ()
        self._mailboxes = mailboxes
        self._last = 0  # number of the message that was retrieved last
        self._ahead: dict[UID, Retrieval] = {}  # read along with it, in memory

    async def open(self) -> None:
        """Read the list; `AccountMailboxes.open_maildrop` does this."""
        # What is new stays new for IMAP: a POP3 client has looked at nothing yet.
        await self._mailboxes.refresh(INBOX, move_new=False)
        make = self._mailboxes.pop3_uidl
        self.messages = await self.read(lambda store: store.uidls(INBOX, make))

    async def read(self, call: Callable[[AccountReader], T]) -> T:
        """Run `call` among the readers."""
        return await self._mailboxes.read(call)

    async def retrieve(self, number: int) -> Retrieval:
        """Begin to read a message that is not read `ahead`. Raises MessageGone.

        Clients ask for one message after the other: then the next ones, if small,
        are read along, since the way to a thread and back costs more than that.
        """
        in_a_row, self._last = number == self._last + 1, number
        uids = self._following(number) if in_a_row else [self.messages[number - 1][0]]
        message, self._ahead = await self.read(partial(_retrieve, uids))
        return message

    def ahead(self, number: int) -> Retrieval | None:
        """Return a message if it was read along with an earlier one."""
        message = self._ahead.pop(self.messages[number - 1][0], None)
        if message is not None:
            self._last = number
        return message

    def _following(self, number: int) -> list[UID]:
        """Return a message and those behind it that are to be read along."""
        uids: list[UID] = []
        octets = 0
        for uid, _, size_octets in self.messages[number - 1 : number - 1 + _AHEAD]:
            octets += size_octets
            if uids and octets > _AHEAD_OCTETS:
                break
            uids.append(uid)
        return uids

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
        self._ahead.clear()
        if self._mailboxes.maildrop is self:
            self._mailboxes.maildrop = None


def _retrieve(
    uids: Sequence[UID], store: AccountStore
) -> tuple[Retrieval, dict[UID, Retrieval]]:
    """Begin to read the first of `uids`; read the others, if they are small."""
    located = store.locate(INBOX, uids, fill=False)
    if uids[0] not in located:
        raise MessageGone("the message is gone")
    ahead = {}
    for uid in uids[1:]:
        # What fails here is told when the message is asked for.
        with suppress(MessageGone, OSError):
            if uid in located:
                other = _read(located[uid])
                other.close()
                if other.file is None:
                    ahead[uid] = other
    return _read(located[uids[0]]), ahead


def _read(message: Located) -> Retrieval:
    file = message.open()
    try:
        first = file.read(0, PIECE_OCTETS)
    except OSError:
        file.close()
        raise
    if len(first) < file.size_octets:
        return Retrieval(file.size_octets, first, file)
    file.close()
    return Retrieval(file.size_octets, first, None)
