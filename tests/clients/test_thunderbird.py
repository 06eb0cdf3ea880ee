"""Thunderbird itself, headless, does with an account what a person does with it.

What it is made to do stands in ``thunderbird.js``; here is what must come of it.
"""

import base64
import os
import shutil
import smtplib
import time
from email.message import EmailMessage

from tests.clients.server import HOST, ServerCase
from tests.clients.thunderbird import STEP_S, Thunderbird

LARGE = 10 * 1024 * 1024


class ThunderbirdTests(ServerCase):
    """One profile, made anew; the account is anna's, with TLS throughout."""

    if shutil.which("thunderbird") is None:
        skip = "thunderbird is not installed"

    def setUp(self) -> None:
        super().setUp()
        self.thunderbird = Thunderbird(self.folder / "profile")
        self.addCleanup(self.thunderbird.kill)
        self.do = self.thunderbird.do

    def mail(self, subject: str, text: str, attachment: bytes = b"") -> None:
        message = EmailMessage()
        message["From"] = "Ben <ben@elsewhere.test>"
        message["To"] = self.server.account("anna").address
        message["Subject"] = subject
        message.set_content(text)
        if attachment:
            message.add_attachment(
                attachment, maintype="application", subtype="octet-stream"
            )
        with smtplib.SMTP(HOST, self.server.ports["smtp"]) as client:
            client.send_message(message)

    def test_a_day_with_an_account(self) -> None:
        for subject in ("first", "second", "third"):
            self.mail(subject, f"This is the {subject} letter: Grüße.")
        self.thunderbird.set_up(self.server)
        self.read_and_mark()
        self.move_and_delete()
        self.be_told_of_new_mail()
        self.open_a_large_attachment()
        self.send()
        self.thunderbird.kill()
        self.server.wait_for_log("compressed=True")  # all that went by COMPRESS

    def read_and_mark(self) -> None:
        first = self.do("waitFor", folder="Inbox", subject="first")
        self.assertFalse(first["read"] or first["flagged"])
        self.assertEqual(first["author"], "Ben <ben@elsewhere.test>")
        special = self.do("special")
        self.assertNotIn(None, special.values(), special)
        self.do("read", folder="Inbox", subject="first")
        self.do("star", folder="Inbox", subject="first")
        self.do("tag", folder="Inbox", subject="first", keyword="$label1")
        self.assertEqual(self.do("search", folder="Inbox", text="second"), ["second"])
        # The server's Maildir, not Thunderbird's own memory, is the proof.
        self.wait_for_file("cur/*:2,FSa", b"Subject: first")

    def move_and_delete(self) -> None:
        self.do("createFolder", name="Küche")
        self.do("move", folder="Inbox", subject="second", to="Küche")
        self.do("waitFor", folder="Küche", subject="second")
        self.wait_for_file(".K&APw-che/cur/*", b"Subject: second")
        self.do("remove", folder="Inbox", subject="third")
        self.do("gone", folder="Inbox", subject="third")
        self.do("waitFor", folder="Trash", subject="third")
        self.wait_for_file(".Trash/cur/*", b"Subject: third")

    def be_told_of_new_mail(self) -> None:
        self.mail("pushed", "Nobody clicks.")
        self.do("waitFor", folder="Inbox", subject="pushed", push=True)

    def open_a_large_attachment(self) -> None:
        content = os.urandom(LARGE)
        self.mail("large", "See the attachment.", content)
        self.do("waitFor", folder="Inbox", subject="large", push=True)
        source = self.do("source", folder="Inbox", subject="large")
        last = base64.b64encode(content)[-40:].decode()
        self.assertIn(last, source["end"].replace("\r\n", ""))
        self.assertGreater(source["length"], LARGE * 4 // 3)

    def send(self) -> None:
        ben = self.server.account("ben").address
        self.do("send", to=ben, subject="answer", body="Thank you.")
        self.do("waitFor", folder="Sent", subject="answer")
        self.wait_for_file(".Sent/*/*", b"Subject: answer")
        self.wait_for_file("new/*", b"Subject: answer", account="ben")

    def wait_for_file(self, pattern: str, text: bytes, account: str = "anna") -> None:
        maildir = self.server.maildir(account)
        deadline = time.monotonic() + STEP_S
        while not any(text in path.read_bytes() for path in maildir.glob(pattern)):
            if time.monotonic() > deadline:
                found = [str(path) for path in maildir.glob("**/*:2,*")]
                raise AssertionError(f"no {text!r} in {pattern}: {found}")
            time.sleep(0.05)
