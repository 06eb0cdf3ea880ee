"""Rounds of mail to a flaky server, kill -9 and restart: what was promised arrives.

``python -m tests.crash.queue_rounds ROUNDS FOLDER``. After the last round the queue is
let run dry; then each recipient of each message that was accepted was reached, or its
sender was told. Twice only if the peer had the message and its answer was not kept.
"""

import random
import smtplib
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mailsrv.queue.database import Filter, QueueDatabase
from tests.clients.server import HOST, PAUSE_S, Server
from tests.crash.flaky_peer import REFUSED, FlakyPeer

SENDERS = 3
LOAD_S = (0.3, 1.5)  # the kill comes at a random moment of this span
DRY_S = 240.0  # for the queue to run dry in the end
SETTINGS = """
[queue]
retry_after = ["1s"]
[sending]
messages_per_hour = 1000000
messages_per_day = 1000000
[[relay.route]]
to = "{host}:{port}"
tls = "never"
"""


@dataclass(slots=True)
class Sender(threading.Thread):
    """Submits until it is told to stop, or the server is gone."""

    server: Server
    name_: str
    accepted: dict[str, list[str]] = field(default_factory=dict)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread.__init__(self, daemon=True)

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        chance, number = random.Random(), 0
        while not self.stopping.is_set():
            try:
                with self.client() as client:
                    while not self.stopping.is_set():
                        number += 1
                        self.send(client, f"{self.name_}-{number}", chance)
            except (OSError, smtplib.SMTPException):
                time.sleep(PAUSE_S)  # killed, or not there yet

    def client(self) -> smtplib.SMTP:
        anna = self.server.account("anna")
        client = smtplib.SMTP(HOST, self.server.ports["submission"], timeout=20)
        client.starttls()
        client.login(anna.login, self.server.password("anna"))
        return client

    def send(self, client: smtplib.SMTP, id: str, chance: random.Random) -> None:
        anna = self.server.account("anna").address
        to = [f"r{n}@far{n % 2}.test" for n in range(chance.randrange(1, 4))]
        if chance.random() < 0.2:
            to.append(f"{REFUSED}far0.test")
        if chance.random() < 0.3:
            to.append(self.server.account("ben").address)
        size = 200_000 if chance.random() < 0.1 else 500
        body = ("x" * 70 + "\r\n") * (size // 72)
        header = f"From: {anna}\r\nSubject: {id}\r\nX-Crash-Id: {id}\r\n"
        client.sendmail(anna, to, f"{header}\r\n{body}")
        self.accepted[id] = to


class QueueRounds:
    """All rounds in one folder."""

    def __init__(self, folder: Path) -> None:
        self.peer = FlakyPeer()
        settings = SETTINGS.format(host=HOST, port=self.peer.port)
        self.server = Server(folder / "server", settings=settings)
        self.accepted: dict[str, list[str]] = {}
        self.rounds = 0

    def run(self) -> None:
        """One round: load, and a kill in its midst."""
        self.rounds += 1
        senders = [
            Sender(self.server, f"m{self.rounds}-{n}-{random.getrandbits(32):08x}")
            for n in range(SENDERS)
        ]
        self.server.start()
        for sender in senders:
            sender.start()
        time.sleep(random.uniform(*LOAD_S))  # the load itself
        self.server.kill()
        for sender in senders:
            sender.stopping.set()
            sender.join(30)
            self.accepted |= sender.accepted

    def finish(self) -> list[str]:
        """Let the queue run dry; return the faults in words."""
        self.server.start()
        deadline = time.monotonic() + DRY_S
        while left := self.waiting():
            if time.monotonic() > deadline:
                return [f"{left} recipients still wait"]
            time.sleep(0.2)
        self.server.stop()
        return [*self.faults(), *self.left_over()]

    def waiting(self) -> int:
        database = QueueDatabase(self.server.folder / "data" / "queue.sqlite")
        try:
            return len(database.find(Filter(), 1000))
        finally:
            database.close()

    def faults(self) -> Iterator[str]:
        told = self.texts("anna")
        got = self.texts("ben")
        taken, unanswered = self.peer.received.taken, self.peer.received.unanswered
        doubled = 0
        for id, recipients in self.accepted.items():
            for address in recipients:
                copies = taken[id, address]
                if address.startswith("ben@"):
                    copies = sum(f"X-Crash-Id: {id}\n" in text for text in got)
                    if copies > 1:
                        yield f"{id} was delivered to {address} {copies} times"
                elif address.startswith(REFUSED):
                    copies = sum(id in text and REFUSED in text for text in told)
                else:
                    doubled += max(0, copies - 1 - unanswered[id, address])
                if not copies:
                    yield f"{id} was accepted for {address} and is lost"
        # Those that a kill has cut off between the peer's answer and our commit.
        most = self.rounds * 50
        if doubled > most:
            yield f"{doubled} copies too many"
        print(
            f"{self.rounds} rounds, {len(self.accepted)} messages,"
            f" {sum(taken.values())} copies taken, {sum(unanswered.values())}"
            f" without an answer, {doubled} again after a kill"
        )

    def texts(self, account: str) -> list[str]:
        maildir = self.server.maildir(account)
        files = [*maildir.glob("new/*"), *maildir.glob("cur/*")]
        return [file.read_text(errors="replace") for file in files]

    def left_over(self) -> list[str]:
        spool = self.server.folder / "data" / "spool" / "Maildir"
        self.server.start()  # what kills have left goes at the start
        self.server.stop()
        return [f"{file} is left over" for file in (spool / "new").iterdir()]


def main(rounds: int) -> int:
    with tempfile.TemporaryDirectory(prefix="mailsrv-crash-") as folder:
        runner = QueueRounds(Path(folder))
        for number in range(1, rounds + 1):
            runner.run()
            if number % 20 == 0:
                print(f"{number} rounds", flush=True)
        faults = runner.finish()
        print(*faults, sep="\n")
        return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
