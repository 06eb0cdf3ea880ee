"""Doors: closed until the parts stand, closed again at the end."""

import socket
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.address import IPv4Address
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from mailsrv.listeners import Door, Listeners, TlsFactory
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
