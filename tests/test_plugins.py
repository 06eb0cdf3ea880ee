"""Plugins of another package: installed by pip, found and used by a real server.

The package is ``tests/example_plugins``; docs/plugins.rst shows its files. Slow; not
part of ``make check``.
"""

import imaplib
import os
import shutil
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from email.message import EmailMessage
from email.policy import SMTP
from functools import cache
from hashlib import scrypt
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.server import HOST, PAUSE_S, ROOT, WAIT_S, Server

SOURCES = ROOT / "tests" / "example_plugins"
TIMEOUT_S = 2.0  # of the plugins that do everything wrong
SENDER = "sender@else.test"
STRANGER = "127.0.0.66"
ANNA, BEN = "anna@example.test", "ben@example.test"


@cache
def installed() -> "tempfile.TemporaryDirectory[str]":
    """Install the example package in ``packages`` of a folder that ends with us."""
    folder = tempfile.TemporaryDirectory(prefix="mailsrv-plugins-")
    # A copy: building leaves files among the sources.
    sources = Path(folder.name) / "sources"
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(SOURCES, sources, ignore=ignored)
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet"),
            *("--no-build-isolation", "--no-deps", "--no-index"),
            *("--disable-pip-version-check", "--target"),
            *(Path(folder.name) / "packages", sources),
        ],
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return folder


class InstalledCase(SynchronousTestCase):
    """Has the example package installed, and a server that can use it."""

    settings = ""

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        packages = str(Path(installed().name) / "packages")
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": packages})
        self.server = Server(self.folder / "server", settings=self.prepare())

    def prepare(self) -> str:
        """Return further settings."""
        return self.settings

    def command(self, *arguments: str) -> str:
        """Run the ``mailsrv`` command, and return what it printed."""
        done = self.server.command(*arguments)
        return done.stdout + done.stderr

    def send(
        self, subject: str, *recipients: str, attached: str = "", body: str = "text\n"
    ) -> tuple[int, str]:
        """Send a message; return the reply to its content, or to its recipient."""
        message = EmailMessage(SMTP)
        message["From"], message["Subject"] = SENDER, subject
        message.set_content(body)
        if attached:
            message.add_attachment(
                b"MZ" * 10, maintype="application", subtype="x", filename=attached
            )
        with smtplib.SMTP(HOST, self.server.ports["smtp"], timeout=60) as client:
            client.ehlo("client.test")
            client.mail(SENDER)
            for recipient in recipients or (ANNA,):
                code, text = client.rcpt(recipient)
                if code != 250:
                    return code, text.decode()
            code, text = client.data(message.as_bytes())
            return code, text.decode()

    def subjects(self, account: str = "anna", mailbox: str = "") -> list[str]:
        """Of the messages in the folder of a mailbox, with what is in ``tmp/``."""
        folder = self.server.maildir(account) / mailbox
        files = [f for sub in ("new", "cur", "tmp") for f in (folder / sub).iterdir()]
        lines = [f.read_text().partition("\n\n")[0].splitlines() for f in files]
        return sorted(
            line.removeprefix("Subject: ")
            for header in lines
            for line in header
            if line.startswith("Subject: ")
        )


