"""Reading a large mailbox over POP3."""

import socket

from benchmarks.imap_load import Works
from benchmarks.servers import HOST, Target


class Client:
    """One connection, logged in."""

    def __init__(self, target: Target, user: str) -> None:
        self._socket = socket.create_connection((HOST, target.pop3_port), 120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer(b"\r\n")
        self.command(f"USER {target.address(user)}")
        self.command(f"PASS {target.passwords[user]}")

    def command(self, line: str) -> bytes:
        self._socket.sendall(line.encode() + b"\r\n")
        return self._answer(b"\r\n")

    def listing(self, line: str) -> bytes:
        """Return a response of many lines."""
        self._socket.sendall(line.encode() + b"\r\n")
        return self._answer(b"\r\n.\r\n")

    def bye(self) -> None:
        self.command("QUIT")
        self._socket.close()

    def _answer(self, end: bytes) -> bytes:
        pieces, last = [], b""
        while not last.endswith(end):
            piece = self._socket.recv(262144)
            if not piece:
                raise SystemExit("the server closed the connection")
            pieces.append(piece)
            last = (last + piece)[-5:]
        answer = b"".join(pieces)
        if not answer.startswith(b"+OK"):
            raise SystemExit(f"not OK: {answer[:200]!r}")
        return answer


def run(target: Target, user: str, small: str, count: int) -> dict[str, float]:
    """Read a mailbox of `count` messages that no client has opened before."""
    works = Works(target)
    works.timed("login, STAT, UIDL, first time", lambda: _list(target, user, count))
    works.timed("login, STAT, UIDL", lambda: _list(target, user, count), 5)
    client = Client(target, user)
    some = min(2000, count)

    def retrieve() -> None:
        for number in range(1, some + 1):
            client.listing(f"RETR {number}")

    works.timed(f"RETR of {some}", retrieve)
    client.bye()
    works.timed("short session", lambda: _short_session(target, small), 100)
    return works.figures


def _list(target: Target, user: str, count: int) -> None:
    client = Client(target, user)
    found = int(client.command("STAT").split()[1])
    if found != count or client.listing("UIDL").count(b"\r\n") != count + 2:
        raise SystemExit(f"{found} messages instead of {count}")
    client.bye()


def _short_session(target: Target, user: str) -> None:
    client = Client(target, user)
    client.command("STAT")
    client.bye()
