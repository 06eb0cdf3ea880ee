"""A server that says what a test wants, on loopback."""

from collections.abc import Sequence
from typing import Any

from twisted.internet import reactor
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

# What a peer answers to a verb unless a script says otherwise.
USUAL = {
    "": "220 peer.test ESMTP",
    "EHLO": "250-peer.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 DSN",
    "LHLO": "250-peer.test\r\n250 PIPELINING",
    "MAIL": "250 2.1.0 Ok",
    "RCPT": "250 2.1.5 Ok",
    "DATA": "354 Go",
    ".": "250 2.0.0 Taken",
    "RSET": "250 Ok",
    "QUIT": "221 Bye",
    "STARTTLS": "220 Go",
    "AUTH": "235 2.7.0 You are you",
}
DROP = "drop"

Script = dict[str, str | Sequence[str]]
"""By verb: an answer for each time, the last one again. `DROP` closes."""


class Session(LineReceiver):
    """One connection, by the script of its peer."""

    MAX_LENGTH = 10_000
    transport: Any  # what it can do depends on its kind

    def __init__(self, peer: "Peer") -> None:
        self.peer = peer
        self.content: list[bytes] | None = None
        self.recipients = 0

    def connectionMade(self) -> None:
        self.peer.sessions.append(self)
        self.answer("")

    def lineReceived(self, line: bytes) -> None:
        if self.content is not None:
            if line != b".":
                self.content.append(line[1:] if line.startswith(b"..") else line)
                return
            self.peer.contents.append(b"\r\n".join([*self.content, b""]))
            self.content = None
            for _ in range(self.recipients if self.peer.lmtp else 1):
                self.answer(".")
            return
        self.peer.lines.append(line.decode())
        verb = line[:4].decode().upper()
        verb = {"STAR": "STARTTLS"}.get(verb, verb)
        if verb == "MAIL":
            self.recipients = 0
        said = self.answer(verb)
        if verb == "RCPT" and said.startswith("250"):
            self.recipients += 1
        if verb == "DATA" and said.startswith("354"):
            self.content = []
        if verb == "STARTTLS" and said.startswith("220"):
            if self.peer.tls is None:
                self.transport.loseConnection()  # in the midst of the handshake
            else:
                self.transport.startTLS(self.peer.tls)
        if verb == "QUIT":
            self.transport.loseConnection()

    def answer(self, verb: str) -> str:
        said = self.peer.next_answer(verb)
        if said == DROP:
            self.transport.loseConnection()
        else:
            self.sendLine(said.encode())
        return said


class Peer(Factory):
    """Listens on a free port of loopback."""

    noisy = False

    def __init__(self, lmtp: bool = False, tls: Any = None, **script: Any) -> None:
        # Any: what startTLS takes, and a `Script`: "greeting" is "", "end" is ".".
        self.lines: list[str] = []
        self.contents: list[bytes] = []
        self.sessions: list[Session] = []
        self.lmtp = lmtp
        self.tls = tls
        names = {"greeting": "", "end": "."}
        self.script = {names.get(k, k): v for k, v in script.items()}
        self._asked: dict[str, int] = {}
        port: Any = reactor
        self.listening = port.listenTCP(0, self, interface="127.0.0.1")
        self.port: int = self.listening.getHost().port

    def buildProtocol(self, addr: object) -> Session:
        return Session(self)

    def next_answer(self, verb: str) -> str:
        answers = self.script.get(verb, USUAL.get(verb, "500 what"))
        if isinstance(answers, str):
            return answers
        count = self._asked.get(verb, 0)
        self._asked[verb] = count + 1
        text: str = answers[min(count, len(answers) - 1)]
        return text

    def verbs(self) -> list[str]:
        return [line[:4] for line in self.lines]

    async def stop(self) -> None:
        for session in self.sessions:
            session.transport.abortConnection()
        await self.listening.stopListening()
