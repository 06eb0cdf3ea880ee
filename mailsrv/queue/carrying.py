"""What the queue hands to those who deliver, and what it hears from them."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from mailsrv.queue.values import Answer, Message, Recipient


class SpooledMessage(Protocol):
    """The content of a message, read as often as it is sent."""

    def pieces(self, recipient: Recipient) -> AsyncIterator[bytes]:
        """Give it as it is sent to `recipient`: CRLF, all prefixes, no Return-Path.

        In pieces of at most 64 KiB.
        """

    def octets(self, recipient: Recipient) -> int:
        """Return the exact size of what `pieces` gives."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One attempt: a message and some of its recipients, who go the same way.

    A recipient that goes alone is the only one.
    """

    message: Message
    recipients: tuple[Recipient, ...]
    content: SpooledMessage
    destination: str

    @property
    def reverse_path(self) -> str:
        """Whom a failure is reported to."""
        own = self.recipients[0].reverse_path
        return self.message.reverse_path if own is None else own


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the attempt came to; `new` is committed together with it."""

    answers: tuple[Answer, ...]  # one for each recipient, in their order
    new: tuple[tuple[Message, Sequence[Recipient]], ...] = ()  # in the spool already


class Carrier(Protocol):
    """Delivers in one way."""

    def route(self, reverse_path: str, destination: str) -> str:
        """Name what shares connections, concurrency and transactions."""

    async def carry(self, parcel: Parcel) -> Outcome:
        """Deliver now. An exception counts as 451 4.3.0 for all, and is logged."""
