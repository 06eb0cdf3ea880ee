"""Many IMAP sessions in IDLE: their memory, and how soon they are told of mail."""

import imaplib
import selectors
import smtplib
import ssl
import time
from dataclasses import dataclass, field

from benchmarks.meter import memory_kib
from benchmarks.servers import HOST, IDLE_USERS, Target, trusting

PATIENCE_S = 2.0


@dataclass(slots=True)
class Result:
    """What a run of idle sessions saw."""

    kib_per_session: float
    told_s: list[float] = field(default_factory=list)  # 250 to EXISTS, each session
    missed: int = 0


def run(target: Target, sessions: int, deliveries: int) -> Result:
    """Open `sessions` over all idle users with TLS; then deliver mail to some."""
    _log_in(target, IDLE_USERS[0]).logout()
    before = memory_kib(target.pids)
    clients: dict[str, list[imaplib.IMAP4]] = {user: [] for user in IDLE_USERS}
    for number in range(sessions):
        user = IDLE_USERS[number % len(IDLE_USERS)]
        clients[user].append(_idle(target, user))
    result = Result((memory_kib(target.pids) - before) / sessions)
    with smtplib.SMTP(HOST, target.smtp_port) as sender:
        for number in range(deliveries):
            user = IDLE_USERS[number * 7 % len(IDLE_USERS)]
            _deliver(target, sender, user, clients[user], result)
    for each in (client for group in clients.values() for client in group):
        each.shutdown()
    return result


def _log_in(target: Target, user: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4(HOST, target.imap_port, timeout=60)
    client.starttls(trusting())
    client.login(target.address(user), target.passwords[user])
    return client


def _idle(target: Target, user: str) -> imaplib.IMAP4:
    client = _log_in(target, user)
    client.select("INBOX")
    client.send(b"i1 IDLE\r\n")
    while not client.readline().startswith(b"+"):
        pass
    client.sock.setblocking(False)
    return client


def _deliver(
    target: Target,
    sender: smtplib.SMTP,
    user: str,
    clients: list[imaplib.IMAP4],
    result: Result,
) -> None:
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.sock, selectors.EVENT_READ)
        text = f"To: {target.address(user)}\r\nSubject: news\r\n\r\nHello.\r\n"
        sender.sendmail("load@elsewhere.test", [target.address(user)], text)
        accepted_at = time.perf_counter()
        waiting = len(clients)
        while waiting and time.perf_counter() < accepted_at + PATIENCE_S:
            for key, _ in selector.select(1.0):
                assert isinstance(key.fileobj, ssl.SSLSocket)
                if _told(key.fileobj):
                    result.told_s.append(time.perf_counter() - accepted_at)
                    selector.unregister(key.fileobj)
                    waiting -= 1
        result.missed += waiting


def _told(connection: ssl.SSLSocket) -> bool:
    try:
        return b" EXISTS" in connection.recv(65536)
    except ssl.SSLWantReadError:
        return False
