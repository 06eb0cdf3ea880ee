"""A port that clients use in place of a server's, and a count of what they fetch.

Without TLS, on loopback. `backend` can be changed between two connections: to the
client it is the same server all the time.
"""

import re
import socket
import threading
from collections import Counter
from contextlib import suppress

from tests.clients.server import HOST

_PIECE = 65536
_LONGEST = 8192  # of what a pattern may match
# An IMAP response that brings a header or a body, with its UID before it.
_FETCHED = re.compile(
    rb"\* \d+ FETCH \((?:[^\r\n{]*?UID (\d+))?[^\r\n{]*?((?:BODY|RFC822)[^\r\n{]*)"
    rb"\{\d+\}\r\n"
)
_POP3 = re.compile(rb"^(RETR|TOP) \d+", re.IGNORECASE | re.MULTILINE)


class CountingProxy:
    """`fetched` counts the headers and bodies that have come by, of all clients."""

    def __init__(self, backend: int) -> None:
        self.backend = backend
        self.fetched: Counter[bytes] = Counter()  # by UID and item; POP3: by command
        self._lock = threading.Lock()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def count(self) -> int:
        with self._lock:
            return sum(self.fetched.values())

    def close(self) -> None:
        """Also cuts all connections, as a server does that ends."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection((HOST, self.backend))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._open += [client, server]
            for pair in ((client, server, _POP3), (server, client, _FETCHED)):
                threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(
        self, source: socket.socket, target: socket.socket, what: re.Pattern[bytes]
    ) -> None:
        seen = b""
        with suppress(OSError):
            while data := source.recv(_PIECE):
                seen = self._count(seen + data, what)
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _count(self, seen: bytes, what: re.Pattern[bytes]) -> bytes:
        """Count the matches; return the rest that may be part of another."""
        end = 0
        for match in what.finditer(seen):
            end = match.end()
            with self._lock:
                self.fetched[b" ".join(g or b"" for g in match.groups())] += 1
        return seen[max(end, len(seen) - _LONGEST) :]
