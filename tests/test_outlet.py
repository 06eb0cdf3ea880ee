"""The way out of a connection, with a socket that fills up."""

import socket

from twisted.internet.interfaces import ISSLTransport
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import directlyProvides

from mailsrv.outlet import Outlet


class Transport(StringTransport):
    """Has a socket, as a TCP transport does."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self.handle = handle

    def getHandle(self) -> socket.socket:
        return self.handle


class OutletTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.addCleanup(self.ours.close)
        self.addCleanup(self.theirs.close)
        self.ours.setblocking(False)
        self.theirs.settimeout(60)
        self.transport = Transport(self.ours)

    def test_goes_to_the_socket_at_once(self) -> None:
        Outlet(self.transport).write(b"abc")
        self.assertEqual(self.theirs.recv(9), b"abc")
        self.assertEqual(self.transport.value(), b"")

    def fill(self, outlet: Outlet) -> bytes:
        """Write until some waits in the transport; return what was written."""
        pieces = [bytes([number]) * 65536 for number in range(1, 256)]
        for written, piece in enumerate(pieces, 1):
            outlet.write(piece)
            if self.transport.value():
                return b"".join(pieces[:written])
        raise AssertionError("the socket takes everything")

    def read(self) -> bytes:
        """Return all that the socket has taken."""
        self.theirs.setblocking(False)
        got = b""
        while True:
            try:
                got += self.theirs.recv(1 << 20)
            except BlockingIOError:
                return got

    def test_what_is_not_taken_and_all_behind_it_waits_in_order(self) -> None:
        outlet = Outlet(self.transport)
        written = self.fill(outlet)
        got = self.read()
        outlet.write(b"abc")  # there is room again, but others wait
        self.assertEqual(self.read(), b"")
        self.assertEqual(got + self.transport.value(), written + b"abc")

    def test_goes_to_the_socket_again_when_all_is_sent(self) -> None:
        outlet = Outlet(self.transport)
        self.fill(outlet)
        self.read()
        self.transport.clear()
        outlet.drained()
        outlet.write(b"abc")
        self.assertEqual(self.transport.value(), b"")
        self.assertEqual(self.read(), b"abc")

    def test_tls_goes_through_the_transport(self) -> None:
        directlyProvides(self.transport, ISSLTransport)
        outlet = Outlet(self.transport)
        outlet.write(b"abc")
        self.assertIsNone(outlet.socket)
        self.assertEqual(self.transport.value(), b"abc")

    def test_a_lost_connection_is_the_transports_matter(self) -> None:
        outlet = Outlet(self.transport)
        self.ours.close()
        outlet.write(b"abc")
        self.assertEqual(self.transport.value(), b"abc")

    def test_a_transport_without_a_socket(self) -> None:
        transport = StringTransport()
        Outlet(transport).write(b"abc")
        self.assertEqual(transport.value(), b"abc")
