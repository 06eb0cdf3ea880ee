"""Real SMTP clients send to a running server, and the mail is in the Maildir."""

import shutil
import smtplib
import ssl
import subprocess
from email.message import EmailMessage
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.clients.server import ServerCase

SENDER = "sender@example.org"
TEXT = "From: <{sender}>\nTo: <{to}>\nSubject: {subject}\n\n.a dot\n..two\nend\n"


class SmtpClientCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.anna = self.server.account("anna").address
        self.ben = self.server.account("ben").address
        self.password = self.server.password("anna")

    def run_client(self, *command: str | Path, stdin: str = "") -> str:
        """Run a client of Debian's; skip the test if it is not there."""
        program = str(command[0])
        if not shutil.which(program):
            raise SkipTest(f"{program} is not installed")
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        return said

    def message(self, subject: str, sender: str, to: str) -> str:
        return TEXT.format(subject=subject, sender=sender, to=to)

    def received(self, name: str) -> str:
        """The one message in an account's INBOX."""
        inbox = self.server.maildir(name)
        (file,) = [*(inbox / "new").iterdir(), *(inbox / "cur").iterdir()]
        return file.read_text()

    def assert_received(self, name: str, subject: str) -> None:
        text = self.received(name)
        self.assertIn(f"\nSubject: {subject}\n", text)
        self.assertIn(f"\nDelivered-To: {self.server.account(name).address}\n", text)
        # Some clients add empty lines at the end.
        self.assertTrue(text.rstrip("\n").endswith("\n\n.a dot\n..two\nend"), text)


class DebianClientTests(SmtpClientCase):
    def swaks(self, service: str, *options: str | Path) -> str:
        port = self.server.ports[service]
        return self.run_client(
            "swaks", "--server", "localhost", "-p", str(port), *options
        )

    def test_swaks_from_outside(self) -> None:
        data = self.message("outside", SENDER, self.anna)
        self.swaks("smtp", "-f", SENDER, "-t", self.anna, "--data", data)
        self.assert_received("anna", "outside")
        self.assertIn(f"Return-Path: <{SENDER}>\n", self.received("anna"))

    def test_swaks_by_starttls_and_by_tls(self) -> None:
        for service, tls, to in (
            ("submission", ("-tls",), "anna"),
            ("submissions", ("--tls-on-connect",), "ben"),
        ):
            address = self.server.account(to).address
            self.swaks(
                service,
                *tls,
                "--tls-verify",
                "--tls-ca-path",
                self.server.ca,
                *("--auth-user", self.anna, "--auth-password", self.password),
                *("-f", self.anna, "-t", address),
                *("--data", self.message(service, self.anna, address)),
            )
            self.assert_received(to, service)

    def test_swaks_with_auth_login(self) -> None:
        self.swaks(
            "submission",
            *("-tls", "--auth", "LOGIN"),
            *("--auth-user", self.anna, "--auth-password", self.password),
            *("-f", self.anna, "-t", self.ben),
            *("--data", self.message("login", self.anna, self.ben)),
        )
        self.assert_received("ben", "login")

    def test_msmtp(self) -> None:
        config = self.folder / "msmtprc"
        config.write_text(
            f"account default\nhost localhost\nport {self.server.ports['submission']}\n"
            f"from {self.anna}\nauth on\nuser {self.anna}\npassword {self.password}\n"
            f"tls on\ntls_trust_file {self.server.ca}\n"
        )
        config.chmod(0o600)
        self.run_client(
            *("msmtp", f"--file={config}", self.ben),
            stdin=self.message("msmtp", self.anna, self.ben),
        )
        self.assert_received("ben", "msmtp")

    def test_curl(self) -> None:
        file = self.folder / "message"
        file.write_text(self.message("curl", self.anna, self.ben))
        self.run_client(
            *("curl", "--silent", "--show-error", "--crlf", "--cacert", self.server.ca),
            f"smtps://localhost:{self.server.ports['submissions']}",
            *("--user", f"{self.anna}:{self.password}"),
            *("--mail-from", self.anna, "--mail-rcpt", self.ben, "--upload-file", file),
        )
        self.assert_received("ben", "curl")


class SmtplibTests(SmtpClientCase):
    def setUp(self) -> None:
        super().setUp()
        self.tls = ssl.create_default_context(cafile=str(self.server.ca))
        self.client = smtplib.SMTP("localhost", self.server.ports["submission"])
        self.addCleanup(self.client.close)

    def log_in(self) -> None:
        self.client.starttls(context=self.tls)
        self.client.login(self.anna, self.password)

    def test_many_messages_over_one_connection(self) -> None:
        self.log_in()
        for number in range(20):
            message = EmailMessage()
            message["From"], message["To"] = self.anna, self.ben
            message["Bcc"] = self.anna
            message["Subject"] = f"Grüße {number}"
            message.set_content("ä\n" * 100)
            self.client.send_message(message)
        for name in ("anna", "ben"):
            files = list((self.server.maildir(name) / "new").iterdir())
            self.assertEqual(len(files), 20)
            self.assertFalse(any("\nBcc:" in file.read_text() for file in files))

    def test_what_is_refused(self) -> None:
        self.log_in()
        for sender, to, code in (
            (self.ben, self.anna, 553),
            (self.anna, "nobody@example.test", 550),
        ):
            with self.assertRaises(smtplib.SMTPException) as caught:
                self.client.sendmail(sender, [to], self.message("x", sender, to))
            self.assertIn(str(code), str(caught.exception))

    def test_a_wrong_password(self) -> None:
        self.client.starttls(context=self.tls)
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.client.login(self.anna, "wrong")

    def test_mx_relays_for_nobody(self) -> None:
        with smtplib.SMTP("localhost", self.server.ports["smtp"]) as client:
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as caught:
                client.sendmail(SENDER, ["somebody@example.org"], "Subject: x\n\nx\n")
        self.assertEqual(caught.exception.recipients["somebody@example.org"][0], 550)

    def test_a_large_message(self) -> None:
        self.log_in()
        body = "x" * 70 + "\r\n"
        lines = 10 * 1024 * 1024 // len(body)
        self.client.sendmail(
            self.anna,
            [self.ben],
            f"From: <{self.anna}>\r\nSubject: large\r\n\r\n" + body * lines,
        )
        self.assertGreater(len(self.received("ben")), (len(body) - 1) * lines)


class ScannerTests(SmtpClientCase):
    """A device without a password, which swaks stands for."""

    settings = """
[[smtp.trusted_networks]]
networks = ["127.0.0.1"]
send_as = ["scanner@example.test"]
max_messages_per_hour = 2
"""

    def scan(self, subject: str, sender: str = "scanner@example.test") -> str:
        """Send on the submission port; return swaks' dialogue."""
        port = str(self.server.ports["submission"])
        data = self.message(subject, sender, self.anna)
        command = ["swaks", "--server", "127.0.0.1", "-p", port]
        command += ["-f", sender, "-t", self.anna, "--data", data]
        if not shutil.which("swaks"):
            raise SkipTest("swaks is not installed")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.stdout

    def test_scanner(self) -> None:
        self.assertIn("<** 553 5.7.1", self.scan("as anna", self.anna))
        self.scan("a scan")
        self.assert_received("anna", "a scan")
        self.assertNotIn("<**", self.scan("the second one"))
        self.assertIn("<** 451 4.7.1", self.scan("one too many"))
        self.assertIn("trusted_network=127.0.0.1", self.server.log())
