"""Mail to the world from a real server: sent, waiting, sent back; an admin's hands."""

import imaplib
import json
import smtplib
import time
from collections.abc import Callable

from tests.clients.server import HOST, PAUSE_S, WAIT_S, ServerCase
from tests.clients.sink import Sink

MESSAGE = (
    "From: {anna}\r\nMessage-ID: <one@example.test>\r\nDate: Tue, 1 Dec 2026 10:00:00"
    " +0000\r\nSubject: Hi\r\n\r\nHello\r\n"
)


class SendingTests(ServerCase):
    def setUp(self) -> None:
        self.sink = Sink()
        self.addCleanup(self.sink.server_close)
        self.addCleanup(self.sink.shutdown)
        self.settings = (
            '[queue]\nretry_after = ["1h"]\n[[relay.route]]\n'
            f'to = "127.0.0.1:{self.sink.port}"\ntls = "never"\n'
        )
        super().setUp()

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never\n{self.server.log()}")
            time.sleep(PAUSE_S)

    def send(self, *to: str) -> None:
        anna = self.server.account("anna")
        with smtplib.SMTP(HOST, self.server.ports["submission"]) as client:
            client.starttls()
            client.login(anna.login, self.server.password("anna"))
            client.sendmail(
                anna.address,
                to,
                f"From: {anna.address}\r\nSubject: Hi\r\n\r\nHello\r\n",
            )

    def run_queue(self, *arguments: str) -> str:
        done = self.server.command("queue", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def mails(self, account: str) -> list[str]:
        return [f.read_text() for f in self.server.maildir(account).glob("new/*")]

    def waits(self) -> list[dict[str, object]]:
        lines = self.run_queue("list", "--json").splitlines()
        return [json.loads(line) for line in lines]

    def test_sent_and_signed(self) -> None:
        self.server.command("dkim", "make", "example.test")
        self.send("carl@far.test", self.server.account("ben").address)
        self.eventually(lambda: len(self.sink.messages) == 1)
        [octets] = self.sink.messages
        self.assertTrue(octets.startswith(b"DKIM-Signature: "), octets)
        self.assertNotIn(b"Return-Path", octets)
        records = json.loads(
            self.server.command("dkim", "show", "example.test", "--json").stdout
        )
        self.assertTrue(records)
        self.eventually(lambda: len(self.mails("ben")) == 1)
        self.eventually(lambda: not self.waits())

    def test_refused_and_told(self) -> None:
        self.sink.answers["nobody@far.test"] = "550 5.1.1 No such person"
        self.send("nobody@far.test")
        self.eventually(lambda: len(self.mails("anna")) == 1)
        [report] = self.mails("anna")
        self.assertIn("multipart/report", report)
        self.assertIn("nobody@far.test", report)
        self.assertIn("No such person", report)

    def test_what_waits_and_what_an_admin_does(self) -> None:
        self.sink.answers["carl@far.test"] = "451 4.7.1 Greylisted, come again"
        self.send("carl@far.test")
        self.eventually(lambda: "waiting" in self.run_queue("list"))
        self.eventually(lambda: self.waits()[0]["attempts"] == 1)
        [row] = self.waits()
        id = str(row["id"])
        self.assertIn("Greylisted", self.run_queue("list", "--reason", "greylist"))
        shown = self.run_queue("show", id)
        self.assertIn("127.0.0.1", shown)
        why = self.run_queue("why", "carl@far.test")
        self.assertIn("It waits. It was tried once", why)
        self.assertIn("Greylisted", why)
        self.assertIn("1 recipients", self.run_queue("hold", id))
        self.assertEqual(self.waits()[0]["state"], "held")
        self.sink.answers.clear()
        self.server.terminate()
        down = self.server.command("queue", "release", id)
        self.assertIn("start it first", down.stderr)
        self.server.start()
        self.run_queue("release", id)
        self.eventually(lambda: len(self.sink.messages) == 1)
        self.eventually(lambda: not self.waits())
        self.assertIn("Nothing waits", self.run_queue("why", "carl@far.test"))

    def test_one_copy_in_sent(self) -> None:
        """The server files it, and a client that does the same makes no second one."""
        anna = self.server.account("anna")
        done = self.server.command("account", "set", anna.address, "--files-sent")
        self.assertEqual(done.returncode, 0, done.stderr)
        client = imaplib.IMAP4(HOST, self.server.ports["imap"])
        self.addCleanup(client.shutdown)
        client.starttls()
        client.login(anna.login, self.server.password("anna"))
        octets = MESSAGE.format(anna=anna.address).encode()

        def in_sent() -> int:
            return int(client.select("Sent")[1][0] or b"")

        self.eventually(lambda: self.sends_and_files(octets))
        self.eventually(lambda: in_sent() == 1)
        self.assertEqual(client.append("Sent", "\\Seen", None, octets)[0], "OK")
        self.assertEqual(in_sent(), 1)
        flags = client.fetch("1", "(FLAGS)")[1][0]
        self.assertIn(b"\\Seen", flags)

    def sends_and_files(self, octets: bytes) -> bool:
        """Submit once the server knows that copies are wanted: within a second."""
        anna = self.server.account("anna")
        with smtplib.SMTP(HOST, self.server.ports["submission"]) as client:
            client.starttls()
            client.login(anna.login, self.server.password("anna"))
            client.sendmail(anna.address, ["carl@far.test"], octets)
        return any((self.server.maildir("anna") / ".Sent" / "cur").iterdir())

    def test_sent_back_by_hand(self) -> None:
        self.sink.answers["carl@far.test"] = "451 4.2.2 Full"
        self.send("carl@far.test")
        self.eventually(lambda: bool(self.waits()) and self.waits()[0]["attempts"] == 1)
        self.run_queue("bounce", "--recipient", "carl")
        self.eventually(lambda: len(self.mails("anna")) == 1)
        self.assertEqual(self.waits(), [])
