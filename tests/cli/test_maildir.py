"""``mailsrv maildir``."""

import json
import os
import time

from mailsrv.store import maildir
from mailsrv.store.account import AccountStore
from mailsrv.store.index import Connections
from mailsrv.store.maildir import UniqueNames
from tests.cli.test_accounts import ANNA, CommandCase


class MaildirCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(ANNA)
        root = self.data / "mail" / ANNA
        connections = Connections()
        self.addCleanup(connections.close)
        self.store = AccountStore(
            root, connections=connections, quota_octets=None, now=time.time
        )
        self.store.ensure_default_folders()
        self.maildir = root / "Maildir"
        self.unique = UniqueNames("x")
        for n in range(3):
            self.drop(b"Subject: %d\n\nbody\n" % n)
        self.store.open("INBOX")

    def drop(self, content: bytes, suffix: str = "", sub: str = "new") -> None:
        name = self.unique.next().decode() + suffix
        (self.maildir / sub / name).write_bytes(content)


class CheckTests(MaildirCase):
    def wrong(self) -> str:
        return self.refused("maildir", "check", str(self.maildir))

    def test_all_is_well(self) -> None:
        self.assertIn("show the same", self.call("maildir", "check", ANNA))
        self.drop(b"Subject: late\n\nbody\n")
        found = self.call("maildir", "check", str(self.maildir))
        self.assertIn("note: INBOX: messages without a UID", found)

    def test_json(self) -> None:
        (self.maildir / "dovecot-uidlist").unlink()
        found = json.loads(self.refused("maildir", "check", "--json", ANNA))
        self.assertEqual((found["mailboxes"], found["messages"]), (6, 3))
        self.assertEqual({each["mailbox"] for each in found["wrong"]}, {"INBOX"})

    def test_no_maildir(self) -> None:
        (self.data / "mailboxes").mkdir()
        found = self.refused("maildir", "check", str(self.data))
        self.assertIn("dbox", found)

    def test_uidlist(self) -> None:
        uidlist = self.maildir / "dovecot-uidlist"
        whole = uidlist.read_bytes()
        uidlist.write_bytes(whole + b"2 :again\n")
        self.assertIn("broken lines", self.wrong())
        uidlist.write_bytes(b"nonsense\n" + whole)
        self.assertIn("no header", self.wrong())
        uidlist.unlink()
        self.assertIn("fetch them again", self.wrong())

    def test_messages(self) -> None:
        self.drop(b"Subject: x\n\nbody\n", ",S=99:2,Sa", "cur")
        self.drop(b"\x1f\x8b\x08 compressed", ":2,S", "cur")
        os.symlink("/etc/passwd", self.maildir / "cur" / "link:2,S")
        found = self.wrong()
        for text in (
            "wrong size (S=) in their file names: 1",
            "compressed (Dovecot's plugin zlib): 1",
            "keyword letter that is not in dovecot-keywords: 1",
            "is no message",
        ):
            self.assertIn(text, found)

    def test_folders_and_subscriptions(self) -> None:
        (self.maildir / "Sub" / "cur").mkdir(parents=True)
        (self.maildir / ".broken\udcff" / "cur").mkdir(parents=True)
        with (self.maildir / "subscriptions").open("ab") as file:
            file.write(b"broken\xff\n")
        found = self.wrong()
        for text in ("LAYOUT=fs", "'.broken\\udcff' has no name", "the subscription"):
            self.assertIn(text, found)

    def make(self, name: str) -> None:
        maildir.create(self.maildir / name)

    def test_folders_in_utf8(self) -> None:
        self.make(".Entwürfe")
        self.make(".R&D")
        found = self.call("maildir", "check", str(self.maildir))
        self.assertIn("mailbox_list_utf8", found)

    def test_names_that_dovecot_would_normalise(self) -> None:
        self.make(".U&Awg-bung")
        found = self.call("maildir", "check", str(self.maildir))
        self.assertIn("note: Dovecot 2.4 will rename", found)

    def test_folders_in_utf8_and_in_modified_utf7(self) -> None:
        for name in (".&AMQ-", ".Ö"):
            self.make(name)
        self.assertIn("'.Ö' is not spelled in modified UTF-7", self.wrong())
        self.make(".Ü")
        found = self.wrong()
        self.assertIn("'.&AMQ-' is not spelled in UTF-8", found)
        self.assertIn("rename it to '.Ä'", found)
        self.make(".Ä")
        self.assertIn("'.Ä' is not shown: '.&AMQ-' has the same name", self.wrong())

    def test_keywords_past_z(self) -> None:
        keywords = [f"k{n}" for n in range(27)]
        self.store.store_flags("INBOX", [1], "+", keywords)
        self.assertIn("keywords past the 26", self.wrong())


class ExportTests(MaildirCase):
    def test_folders_in_utf8(self) -> None:
        maildir.create(self.maildir / ".Ä")
        self.store.create("Ä/Ö & Ü")
        self.store.subscribe("Ä")
        target = self.data / "copy"
        found = self.call("maildir", "export", ANNA, str(target))
        self.assertIn("note: the names of folders are in UTF-8", found)
        self.assertTrue({".Ä", ".Ä.Ö & Ü"} <= set(os.listdir(target)))
        self.call("maildir", "check", str(target))

    def test_export(self) -> None:
        target = self.data / "copy"
        self.store.store_flags("INBOX", [2], "+", ["\\Seen", "work"])
        self.store.expunge("INBOX", [1], only_deleted=False)
        found = self.call("maildir", "export", ANNA, str(target))
        self.assertIn("2 messages of 6 mailboxes", found)
        self.call("maildir", "check", str(target))
        lines = (target / "dovecot-uidlist").read_bytes().splitlines()
        original = (self.maildir / "dovecot-uidlist").read_bytes().splitlines()
        self.assertEqual(lines[0].split()[1], original[0].split()[1])
        self.assertIn(b"N4", lines[0])
        self.assertEqual(
            [line.split()[:2] for line in lines[1:]],
            [
                [b"%d" % uid, b"P%08x%08x" % (uid, int(lines[0].split()[1][1:]))]
                for uid in (2, 3)
            ],
        )
        for name in ("dovecot-keywords", "subscriptions"):
            self.assertEqual(
                (target / name).read_bytes(), (self.maildir / name).read_bytes()
            )
        self.assertEqual(
            sorted(os.listdir(target / "cur")), sorted(os.listdir(self.maildir / "cur"))
        )
        self.assertIn("exists", self.refused("maildir", "export", ANNA, str(target)))
