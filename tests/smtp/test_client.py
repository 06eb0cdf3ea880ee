"""The client on a transport: order, deadlines, room, and every way to be cut off."""

import socket
from collections.abc import AsyncIterator

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp.client import (
    HANDSHAKE_TIMEOUT_S,
    LINGER_S,
    ConnectionEnded,
    SmtpClient,
    TlsFailed,
)
from mailsrv.smtp.client_engine import LOST, TOO_SLOW, ClientEngine
from mailsrv.smtp.outgoing import Done, Lacking, Outgoing, OutgoingRecipient
from mailsrv.smtp.reply import Reply
from mailsrv.tls.peer import Need, Unverified, unverified_context
from mailsrv.tls.peer_certificate import NotTrusted

CONTENT = (b"Subject: x\r\n\r\n", b".one\r\n", b"two\r\n")
EHLO = b"220 else.test ESMTP\r\n250-else.test\r\n250-PIPELINING\r\n250 SIZE 1000\r\n"


def outgoing(**options: bool) -> Outgoing:
    size = sum(map(len, CONTENT))
    recipients = (OutgoingRecipient("b@else.test"),)
    eight_bit = options.get("eight_bit", False)
    return Outgoing("a@example.test", recipients, size, eight_bit, smtputf8=False)


class SocketTransport(StringTransport):
    """Has a socket, as a TCP transport does."""

    def __init__(self, handle: socket.socket) -> None:
        super().__init__()
        self.handle = handle

    def getHandle(self) -> socket.socket:
        return self.handle


class Pieces:
    """The content; it may wait before its last piece, or break there."""

    def __init__(self, before_last: "Deferred[None] | None" = None) -> None:
        self.before_last = before_last
        self.given = 0

    async def read(self) -> AsyncIterator[bytes]:
        for piece in CONTENT:
            if piece is CONTENT[-1] and self.before_last is not None:
                await self.before_last
            self.given += 1
            yield piece


class ClientTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = StringTransport()
        engine = ClientEngine(hostname="mail.example.test", tls="never")
        tls = Unverified("never", unverified_context())
        self.client = SmtpClient(engine, self.clock, host="mx.else.test", tls=tls)
        self.client.makeConnection(self.transport)

    def ready(self) -> None:
        ready = Deferred.fromCoroutine(self.client.ready())
        self.assertNoResult(ready)
        self.client.dataReceived(EHLO)
        self.successResultOf(ready)
        self.assertTrue(self.client.usable)
        self.transport.clear()

    def sends(self, pieces: Pieces) -> "Deferred[Done]":
        return Deferred.fromCoroutine(self.client.send(outgoing(), pieces.read()))

    def cut(self) -> None:
        self.client.connectionLost(Failure(ConnectionDone()))

    def test_a_message_and_another_one(self) -> None:
        self.ready()
        for _ in range(2):
            done = self.sends(Pieces())
            self.assertFalse(self.client.usable)
            self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
            self.assertNoResult(done)
            self.client.dataReceived(b"250 2.0.0 Mine\r\n")
            reply = Reply(250, "2.0.0", "Mine")
            self.assertEqual(self.successResultOf(done), Done((reply,)))
            self.assertTrue(self.client.usable)
            said = self.transport.value()
            self.assertTrue(said.endswith(b"\r\n\r\n..one\r\ntwo\r\n.\r\n"), said)
            self.transport.clear()
        self.client.quit()
        self.assertEqual(self.transport.value(), b"QUIT\r\n")
        self.client.dataReceived(b"221 Bye\r\n")
        self.assertTrue(self.transport.disconnecting)
        self.clock.advance(LINGER_S)
        self.assertTrue(self.transport.disconnected)
        self.cut()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_waits_for_room(self) -> None:
        self.ready()
        pieces = Pieces()
        done = self.sends(pieces)
        self.client.pauseProducing()
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        self.assertEqual(pieces.given, 1)
        self.client.resumeProducing()
        self.assertEqual(pieces.given, 3)
        self.client.dataReceived(b"250 Ok\r\n")
        self.assertEqual(self.successResultOf(done).replies[0].code, 250)

    def test_a_peer_that_takes_nothing(self) -> None:
        self.ready()
        done = self.sends(Pieces())
        self.client.pauseProducing()
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        self.clock.advance(180)
        self.assertEqual(self.successResultOf(done), Done((TOO_SLOW,)))
        self.assertTrue(self.transport.disconnected)
        self.assertFalse(self.client.usable)

    def test_it_waits_as_long_as_the_rfc_says(self) -> None:
        ready = Deferred.fromCoroutine(self.client.ready())
        self.clock.advance(299)
        self.assertNoResult(ready)
        self.clock.advance(1)
        error = self.failureResultOf(ready, ConnectionEnded).value
        self.assertEqual(error.reply, TOO_SLOW)

    def test_an_idle_connection_waits_for_its_owner(self) -> None:
        self.ready()
        self.clock.advance(3600)
        self.assertTrue(self.client.usable)

    def test_goodbye_to_an_idle_connection(self) -> None:
        self.ready()
        self.client.dataReceived(b"421 4.4.2 Too long\r\n")
        self.assertFalse(self.client.usable)
        self.assertTrue(self.transport.disconnected)

    def test_cut_off_while_idle(self) -> None:
        self.ready()
        self.client.gone = Deferred()
        self.cut()
        self.assertFalse(self.client.usable)
        self.successResultOf(self.client.gone)

    def test_cut_off_before_the_greeting(self) -> None:
        ready = Deferred.fromCoroutine(self.client.ready())
        self.cut()
        error = self.failureResultOf(ready, ConnectionEnded).value
        self.assertEqual(error.reply, LOST)

    def test_cut_off_in_the_content(self) -> None:
        self.ready()
        before_last: Deferred[None] = Deferred()
        pieces = Pieces(before_last)
        done = self.sends(pieces)
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        self.cut()
        before_last.callback(None)
        self.assertEqual(self.successResultOf(done), Done((LOST,)))
        self.assertNotIn(b"two", self.transport.value())

    def test_cut_off_after_the_content(self) -> None:
        self.ready()
        done = self.sends(Pieces())
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        self.cut()
        self.assertEqual(self.successResultOf(done), Done((LOST,), uncertain=True))

    def test_content_that_breaks(self) -> None:
        self.ready()
        before_last: Deferred[None] = Deferred()
        done = self.sends(Pieces(before_last))
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        before_last.errback(OSError("the disk"))
        self.failureResultOf(done, OSError)
        self.assertTrue(self.transport.disconnected)
        self.assertFalse(self.transport.value().endswith(b"\r\n.\r\n"))
        self.assertFalse(self.client.usable)

    def test_what_the_peer_lacks(self) -> None:
        self.ready()
        message = outgoing(eight_bit=True)
        sent = Deferred.fromCoroutine(self.client.send(message, Pieces().read()))
        self.failureResultOf(sent, Lacking)
        self.assertTrue(self.client.usable)
        self.assertEqual(self.transport.value(), b"")


