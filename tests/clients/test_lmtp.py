"""LMTP over a UNIX socket and loopback: a reply for each recipient, at its truth."""

import smtplib
from pathlib import Path

from tests.clients.server import HOST
from tests.clients.test_smtp_clients import SENDER, SmtpClientCase

LISTEN = '[[listen]]\nservice = "lmtp"\nendpoint = "{endpoint}"\n'


class LmtpTests(SmtpClientCase):
    def setUp(self) -> None:
        super().setUp()
        self.server.stop()
        self.socket = self.server.folder / "lmtp"
        self.port = max(self.server.ports.values()) + 1
        with self.server.config.open("a") as stream:
            stream.write(LISTEN.format(endpoint=f"unix:{self.socket}"))
            local = f"tcp:{self.port}:interface={HOST}"
            stream.write(LISTEN.format(endpoint=local))
        self.server.start()

    def test_unix_socket(self) -> None:
        self.send(str(self.socket))

    def test_loopback(self) -> None:
        self.send(HOST, self.port)

    def send(self, host: str, port: int = 0) -> None:
        text = self.message("hello", SENDER, self.anna)
        with smtplib.LMTP(host, port) as client:
            refused = client.sendmail(SENDER, [self.anna, "no@example.test"], text)
        self.assertEqual(list(refused), ["no@example.test"])
        self.assert_received("anna", "hello")
        self.assertIn("with LMTP\n", self.received("anna"))

    def test_swaks(self) -> None:
        self.run_client(
            *("swaks", "--protocol", "LMTP", "--socket", self.socket),
            *("--from", SENDER, "--to", f"{self.anna},{self.ben}", "--data", "-"),
            stdin=self.message("both", SENDER, self.anna),
        )
        for name in ("anna", "ben"):
            self.assertIn("\nSubject: both\n", self.received(name))

    def test_one_mailbox_that_fails_keeps_nothing_from_the_other(self) -> None:
        new = self.server.maildir("ben") / "new"
        new.rmdir()
        new.touch()
        with smtplib.LMTP(str(self.socket)) as client:
            client.ehlo()
            client.mail(SENDER)
            for address in (self.ben, self.anna):
                client.rcpt(address)
            # smtplib reads one reply here; the other one follows.
            code, _ = client.data(self.message("one", SENDER, self.anna))
            self.assertEqual((code, client.getreply()[0]), (451, 250))
        self.assertIn("\nSubject: one\n", self.received("anna"))
        self.assertEqual(self.left_in_tmp(), [])

    def left_in_tmp(self) -> list[Path]:
        folders = [self.server.maildir(name) / "tmp" for name in ("anna", "ben")]
        return [p for f in folders for p in f.iterdir() if p.name[:5] != "lock."]
