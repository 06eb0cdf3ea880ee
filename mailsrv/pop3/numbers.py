"""The messages of a session by their numbers, fixed at the log-in (RFC 1939). Pure."""

from collections.abc import Iterable, Iterator, Sequence

from mailsrv.store.values import UID

_Message = tuple[UID, bytes, int]
"""UID, unique id, octets."""


class NoSuchMessage(Exception):
    """No message has this number, or it is marked as deleted."""


class Numbers:
    """Numbers, sizes and unique ids; marks of DELE, which only QUIT carries out."""

    def __init__(self, messages: Sequence[_Message]) -> None:
        self._messages = messages  # number n is at n - 1
        self._deleted: set[int] = set()
        self._octets = sum(octets for _, _, octets in messages)

    @property
    def count(self) -> int:
        """Messages that are not marked."""
        return len(self._messages) - len(self._deleted)

    @property
    def octets(self) -> int:
        """Their size in all."""
        return self._octets

    def check(self, number: int) -> None:
        """Raise `NoSuchMessage` if there is none, or it is marked."""
        self._message(number)

    def listing(self, number: int | None = None) -> Iterator[bytes]:
        """The lines of LIST: of one message, or of all that are not marked."""
        return (b"%d %d" % (n, octets) for n, (_, _, octets) in self._some(number))

    def unique_ids(self, number: int | None = None) -> Iterator[bytes]:
        """The lines of UIDL, likewise."""
        return (b"%d %b" % (n, uidl) for n, (_, uidl, _) in self._some(number))

    def delete(self, number: int) -> None:
        """Mark a message. Raises `NoSuchMessage`."""
        self._octets -= self._message(number)[2]
        self._deleted.add(number)

    def reset(self) -> None:
        """Remove all marks."""
        self._octets += sum(self._messages[n - 1][2] for n in self._deleted)
        self._deleted.clear()

    def deleted_uids(self) -> list[UID]:
        """What QUIT has to delete."""
        return [self._messages[number - 1][0] for number in sorted(self._deleted)]

    def _some(self, number: int | None) -> Iterable[tuple[int, _Message]]:
        if number is not None:
            return [(number, self._message(number))]
        numbered = enumerate(self._messages, 1)
        if not self._deleted:
            return numbered
        return ((n, each) for n, each in numbered if n not in self._deleted)

    def _message(self, number: int) -> _Message:
        if number in self._deleted or not 1 <= number <= len(self._messages):
            raise NoSuchMessage
        return self._messages[number - 1]
