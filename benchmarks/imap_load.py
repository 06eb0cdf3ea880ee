"""Reading a large mailbox over IMAP, command by command, as clients do it."""

import re
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from benchmarks.meter import Meter
from benchmarks.servers import HOST, Target

T = TypeVar("T")

FLAGS = b"FETCH 1:* (UID FLAGS)"
FULL = b"FETCH 1:* (UID FLAGS ENVELOPE INTERNALDATE RFC822.SIZE BODYSTRUCTURE)"
# What Thunderbird 153 asks of messages that it does not know.
THUNDERBIRD = (
    b"UID FETCH 1:* (UID RFC822.SIZE FLAGS BODY.PEEK[HEADER.FIELDS (From To Cc Bcc"
    b" Subject Date Message-ID Priority X-Priority References Newsgroups In-Reply-To"
    b" Content-Type Reply-To Received)])"
)
_FETCHED = re.compile(rb"^\* \d+ FETCH \(", re.M)
_SEARCHED = re.compile(rb"^\* SEARCH([ \d]*)\r$", re.M)


class Client:
    """One connection, logged in."""

    def __init__(self, target: Target, user: str) -> None:
        self._socket = socket.create_connection((HOST, target.imap_port), 120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 18)
        self._number = 0
        while not self._receive().endswith(b"\r\n"):
            pass
        login = f"LOGIN {target.address(user)} {target.passwords[user]}"
        self.command(login.encode())

    def command(self, line: bytes) -> bytes:
        """Return all up to the tagged OK."""
        tag = self._send(line)
        return self._answer(tag)

    def append(self, mailbox: bytes, message: bytes) -> None:
        """APPEND; the literal does not wait (LITERAL+)."""
        head = b"APPEND %b {%d+}\r\n" % (mailbox, len(message))
        self._answer(self._send(head + message))

    def bye(self) -> None:
        """Log out; wait until the server has closed."""
        self._send(b"LOGOUT")
        while self._receive():
            pass
        self._socket.close()

    def _send(self, line: bytes) -> bytes:
        self._number += 1
        tag = b"zq%d" % self._number
        self._socket.sendall(b"%b %b\r\n" % (tag, line))
        return tag

    def _receive(self) -> bytes:
        return bytes(self._buffer[: self._socket.recv_into(self._buffer)])

    def _answer(self, tag: bytes) -> bytes:
        pieces: list[bytes] = []
        last = b"\r\n"
        while True:
            piece = self._receive()
            if not piece:
                raise SystemExit("the server closed the connection")
            pieces.append(piece)
            last = (last + piece)[-1024:] if len(piece) < 1024 else piece[-1024:]
            at = last.rfind(b"\r\n%b " % tag)
            if at >= 0 and last.endswith(b"\r\n"):
                break
        if not last.startswith(b"%b OK" % tag, at + 2):
            raise SystemExit(f"not OK: {last[at:]!r}")
        return b"".join(pieces)


