"""Rounds of load, kill -9, restart and comparison with what clients were told.

``python -m tests.crash.rounds ROUNDS FOLDER`` goes on where an earlier run in that
folder ended. What a round did that was itself interrupted is believed without judging.
"""

import json
import os
import random
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.server import HOST, Server
from tests.crash.ledger import Found, Ledger
from tests.crash.workers import Access, Boxes, Reader, Sender, Worker, read_back

SENDERS, READERS = 2, 3
LOAD_S = (0.3, 1.5)  # the kill comes at a random moment of this span
KEPT_MAIL = 400  # in INBOX, before it is emptied to keep rounds short


@dataclass(slots=True)
class State:
    """What is known between rounds; saved as JSON after each."""

    password: str = ""
    round: int = 0  # rounds that ended
    attempts: int = 0  # rounds that began
    commands: int = 0
    sent: set[str] = field(default_factory=set)
    maybe_sent: set[str] = field(default_factory=set)
    inbox_uids: Ledger = field(default_factory=Ledger)
    ledgers: list[Ledger] = field(
        default_factory=lambda: [Ledger() for _ in range(READERS)]
    )

    def save(self, path: Path) -> None:
        values = {
            "password": self.password,
            "round": self.round,
            "attempts": self.attempts,
            "commands": self.commands,
            "sent": sorted(self.sent),
            "maybe_sent": sorted(self.maybe_sent),
            "inbox_uids": self.inbox_uids.dump(),
            "ledgers": [ledger.dump() for ledger in self.ledgers],
        }
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(values))
        os.replace(fresh, path)

    @classmethod
    def load(cls, path: Path) -> "State":
        if not path.exists():
            return cls()
        values = json.loads(path.read_text())
        return cls(
            values["password"],
            values["round"],
            values["attempts"],
            values["commands"],
            set(values["sent"]),
            set(values["maybe_sent"]),
            Ledger.load(values["inbox_uids"]),
            [Ledger.load(each) for each in values["ledgers"]],
        )


class Rounds:
    """All rounds in one folder, which holds the server's data and the state."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.json"
        self.state = State.load(self.path)
        self.server = Server(folder / "server", accounts=["anna"])
        account = self.server.account("anna")
        if account.password is not None:  # else the folder is an earlier run's
            self.state.password = account.password
        self.access = Access(
            HOST,
            self.server.ports["imap"],
            self.server.ports["smtp"],
            account.login,
            self.state.password,
            account.address,
        )
        self.boxes = [Boxes(f"load{number}") for number in range(READERS)]
        self.interrupted = self.state.attempts > self.state.round

    def run(self) -> list[str]:
        """One round. Returns its faults in words."""
        if self.interrupted:
            self.server.start()
            self.compare()
            self.server.stop()
            self.state.attempts = self.state.round
            self.interrupted = False
        self.state.attempts += 1
        self.state.save(self.path)
        chance = random.Random()
        workers = self.workers(chance)
        self.server.start()
        for worker in workers:
            worker.start()
        time.sleep(chance.uniform(*LOAD_S))  # the load itself, not a wait for something
        self.server.kill()
        for worker in workers:
            worker.stopping.set()
            worker.join(30)
        faults = [f"{worker}: {worker.error!r}" for worker in workers if worker.error]
        for worker in workers:
            if isinstance(worker, Sender):
                self.state.maybe_sent |= worker.unknown
            self.state.commands += worker.commands
        self.server.start()
        faults += self.compare()
        self.server.stop()
        self.state.round += 1
        self.state.save(self.path)
        return [f"round {self.state.round - 1}: {fault}" for fault in faults]

    def workers(self, chance: random.Random) -> list[Worker]:
        workers: list[Worker] = [
            Sender(
                self.access,
                chance.getrandbits(32),
                self.state.sent,
                f"mail-{chance.getrandbits(32):08x}-{number}",
            )
            for number in range(SENDERS)
        ]
        workers += [
            Reader(self.access, chance.getrandbits(32), ledger, boxes)
            for ledger, boxes in zip(self.state.ledgers, self.boxes, strict=True)
        ]
        return workers

    def compare(self) -> list[str]:
        faults: list[str] = []
        for ledger, boxes in zip(self.state.ledgers, self.boxes, strict=True):
            found, validity, broken = read_back(self.access, boxes.both)
            faults += broken + ledger.check(found, validity)
        found, validity, broken = read_back(self.access, ("INBOX",))
        return faults + broken + self.compare_inbox(found, validity["INBOX"])

    def compare_inbox(self, found: list[Found], validity: int) -> list[str]:
        faults: list[str] = []
        here: set[str] = set()
        for item in found:
            if item.message_id in here:
                faults.append(f"{item.message_id} twice in INBOX")
            here.add(item.message_id)
            key = f"INBOX {validity} {item.uid}"
            owner = self.state.inbox_uids.uids.setdefault(key, item.message_id)
            if owner != item.message_id:
                faults.append(f"UID reused: {key} was {owner}, is {item.message_id}")
        faults += [
            f"{each} was accepted and is lost" for each in self.state.sent - here
        ]
        known = self.state.sent | self.state.maybe_sent
        faults += [f"{each} was never sent" for each in here - known]
        # From now on what is here stays here, told or not.
        self.state.sent, self.state.maybe_sent = here, set()
        if len(here) > KEPT_MAIL:
            self.empty_inbox()
        return faults

    def empty_inbox(self) -> None:
        client = self.access.imap()
        client.select("INBOX")
        client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
        client.expunge()
        client.logout()
        self.state.sent = set()


def main(rounds: int, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    runner = Rounds(folder)
    bad = 0
    while runner.state.round < rounds:
        faults = runner.run()
        bad += bool(faults)
        print(*faults, sep="\n", end="\n" if faults else "")
        if runner.state.round % 10 == 0:
            print(
                f"{runner.state.round} rounds, {runner.state.commands} commands"
                f" acknowledged, {bad} rounds with faults in this run",
                flush=True,
            )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