class ExampleTests(InstalledCase):
    """The three plugins of docs/plugins.rst, and a listening service."""

    def prepare(self) -> str:
        file = self.folder / "users.sqlite"
        with closing(sqlite3.connect(file)) as users, users:
            users.execute("CREATE TABLE users (address, salt, hash)")
            hashed = scrypt(b"elsewhere", salt=b"salt", n=2**14, r=8, p=1)
            users.execute("INSERT INTO users VALUES (?, ?, ?)", (ANNA, b"salt", hashed))
        with socket.create_server((HOST, 0)) as taken:
            self.echo_port = taken.getsockname()[1]
        return f"""
            [[plugin]]
            name = "acme-no-programs"
            [plugin.options]
            endings = ["exe", "scr"]
            [[plugin]]
            name = "acme-users"
            options = {{ file = "{file}" }}
            [[plugin]]
            name = "acme-projects"
            [plugin.options]
            domain = "projects.test"
            members = {{ apollo = ["{ANNA}", "{BEN}"] }}
            [[plugin]]
            name = "networks"
            options = {{ deny = ["{STRANGER}"] }}
            [[plugin]]
            name = "acme-echo"
            [[listen]]
            service = "acme-echo"
            endpoint = "tcp:{self.echo_port}:interface={HOST}"
        """

    def test_they_are_found(self) -> None:
        listed = self.command("plugins")
        for name in ("acme-no-programs", "acme-users", "acme-projects", "networks"):
            self.assertRegex(listed, rf"(?m)^{name} +\w")
        self.assertIn(": good", self.command("check-config", str(self.server.config)))
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace('["exe", "scr"]', '["*"]'))
        self.assertIn(
            "plugin[1].options: endings: a list",
            self.command("check-config", str(self.server.config)),
        )

    def test_they_work(self) -> None:
        self.server.start()
        self.addCleanup(self.server.stop)
        self.filter()
        self.resolver()
        self.user_database()
        self.service()
        self.connection_policy()

    def filter(self) -> None:
        self.assertEqual(self.send("good", attached="a.pdf")[0], 250)
        self.assertEqual(self.send("bad", attached="a.exe")[0], 250)
        large = "x" * 70 + "\n"
        self.assertEqual(self.send("large", body=large * 20_000)[0], 250)
        self.assertEqual(
            self.send("worse", body=large * 20_000, attached="b.SCR")[0], 250
        )
        self.assertEqual(self.subjects(), ["good", "large"])
        self.assertEqual(self.subjects(mailbox=".Junk"), ["bad", "worse"])
        for file in (self.server.maildir("anna") / ".Junk" / "new").iterdir():
            self.assertIn("\nX-Acme: a program is attached\n", file.read_text())

    def resolver(self) -> None:
        self.assertEqual(self.send("launch", "apollo@projects.test")[0], 250)
        self.assertIn("launch", self.subjects())
        self.assertEqual(self.subjects("ben"), ["launch"])
        self.assertEqual(self.send("x", "gemini@projects.test")[0], 550)

    def user_database(self) -> None:
        context = ssl.create_default_context(cafile=str(self.server.ca))
        for password, good in (
            ("elsewhere", True),
            (self.server.password("anna"), True),
            ("nowhere", False),
        ):
            port = self.server.ports["imaps"]
            client = imaplib.IMAP4_SSL("localhost", port, ssl_context=context)
            try:
                client.login(ANNA, password)
                self.assertTrue(good, password)
            except imaplib.IMAP4.error:
                self.assertFalse(good, password)
            client.logout()

    def service(self) -> None:
        with socket.create_connection((HOST, self.echo_port), timeout=WAIT_S) as echo:
            echo.sendall(b"hello")
            self.assertEqual(echo.recv(10), b"hello")

    def connection_policy(self) -> None:
        for service, told in (
            ("smtp", b"554 5.7.1 Your network is not welcome here\r\n"),
            ("submission", b"554 5.7.1 Your network is not welcome here\r\n"),
            ("imap", b"* BYE Your network is not welcome here\r\n"),
            ("pop3", b"-ERR [SYS/PERM] Your network is not welcome here\r\n"),
            ("imaps", b""),
            ("submissions", b""),
        ):
            with socket.create_connection(
                (HOST, self.server.ports[service]), 10, source_address=(STRANGER, 0)
            ) as stranger:
                self.assertEqual(stranger.recv(1000), told, service)
                self.assertEqual(stranger.recv(1000), b"", service)


class BrokenTests(InstalledCase):
    """Whatever a plugin does, mail is deferred, none is lost, the server lives."""

    settings = f"""
        [[plugin]]
        name = "acme-broken"
        timeout_s = {TIMEOUT_S}
        [[plugin]]
        name = "acme-blocking"
        timeout_s = {TIMEOUT_S}
    """

    def setUp(self) -> None:
        super().setUp()
        self.server.start()
        self.addCleanup(self.server.terminate)

    def test_mail_is_deferred_and_comes_later(self) -> None:
        for subject, logged in (
            ("raise", "plugin acme-broken failed"),
            ("exit", "plugin acme-broken failed"),
            ("hang", f"plugin acme-broken gave no answer in {TIMEOUT_S} s"),
            ("block", f"plugin acme-blocking gave no answer in {TIMEOUT_S} s"),
        ):
            for body in ("text\n", "x" * 70 + "\n", ("x" * 70 + "\n") * 20_000):
                code, text = self.send(subject, ANNA, BEN, body=body)
                self.assertEqual((code, text[:5]), (451, "4.3.0"), subject)
            self.assertIn(logged, self.server.log())
            self.assertEqual(self.subjects() + self.subjects("ben"), [], subject)
        # The sender tries again, when the plugin is well.
        self.assertEqual(self.send("well again", ANNA, BEN)[0], 250)
        self.assertEqual(self.subjects(), ["well again"])
        self.assertEqual(self.subjects("ben"), ["well again"])

    def test_nobody_else_waits(self) -> None:
        hanging = [self.begin(subject) for subject in ("hang", "block") * 3]
        begun = time.monotonic()
        with smtplib.SMTP(HOST, self.server.ports["smtp"], timeout=60) as client:
            client.ehlo("client.test")
            self.assertEqual(client.noop()[0], 250)
        self.assertLess(time.monotonic() - begun, 20.0)  # it blocks for a minute
        for client in hanging:
            self.assertEqual(client.getreply()[0], 451)
            client.close()
        self.assertEqual(self.send("other", BEN)[0], 250)

    def test_one_that_blocks_for_long_loses_nothing(self) -> None:
        for _ in range(6):  # more than it has threads
            self.assertEqual(self.send("block")[0], 451)
        # Nothing gets past it now, and nothing is lost.
        self.assertEqual(self.send("other")[0], 451)
        self.assertEqual(self.subjects(), [])
        begun = time.monotonic()
        self.server.terminate()
        self.assertLess(time.monotonic() - begun, 20.0)
        self.server.start()
        self.assertEqual(self.send("other")[0], 250)
        self.assertEqual(self.subjects(), ["other"])

    def begin(self, subject: str) -> smtplib.SMTP:
        """Send a message, without waiting for the reply to its content."""
        client = smtplib.SMTP(HOST, self.server.ports["smtp"], timeout=60)
        client.ehlo("client.test")
        client.mail(SENDER)
        client.rcpt(ANNA)
        client.docmd("DATA")
        client.send(f"From: <{SENDER}>\r\nSubject: {subject}\r\n\r\nx\r\n.\r\n")
        time.sleep(PAUSE_S)
        return client
