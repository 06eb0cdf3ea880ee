"""Messages and recipients for tests of the queue."""

from dataclasses import replace
from typing import Any

from mailsrv.queue.database import Filter, QueueDatabase
from mailsrv.queue.values import (
    Answer,
    Entry,
    Message,
    Priority,
    Recipient,
)

NOW = 1_800_000_000.0
SENDER = "anna@example.test"


def message(id: str = "m1", **changes: Any) -> Message:
    # Any: fields of all types.
    plain = Message(id, f"{id}.file", SENDER, SENDER, NOW, Priority.LETTER, 100)
    return replace(plain, **changes)


def recipient(
    address: str = "bert@far.test", of: str = "m1", **changes: Any
) -> Recipient:
    domain = address.rpartition("@")[2]
    return replace(Recipient(of, address, domain, NOW), **changes)


def entry(id: str = "m1", *addresses: str, **changes: Any) -> Entry:
    """A message with a recipient for each address."""
    to = addresses or ("bert@far.test",)
    return message(id, **changes), tuple(recipient(a, id) for a in to)


def answer(code: int, text: str = "said", **changes: Any) -> Answer:
    plain = Answer(code, f"{code // 100}.0.0", text, NOW, peer="mx.far.test")
    return replace(plain, **changes)


def rows(database: QueueDatabase, wanted: Filter) -> list[Recipient]:
    """What an admin would find."""
    return [found for _, found in database.find(wanted)]
