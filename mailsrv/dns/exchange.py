"""One question to one server, over UDP or TCP, on Twisted."""

import struct
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import DatagramProtocol, Protocol
from twisted.python.failure import Failure

from mailsrv.dns.message import Answer, BadAnswer, NotOurs, Question, read
from mailsrv.dns.servers import Server

_LENGTH = struct.Struct("!H")  # before each message on TCP, RFC 1035 section 4.2.2


class NoAnswer(Exception):
    """The server said nothing that can be used; the text says why."""


async def ask(
    server: Server, question: Question, *, timeout_s: float, reactor: Any
) -> Answer:
    """Ask over UDP, and over TCP what does not fit. Raises `NoAnswer`.

    Any: the reactor provides more interfaces than one type has.
    """
    answer = await _ask_udp(server, question, timeout_s, reactor)
    if answer.truncated:
        answer = await _ask_tcp(server, question, timeout_s, reactor)
        if answer.truncated:
            raise NoAnswer(f"{server.ip}: the answer has no end")
    return answer


async def _ask_udp(
    server: Server, question: Question, timeout_s: float, reactor: Any
) -> Answer:
    datagrams = _Datagrams(server, question)
    interface = "::" if ":" in server.ip else ""
    try:
        # Port 0: the system chooses one by chance, another one for each question, so
        # that a forger has to guess it as well (RFC 5452 section 9.2).
        port = reactor.listenUDP(0, datagrams, interface=interface)
    except (CannotListenError, OSError) as error:
        raise NoAnswer(f"{server.ip}: no socket") from error
    try:
        return await _in_time(datagrams.answered, timeout_s, server, reactor)
    finally:
        port.stopListening()


async def _ask_tcp(
    server: Server, question: Question, timeout_s: float, reactor: Any
) -> Answer:
    stream = _Stream(question)
    endpoint = TCP4ClientEndpoint(reactor, server.ip, server.port, timeout_s)
    try:
        await connectProtocol(endpoint, stream)
        return await _in_time(stream.answered, timeout_s, server, reactor)
    except ConnectError as error:
        raise NoAnswer(f"{server.ip}: no connection") from error
    finally:
        if stream.transport is not None:
            stream.transport.abortConnection()


async def _in_time(
    answered: "Deferred[Answer]", timeout_s: float, server: Server, clock: IReactorTime
) -> Answer:
    def too_late(*_: object) -> Failure:
        return Failure(NoAnswer(f"{server.ip}: no answer"))

    answered.addTimeout(timeout_s, clock, onTimeoutCancel=too_late)
    try:
        return await answered
    except BadAnswer as error:
        raise NoAnswer(f"{server.ip}: {error}") from error


class _Datagrams(DatagramProtocol):
    """Waits for the datagram that answers; others are not for us."""

    transport: Any  # a connected UDP port

    def __init__(self, server: Server, question: Question) -> None:
        self.answered: Deferred[Answer] = Deferred()
        self._server = server
        self._question = question

    def startProtocol(self) -> None:
        # Connected: the kernel drops what others send, and tells of a closed port.
        self.transport.connect(self._server.ip, self._server.port)
        self.transport.write(self._question.to_wire())

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.answered.called:
            return
        try:
            answer = read(datagram, self._question)
        except NotOurs:
            return
        except BadAnswer as error:
            self.answered.errback(error)
        else:
            self.answered.callback(answer)

    def connectionRefused(self) -> None:
        if not self.answered.called:
            self.answered.errback(NoAnswer(f"{self._server.ip}: nobody listens"))


class _Stream(Protocol):
    """One question on one connection."""

    transport: Any = None  # TCP

    def __init__(self, question: Question) -> None:
        self.answered: Deferred[Answer] = Deferred()
        self._question = question
        self._buffer = b""

    def connectionMade(self) -> None:
        wire = self._question.to_wire()
        self.transport.write(_LENGTH.pack(len(wire)) + wire)

    def dataReceived(self, data: bytes) -> None:
        if self.answered.called:
            return
        self._buffer += data
        if len(self._buffer) < _LENGTH.size:
            return
        (length,) = _LENGTH.unpack_from(self._buffer)
        wire = self._buffer[_LENGTH.size : _LENGTH.size + length]
        if len(wire) < length:
            return
        try:
            self.answered.callback(read(wire, self._question))
        except (NotOurs, BadAnswer) as error:
            self.answered.errback(BadAnswer(str(error) or "answers something else"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        if not self.answered.called:
            self.answered.errback(BadAnswer("closed the connection"))
