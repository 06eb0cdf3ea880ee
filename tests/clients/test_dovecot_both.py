"""Dovecot and mailsrv on one Maildir at the same time, both under load.

Clients of both deliver, flag, copy, move, append and expunge as fast as they can. At
the end nothing is lost, nothing is there twice, both servers show the same, and no UID
ever meant two messages. BOTH_S in the environment says for how many seconds.
"""

import imaplib
import os
import random
import re
import smtplib
import threading
from collections import Counter
from collections.abc import Callable

from mailsrv.cli.quickstart import PORTS
from tests.clients.dovecot import USER, Dovecot
from tests.clients.picture import Login, changes, take
from tests.clients.server import HOST, ServerCase, free_port_base

SECONDS = float(os.environ.get("BOTH_S", "15"))
PAUSE_S = 0.02  # between deliveries: some 40 a second in all
BOXES = ("INBOX", "Box")
KEYWORDS = ("work", "$label1", "NonJunk")
_ID = re.compile(rb"Message-ID: <(\S+?)@both\.test>", re.IGNORECASE)
_UID = re.compile(rb"UID (\d+)")
_FLAGS = re.compile(rb"FLAGS \((.*?)\)")
_COPYUID = re.compile(rb"COPYUID \d+ (\S+) (\S+?)\]")


