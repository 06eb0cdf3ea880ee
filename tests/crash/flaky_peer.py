"""Another mail server that takes some mail, refuses some, and breaks off at will."""

import random
import socketserver
import threading
from collections import Counter
from dataclasses import dataclass, field

REFUSED = "refused@"  # forward-paths that begin so are refused for good


@dataclass(slots=True)
class Received:
    """What the peer has said, by message and forward-path."""

    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    # All of the message came, and the answer did not go out (RFC 5321 section 4.5.4).
    unanswered: Counter[tuple[str, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)


class _Session(socketserver.StreamRequestHandler):
    server: "FlakyPeer"

    def handle(self) -> None:
        try:
            self.talk()
        except OSError:
            pass  # the server was killed

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def talk(self) -> None:
        chance = self.server.chance
        if chance.random() < 0.05:
            self.say("421 busy")
            return
        self.say("220 flaky.test")
        recipients: list[str] = []
        while line := self.rfile.readline(4096):
            verb = line[:4].upper()
            if verb == b"EHLO":
                self.say("250-flaky.test\r\n250-PIPELINING\r\n250 8BITMIME")
            elif verb == b"MAIL":
                recipients = []
                self.say("250 ok")
            elif verb == b"RCPT":
                address = line.decode().partition("<")[2].partition(">")[0]
                if address.startswith(REFUSED):
                    self.say("550 5.1.1 nobody")
                elif chance.random() < 0.1:
                    self.say("451 4.2.0 greylisted")
                else:
                    recipients.append(address)
                    self.say("250 ok")
            elif verb == b"DATA":
                if not recipients:
                    self.say("554 nobody")
                    continue
                self.say("354 go")
                if not self.take(recipients):
                    return
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")

    def take(self, recipients: list[str]) -> bool:
        """Read a message. False: break off without an answer."""
        id = ""
        while (line := self.rfile.readline(65536)) != b".\r\n":
            if not line:
                return False
            if line.startswith(b"X-Crash-Id: "):
                id = line[12:].decode().strip()
        chance, received = self.server.chance.random(), self.server.received
        keys = [(id, address) for address in recipients]
        with received.lock:
            if chance < 0.1:  # thrown away: the sender has to come again
                return False
            received.taken.update(keys)
            if chance < 0.2:
                received.unanswered.update(keys)
                return False
        self.say("250 mine")
        return True


class FlakyPeer(socketserver.ThreadingTCPServer):
    """Listens on loopback; `received` is safe to read under its lock."""

    daemon_threads = True
    request_queue_size = 100

    def __init__(self) -> None:
        self.received = Received()
        self.chance = random.Random()
        super().__init__(("127.0.0.1", 0), _Session)
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()
