"""SMTP load: some connections, each sending message after message; latencies kept.

One thread and non-blocking sockets, so that the load costs little beside the server.
"""

import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BENCH_ID = b"X-Bench-Id: "


@dataclass(slots=True)
class Result:
    """What a run of the load saw."""

    accepted: set[int] = field(default_factory=set)
    latencies_s: list[float] = field(default_factory=list)  # final dot to 250
    refused: Counter[bytes] = field(default_factory=Counter)
    seconds: float = 0.0


class _Connection:
    """One session at a time; the next begins where the last ended."""

    def __init__(self, load: "Load") -> None:
        self.load = load
        self.socket: socket.socket | None = None
        self.unsent = b""

    def open(self) -> None:
        self.socket = socket.create_connection(self.load.address)
        self.socket.setblocking(False)
        self.load.selector.register(self.socket, selectors.EVENT_READ, self)
        self.dialogue = self._session()
        next(self.dialogue)

    def _session(self) -> Iterator[None]:
        """Each yield waits for one reply, which stands in `self.reply` after it."""
        yield
        self.send(self.load.hello + b" load.bench.test\r\n")
        yield
        for _ in range(self.load.per_session):
            number = self.load.take()
            if number is None:
                break
            self.send(b"MAIL FROM:<%s>\r\n" % self.load.sender)
            yield
            self.send(b"RCPT TO:<%s>\r\n" % self.load.recipient(number))
            yield
            self.send(b"DATA\r\n")
            yield
            self.send(self.load.content(number))
            sent_at = time.perf_counter()
            yield
            if self.reply.startswith(b"250"):
                self.load.result.accepted.add(number)
                self.load.result.latencies_s.append(time.perf_counter() - sent_at)
            else:
                self.load.result.refused[self.reply[:3]] += 1
        self.send(b"QUIT\r\n")
        yield

    def send(self, octets: bytes) -> None:
        assert self.socket is not None
        try:
            sent = self.socket.send(octets)
        except BlockingIOError:
            sent = 0
        self.unsent = octets[sent:]
        if self.unsent:
            self.load.selector.modify(
                self.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, self
            )

    def ready(self, events: int) -> None:
        assert self.socket is not None
        if events & selectors.EVENT_WRITE:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
            if not self.unsent:
                self.load.selector.modify(self.socket, selectors.EVENT_READ, self)
        if events & selectors.EVENT_READ:
            self.reply = self.socket.recv(65536)
            last = self.reply.rstrip(b"\r\n").rpartition(b"\n")[2]
            if self.reply and (last[3:4] == b"-" or not self.reply.endswith(b"\n")):
                return  # the rest of a reply is still to come
            if next(self.dialogue, self) is self or not self.reply:
                self.close()

    def close(self) -> None:
        assert self.socket is not None
        self.load.selector.unregister(self.socket)
        self.socket.close()
        self.load.ended(self)


class Load:
    """`count` messages over `connections`, `per_session` in each session."""

    def __init__(
        self,
        address: tuple[str, int],
        messages: list[bytes],
        recipients: list[str],
        *,
        run: str,
        count: int,
        connections: int,
        per_session: int,
        hello: bytes = b"EHLO",
        sender: bytes = b"load@elsewhere.test",
    ) -> None:
        self.address = address
        self.hello = hello
        self.sender = sender
        self.per_session = per_session
        self.result = Result()
        self.selector = selectors.DefaultSelector()
        self._stuffed = [_stuffed(message) for message in messages]
        self._recipients = [each.encode() for each in recipients]
        self._run = run.encode()
        self._count = count
        self._connections = connections
        self._next = 0
        self._open = 0

    def take(self) -> int | None:
        """The number of the next message, None when all were taken."""
        if self._next == self._count:
            return None
        self._next += 1
        return self._next - 1

    def recipient(self, number: int) -> bytes:
        return self._recipients[number % len(self._recipients)]

    def content(self, number: int) -> bytes:
        stuffed = self._stuffed[number % len(self._stuffed)]
        return b"%s%s-%d\r\n%s.\r\n" % (BENCH_ID, self._run, number, stuffed)

    def ended(self, connection: _Connection) -> None:
        self._open -= 1
        if self._next < self._count:
            self._open += 1
            connection.open()

    def go(self) -> Result:
        begin = time.perf_counter()
        for _ in range(self._connections):
            self._open += 1
            _Connection(self).open()
        while self._open:
            for key, events in self.selector.select():
                key.data.ready(events)
        self.result.seconds = time.perf_counter() - begin
        return self.result


def _stuffed(message: bytes) -> bytes:
    """RFC 5321 section 4.5.2; a header field stands in front, so line 1 has no dot."""
    return message.replace(b"\r\n.", b"\r\n..")
