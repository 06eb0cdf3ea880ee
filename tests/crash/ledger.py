"""What clients were told, and whether a mailbox still agrees with it.

One worker alone uses its two mailboxes, so the ledger knows each message's place
and flags exactly; only the command that was under way at the kill leaves a choice.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

SYSTEM_FLAGS = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")


def content(message_id: str, size_octets: int) -> bytes:
    """A message whose every octet follows from its id: a cut or mix-up shows."""
    seed = hashlib.sha256(message_id.encode()).hexdigest()
    lines = (size_octets // (len(seed) + 2)) or 1
    body = "".join(f"{seed}\r\n" for _ in range(lines))
    return (
        f"From: load@example.test\r\nTo: load@example.test\r\n"
        f"Subject: {message_id}\r\nX-Crash-Id: {message_id}\r\n"
        f"X-Crash-Size: {size_octets}\r\n\r\n{body}"
    ).encode()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message is: mailbox, flags, and its UID once a client was told it."""

    mailbox: str
    flags: tuple[str, ...] = ()
    uid: int | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A message read back after the restart."""

    message_id: str
    mailbox: str
    flags: tuple[str, ...]
    uid: int


@dataclass(slots=True)
class Ledger:
    """The truth as the clients know it. None as a place: there is no message."""

    certain: dict[str, Place] = field(default_factory=dict)
    pending: dict[str, Place | None] = field(default_factory=dict)
    uids: dict[str, str] = field(default_factory=dict)  # "mailbox validity uid" -> id

    def begin(self, changes: dict[str, Place | None]) -> None:
        """A command is sent that would bring these messages there."""
        self.pending = changes

    def done(self, uids: dict[str, int] | None = None) -> None:
        """The command's OK came, with the UIDs that it told."""
        for message_id, place in self.pending.items():
            if place is None:
                self.certain.pop(message_id, None)
            else:
                uid = (uids or {}).get(message_id, place.uid)
                self.certain[message_id] = replace(place, uid=uid)
        self.pending = {}

    def check(self, found: Iterable[Found], validity: dict[str, int]) -> list[str]:
        """Compare with what stands there; return the faults, then believe it."""
        faults: list[str] = []
        seen: dict[str, Found] = {}
        for item in found:
            if item.message_id in seen:
                faults.append(
                    f"{item.message_id} twice: {seen[item.message_id]}, {item}"
                )
            seen[item.message_id] = item
            key = f"{item.mailbox} {validity[item.mailbox]} {item.uid}"
            owner = self.uids.setdefault(key, item.message_id)
            if owner != item.message_id:
                faults.append(f"UID reused: {key} was {owner}, is {item.message_id}")
        for message_id in {*self.certain, *self.pending, *seen}:
            before = self.certain.get(message_id)
            allowed = [before]
            if message_id in self.pending:
                allowed.append(self.pending[message_id])
            here = seen.get(message_id)
            if not any(_agree(place, here) for place in allowed):
                faults.append(f"{message_id}: allowed {allowed}, found {here}")
        self.certain = {
            item.message_id: Place(item.mailbox, item.flags, item.uid)
            for item in seen.values()
        }
        self.pending = {}
        return faults

    def dump(self) -> dict[str, Any]:
        """As JSON values (Any), to go on in another run."""
        places = {key: asdict(place) for key, place in self.certain.items()}
        return {"certain": places, "uids": self.uids}

    @classmethod
    def load(cls, values: dict[str, Any]) -> "Ledger":
        places = {
            key: Place(place["mailbox"], tuple(place["flags"]), place["uid"])
            for key, place in values["certain"].items()
        }
        return cls(certain=places, uids=values["uids"])


def _agree(place: Place | None, here: Found | None) -> bool:
    if place is None or here is None:
        return place is None and here is None
    return (
        place.mailbox == here.mailbox
        and set(place.flags) == set(here.flags)
        and place.uid in (None, here.uid)
    )