class SocketTests(SynchronousTestCase):
    """What is written goes to the socket itself, in few writes."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        ours.setblocking(False)
        self.theirs.setblocking(False)
        engine = ClientEngine(hostname="mail.example.test", tls="never")
        tls = Unverified("never", unverified_context())
        self.client = SmtpClient(engine, Clock(), host="mx.else.test", tls=tls)
        self.transport = SocketTransport(ours)
        self.client.makeConnection(self.transport)

    def ready(self, extension: bytes) -> None:
        ready = Deferred.fromCoroutine(self.client.ready())
        self.client.dataReceived(EHLO.replace(b"SIZE 1000", extension))
        self.successResultOf(ready)
        self.written()

    def written(self) -> list[bytes]:
        """Return what each write has sent since."""
        writes = []
        try:
            while True:
                writes.append(self.theirs.recv(65536))
        except BlockingIOError:
            return writes

    def test_a_short_message_and_its_end_in_one_write(self) -> None:
        self.ready(b"SIZE")
        done = Deferred.fromCoroutine(self.client.send(outgoing(), Pieces().read()))
        self.assertEqual(len(self.written()), 1)
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n354 Go\r\n")
        content = b"Subject: x\r\n\r\n..one\r\ntwo\r\n.\r\n"
        self.assertEqual(self.written(), [content])
        self.client.dataReceived(b"250 Ok\r\n")
        self.successResultOf(done)
        self.assertEqual(self.transport.value(), b"")

    def test_nothing_is_written_into_content_that_breaks(self) -> None:
        # The octets of QUIT would be the last ones that BDAT has announced.
        self.ready(b"CHUNKING")
        before_last: Deferred[None] = Deferred()
        done = Deferred.fromCoroutine(
            self.client.send(outgoing(), Pieces(before_last).read())
        )
        done.addErrback(lambda failure: self.client.quit())  # as its owner does
        self.client.dataReceived(b"250 Ok\r\n250 Ok\r\n")
        self.written()
        before_last.errback(OSError("the disk"))
        self.assertEqual(self.written(), [])
        self.assertEqual(self.transport.value(), b"")
        self.assertTrue(self.transport.disconnected)


class Counted(Unverified):
    """TLS whose sessions are counted."""

    def __init__(self, tls: Need) -> None:
        super().__init__(tls, unverified_context())
        self.noted: list[str] = []

    def note(
        self,
        failure: NotTrusted | None,
        *,
        sending_ip: str = "",
        receiving_ip: str = "",
    ) -> None:
        self.noted.append("" if failure is None else failure.result_type)


class HandshakeTransport(StringTransport):
    """A peer that never says a word of TLS."""

    def startTLS(self, creator: object) -> None:
        """Nothing comes back."""


class TlsTests(SynchronousTestCase):
    def client(self, need: Need) -> SmtpClient:
        self.clock = Clock()
        self.tls = Counted(need)
        engine = ClientEngine(hostname="mail.example.test", tls=need)
        client = SmtpClient(engine, self.clock, host="mx.else.test", tls=self.tls)
        client.makeConnection(HandshakeTransport())
        return client

    def test_no_starttls_is_counted(self) -> None:
        """RFC 8460 section 4.3.1, whether mail goes on without it or not."""
        offered = b"220 else.test\r\n250-else.test\r\n250 STARTTLS\r\n454 Not now\r\n"
        cases: tuple[tuple[Need, bytes], ...] = (
            ("may", EHLO),
            ("must", EHLO),
            ("may", offered),
        )
        for need, said in cases:
            client = self.client(need)
            ready = Deferred.fromCoroutine(client.ready())
            client.dataReceived(said)
            if need == "must":
                self.failureResultOf(ready, ConnectionEnded)
            else:
                self.successResultOf(ready)
            self.assertEqual(self.tls.noted, ["starttls-not-supported"])

    def test_nobody_wanted_tls(self) -> None:
        client = self.client("never")
        ready = Deferred.fromCoroutine(client.ready())
        client.dataReceived(EHLO)
        self.successResultOf(ready)
        self.assertEqual(self.tls.noted, [])

    def test_a_handshake_that_hangs(self) -> None:
        """It has failed for its TLS: opportunistic mail goes on without."""
        client = self.client("may")
        ready = Deferred.fromCoroutine(client.ready())
        client.dataReceived(b"220 else.test\r\n250-else.test\r\n250 STARTTLS\r\n")
        client.dataReceived(b"220 Go\r\n")
        self.clock.advance(HANDSHAKE_TIMEOUT_S)
        self.failureResultOf(ready, TlsFailed)
        client.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.tls.noted, ["validation-failure"])
