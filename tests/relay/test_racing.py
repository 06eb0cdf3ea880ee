"""Which address of a host is connected to."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Protocol
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.relay.racing import DOWN_S, DownHosts, NotConnected, connect, in_turn

SIX, FOUR = "2001:db8::1", "192.0.2.1"


class RaceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.down = DownHosts(self.reactor.seconds)
        make: Any = Protocol
        self.racing = Deferred.fromCoroutine(
            connect((SIX, FOUR), 25, make, down=self.down, reactor=self.reactor)
        )

    def tried(self) -> list[str]:
        return [host for host, *_ in self.reactor.tcpClients]

    def answers(self, index: int) -> None:
        client = self.reactor.tcpClients[index][2].buildProtocol(None)
        assert client is not None
        client.makeConnection(StringTransport())

    def test_first_one_that_answers(self) -> None:
        self.answers(0)
        self.reactor.advance(1)
        self.assertEqual(self.successResultOf(self.racing)[1], SIX)
        self.assertEqual(self.tried(), [SIX])

    def test_other_family_takes_over_from_one_that_hangs(self) -> None:
        self.reactor.advance(0.3)
        self.assertEqual(self.tried(), [SIX, FOUR])
        self.answers(1)
        self.assertEqual(self.successResultOf(self.racing)[1], FOUR)
        self.assertEqual(self.down.why(SIX, 25), "")  # it was only not awaited

    def test_none_answers(self) -> None:
        connector: Any = None
        for index in range(2):
            refused = Failure(ConnectionRefusedError())
            self.reactor.tcpClients[index][2].clientConnectionFailed(connector, refused)
        why = str(self.failureResultOf(self.racing, NotConnected).value)
        self.assertIn(FOUR, why)
        self.assertNotEqual(self.down.why(SIX, 25), "")
        self.reactor.advance(DOWN_S)
        self.assertEqual(self.down.why(SIX, 25), "")

    def test_in_turn(self) -> None:
        self.assertEqual(in_turn(["1", "2", "a:", "b:"]), ["a:", "1", "b:", "2"])
