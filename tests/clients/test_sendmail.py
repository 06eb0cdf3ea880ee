"""Programs of this machine send through a real server, or while it is down."""

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable

from mailsrv.smtp.drop import Dropped
from tests.clients.server import PAUSE_S, WAIT_S, ServerCase, environment


class SendmailTests(ServerCase):
    def sendmail(self, *flags: str, text: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                sys.executable,
                "-c",
                "from mailsrv.cli.sendmail import program; program()",
                *flags,
            ],
            env={**environment(), "MAILSRV_CONFIG": str(self.server.config)},
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def mails(self, account: str) -> list[str]:
        return [f.read_text() for f in self.server.maildir(account).glob("new/*")]

    def eventually(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never\n{self.server.log()}")
            time.sleep(PAUSE_S)

    def test_as_php_does(self) -> None:
        done = self.sendmail(
            "-t", "-i", text="To: ben@example.test\nSubject: order\n\n.\nthanks\n"
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        [octets] = self.mails("ben")
        self.assertIn("Subject: order\n", octets)
        self.assertIn("\n\n.\nthanks\n", octets)
        self.assertIn("@example.test", octets.partition("From: ")[2].splitlines()[0])

    def test_as_cron_does(self) -> None:
        """To a user who has no account: somebody reads it all the same."""
        text = "From: root (Cron Daemon)\nTo: root\nSubject: Cron\n\nout\n"
        done = self.sendmail(
            "-FCronDaemon", "-i", "-B8BITMIME", "-oem", "root", text=text
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        [octets] = self.mails("anna")  # postmaster is the first account
        self.assertIn("To: root@example.test\n", octets)

    def test_smtp(self) -> None:
        done = self.sendmail(
            "-bs",
            text="EHLO here\r\nMAIL FROM:<root@example.test>\r\n"
            "RCPT TO:<ben@example.test>\r\nDATA\r\n"
            "Subject: x\r\n\r\ny\r\n.\r\nQUIT\r\n",
        )
        self.assertIn("250 2.0.0 Ok, id", done.stdout)
        self.assertEqual(len(self.mails("ben")), 1)

    def test_refused(self) -> None:
        done = self.sendmail("nobody@example.test", text="Subject: x\n\ny\n")
        self.assertEqual(done.returncode, os.EX_NOUSER)
        self.assertIn("No such user", done.stderr)
        done = self.sendmail("-f", "x@else.test", "ben@example.test", text="\ny\n")
        self.assertEqual(done.returncode, os.EX_NOPERM)
        self.assertEqual(self.mails("ben"), [])

    def test_while_the_server_is_down(self) -> None:
        self.server.terminate()
        done = self.sendmail("ben@example.test", text="Subject: late\n\ny\n")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        done = self.sendmail(
            "-f", "anna@example.test", "nobody@example.test", text="\ny\n"
        )
        self.assertEqual(done.returncode, 0)
        drop = self.server.folder / "drop"
        self.assertEqual(len(list(drop.iterdir())), 2)
        self.server.start()
        self.eventually(lambda: len(self.mails("ben")) == 1)
        self.assertIn("Subject: late\n", self.mails("ben")[0])
        self.eventually(lambda: len(self.mails("anna")) == 1)
        self.assertIn("multipart/report", self.mails("anna")[0])
        self.assertEqual(list(drop.iterdir()), [])

    def test_report_goes_to_nobody_who_was_only_named(self) -> None:
        """What is dropped may name any sender; the report is not for that one."""
        self.server.terminate()
        content = io.BytesIO(b"Subject: x\r\n\r\ny\r\n")
        forged = Dropped("victim@else.test", ("ben@example.test",))
        forged.write(self.server.folder / "drop", content)
        self.server.start()
        self.eventually(lambda: len(self.mails("anna")) == 1)  # for root
        self.assertIn("multipart/report", self.mails("anna")[0])
        self.assertEqual(self.server.log().count("victim@else.test"), 1)  # refused
        self.assertEqual(self.mails("ben"), [])
