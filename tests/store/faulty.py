"""A disk that fails where a test wants it to."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from mailsrv.store.durable import AnyPath, Disk


@dataclass
class FaultyDisk(Disk):
    """Fails one operation with `error` after `after` good calls; logs all calls.

    `operation` is the name of a method of `Disk`; "" fails nothing.
    """

    operation: str = ""
    error: int = 0
    after: int = 0
    calls: list[str] = field(default_factory=list)
    short_write_octets: int | None = None  # so much is written before the error
    once: bool = False  # later calls are good again

    def _enter(self, operation: str) -> None:
        self.calls.append(operation)
        if operation == self.operation:
            if self.after <= 0:
                if self.once:
                    self.operation = ""
                raise OSError(self.error, os.strerror(self.error))
            self.after -= 1

    def create(self, path: AnyPath) -> int:
        self._enter("create")
        return super().create(path)

    def write(self, fd: int, pieces: Sequence[bytes]) -> None:
        try:
            self._enter("write")
        except OSError:
            if self.short_write_octets is not None:
                os.write(fd, b"".join(pieces)[: self.short_write_octets])
            raise
        super().write(fd, pieces)

    def fsync(self, fd: int) -> None:
        self._enter("fsync")

    def fdatasync(self, fd: int) -> None:
        self._enter("fdatasync")

    def rename(self, source: AnyPath, target: AnyPath) -> None:
        self._enter("rename")
        super().rename(source, target)

    def link(self, source: AnyPath, target: AnyPath) -> None:
        self._enter("link")
        super().link(source, target)

    def copy(self, source_fd: int, target_fd: int, octets: int) -> int:
        self._enter("copy")
        return super().copy(source_fd, target_fd, octets)

    def free_octets(self, path: AnyPath) -> int:
        self._enter("free_octets")
        return super().free_octets(path)
