"""Clients that log in by SCRAM, with and without channel binding, on all protocols."""

import imaplib
import subprocess
import sys
import time
from pathlib import Path

from tests.accounts.test_schemes import HASHES, PASSWORD
from tests.clients.server import PAUSE_S, ROOT, ServerCase
from tests.clients.test_smtp_clients import SmtpClientCase


class ScramClientTests(SmtpClientCase):
    def gsasl(self, service: str, mechanism: str, *more: str) -> None:
        """GNU SASL logs in, after STARTTLS, and verifies what the server proves."""
        protocol = "smtp" if service == "submission" else service
        said = self.run_client(
            "gsasl",
            f"--{protocol}",
            *("localhost", str(self.server.ports[service])),
            *("--mechanism", mechanism),
            *("--authentication-id", self.anna, "--authorization-id", self.anna),
            *("--password", self.password),
            f"--x509-ca-file={self.server.ca}",
            "--verbose",
            *more,
        )
        self.assertIn("server trusted", said)
        self.assertIn(f"login user={self.anna}", self.server.log())

    def offer_plus(self) -> None:
        text = self.server.config.read_text()
        self.assertIn("scram_plus = false", text)
        self.server.config.write_text(
            text.replace("scram_plus = false", "scram_plus = true")
        )
        self.server.reload()

    def test_gsasl_imap_with_tls_exporter(self) -> None:
        self.offer_plus()
        self.gsasl("imap", "SCRAM-SHA-256-PLUS")

    def test_gsasl_smtp_with_tls_exporter(self) -> None:
        self.offer_plus()
        self.gsasl("submission", "SCRAM-SHA-256-PLUS")

    def test_gsasl_without_channel_binding(self) -> None:
        self.gsasl("imap", "SCRAM-SHA-256", "--no-cb")

    def test_msmtp(self) -> None:
        data = self.message("by msmtp", self.anna, self.anna)
        config = self.config(
            "msmtprc", "submission", "tls_starttls on", f"from {self.anna}"
        )
        self.run_client("msmtp", "-C", config, self.anna, stdin=data)
        self.assert_received("anna", "by msmtp")

    def test_mpop(self) -> None:
        inbox = self.server.maildir("anna") / "new"
        (inbox / "1.a.b").write_text(self.message("by mpop", "a@b.test", self.anna))
        config = self.config(
            "mpoprc",
            "pop3",
            "tls_starttls on",
            f"delivery mbox {self.folder / 'mbox'}",
            f"uidls_file {self.folder / 'uidls'}",
        )
        self.run_client("mpop", "-C", config)
        self.assertIn("\nSubject: by mpop\n", (self.folder / "mbox").read_text())

    def config(self, name: str, service: str, *more: str) -> Path:
        """Settings of msmtp or mpop, which are of one author."""
        config = self.folder / name
        lines = (
            "account default",
            "host localhost",
            f"port {self.server.ports[service]}",
            "tls on",
            f"tls_trust_file {self.server.ca}",
            "auth scram-sha-256",
            f"user {self.anna}",
            f"password {self.password}",
            *more,
        )
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        return config

    def test_mbsync(self) -> None:
        """Cyrus SASL, which knows limits of the iterations."""
        inbox = self.server.maildir("anna") / "new"
        (inbox / "1.a.b").write_text(self.message("by mbsync", "a@b.test", self.anna))
        config = self.folder / "mbsyncrc"
        config.write_text(
            f"""IMAPAccount anna
Host localhost
Port {self.server.ports["imap"]}
User {self.anna}
Pass {self.password}
SSLType STARTTLS
CertificateFile {self.server.ca}
AuthMechs SCRAM-SHA-256

IMAPStore far
Account anna

MaildirStore near
Path {self.folder}/
Inbox {self.folder}/inbox

Channel all
Far :far:
Near :near:
Create Near
SyncState *
"""
        )
        self.run_client("mbsync", "-c", config, "all")
        self.assertEqual(len(list((self.folder / "inbox" / "new").iterdir())), 1)


class ImportTests(ServerCase):
    accounts = ("anna",)

    def test_imported_password_works_and_is_hashed_anew(self) -> None:
        users = self.folder / "users"
        users.write_text(f"carl:{HASHES['SHA512-CRYPT']}:1000:1000::/home/carl::\n")
        self.mailsrv("account", "import", str(users), "--domain", "example.test")
        imap = imaplib.IMAP4("127.0.0.1", self.server.ports["imap"])
        deadline = time.monotonic() + 10
        while b"AUTH=SCRAM-SHA-256" in imap.capability()[1][0]:
            self.assertLess(time.monotonic(), deadline, "the import is not seen")
            time.sleep(PAUSE_S)
        imap.authenticate("PLAIN", lambda _: f"\0carl\0{PASSWORD}".encode())
        imap.logout()
        self.assertIn("argon2id", self.mailsrv("account", "show", "carl").lower())
        # Now everybody has keys.
        imap = imaplib.IMAP4("127.0.0.1", self.server.ports["imap"])
        self.assertIn("AUTH=SCRAM-SHA-256", imap.capabilities)
        imap.authenticate("PLAIN", lambda _: f"\0carl\0{PASSWORD}".encode())
        imap.logout()
        log = self.server.log()
        self.assertNotIn("$6$", log)
        self.assertNotIn(PASSWORD, log)

    def mailsrv(self, *arguments: str) -> str:
        main = "from mailsrv.cli.main import main; main()"
        return subprocess.run(
            [sys.executable, "-c", main, *arguments, "--config", self.server.config],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        ).stdout
