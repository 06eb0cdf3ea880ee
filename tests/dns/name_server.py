"""A name server on loopback, over UDP and TCP, that says what a test wants."""

import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.message import Message
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol

SOA = "ns.test. admin.test. 1 3600 600 86400 60"

Zones = Mapping[tuple[str, str], Sequence[str]]
Change = Callable[[Message, bytes], "bytes | None"]
"""Makes octets of the true answer and the query; None: nothing is said."""


def wire(answer: Message, query: bytes) -> bytes:
    return answer.to_wire(max_size=65535)


class NameServer:
    """Answers from `zones`; `change` may spoil it; `heard` has all queries."""

    def __init__(self, reactor: Any, zones: Zones, secure: Sequence[str] = ()) -> None:
        # Any: the global reactor.
        self.zones = zones
        self.secure = secure
        self.change: Change = wire
        self.change_tcp: Change = wire
        self.heard: list[Message] = []
        self.heard_tcp: list[Message] = []
        self.sources: list[int] = []  # ports of the queries
        self._udp = reactor.listenUDP(0, _Udp(self), interface="127.0.0.1")
        self.port = self._udp.getHost().port
        factory = Factory.forProtocol(lambda: _Tcp(self))
        self._tcp = reactor.listenTCP(self.port, factory, interface="127.0.0.1")

    def stop(self) -> "Deferred[Any]":
        stops = [port.stopListening() for port in (self._udp, self._tcp)]
        return DeferredList([stop for stop in stops if stop is not None])

    def answer(self, wire: bytes, heard: list[Message]) -> Message:
        query = dns.message.from_wire(wire)
        heard.append(query)
        answer = dns.message.make_response(query, recursion_available=True)
        [question] = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        type = dns.rdatatype.to_text(question.rdtype)
        proof = bool(query.flags & dns.flags.AD)
        while True:
            proof = proof and name in self.secure
            alias = self.zones.get((name, "CNAME"))
            if not alias or type == "CNAME":
                break
            answer.answer.append(rrset(name, "CNAME", alias))
            name = alias[0].rstrip(".").lower()
        if texts := self.zones.get((name, type)):
            answer.answer.append(rrset(name, type, texts))
        else:
            answer.authority.append(rrset("test", "SOA", [SOA]))
            if not any(
                other == name or other.endswith(f".{name}") for other, _ in self.zones
            ):
                answer.set_rcode(dns.rcode.NXDOMAIN)
        if proof:
            answer.flags |= dns.flags.AD
        return answer


def rrset(name: str, type: str, texts: Sequence[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(f"{name}.", 300, "IN", type, texts)


class _Udp(DatagramProtocol):
    transport: Any  # a UDP port

    def __init__(self, server: NameServer) -> None:
        self._server = server

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        server = self._server
        server.sources.append(addr[1])
        answer = server.change(server.answer(datagram, server.heard), datagram)
        if answer is not None:
            self.transport.write(answer, addr)


class _Tcp(Protocol):
    transport: Any  # TCP

    def __init__(self, server: NameServer) -> None:
        self._server = server
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 2:
            return
        query = self._buffer[2:]
        if len(query) < struct.unpack_from("!H", self._buffer)[0]:
            return
        server = self._server
        answer = server.change_tcp(server.answer(query, server.heard_tcp), query)
        if answer is None:
            self.transport.loseConnection()
        else:
            self.transport.write(struct.pack("!H", len(answer)))
            self.transport.write(answer)
