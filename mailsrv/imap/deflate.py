"""The octets of a session with COMPRESS=DEFLATE (RFC 4978), both ways.

No I/O. Raw deflate (RFC 1951): no header, no checksum, and a stream that never ends.
"""

import zlib

RAW = -zlib.MAX_WBITS
LEVEL = 4  # on mail hardly worse than zlib's 6, and twice as fast
# In what is large and does not repeat itself, base64 that is, nothing is looked for
# that was sent before: as small, and in a third of the time.
LARGE = 16 * 1024  # octets
_SAMPLE = 4 * 1024
_REPEATS = 0.7  # of its size at most, deflated


class Damaged(Exception):
    """What the client sends is no deflated data."""


class Inflater:
    """What the client sends: `feed` it, then `take` as much as there is room for.

    Nothing is inflated before it is asked for, so that octets which grow a
    thousandfold take memory only as they are used.
    """

    __slots__ = ("_inflated_all", "_stream", "_waiting")

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(RAW)
        self._waiting = b""
        self._inflated_all = True

    @property
    def waiting_octets(self) -> int:
        """Octets not inflated yet."""
        return len(self._waiting)

    def feed(self, data: bytes) -> None:
        self._waiting += data
        self._inflated_all = False

    def take(self, most: int) -> bytes:
        """Return the next octets, b"" if there are none; raise `Damaged`."""
        if self._inflated_all:
            return b""
        try:
            octets = self._stream.decompress(self._waiting, most)
        except zlib.error as error:
            raise Damaged(str(error)) from error
        if self._stream.eof:
            raise Damaged("the stream has ended")
        self._waiting = self._stream.unconsumed_tail
        # zlib may hold octets back that had no room: only less than `most` is all.
        self._inflated_all = not self._waiting and len(octets) < most
        return octets


class Deflater:
    """What is sent: `deflate` the octets of a burst, then `flush` it.

    A compressor takes 260 KiB, so it lives from the first octet of a burst to the
    flush that ends it on an octet's boundary. The next one begins a block there and
    refers to nothing before itself: for the client it is one stream.
    """

    __slots__ = ("_strategy", "_stream")

    def __init__(self) -> None:
        self._stream: zlib._Compress | None = None  # the type has no public name
        self._strategy = zlib.Z_DEFAULT_STRATEGY

    def deflate(self, octets: bytes) -> bytes:
        """Return what can be sent by now, often nothing."""
        strategy, flushed = self._strategy, b""
        if len(octets) >= LARGE:
            strategy = _strategy(octets)
        elif self._stream is None:
            strategy = zlib.Z_DEFAULT_STRATEGY
        if strategy != self._strategy:
            flushed = self.flush()
        if self._stream is None:
            self._strategy = strategy
            self._stream = zlib.compressobj(
                LEVEL, zlib.DEFLATED, RAW, zlib.DEF_MEM_LEVEL, strategy
            )
        return flushed + self._stream.compress(octets)

    def flush(self) -> bytes:
        """Return the rest: with it the client can read all that was deflated."""
        stream, self._stream = self._stream, None
        return b"" if stream is None else stream.flush(zlib.Z_SYNC_FLUSH)


def _strategy(octets: bytes) -> int:
    sample = octets[len(octets) // 2 :][:_SAMPLE]
    if len(zlib.compress(sample, 1)) > _REPEATS * len(sample):
        return zlib.Z_HUFFMAN_ONLY
    return zlib.Z_DEFAULT_STRATEGY
