"""Doors: closed until the parts stand, closed again at the end."""

import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import (
    AccumulatingProtocol,
    StringTransportWithDisconnection,
)
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from mailsrv.doors.guest import Guest
from mailsrv.doors.values import Accept, Connection, Defer, Reject
from mailsrv.interfaces import IConnectionPolicy
from mailsrv.listeners import (
    MAX_ASKING,
    PROXY_HEADER_S,
    Door,
    Listeners,
    ProxiedDoor,
    TlsFactory,
)
from mailsrv.settings import Listener
from mailsrv.tls.contexts import TlsContexts, load_certificates
from tests.doors.memory import MemoryPolicy
from tests.inline_threads import InlineThreads
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
        protocol = factory.buildProtocol(None)
        assert protocol is not None
        self.transport.protocol = protocol
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

    def test_only_proxies_are_believed(self) -> None:
        factory = ProxiedDoor(self.door, self.clock, ["192.0.2.1", "fd00::/8"])
        for address, good in (
            (IPv4Address("TCP", "192.0.2.1", 1234), True),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1234), True),
            (IPv6Address("TCP", "fd00::1", 1234), True),
            (UNIXAddress(b"/run/x"), True),
            (IPv4Address("TCP", "192.0.2.2", 1234), False),
            (IPv6Address("TCP", "fe80::1%lo", 1234), False),
        ):
            protocol = factory.buildProtocol(address)
            self.assertEqual(protocol is not None, good, address)

    def test_a_closed_door_stays_closed(self) -> None:
        self.door.inside = None
        self.send(b"PROXY UNKNOWN\r\n")
        self.assertFalse(self.transport.connected)


class PolicyTests(TestCase):
    def setUp(self) -> None:
        self.door = Door("smtp")
        self.door.inside = recording = Recording()
        self.made = recording.made

    def connect(self, policy: object) -> Any:
        # Any: the transport has more methods than one interface.
        threads = InlineThreads()
        self.door.policies = [Guest("policy", policy, 10.0, threads.clock)]
        self.clock = threads.clock
        transport = StringTransportWithDisconnection()
        protocol = self.door.buildProtocol(PEER)
        assert protocol is not None
        transport.protocol = protocol
        transport.protocol.makeConnection(transport)
        return transport

    def test_the_accepted_get_a_session(self) -> None:
        policy = MemoryPolicy({})
        transport = self.connect(policy)
        self.assertEqual(policy.seen, [Connection("smtp", "127.0.0.1")])
        self.assertEqual(transport.producerState, "producing")
        transport.protocol.dataReceived(b"EHLO a\r\n")
        ((address, protocol),) = self.made
        self.assertEqual((address, protocol.data), (PEER, b"EHLO a\r\n"))

    def test_the_others_are_told_why(self) -> None:
        for service, decision, told in (
            ("smtp", Reject("no"), b"554 5.7.1 no\r\n"),
            ("submission", Defer("busy"), b"421 4.7.1 busy\r\n"),
            ("lmtp", Reject("no"), b"554 5.7.1 no\r\n"),
            ("imap", Reject("no"), b"* BYE no\r\n"),
            ("pop3", Reject("no"), b"-ERR [SYS/PERM] no\r\n"),
            ("pop3", Defer("busy"), b"-ERR [SYS/TEMP] busy\r\n"),
            ("imaps", Reject("no"), b""),  # TLS is expected
        ):
            self.door.service = service
            transport = self.connect(MemoryPolicy({"127.0.0.1": decision}))
            self.assertEqual(transport.value(), told)
            self.assertFalse(transport.connected)
        self.assertEqual(self.made, [])

    def test_nothing_is_read_while_it_is_asked(self) -> None:
        answer: Deferred[Accept] = Deferred()
        transport = self.connect(Waiting(answer))
        self.assertEqual(transport.producerState, "paused")
        transport.protocol.dataReceived(b"of the PROXY header's read")
        answer.callback(Accept())
        self.assertEqual(self.made[0][1].data, b"of the PROXY header's read")
        self.assertEqual(self.door.asking, 0)

    def test_no_answer_is_temporary(self) -> None:
        transport = self.connect(Waiting(Deferred()))
        self.clock.advance(10.0)
        self.assertEqual(transport.value()[:9], b"421 4.3.0")
        self.assertFalse(transport.connected)
        self.assertEqual(self.door.asking, 0)

    def test_a_peer_that_does_not_wait(self) -> None:
        answer: Deferred[Accept] = Deferred()
        transport = self.connect(Waiting(answer))
        transport.loseConnection()
        answer.callback(Accept())
        self.assertEqual(self.made, [])

    def test_not_more_wait_than_are_allowed(self) -> None:
        self.connect(Waiting(Deferred()))
        self.door.asking = MAX_ASKING
        self.assertIsNone(self.door.buildProtocol(PEER))

    def test_a_factory_that_fails_costs_one_connection(self) -> None:
        self.door.inside = Failing()
        self.assertIsNone(self.door.buildProtocol(PEER))
        transport = self.connect(MemoryPolicy({}))
        self.assertFalse(transport.connected)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)


@implementer(IConnectionPolicy)
class Waiting:
    def __init__(self, answer: Deferred[Accept]) -> None:
        self._answer = answer

    def connection(self, connection: Connection) -> Deferred[Accept]:
        return self._answer


class Failing(Factory):
    def buildProtocol(self, addr: object) -> None:
        raise ZeroDivisionError