class Works:
    """What was measured so far: milliseconds of the clock, and of the server's CPU."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.figures: dict[str, float] = {}

    def timed(self, name: str, work: Callable[[], T], times: int = 1) -> T:
        """Do the work, `times` times; note the mean."""
        with Meter(self.target.pids) as meter:
            for _ in range(times):
                result = work()
        self.figures[f"{name}: ms"] = meter.seconds * 1000 / times
        self.figures[f"{name}: CPU ms"] = meter.server_cpu_s * 1000 / times
        return result

    def fetch(self, name: str, client: Client, line: bytes, count: int) -> None:
        found = len(_FETCHED.findall(self.timed(name, lambda: client.command(line))))
        if found != count:
            raise SystemExit(f"{name}: {found} messages instead of {count}")


def run(
    target: Target, one: str, two: str, messages: list[bytes], *, writes: bool
) -> dict[str, float]:
    """Read two mailboxes of `messages` that no client has opened before."""
    works, count = Works(target), len(messages)
    _summaries(works, one, count)
    _headers(works, two, count)
    client = Client(target, two)
    client.command(b"SELECT INBOX")
    _searches(works, client)
    _downloads(works, client, count)
    if writes:
        _writes(works, client, messages)
    client.bye()
    works.timed("short session", lambda: _short_session(target, one), 50)
    return works.figures


def wait_for_rest(target: Target) -> None:
    """Wait until the server does nothing of itself any more, 10 minutes at most."""
    for _ in range(60):
        with Meter(target.pids) as meter:
            time.sleep(10.0)
        if meter.server_cpu_s < 0.1:
            return


def get_acquainted(target: Target, user: str) -> None:
    """Ask what the works will ask, of a mailbox with a message or so."""
    client = _open(target, user)
    for line in (FULL, THUNDERBIRD, b"FETCH * BODY.PEEK[HEADER]"):
        client.command(line)
    client.bye()


def _summaries(works: Works, user: str, count: int) -> None:
    client = works.timed("LOGIN, first SELECT", lambda: _open(works.target, user))
    works.fetch("FETCH (UID FLAGS)", client, FLAGS, count)
    works.fetch("FETCH (UID FLAGS) again", client, FLAGS, count)
    works.fetch("full FETCH, first time", client, FULL, count)
    client.bye()
    time.sleep(2.0)  # a folder that has just been changed is read again
    works.timed(
        "LOGIN, SELECT, LOGOUT", lambda: _open(works.target, user).bye(), times=10
    )
    client = _open(works.target, user)
    works.fetch("full FETCH", client, FULL, count)
    client.bye()


def _headers(works: Works, user: str, count: int) -> None:
    client = _open(works.target, user)
    works.fetch("Thunderbird's headers, first time", client, THUNDERBIRD, count)
    works.fetch("Thunderbird's headers", client, THUNDERBIRD, count)
    client.bye()


def _searches(works: Works, client: Client) -> None:
    for keys in (b"UNSEEN", b"SUBJECT meeting", b"TEXT xylophone"):
        name, line = f"SEARCH {keys.decode()}", b"SEARCH " + keys
        for each in (f"{name}, first time", name):
            if each == "SEARCH TEXT xylophone":
                wait_for_rest(works.target)  # texts are taken up in the background
            answer = works.timed(each, partial(client.command, line))
            if not _SEARCHED.search(answer):
                raise SystemExit(f"{each}: {answer[-200:]!r}")


def _downloads(works: Works, client: Client, count: int) -> None:
    some = min(2000, count)
    line = b"FETCH 1:%d (UID BODY.PEEK[])" % some
    works.fetch(f"download {some} at once", client, line, some)
    numbers = iter(range(1, count))

    def one() -> None:
        client.command(b"FETCH %d (UID RFC822.SIZE BODY.PEEK[])" % next(numbers))

    works.timed("download of one", one, min(500, count - 1))


def _writes(works: Works, client: Client, messages: list[bytes]) -> None:
    some, numbers = min(1000, len(messages) // 2), iter(range(1, len(messages)))
    all_of_them = b"1:%d" % some

    def flag_one() -> None:
        client.command(b"STORE %d +FLAGS.SILENT (\\Answered)" % next(numbers))

    def append() -> None:
        client.append(b"Bench", messages[next(numbers)])

    def expunge() -> None:
        client.command(b"STORE %b +FLAGS.SILENT (\\Deleted)" % all_of_them)
        client.command(b"EXPUNGE")

    works.fetch(
        f"STORE of {some}", client, b"STORE %b +FLAGS (\\Flagged)" % all_of_them, some
    )
    works.timed("STORE of one", flag_one, min(200, some))
    client.command(b"CREATE Bench")
    works.timed(
        f"COPY of {some}", lambda: client.command(b"COPY %b Bench" % all_of_them)
    )
    works.timed("APPEND of one", append, some // 2)
    works.timed(f"delete and expunge {some}", expunge)


def _open(target: Target, user: str) -> Client:
    client = Client(target, user)
    client.command(b"SELECT INBOX")
    return client


def _short_session(target: Target, user: str) -> None:
    client = _open(target, user)
    client.command(b"FETCH * (UID FLAGS BODY.PEEK[HEADER])")
    client.bye()
