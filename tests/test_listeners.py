"""Doors: closed until the parts stand, closed again at the end."""

import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import (
    AccumulatingProtocol,
    StringTransportWithDisconnection,
)
from twisted.trial.unittest import TestCase

from mailsrv.listeners import (
    PROXY_HEADER_S,
    Door,
    Listeners,
    ProxiedDoor,
    TlsFactory,
)
from mailsrv.settings import Listener
from mailsrv.tls.contexts import TlsContexts, load_certificates
from tests.tls.certificates import pair, write

PEER = IPv4Address("TCP", "127.0.0.1", 1)


class Refusing(Factory):
    def buildProtocol(self, addr: object) -> None:
        return None


class DoorTests(TestCase):
    def test_it_refuses_until_something_is_inside(self) -> None:
        door = Door("imap")
        self.assertIsNone(door.buildProtocol(PEER))
        door.inside = Factory.forProtocol(Protocol)
        self.assertIsInstance(door.buildProtocol(PEER), Protocol)

    def test_tls_can_be_refused_by_what_is_inside(self) -> None:
        certificate = write(Path(self.mktemp()), pair("a.test"))
        tls = TlsContexts(load_certificates([certificate]))
        self.assertIsNone(TlsFactory(tls, False, Refusing()).buildProtocol(PEER))


class ListenersTests(TestCase):
    async def test_a_used_port_is_an_error_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            endpoint = f"tcp:{port}:interface=127.0.0.1"
            listeners = Listeners([Listener(service="imap", endpoint=endpoint)])
            self.assertRaises(CannotListenError, listeners.bind, reactor)
        await listeners.close()

    async def test_closed_doors_stay_closed(self) -> None:
        listeners = Listeners(
            [Listener(service="imap", endpoint="tcp:0:interface=127.0.0.1")]
        )
        listeners.bind(reactor)
        listeners.open({"imap": Factory.forProtocol(Protocol)}, None)
        await listeners.close()
        self.assertEqual(await listeners.close(), [])


class Recording(Factory):
    """Keeps what it made, and for whom."""

    def __init__(self) -> None:
        self.made: list[tuple[object, AccumulatingProtocol]] = []
        self.protocolConnectionMade: None = None  # wanted by its protocol

    def buildProtocol(  # type: ignore[override]  # its factory is no _ProtoWithFactory
        self, addr: IAddress | None
    ) -> AccumulatingProtocol:
        protocol = AccumulatingProtocol()
        protocol.factory = self
        self.made.append((addr, protocol))
        return protocol


class ProxiedTests(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.door = Door("smtp")
        self.door.inside = recording = Recording()
        self.made = recording.made
        factory = ProxiedDoor(self.door, self.clock)
        self.transport = StringTransportWithDisconnection()
        self.transport.protocol = factory.buildProtocol(None)
        self.transport.protocol.makeConnection(self.transport)

    def send(self, octets: bytes) -> None:
        self.transport.protocol.dataReceived(octets)

    def test_the_session_begins_after_the_header_with_the_client_s_address(
        self,
    ) -> None:
        for octet in b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 25\r":
            self.send(bytes([octet]))
        self.assertEqual(self.made, [])
        self.send(b"\nEHLO a\r\n")
        ((address, protocol),) = self.made
        self.assertEqual(address, IPv4Address("TCP", "192.0.2.7", 1234))
        self.assertEqual(protocol.data, b"EHLO a\r\n")
        self.send(b"QUIT\r\n")
        self.assertEqual(protocol.data, b"EHLO a\r\nQUIT\r\n")
        self.clock.advance(PROXY_HEADER_S)
        self.assertTrue(self.transport.connected)

    def test_without_a_header_the_connection_ends(self) -> None:
        self.send(b"EHLO a\r\n")
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.made, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_header_that_does_not_come_is_not_waited_for(self) -> None:
        self.send(b"PROXY")
        self.clock.advance(PROXY_HEADER_S)
        self.assertFalse(self.transport.connected)

    def test_a_closed_door_stays_closed(self) -> None:
        self.door.inside = None
        self.send(b"PROXY UNKNOWN\r\n")
        self.assertFalse(self.transport.connected)
