"""All that a client can see of an account, to be compared between two servers."""

import imaplib
import poplib
import re
import ssl
from dataclasses import dataclass
from hashlib import sha256

from tests.clients.server import Server

_LINE = re.compile(rb'\((.*?)\) "/" (.+)')
_ITEMS = rb"(\d+) \(UID (\d+) FLAGS \((.*?)\) INTERNALDATE (\".*?\") RFC822.SIZE (\d+)"


@dataclass(frozen=True)
class Message:
    """What IMAP says of a message."""

    flags: frozenset[str]
    internal_date: str
    size_octets: int
    content: str  # a digest of BODY[]


@dataclass(frozen=True)
class Mailbox:
    uid_validity: int
    uid_next: int
    messages: dict[int, Message]  # by UID


@dataclass(frozen=True)
class Picture:
    """One account."""

    mailboxes: dict[str, Mailbox]
    subscribed: frozenset[str]
    maildrop: list[tuple[str, int]]  # UIDL and size of each message, in POP3's order


def changes(before: Picture, after: Picture) -> list[str]:
    """Say what differs, a line each; empty mailboxes that are new are passed over."""
    found = []
    names = before.mailboxes.keys() | after.mailboxes.keys()
    for name in sorted(names):
        old, new = before.mailboxes.get(name), after.mailboxes.get(name)
        if old is None or new is None:
            if old is not None or (new is not None and new.messages):
                found.append(f"{name}: {old} -> {new}")
        else:
            found += [f"{name}: {line}" for line in _mailbox_changes(old, new)]
    if not before.subscribed <= after.subscribed:
        found.append(f"no longer subscribed: {before.subscribed - after.subscribed}")
    if before.maildrop != after.maildrop:
        found.append(f"POP3: {before.maildrop} -> {after.maildrop}")
    return found


def _mailbox_changes(old: Mailbox, new: Mailbox) -> list[str]:
    found = []
    for field in ("uid_validity", "uid_next"):
        if getattr(old, field) != getattr(new, field):
            found.append(f"{field}: {getattr(old, field)} -> {getattr(new, field)}")
    for uid in sorted(old.messages.keys() | new.messages.keys()):
        if old.messages.get(uid) != new.messages.get(uid):
            found.append(f"{uid}: {old.messages.get(uid)} -> {new.messages.get(uid)}")
    return found


class Login:
    """How a client reaches the account `name`, whichever server has the ports."""

    def __init__(
        self, server: Server, name: str, ports: dict[str, int] | None = None
    ) -> None:
        self.address = server.account(name).address
        self.password = server.password(name)
        self.tls = ssl.create_default_context(cafile=str(server.ca))
        self.ports = ports or server.ports

    def imap(self) -> imaplib.IMAP4_SSL:
        client = imaplib.IMAP4_SSL(
            "localhost", self.ports["imaps"], ssl_context=self.tls, timeout=60
        )
        client.login(self.address, self.password)
        return client

    def pop3(self) -> poplib.POP3_SSL:
        client = poplib.POP3_SSL(
            "localhost", self.ports["pop3s"], context=self.tls, timeout=60
        )
        client.user(self.address)
        client.pass_(self.password)
        return client


def quoted(name: bytes | str) -> str:
    """A mailbox name as it goes into a command of imaplib."""
    text = name.decode() if isinstance(name, bytes) else name
    return '"' + text.strip('"').replace("\\", "\\\\") + '"'


def take(login: Login) -> Picture:
    """Look at everything, and change nothing."""
    client = login.imap()
    try:
        mailboxes = {
            name: _mailbox(client, name)
            for name, attributes in _list(client, "list")
            if b"\\noselect" not in attributes.lower()
            and b"\\nonexistent" not in attributes.lower()
        }
        subscribed = frozenset(name for name, _ in _list(client, "lsub"))
    finally:
        client.logout()
    return Picture(mailboxes, subscribed, _maildrop(login))


def _list(client: imaplib.IMAP4, command: str) -> list[tuple[str, bytes]]:
    found = []
    _, lines = getattr(client, command)('""', '"*"')
    for line in lines:
        if isinstance(line, tuple):
            raise AssertionError(f"a literal for a mailbox name: {line!r}")
        if line is not None and (match := _LINE.fullmatch(line)):
            found.append((match[2].strip(b'"').decode(), match[1]))
    return found


def _mailbox(client: imaplib.IMAP4, name: str) -> Mailbox:
    status, answer = client.select(quoted(name), readonly=True)
    assert status == "OK", (name, answer)
    uid_validity = int(client.response("UIDVALIDITY")[1][0])
    uid_next = int(client.response("UIDNEXT")[1][0])
    messages = {}
    if answer[0] != b"0":
        _, parts = client.fetch(
            "1:*", "(UID FLAGS INTERNALDATE RFC822.SIZE BODY.PEEK[])"
        )
        for part in parts:
            if not isinstance(part, tuple):
                continue
            match = re.match(_ITEMS, part[0])
            assert match, part[0]
            messages[int(match[2])] = Message(
                frozenset(
                    flag.lower()
                    for flag in match[3].decode().split()
                    if flag != "\\Recent"
                ),
                match[4].decode().replace('" ', '"0'),  # both spellings are right
                int(match[5]),
                sha256(part[1]).hexdigest(),
            )
    client.close()
    return Mailbox(uid_validity, uid_next, messages)


def _maildrop(login: Login) -> list[tuple[str, int]]:
    client = login.pop3()
    try:
        sizes = [int(line.split()[1]) for line in client.list()[1]]
        uidls = [line.split()[1].decode() for line in client.uidl()[1]]
    finally:
        client.quit()
    return list(zip(uidls, sizes, strict=True))
