"""What is sent to a server without 8BITMIME: the message in 7 bits, signed anew.

It stands in a file without a name, which is gone when it is closed or the server ends.
"""

import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from mailsrv.mime.downgrade import seven_bit
from mailsrv.mime.header import MAX_HEADER, header_end
from mailsrv.mime.served import to_crlf
from mailsrv.queue.carrying import Parcel
from mailsrv.queue.queue import Sign
from mailsrv.queue.spool import Spool
from mailsrv.queue.values import Recipient
from mailsrv.store.content import file_content
from mailsrv.threads import Pool

_PIECE_OCTETS = 64 * 1024
_SIGNATURE = re.compile(
    rb"^dkim-signature[ \t]*+:[^\n]*+\n(?:[ \t][^\n]*+\n)*+",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class _Copy:
    """See `carrying.SpooledMessage`."""

    signatures: bytes
    file: BinaryIO
    file_octets: int
    reading: Pool

    def octets(self, recipient: Recipient) -> int:
        return len(self.signatures) + self.file_octets

    async def pieces(self, recipient: Recipient) -> AsyncIterator[bytes]:
        if self.signatures:
            yield self.signatures
        fd = self.file.fileno()
        for place in range(0, self.file_octets, _PIECE_OCTETS):
            yield await self.reading.run(partial(os.pread, fd, _PIECE_OCTETS, place))


class SevenBitCopies:
    """Makes them, of parcels that are sent just now."""

    def __init__(self, spool: Spool, sign: Sign, reading: Pool) -> None:
        self._spool = spool
        self._sign = sign
        self._reading = reading

    @asynccontextmanager
    async def of(self, parcel: Parcel) -> AsyncIterator[Parcel]:
        """Give the parcel with a message in 7 bits, as long as the context lasts.

        Raises `mime.downgrade.NotConvertible` (5.6.3), OSError.
        """
        copy = await self._reading.run(lambda: self._convert(parcel))
        try:
            message = replace(parcel.message, eight_bit=False)
            yield replace(parcel, message=message, content=copy)
        finally:
            copy.file.close()

    def _convert(self, parcel: Parcel) -> _Copy:
        prefix = parcel.recipients[0].prefix + parcel.message.prefix
        unsigned = _SIGNATURE.sub(b"", prefix)
        file = self._temporary()
        try:
            with self._temporary() as whole:
                whole.write(unsigned.replace(b"\r\n", b"\n"))
                with open(self._spool.path(parcel.message.file), "rb") as spooled:
                    spooled.seek(parcel.message.skip_octets)
                    shutil.copyfileobj(spooled, whole)
                whole.flush()
                content = file_content(whole.fileno(), whole.tell())
                after_cr = False
                for piece in seven_bit(content):
                    file.write(to_crlf(piece, after_cr=after_cr))
                    after_cr = piece.endswith(b"\r")
            file.flush()
            octets = file.tell()
            signatures = b""
            if unsigned != prefix:  # we had signed it, or a list has
                signatures = self._signed(file)
            return _Copy(signatures, file, octets, self._reading)
        except BaseException:
            file.close()
            raise

    def _signed(self, file: BinaryIO) -> bytes:
        file.seek(0)
        beginning = file.read(MAX_HEADER)
        body = header_end(beginning)

        def pieces() -> Iterator[bytes]:
            yield beginning[body:]
            while octets := file.read(_PIECE_OCTETS):
                yield octets

        return self._sign(beginning[:body].removesuffix(b"\r\n"), pieces())

    def _temporary(self) -> BinaryIO:
        # On the disk of the spool: /tmp may be memory.
        return tempfile.TemporaryFile(dir=self._spool.maildir / "tmp")
