"""How SMTP connections end, are kept short, and share the reactor."""

import socket

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from mailsrv.connections import ConnectionLimits
from mailsrv.settings import SmtpSettings, TlsSettings
from mailsrv.smtp.engine import ROLES, Role
from mailsrv.smtp.server import (
    LINGER_S,
    STRETCH_OCTETS,
)
from tests.smtp.office import (
    ANNA,
    CARL,
    MAIL,
    MESSAGE,
    PEER,
    Connection,
    OfficeCase,
    Wire,
    plain,
    rcpt,
)


class ConnectionTests(OfficeCase):
    def test_greeting(self) -> None:
        self.assertEqual(
            Connection(self.factory()).greeting,
            b"220 mail.example.test ESMTP mailsrv\r\n",
        )

    def test_too_many_connections(self) -> None:
        clients = [Connection(self.factory()) for _ in range(6)]
        self.assertEqual(clients[5].greeting[:10], b"421 4.7.0 ")
        self.assertTrue(clients[5].ended)
        clients[5].lose()
        clients[0].lose()
        self.assertEqual(Connection(self.factory()).greeting[:4], b"220 ")

    def test_starttls(self) -> None:
        factory = self.factory("submission")
        client = Connection(factory)
        client.send(b"EHLO a\r\n")
        self.assertEqual(client.send(b"STARTTLS\r\n")[:4], b"220 ")
        self.assertIs(client.wire.tls_context, factory.tls)
        self.assertNotIn(b"STARTTLS", client.send(b"EHLO a\r\n"))

    def test_octets_behind_starttls(self) -> None:
        client = Connection(self.factory())
        self.assertEqual(client.codes(b"EHLO a\r\nSTARTTLS\r\nNOOP\r\n"), [250, 421])
        self.assertIsNone(client.wire.tls_context)
        self.assertTrue(client.ended)

    def test_tls_hello_closes(self) -> None:
        client = Connection(self.factory())
        self.assertEqual(client.send(b"\x16\x03\x01"), b"")
        self.assertTrue(client.ended)

    def test_quit(self) -> None:
        client = self.mx()
        self.assertEqual(client.send(b"QUIT\r\nNOOP\r\n")[:4], b"221 ")
        self.assertTrue(client.ended)

    def test_octets_after_the_end_change_nothing(self) -> None:
        client = self.mx()
        client.send(b"QUIT\r\n")
        self.clock.advance(LINGER_S - 1)
        self.assertEqual(client.send(b"NOOP\r\n"), b"")
        self.clock.advance(1)
        self.assertTrue(client.wire.aborted)

    def test_clear_text_log_in_on_loopback_only(self) -> None:
        allowed = TlsSettings(clear_text_passwords_on_loopback=True)
        factory = self.factory("submission", tls_settings=allowed)
        for peer, offered in (("127.0.0.9", True), (PEER, False)):
            wire = Wire(tls=False)
            # As a proxy on this host gives it: the transport's peer is the proxy.
            wire.peerAddr = IPv4Address("TCP", "127.0.0.1", 1)
            server = factory.buildProtocol(IPv4Address("TCP", peer, 1))
            server.makeConnection(wire)
            server.dataReceived(b"EHLO a\r\nAUTH PLAIN " + plain(ANNA) + b"\r\n")
            octets = wire.take()
            self.assertEqual(b"AUTH PLAIN LOGIN" in octets, offered)
            self.assertEqual(b"\r\n235 " in octets, offered)

    def test_log_in_before_starttls_counts_no_more(self) -> None:
        allowed = TlsSettings(clear_text_passwords_on_loopback=True)
        server = self.factory("submission", tls_settings=allowed).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        wire = Wire(tls=False)
        server.makeConnection(wire)
        server.dataReceived(b"EHLO a\r\nAUTH PLAIN " + plain(ANNA) + b"\r\n")
        server.dataReceived(b"STARTTLS\r\n")
        wire.take()
        server.dataReceived(b"EHLO a\r\nMAIL FROM:<" + ANNA.encode() + b">\r\n")
        self.assertIn(b"\r\n530 ", wire.take())

    def test_peer_that_does_not_let_go(self) -> None:
        client = self.mx()
        client.send(b"QUIT\r\n")
        self.clock.advance(LINGER_S)
        self.assertTrue(client.wire.aborted)

    def test_new_settings_are_for_new_sessions(self) -> None:
        factory = self.factory()
        client = Connection(factory)
        factory.settings = SmtpSettings(max_message_octets=7)
        self.assertNotIn(b"SIZE 7\r\n", client.send(b"EHLO a\r\n"))
        self.assertIn(b"SIZE 7\r\n", Connection(factory).send(b"EHLO a\r\n"))

    def test_drain(self) -> None:
        factory = self.factory()
        idle, busy = Connection(factory), Connection(factory)
        busy.send(b"EHLO a\r\n" + MAIL + rcpt(ANNA) + b"DATA\r\n")
        drained = Deferred.fromCoroutine(factory.drain())
        self.assertEqual(idle.wire.take()[:9], b"421 4.3.2")
        idle.lose()
        self.assertNoResult(drained)
        self.assertEqual(busy.codes(MESSAGE + b".\r\n"), [250, 421])
        busy.lose()
        self.successResultOf(drained)
        self.assertEqual(Connection(factory).greeting[:4], b"421 ")


