"""What only this server knows of an account's mailboxes and must outlive the index.

One small JSON file in the root, `mailsrv-mailboxes`: mailbox name -> attributes.
It is written whole, under a lock of its own.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mailsrv.store.durable import DISK, Disk, read, replace
from mailsrv.store.locks import Dotlock

FILE = "mailsrv-mailboxes"
MAX_FILE_OCTETS = 1 << 24


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of one mailbox."""

    special_uses: tuple[str, ...] = ()  # RFC 6154, with the backslash
    mailbox_id: str | None = None  # for a mailbox whose uidlist was lost


NONE = Attributes()


class AttributesFile:
    """The file of one account, by mailbox name."""

    def __init__(self, root: Path, disk: Disk = DISK) -> None:
        self._path = root / FILE
        self._disk = disk

    def all(self) -> dict[str, Attributes]:
        """Read the attributes of every mailbox that has some.

        A file that cannot be read is an OSError: to go on without it would be to
        write it anew with all of them lost.
        """
        content = read(self._path, MAX_FILE_OCTETS)
        if not content:
            return {}
        try:
            found = json.loads(content)
            return {
                name: Attributes(
                    special_uses=tuple(values.get("special_uses", ())),
                    mailbox_id=values.get("mailbox_id"),
                )
                for name, values in found.items()
            }
        except (ValueError, AttributeError, TypeError) as error:
            raise OSError(f"{FILE} is damaged: remove or mend it") from error

    def set(self, changes: Mapping[str, Attributes]) -> None:
        """Set the attributes of mailboxes, durably; NONE forgets. Raises LockHeld."""
        with Dotlock(self._path, self._disk):
            old = self.all()
            new = {n: a for n, a in {**old, **changes}.items() if a != NONE}
            if new != old:
                self._write(new)

    def rename(self, names: Mapping[str, str]) -> None:
        """Carry attributes from old names to new ones, durably. Raises LockHeld."""
        with Dotlock(self._path, self._disk):
            old = self.all()
            new = {names.get(name, name): value for name, value in old.items()}
            if new != old:
                self._write(new)

    def _write(self, attributes: Mapping[str, Attributes]) -> None:
        content = {
            name: {
                "special_uses": list(value.special_uses),
                "mailbox_id": value.mailbox_id,
            }
            for name, value in sorted(attributes.items())
        }
        text = json.dumps(content, indent=1, ensure_ascii=True)
        replace(self._path, text.encode() + b"\n", self._disk)
