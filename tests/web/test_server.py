"""The pages, as octets on a connection."""

import re

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailsrv.lists.members import Member, State
from mailsrv.lists.tokens import BadToken, Purpose, Tokens
from mailsrv.web.pages import MAX_TOKEN
from mailsrv.web.server import IDLE_S, LIFE_S, MAX_BODY_OCTETS, WebFactory

NEWS = "news@example.org"


class MemoryLists:
    """One member of one list."""

    def __init__(self) -> None:
        self.tokens = Tokens(b"k" * 32, lambda: 0.0)
        self.member = Member(7, NEWS, "<b>@far.test", State.SUBSCRIBED, 0.0)
        self.done: list[str] = []
        self.broken = False

    async def named_by(self, purpose: Purpose, token: str) -> Member | None:
        if self.broken:
            raise RuntimeError("broken")
        try:
            self.tokens.read(purpose, token)
        except BadToken:
            return None
        return self.member

    async def unsubscribe(self, token: str) -> Member | None:
        self.done.append("unsubscribe")
        return self.member

    async def confirm(self, token: str) -> bool:
        self.done.append("confirm")
        return True


class Wire(StringTransport):
    """A connection that is being closed may still be read, as Twisted's."""

    def _checkState(self) -> None:
        pass

    def abortConnection(self) -> None:
        self.disconnected = True


class WebTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lists = MemoryLists()
        self.clock = Clock()
        self.factory = WebFactory(self.lists, self.clock)
        self.leave = self.lists.tokens.make(Purpose.UNSUBSCRIBE, 7)
        self.join = self.lists.tokens.make(Purpose.CONFIRM, 7)
        self.logged: list[str] = []

        @implementer(ILogObserver)
        def keep(event: LogEvent) -> None:
            self.logged.append(str(event))

        globalLogPublisher.addObserver(keep)
        self.addCleanup(globalLogPublisher.removeObserver, keep)

    def connect(self, octets: bytes = b"") -> Wire:
        wire = Wire()
        channel = self.factory.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        channel.makeConnection(wire)
        self.channel = channel
        if octets:
            channel.dataReceived(octets)
        return wire

    def ask(self, method: str, path: str, body: bytes = b"", fields: str = "") -> str:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\n{fields}"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        octets: bytes = self.connect(head.encode() + body).value()
        return octets.decode()

    def test_opening_a_link_changes_nothing(self) -> None:
        for method in ("GET", "HEAD"):
            for path in (f"/unsubscribe/{self.leave}", f"/confirm/{self.join}"):
                said = self.ask(method, path)
                self.assertTrue(said.startswith("HTTP/1.1 200 "), said)
        self.assertEqual(self.lists.done, [])

    def test_page_has_a_button(self) -> None:
        said = self.ask("GET", f"/unsubscribe/{self.leave}")
        self.assertIn('<form method="post">', said)
        self.assertIn("<b>&lt;b&gt;@far.test</b>", said)
        self.assertIn("Referrer-Policy: no-referrer\r\n", said)
        self.assertIn("Content-Security-Policy: default-src 'none';", said)
        self.assertNotRegex(said, "(?i)Server:")

    def test_one_click(self) -> None:
        # RFC 8058 section 8.1
        said = self.ask(
            "POST",
            f"/unsubscribe/{self.leave}",
            b"List-Unsubscribe=One-Click",
            "Content-Type: application/x-www-form-urlencoded\r\n",
        )
        self.assertTrue(said.startswith("HTTP/1.1 200 "), said)
        self.assertEqual(self.lists.done, ["unsubscribe"])

    def test_whole_address_in_the_request(self) -> None:
        """RFC 9112 section 3.2.2: as proxies may send it."""
        said = self.ask("GET", f"http://x.test:80/unsubscribe/{self.leave}")
        self.assertTrue(said.startswith("HTTP/1.1 200 "), said)
        self.assertNotIn(self.leave, "".join(self.logged))

    def test_confirm(self) -> None:
        self.ask("POST", f"/confirm/{self.join}")
        self.assertEqual(self.lists.done, ["confirm"])

    def test_tokens_have_one_purpose(self) -> None:
        for path in (f"/confirm/{self.leave}", f"/unsubscribe/{self.join}"):
            self.assertTrue(self.ask("POST", path).startswith("HTTP/1.1 404 "))
        self.assertEqual(self.lists.done, [])

    def test_elsewhere_is_nothing(self) -> None:
        for path in (
            "/",
            "/unsubscribe",
            "/unsubscribe/",
            "/unsubscribe/\x00\xff",
            f"/unsubscribe/{self.leave}/x",
            "/unsubscribe/" + "a" * (MAX_TOKEN + 1),
            "//elsewhere.test/",
            "/bounce/" + self.lists.tokens.make(Purpose.BOUNCE, 7),
        ):
            said = self.ask("POST", path)
            # Twisted itself says 400 to octets that no path has.
            self.assertTrue(said.startswith(("HTTP/1.1 404 ", "HTTP/1.1 400 ")), path)
            self.assertNotIn("Location", said)
        self.assertEqual(self.lists.done, [])

    def test_other_methods(self) -> None:
        said = self.ask("DELETE", f"/unsubscribe/{self.leave}")
        self.assertTrue(said.startswith("HTTP/1.1 405 "), said)
        self.assertIn("Allow: GET, HEAD, POST\r\n", said)

    def test_long_body_ends_the_connection(self) -> None:
        path = f"/unsubscribe/{self.leave}"
        self.assertEqual(self.ask("POST", path, b"x" * (MAX_BODY_OCTETS + 1)), "")
        head = f"POST {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
        wire = self.connect(head.encode())
        for _ in range(MAX_BODY_OCTETS // 1000 + 1):
            self.channel.dataReceived(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        self.assertTrue(wire.disconnected)
        self.assertEqual(self.lists.done, [])

    def test_a_connection_is_for_one_request(self) -> None:
        get = f"GET /unsubscribe/{self.leave} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        wire = self.connect(get)
        self.assertEqual(len(re.findall(b"HTTP/1.1 200", wire.value())), 1)
        self.assertIn(b"Connection: close\r\n", wire.value())
        self.assertTrue(wire.disconnecting)

    def test_slow_clients_are_cut(self) -> None:
        wire = self.connect(b"GET")
        self.clock.advance(IDLE_S + 1)
        self.assertTrue(wire.disconnecting)
        wire = self.connect()
        for _ in range(int(LIFE_S)):
            self.channel.dataReceived(b"x")
            self.clock.advance(1)
        self.assertTrue(wire.disconnected)

    def test_failure_is_logged_and_the_token_is_not(self) -> None:
        self.ask("GET", f"/unsubscribe/{self.leave}")
        self.lists.broken = True
        said = self.ask("GET", f"/unsubscribe/{self.leave}")
        self.assertTrue(said.startswith("HTTP/1.1 500 "), said)
        self.assertNotIn("broken", said)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn("unsubscribe", "".join(self.logged))
        self.assertNotIn(self.leave, "".join(self.logged))

    def test_drain_waits_for_requests_alone(self) -> None:
        idle = self.connect()
        idle_channel = self.channel
        self.connect(b"GET / HTTP/1.1\r\n")
        draining = Deferred.fromCoroutine(self.factory.drain())
        self.assertTrue(idle.disconnected)
        idle_channel.connectionLost(None)
        self.assertNoResult(draining)
        self.channel.connectionLost(None)
        self.successResultOf(draining)
