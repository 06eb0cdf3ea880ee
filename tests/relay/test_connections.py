"""Connections that wait: for how long, and how long they are used."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.relay.connections import IDLE_S, MAX_AGE_S, Connection, IdleConnections


class Client:
    """One that is ready, until it says goodbye."""

    usable = True

    def quit(self) -> None:
        self.usable = False


class IdleTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.idle = IdleConnections(self.clock)
        self.client = Client()
        self.connection = Connection(
            self.client,  # type: ignore[arg-type]  # no more of it is used
            "mx [192.0.2.1]",
            self.clock.seconds(),
        )

    def test_a_moment(self) -> None:
        self.idle.give("a", self.connection)
        self.clock.advance(IDLE_S - 1)
        self.assertIs(self.idle.take("a"), self.connection)
        self.idle.give("a", self.connection)
        self.clock.advance(IDLE_S)
        self.assertIsNone(self.idle.take("a"))
        self.assertFalse(self.client.usable)

    def test_not_for_ever(self) -> None:
        """Who is asked for its certificate once would be believed for hours."""
        for _ in range(int(MAX_AGE_S)):
            self.idle.give("a", self.connection)
            self.clock.advance(IDLE_S / 2)
            if self.idle.take("a") is None:
                break
        self.assertLessEqual(self.clock.seconds(), MAX_AGE_S + IDLE_S)
        self.assertFalse(self.client.usable)

    def test_cleared(self) -> None:
        self.idle.give("a", self.connection)
        self.idle.clear()
        self.assertIsNone(self.idle.take("a"))
        self.assertFalse(self.client.usable)
