"""An app password with real clients: it sends, and may not read."""

import imaplib
import json
import poplib
import smtplib

from tests.clients.server import HOST, ServerCase


class AppPasswordTests(ServerCase):
    def add(self, label: str, *options: str) -> str:
        anna = self.server.account("anna").address
        done = self.server.command(
            "account", "app-password", "add", anna, label, "--json", *options
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.server.reload()
        password: str = json.loads(done.stdout)["password"]
        return password

    def smtp(self, password: str) -> smtplib.SMTP:
        client = smtplib.SMTP(HOST, self.server.ports["submission"])
        self.addCleanup(client.close)
        client.starttls()
        client.login(self.server.account("anna").login, password)
        return client

    def test_sends_and_reads_nothing(self) -> None:
        anna, ben = (self.server.account(name) for name in ("anna", "ben"))
        password = self.add("shop", "--scope", "send", "--max-per-hour", "2")
        client = self.smtp(password)
        text = f"From: {anna.address}\r\nSubject: order\r\n\r\nx\r\n"
        for _ in range(2):
            client.sendmail(anna.address, [ben.address], text)
        with self.assertRaises(smtplib.SMTPSenderRefused) as caught:
            client.sendmail(anna.address, [ben.address], text)
        self.assertEqual(caught.exception.smtp_code, 450)
        imap = imaplib.IMAP4(HOST, self.server.ports["imap"])
        self.addCleanup(imap.shutdown)
        imap.starttls()
        with self.assertRaises(imaplib.IMAP4.error):
            imap.login(anna.login, password)
        pop3 = poplib.POP3(HOST, self.server.ports["pop3"])
        self.addCleanup(pop3.close)
        pop3.stls()
        pop3.user(anna.login)
        with self.assertRaises(poplib.error_proto):
            pop3.pass_(password)
        self.assertIn("app_password=shop", self.server.log())
        self.assertNotIn(password, self.server.log())

    def test_removed(self) -> None:
        anna = self.server.account("anna")
        password = self.add("phone")
        imap = imaplib.IMAP4(HOST, self.server.ports["imap"])
        self.addCleanup(imap.shutdown)
        imap.starttls()
        imap.login(anna.login, password)
        shown = self.server.command("account", "app-password", "list", anna.address)
        self.assertIn("phone", shown.stdout)
        self.server.command("account", "app-password", "remove", anna.address, "phone")
        # The session ends by itself, within a second.
        self.assertIn(b"BYE", imap.readline())
        with self.assertRaises(smtplib.SMTPAuthenticationError):
            self.smtp(password)
        self.smtp(self.server.password("anna")).quit()
