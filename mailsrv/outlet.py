"""The way out of a connection: to its socket at once, around the transport's buffer.

What goes through the buffer costs two changes of the epoll set and a turn of the
reactor, which is half of the CPU of a short reply.
"""

import socket
from typing import Any

from twisted.internet.interfaces import ISSLTransport


class Outlet:
    """Writes to a Twisted transport.

    What the socket does not take, and all that comes after it, waits in the
    transport. With TLS all goes through the transport, and `socket` is None: make
    another one after STARTTLS.
    """

    __slots__ = ("_direct", "_transport", "socket")

    # Any: Twisted's transports have more than one interface declares.
    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.socket: socket.socket | None = None
        get_handle = getattr(transport, "getHandle", None)
        if get_handle and not ISSLTransport.providedBy(transport):
            handle = get_handle()
            self.socket = handle if isinstance(handle, socket.socket) else None
        self._direct = self.socket

    def write(self, octets: bytes) -> None:
        """Send; what is not taken at once goes when the reactor finds the time."""
        if self._direct is not None:
            try:
                sent = self._direct.send(octets)
            except OSError:  # full; or broken, as the transport will find
                sent = 0
            if sent == len(octets):
                return
            octets = octets[sent:]
            self._direct = None  # from now on all goes one way, in its order
        self._transport.write(octets)

    def drained(self) -> None:
        """The transport has sent all (resumeProducing): go around it again."""
        self._direct = self.socket
