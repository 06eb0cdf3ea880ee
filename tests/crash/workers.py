"""Clients that work until the server is gone, and write down what they were told."""

import imaplib
import random
import re
import smtplib
import ssl
import threading
from dataclasses import dataclass, field
from typing import Any

from tests.crash.ledger import SYSTEM_FLAGS, Found, Ledger, Place, content

# What a client meets when the server is killed under it.
GONE = (OSError, EOFError, imaplib.IMAP4.abort, smtplib.SMTPServerDisconnected)


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an account."""

    host: str
    imap_port: int
    smtp_port: int
    login: str
    password: str
    address: str

    def imap(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4(self.host, self.imap_port, timeout=30)
        client.starttls(_trusting())
        client.login(self.login, self.password)
        return client


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Worker(threading.Thread):
    """Works until it is told to stop or the server is gone."""

    def __init__(self, access: Access, seed: int) -> None:
        super().__init__(daemon=True)
        self.access = access
        self.random = random.Random(seed)
        self.stopping = threading.Event()
        self.error: BaseException | None = None
        self.commands = 0

    def run(self) -> None:
        try:
            self.work()
        except GONE:
            return
        except BaseException as error:
            self.error = error

    def work(self) -> None:
        raise NotImplementedError


class Sender(Worker):
    """Sends over SMTP; `sent` are the acknowledged ids, `open` those under way."""

    def __init__(self, access: Access, seed: int, sent: set[str], name: str) -> None:
        super().__init__(access, seed)
        self.sent = sent
        self.unknown: set[str] = set()
        self.prefix = name

    def work(self) -> None:
        with smtplib.SMTP(
            self.access.host, self.access.smtp_port, timeout=30
        ) as client:
            number = 0
            while not self.stopping.is_set():
                number += 1
                message_id = f"{self.prefix}-{number}"
                size = self.random.choice((500, 5000, 5000, 60000, 700_000))
                self.unknown.add(message_id)
                client.sendmail(
                    "load@elsewhere.test",
                    [self.access.address],
                    content(message_id, size),
                )
                self.sent.add(message_id)
                self.unknown.discard(message_id)
                self.commands += 1


@dataclass(slots=True)
class Boxes:
    """The two mailboxes of one reader."""

    name: str
    both: tuple[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.both = (f"{self.name}-a", f"{self.name}-b")


class Reader(Worker):
    """APPENDs, STOREs, MOVEs, COPYs and EXPUNGEs in its two mailboxes."""

    def __init__(self, access: Access, seed: int, ledger: Ledger, boxes: Boxes) -> None:
        super().__init__(access, seed)
        self.ledger = ledger
        self.boxes = boxes
        self.selected = boxes.both[0]

    def work(self) -> None:
        client = self.access.imap()
        for name in self.boxes.both:
            client.create(name)
        number = 0
        while not self.stopping.is_set():
            self.selected = self.random.choice(self.boxes.both)
            _ok(client.select(self.selected))
            for _ in range(5):
                number += 1
                step = self.random.choice(
                    (self.append, self.append, self.store, self.move, self.expunge)
                )
                step(client, f"{self.boxes.name}-{self.random.random()}-{number}")
                self.commands += 1

    def here(self) -> list[str]:
        return [
            message_id
            for message_id, place in self.ledger.certain.items()
            if place.mailbox == self.selected and place.uid is not None
        ]

    def some(self) -> list[str]:
        here = self.here()
        return self.random.sample(here, min(len(here), self.random.choice((1, 3, 20))))

    def uid_set(self, ids: list[str]) -> str:
        return ",".join(str(self.ledger.certain[each].uid) for each in ids)

    def append(self, client: imaplib.IMAP4, message_id: str) -> None:
        place = Place(self.selected, ("\\Seen",))
        self.ledger.begin({message_id: place})
        text = content(message_id, self.random.choice((300, 5000, 600_000)))
        answer = _ok(client.append(self.selected, "(\\Seen)", "", text))
        uid = re.search(rb"APPENDUID \d+ (\d+)", answer[-1])
        assert uid is not None, answer
        self.ledger.done({message_id: int(uid.group(1))})

    def store(self, client: imaplib.IMAP4, _: str) -> None:
        ids = self.some()
        if not ids:
            return
        flag = self.random.choice((*SYSTEM_FLAGS[:2], "$Label1", "\\Seen"))
        add = self.random.random() < 0.6
        places: dict[str, Place | None] = {}
        for message_id in ids:
            place = self.ledger.certain[message_id]
            flags = {*place.flags, flag} if add else {*place.flags} - {flag}
            places[message_id] = Place(place.mailbox, tuple(sorted(flags)), place.uid)
        self.ledger.begin(places)
        operation = "+FLAGS" if add else "-FLAGS"
        _ok(client.uid("STORE", self.uid_set(ids), operation, f"({flag})"))
        self.ledger.done()

    def move(self, client: imaplib.IMAP4, _: str) -> None:
        ids = self.some()
        if not ids:
            return
        target = next(name for name in self.boxes.both if name != self.selected)
        self.ledger.begin(
            {each: Place(target, self.ledger.certain[each].flags) for each in ids}
        )
        by_uid = {self.ledger.certain[each].uid: each for each in ids}
        _ok(client.uid("MOVE", self.uid_set(ids), target))
        codes = client.response("COPYUID")[1]
        assert codes and codes[-1], codes
        _, source, new = codes[-1].split()
        self.ledger.done(
            {
                by_uid[old]: uid
                for old, uid in zip(_uids(source), _uids(new), strict=True)
            }
        )

    def expunge(self, client: imaplib.IMAP4, _: str) -> None:
        ids = self.some()[:2]
        if not ids:
            return
        uids = self.uid_set(ids)
        places: dict[str, Place | None] = {}
        for each in ids:
            place = self.ledger.certain[each]
            flags = tuple(sorted({*place.flags, "\\Deleted"}))
            places[each] = Place(place.mailbox, flags, place.uid)
        self.ledger.begin(places)
        _ok(client.uid("STORE", uids, "+FLAGS.SILENT", "(\\Deleted)"))
        self.ledger.done()
        self.ledger.begin({each: None for each in ids})
        _ok(client.uid("EXPUNGE", uids))
        self.ledger.done()


def read_back(
    access: Access, mailboxes: tuple[str, ...]
) -> tuple[list[Found], dict[str, int], list[str]]:
    """Read mailboxes whole: messages, UIDVALIDITYs, and contents that are wrong."""
    found: list[Found] = []
    validity: dict[str, int] = {}
    faults: list[str] = []
    client = access.imap()
    for mailbox in mailboxes:
        answer, _ = client.select(mailbox, readonly=True)
        if answer != "OK":
            continue
        validity[mailbox] = int(client.response("UIDVALIDITY")[1][0])
        lines = _ok(client.uid("FETCH", "1:*", "(UID FLAGS BODY.PEEK[])"))
        for item in lines:
            if not isinstance(item, tuple):
                continue
            uid = re.search(rb"UID (\d+)", item[0])
            flags = re.search(rb"FLAGS \(([^)]*)\)", item[0])
            assert uid is not None and flags is not None, item[0]
            message_id, fault = _examine(item[1])
            if fault:
                faults.append(f"{mailbox} {uid.group(1)!r}: {fault}")
                continue
            names = sorted(set(flags.group(1).decode().split()) - {"\\Recent"})
            found.append(Found(message_id, mailbox, tuple(names), int(uid.group(1))))
    client.logout()
    return found, validity, faults


def _examine(raw: bytes) -> tuple[str, str]:
    """The message's id, and what is wrong with its content, or nothing."""
    name = re.search(rb"X-Crash-Id: (\S+)\r\n", raw)
    size = re.search(rb"X-Crash-Size: (\d+)\r\n", raw)
    if name is None or size is None:
        return "", f"no id: {raw[:80]!r}"
    message_id = name.group(1).decode()
    if not raw.endswith(content(message_id, int(size.group(1)))):
        return "", f"{message_id} is cut or changed, {len(raw)} octets"
    return message_id, ""


def _uids(text: bytes) -> list[int]:
    uids: list[int] = []
    for piece in text.split(b","):
        first, _, last = piece.partition(b":")
        uids += range(int(first), int(last or first) + 1)
    return uids


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    """The lines of an answer that must be OK. Any: what imaplib's stubs give."""
    assert answer[0] == "OK", answer
    return answer[1]
