"""One Maildir in the hands of Dovecot and of our store in turn.

Dovecot's own tool reads what we write and changes what we then read: UIDs,
UIDVALIDITY, flags, keywords, subscriptions.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.store import maildir, names
from mailsrv.store.delivery import Delivery, Letter
from mailsrv.store.keywords import Keywords
from mailsrv.store.subscriptions import Subscriptions
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import SEEN, Target
from tests.clients.dovecot import version

USER = "mail"  # Dovecot refuses to read mail as root
SETTINGS = """
{mail}
log_path = {log}
first_valid_uid = 1
namespace inbox {{
  inbox = yes
  separator = /
}}
"""


class DovecotTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which("doveadm") is None:
            raise SkipTest("needs doveadm (Debian: dovecot-core)")
        if os.geteuid() != 0:
            raise SkipTest("needs root, to run Dovecot as another user")
        self.root = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.root)
        self.delivery = Delivery(self.root, host="mx.example.test")
        self.directory = self.delivery.maildir_of("anna")
        self.log = self.root / "log"
        mail = f"mail_location = maildir:{self.directory}"
        if version() >= (2, 4):
            number = ".".join(map(str, version()))
            mail = (
                f"dovecot_config_version = {number}\n"
                f"dovecot_storage_version = {number}\n"
                f"mail_driver = maildir\nmail_path = {self.directory}"
            )
        settings = SETTINGS.format(mail=mail, log=self.log)
        (self.root / "dovecot.conf").write_text(settings)
        self.uidlist = Uidlist(self.directory, self.directory)

    def doveadm(self, *arguments: str, data: str = "") -> str:
        """Run doveadm; nothing may look wrong to Dovecot."""
        subprocess.run(["chown", "-R", USER, self.root], check=True)
        if version() >= (2, 4):
            words = 2 if arguments[0] in ("mailbox", "flags") else 1
            arguments = (*arguments[:words], "--no-userdb-lookup", *arguments[words:])
        done = subprocess.run(
            ["doveadm", "-c", self.root / "dovecot.conf", *arguments],
            env={**os.environ, "USER": "anna", "HOME": str(self.directory)},
            input=data,
            capture_output=True,
            text=True,
            user=USER,
            group=USER,
            extra_groups=[],
        )
        log = self.log.read_text() if self.log.exists() else ""
        self.assertEqual((done.returncode, done.stderr, log), (0, "", ""))
        return done.stdout

    def fetch(self, fields: str) -> list[str]:
        """Return a line `field: value; …` for each message of INBOX."""
        output = self.doveadm("fetch", fields, "mailbox", "INBOX").strip()
        records = re.split(r"\n\f?\n?", output.replace("\f", "\n"))
        joined = "; ".join(line.strip() for line in records if line.strip())
        return re.split(r"; (?=uid: )", joined)

    def deliver(self, subject: str, flags: int = 0) -> bytes:
        content = [f"Subject: {subject}\n\nbody\n".encode()]
        (outcome,) = self.delivery.deliver(
            [Letter(content, [Target("anna", flags=flags)])]
        )
        assert isinstance(outcome, list), outcome
        return outcome[0].base

    def give_uids(self, *bases: bytes) -> list[int]:
        with self.uidlist.lock:
            self.uidlist.refresh()
            return list(self.uidlist.append([(base, b"") for base in bases]))

    def test_uids_and_flags_go_both_ways(self) -> None:
        one, two = self.deliver("one"), self.deliver("two", SEEN)
        self.assertEqual(self.give_uids(two, one), [1, 2])
        self.assertEqual(
            self.fetch("uid flags size.virtual hdr.subject"),
            [
                "uid: 1; flags: \\Seen; size.virtual: 22; hdr.subject: two",
                "uid: 2; flags: \\Recent; size.virtual: 22; hdr.subject: one",
            ],
        )
        self.doveadm("save", data="Subject: three\n\nbody\n")
        self.doveadm("flags", "add", "\\Flagged work", "mailbox", "INBOX", "uid", "3")
        reading = self.uidlist.refresh()
        self.assertEqual([record.uid for record in reading.records][-1:], [3])
        self.assertEqual(self.give_uids(self.deliver("four")), [4])
        # Dovecot leaves it in new/, flags and all.
        found = maildir.scan(self.directory / "new").names[reading.records[-1].base]
        keywords = Keywords(self.directory)
        keywords.refresh()
        self.assertEqual(maildir.parse(found).letters, "Fa")
        self.assertEqual(keywords.names, ["work"])
        self.assertEqual(len(self.fetch("uid")), 4)

    def test_compaction_goes_both_ways(self) -> None:
        self.give_uids(*(self.deliver(f"m{n}") for n in range(8)))
        self.doveadm("expunge", "mailbox", "INBOX", "uid", "1:6,8")
        mark = self.uidlist.mark
        assert mark is not None
        self.uidlist.refresh()
        with self.uidlist.lock:
            self.uidlist.refresh()
            self.uidlist.drop(range(1, 7))
        self.assertEqual(self.fetch("uid hdr.subject"), ["uid: 7; hdr.subject: m6"])
        self.doveadm("save", data="Subject: new\n\nbody\n")
        self.assertEqual(self.fetch("uid")[-1], "uid: 9")
        self.uidlist.refresh()
        assert self.uidlist.mark is not None
        self.assertEqual(self.uidlist.mark.uid_validity, mark.uid_validity)
        self.assertEqual(self.uidlist.mark.mailbox_id, mark.mailbox_id)

    def test_mailboxes_and_subscriptions_go_both_ways(self) -> None:
        self.give_uids(self.deliver("one"))
        self.doveadm("mailbox", "create", "-s", "Übung/Sub")
        self.assertEqual(names.mailboxes(self.directory), ["INBOX", "Übung/Sub"])
        subscriptions = Subscriptions(self.directory)
        self.assertEqual(subscriptions.names(), ["Übung/Sub"])
        maildir.create(names.directory(self.directory, "A & B/ü"))
        subscriptions.add(["A & B/ü"])
        listed = self.doveadm("mailbox", "list", "-s").splitlines()
        self.assertEqual(sorted(listed), ["A & B/ü", "Übung/Sub"])

    def test_uid_validity_counts_on(self) -> None:
        self.give_uids(self.deliver("one"))
        self.doveadm("mailbox", "create", "Later")
        later = Uidlist(self.directory / ".Later", self.directory)
        later.refresh()
        last = Uidlist(self.directory / ".Last", self.directory)
        maildir.create(self.directory / ".Last")
        with last.lock:
            last.refresh()
            last.append([])
            last.write([])
        found = [uidlist.mark for uidlist in (self.uidlist, later, last)]
        values = [mark.uid_validity for mark in found if mark is not None]
        self.assertEqual(values, sorted(set(values)))
        self.assertEqual(values[1], values[0] + 1)
        status = self.doveadm("mailbox", "status", "uidvalidity", "Last")
        self.assertIn(f"uidvalidity={values[2]}", status)
