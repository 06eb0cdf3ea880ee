"""The messages of a session by their numbers, fixed at the log-in (RFC 1939). Pure."""

from collections.abc import Iterator, Sequence

from mailsrv.store.values import UID


class NoSuchMessage(Exception):
    """No message has this number, or it is marked as deleted."""


class Numbers:
    """Numbers, sizes and unique ids; marks of DELE, which only QUIT carries out."""

    def __init__(self, messages: Sequence[tuple[UID, bytes, int]]) -> None:
        self._messages = messages  # (uid, unique id, octets); number n is at n - 1
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

    def listing(self, number: int) -> str:
        """The line of LIST."""
        return f"{number} {self._message(number)[2]}"

    def unique_id(self, number: int) -> str:
        """The line of UIDL."""
        return f"{number} {self._message(number)[1].decode('ascii', 'replace')}"

    def all(self) -> Iterator[int]:
        """Numbers that are not marked, ascending."""
        return (
            number
            for number in range(1, len(self._messages) + 1)
            if number not in self._deleted
        )

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

    def _message(self, number: int) -> tuple[UID, bytes, int]:
        if number in self._deleted or not 1 <= number <= len(self._messages):
            raise NoSuchMessage
        return self._messages[number - 1]