class Ledger:
    """What the clients were told; shared by all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.expected: Counter[bytes] = Counter()  # copies of each message
        self.gone: set[bytes] = set()  # those whose copies were expunged, once or more
        self.uids: dict[tuple[str, int], bytes] = {}
        self.wrong: list[str] = []

    def came(self, *ids: bytes) -> None:
        with self._lock:
            self.expected.update(ids)

    def went(self, id_: bytes) -> None:
        with self._lock:
            self.expected[id_] -= 1
            self.gone.add(id_)

    def saw(self, box: str, uid: int, id_: bytes) -> None:
        with self._lock:
            if self.uids.setdefault((box, uid), id_) != id_:
                self.complain(
                    f"UID {uid} of {box} was {self.uids[box, uid]!r}: {id_!r}"
                )

    def complain(self, text: str) -> None:
        self.wrong.append(text)


def message(id_: str) -> bytes:
    return (
        f"From: x@other.test\r\nTo: anna@example.test\r\nSubject: {id_}\r\n"
        f"Message-ID: <{id_}@both.test>\r\n\r\nbody of {id_}\r\n"
    ).encode()


class Client:
    """One IMAP client; moves and expunges only messages of its own number."""

    def __init__(self, login: Login, number: int, of: int, ledger: Ledger) -> None:
        self._client = login.imap()
        self._number, self._of = number, of
        self._ledger = ledger
        self._random = random.Random(number)
        self._ids: dict[str, dict[int, bytes]] = {box: {} for box in BOXES}
        self._box = ""
        self._appended = 0

    def step(self) -> None:
        self._box = self._random.choice(BOXES)
        self._client.select(self._box)
        flags = self._look()
        if flags:
            action: Callable[[dict[int, set[bytes]]], None] = self._random.choice(
                (self._flag, self._flag, self._copy, self._move, self._expunge)
            )
            action(flags)
        if self._random.random() < 0.2:
            self._append()

    def close(self) -> None:
        self._client.logout()

    def _look(self) -> dict[int, set[bytes]]:
        """Fetch all flags, and what is not known yet of the messages."""
        known = self._ids[self._box]
        flags = {}
        for line in self._fetch("1:*", "(UID FLAGS)"):
            uid, found = _UID.search(line), _FLAGS.search(line)
            if uid and found:
                flags[int(uid[1])] = set(found[1].split())
        unknown = sorted(flags.keys() - known.keys())
        if unknown:
            wanted = "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])"
            for line in self._fetch(_set(unknown), wanted):
                uid, id_ = _UID.search(line), _ID.search(line)
                if uid and id_:
                    known[int(uid[1])] = id_[1]
                    self._ledger.saw(self._box, int(uid[1]), id_[1])
        return {uid: mask for uid, mask in flags.items() if uid in known}

    def _fetch(self, uids: str, items: str) -> list[bytes]:
        _, parts = self._client.uid("FETCH", uids, items)
        return [b" ".join(p) if isinstance(p, tuple) else p or b"" for p in parts]

    def _mine(self, flags: dict[int, set[bytes]]) -> list[int]:
        ids = self._ids[self._box]
        return [uid for uid in flags if hash(ids[uid]) % self._of == self._number]

    def _some(self, uids: list[int]) -> list[int]:
        return sorted(self._random.sample(uids, min(len(uids), 3)))

    def _flag(self, flags: dict[int, set[bytes]]) -> None:
        some = self._some(list(flags))
        names = ["\\Seen", "\\Flagged", "\\Answered", *KEYWORDS]
        chosen = " ".join(self._random.sample(names, 2))
        sign = self._random.choice("+-")
        self._client.uid("STORE", _set(some), f"{sign}FLAGS", f"({chosen})")

    def _copy(self, flags: dict[int, set[bytes]]) -> None:
        some = self._some(list(flags))[:1]
        other = BOXES[1 - BOXES.index(self._box)]
        self._client.uid("COPY", _set(some), other)
        for uid in self._copied():
            self._ledger.came(self._ids[self._box][uid])

    def _move(self, flags: dict[int, set[bytes]]) -> None:
        if some := self._some(self._mine(flags)):
            other = BOXES[1 - BOXES.index(self._box)]
            self._client.uid("MOVE", _set(some), other)

    def _expunge(self, flags: dict[int, set[bytes]]) -> None:
        for uid in self._some(self._mine(flags))[:2]:
            self._client.uid("STORE", str(uid), "+FLAGS", r"(\Deleted)")
            self._client.uid("EXPUNGE", str(uid))
            # Nobody else expunges or moves it, and it was there.
            self._ledger.went(self._ids[self._box][uid])

    def _copied(self) -> list[int]:
        _, codes = self._client.response("COPYUID")
        return [
            int(uid)
            for code in codes or []
            if code
            for uid in _numbers(code.split()[1].decode())
        ]

    def _append(self) -> None:
        self._appended += 1
        id_ = f"append-{self._number}-{self._appended}"
        box = self._random.choice(BOXES)
        status, _ = self._client.append(box, r"(\Seen)", "", message(id_))
        if status == "OK":
            self._ledger.came(id_.encode())


def _set(uids: list[int]) -> str:
    return ",".join(map(str, uids))


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        found += range(int(first), int(last or first) + 1)
    return found


class BothTests(ServerCase):
    user = USER

    def setUp(self) -> None:
        super().setUp()
        base = free_port_base()
        ports = {name: base + port for name, port in PORTS.items()}
        self.dovecot = Dovecot(self.server, ports=ports)
        # Its MOVE takes a file's name along. A message that it moves away and back
        # has an old line in the uidlist then; it says so, and gives the next UID. (It
        # does so when it is alone with this load, too.)
        self.dovecot.tolerated += (
            "Duplicate file entry",
            "Expunged message reappeared, giving a new UID",
        )
        self.dovecot.start()
        self.addCleanup(self.dovecot.stop)
        self.ours = Login(self.server, "anna")
        self.theirs = Login(self.server, "anna", ports)
        self.ledger = Ledger()
        self.over = threading.Event()

    def test_nothing_is_harmed(self) -> None:
        client = self.ours.imap()
        client.create("Box")
        client.append("Box", "", "", message("first"))
        client.append("INBOX", "", "", message("second"))
        client.logout()
        self.ledger.came(b"first", b"second")
        before = take(self.theirs)
        self.run_all()
        self.assertEqual(self.ledger.wrong, [])
        ours, theirs = take(self.ours), take(self.theirs)
        self.assertEqual(changes(theirs, ours), [])
        for name in BOXES:
            self.assertEqual(
                ours.mailboxes[name].uid_validity, before.mailboxes[name].uid_validity
            )
        self.assertEqual(self.found() - self.ledger.expected, Counter())
        self.assertEqual(self.ledger.expected - self.found(), Counter())
        done = self.server.command("verify", "anna@example.test")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        done = self.server.command("maildir", "check", "anna@example.test")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def run_all(self) -> None:
        count = 4
        clients = [
            Client(login, number, count, self.ledger)
            for number, login in enumerate([self.ours, self.theirs] * (count // 2))
        ]
        steps = [client.step for client in clients]
        steps += [self.deliver_to_us(), self.deliver_to_dovecot()]
        threads = [threading.Thread(target=self.repeat, args=(s,)) for s in steps]
        for thread in threads:
            thread.start()
        self.over.wait(SECONDS)
        self.over.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()

    def repeat(self, step: Callable[[], None]) -> None:
        try:
            while not self.over.is_set():
                step()
        except (imaplib.IMAP4.error, smtplib.SMTPException, OSError) as error:
            self.ledger.complain(f"{step}: {error!r}")

    def deliver_to_us(self) -> Callable[[], None]:
        client = smtplib.SMTP(HOST, self.server.ports["smtp"])
        self.addCleanup(client.close)
        return self.deliverer(client, "smtp")

    def deliver_to_dovecot(self) -> Callable[[], None]:
        client = smtplib.LMTP(str(self.dovecot.lmtp_socket))
        self.addCleanup(client.close)
        return self.deliverer(client, "lmtp")

    def deliverer(self, client: smtplib.SMTP, kind: str) -> Callable[[], None]:
        numbers = iter(range(1_000_000))

        def step() -> None:
            id_ = f"{kind}-{next(numbers)}"
            client.sendmail("x@other.test", [self.ours.address], message(id_))
            self.ledger.came(id_.encode())
            self.over.wait(PAUSE_S)

        return step

    def found(self) -> Counter[bytes]:
        """Return how often each message is there, by the files."""
        maildir = self.server.maildir("anna")
        files = [
            path
            for folder in (maildir, maildir / ".Box")
            for sub in ("new", "cur")
            for path in (folder / sub).iterdir()
        ]
        ids = [_ID.search(path.read_bytes()) for path in files]
        return Counter(match[1] for match in ids if match)