class SocketTests(OfficeCase):
    """A transport that has a socket: replies go there at once."""

    def test_what_the_socket_does_not_take_follows_in_order(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        wire = Wire(tls=False)
        wire.getHandle = lambda: ours  # type: ignore[attr-defined]  # as TCP has it
        server = self.factory().buildProtocol(wire.getPeer())
        server.makeConnection(wire)
        self.assertEqual(wire.value(), b"")
        sent = 0
        while not wire.value():  # until the socket's buffer is full
            server.dataReceived(b"NOOP\r\nVRFY a\r\n" * 100)
            sent += 100
        theirs.settimeout(60)
        got = b""
        while b"\r\n" not in got:
            got += theirs.recv(65536)
        greeting, _, got = got.partition(b"\r\n")
        self.assertEqual(greeting[:4], b"220 ")
        ours.close()
        while octets := theirs.recv(65536):
            got += octets
        replies = (got + wire.value()).split(b"\r\n")[:-1]
        self.assertEqual([r[:3] for r in replies], [b"250", b"252"] * sent)


class NoiseTests(OfficeCase):
    PIECES = (
        *(
            b"EHLO a\r\n",
            b"LHLO a\r\n",
            b"HELO\r\n",
            MAIL,
            rcpt(ANNA),
            rcpt(CARL),
            b"DATA\r\n",
        ),
        *(b"MAIL FROM:<anna@example.test>\r\n", b"RSET\r\n", b"BDAT 9\r\n"),
        *(b"BDAT 3 LAST\r\n", MESSAGE, b"\r\n.\r\n", b".\r\n", b"\n", b"\0", b"\xff"),
        *(b'From: ;:<"@,\r\n', b"AUTH LOGIN\r\n", b"*\r\n", b"QUIT\r\n", b"\r\n"),
        *(b"AUTH PLAIN " + plain(ANNA) + b"\r\n", b"STARTTLS\r\n", b"VRFY x\r\n"),
    )

    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(ROLES),
        st.booleans(),
        st.lists(st.sampled_from(PIECES), max_size=25),
    )
    def test_no_order_of_octets_breaks_a_session(
        self, role: Role, tls: bool, pieces: list[bytes]
    ) -> None:
        client = Connection(self.factory(role), tls=tls)
        for piece in pieces:
            client.send(piece)
        client.lose()
        self.clock.advance(0)
        self.assertEqual([e for e in self.events if e.get("log_failure")], [])
        self.assertEqual(self.connections, ConnectionLimits(10, 5))
        taken_back = {id(m) for m in self.store.aborted}
        self.assertTrue(all(m.targets for m in self.store.messages))
        self.assertEqual(self.store.begun - taken_back, set())


class DeadlineTests(OfficeCase):
    def test_command(self) -> None:
        client = self.mx(command_timeout_s=100.0)
        self.clock.advance(90)
        self.assertEqual(client.codes(b"NOOP\r\n"), [250])
        self.clock.advance(99)
        self.assertFalse(client.ended)
        self.clock.advance(1)
        self.assertEqual(client.wire.take()[:9], b"421 4.4.2")
        self.assertTrue(client.ended)

    def test_trickling_command_does_not_extend(self) -> None:
        client = self.mx(command_timeout_s=100.0)
        for _ in range(10):
            client.send(b"N")
            self.clock.advance(10)
        self.assertTrue(client.ended)

    def test_trickling_content_does_not_extend(self) -> None:
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE)
        for _ in range(10):
            self.assertFalse(client.ended)
            client.send(b"x\r\n" * 100)
            self.clock.advance(10)
        self.assertTrue(client.ended)
        client.lose()
        self.assertEqual(self.store.messages, [])

    def test_flowing_content_extends(self) -> None:
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        for _ in range(10):
            self.clock.advance(90)
            client.send(b"x" * STRETCH_OCTETS)
        self.assertEqual(client.codes(b"\r\n.\r\n"), [250])

    def test_our_own_slowness_does_not_count(self) -> None:
        self.store.held = True
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE + b".\r\n")
        self.clock.pump([10] * 50)
        self.assertFalse(client.ended)
        self.store.release()
        self.assertEqual(client.wire.take()[:3], b"250")
        self.assertFalse(client.ended)
