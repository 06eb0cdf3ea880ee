"""What the DNS has said, for as long as it allows, in bounded room."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from mailsrv.dns.resolver import Found, NoSuchName

MAX_ENTRIES = 10_000
MAX_OCTETS = 4 * 1024 * 1024  # of answers as they came

Key = tuple[str, str]
"""Name and type."""


@dataclass(frozen=True, slots=True)
class _Entry:
    result: Found | NoSuchName
    until_s: float
    octets: int


class Cache:
    """Forgets what is too old, then what was asked for longest ago."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._octets = 0

    def get(self, key: Key) -> Found | NoSuchName | None:
        """Return what is known, with the TTL that is left."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        left_s = entry.until_s - self._seconds()
        if left_s <= 0:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        result = entry.result
        return (
            result if isinstance(result, NoSuchName) else replace(result, ttl_s=left_s)
        )

    def put(
        self, key: Key, result: Found | NoSuchName, ttl_s: float, octets: int
    ) -> None:
        """Keep a result; with a TTL of 0 it is not kept."""
        self._drop(key)
        if ttl_s <= 0:
            return
        self._entries[key] = _Entry(result, self._seconds() + ttl_s, octets)
        self._octets += octets
        while len(self._entries) > MAX_ENTRIES or self._octets > MAX_OCTETS:
            self._drop(next(iter(self._entries)))

    def clear(self) -> None:
        """Forget all: other servers may say something else."""
        self._entries.clear()
        self._octets = 0

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._octets -= entry.octets
