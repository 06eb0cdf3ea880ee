"""A Maildir of Dovecot moves in, is worked on, and moves back: nobody notices.

Real Dovecot makes the Maildir through IMAP, POP3 and LMTP. What clients see
before and after each change of servers is compared whole: mailboxes, UIDVALIDITY,
UIDs, flags, keywords, dates, octets, subscriptions, and POP3's unique ids.
"""

import os
from pathlib import Path

from tests.clients.dovecot import USER, Dovecot
from tests.clients.picture import Login, Picture, changes, take
from tests.clients.server import ServerCase

FOLDERS = ("Sent", "Archive", "Archive/2024", "Archive/2024/June", "A&AOQ-rger &- Co")


def message(n: int) -> bytes:
    return (
        b"From: x@other.test\r\nTo: anna@example.test\r\nSubject: mail %d\r\n"
        b"Message-ID: <%d@other.test>\r\n\r\nbody %d\r\n.dot\r\n" % (n, n, n)
    )


class MovingCase(ServerCase):
    user = USER
    started = False
    dovecot_settings = ""
    layout = ""

    def setUp(self) -> None:
        super().setUp()
        self.dovecot = Dovecot(
            self.server, settings=self.dovecot_settings, layout=self.layout
        )
        self.addCleanup(self.dovecot.stop)
        self.anna = Login(self.server, "anna")

    def dovecots_mailbox(self) -> None:
        """Fill anna's account as years with Dovecot do; Dovecot runs."""
        self.dovecot.deliver("anna", *(message(n) for n in range(12)))
        client = self.anna.imap()
        for name in FOLDERS:
            client.create(f'"{name}"')
            client.append(
                f'"{name}"',
                r"(\Seen $label1)",
                '"02-Jan-2020 10:20:30 +0200"',
                message(100),
            )
        client.subscribe('"Archive/2024/June"')
        client.subscribe('"A&AOQ-rger &- Co"')
        client.subscribe('"Gone"')
        client.select("INBOX")
        client.store("1:3", "+FLAGS", r"(\Seen)")
        client.store("2", "+FLAGS", r"(\Flagged \Answered Work $Forwarded)")
        client.store("4", "+FLAGS", r"(\Draft NonJunk)")
        client.store("11:12", "+FLAGS", r"(\Deleted)")
        client.expunge()
        client.copy("1:4", "Archive")
        client.append("INBOX", r"(\Deleted Work)", "", message(200))
        client.logout()
        self.dovecot.deliver("anna", message(13))
        pop3 = self.anna.pop3()
        pop3.retr(1)
        pop3.dele(5)
        pop3.quit()

    def take(self) -> Picture:
        return take(self.anna)

    def to_mailsrv(self) -> None:
        self.dovecot.stop()
        self.server.start()

    def to_dovecot(self) -> None:
        self.server.stop()
        self.dovecot.start()


class MovingTests(MovingCase):
    def test_in_and_back(self) -> None:
        self.dovecot.start()
        self.dovecots_mailbox()
        before = self.take()
        self.assertEqual(len(before.maildrop), 11)
        self.to_mailsrv()
        self.assertEqual(changes(before, self.take()), [])
        self.work()
        after = self.take()
        self.to_dovecot()
        self.assertEqual(changes(after, self.take()), [])

    def work(self) -> None:
        """Do with mailsrv what users do in a day."""
        client = self.anna.imap()
        client.select("INBOX")
        client.store("1", "+FLAGS", r"(\Flagged New Work)")
        client.store("2", "-FLAGS", r"(\Flagged Work)")
        client.copy("2:3", "Archive/2024")
        client.uid("MOVE", "1", '"A&AOQ-rger &- Co"')
        client.append("Archive", r"(Other)", "", message(300))
        client.create("Brand/New")
        client.subscribe("Brand/New")
        client.unsubscribe("Gone")
        client.copy("3", "Brand/New")
        client.create('"Gr&APwA3w-e/R&-D"')
        client.subscribe('"Gr&APwA3w-e/R&-D"')
        client.copy("3", '"Gr&APwA3w-e/R&-D"')
        client.rename("Archive/2024/June", "Archive/June")
        client.store("5", "+FLAGS", r"(\Deleted)")
        client.expunge()
        client.logout()
        pop3 = self.anna.pop3()
        pop3.dele(1)
        pop3.quit()

    def test_export(self) -> None:
        self.dovecot.start()
        self.dovecots_mailbox()
        self.to_mailsrv()
        self.work()
        served = self.take()
        source = self.server.maildir("anna")
        for name, options in (("linked", ()), ("copied", ("--copy",))):
            target = self.server.folder / name
            done = self.server.command(
                "maildir", "export", "anna@example.test", str(target), *options
            )
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual("note:" in done.stdout, bool(self.layout))
            links = [path.stat().st_nlink for path in target.glob("**/cur/*")]
            self.assertEqual(min(links) > 1, not options)
            # Whatever this Dovecot would make as POP3's unique ids.
            dovecot = Dovecot(
                self.server,
                mail=str(target),
                layout=self.layout,
                settings="pop3_uidl_format = %f",
            )
            self.server.stop()
            dovecot.start()
            self.assertEqual(changes(served, self.take()), [])
            self.check(target)
            dovecot.stop()
            self.check(target)
            self.server.start()
        self.assertEqual(changes(served, self.take()), [])
        self.check(source)
        self.check("anna@example.test")

    def check(self, what: Path | str) -> None:
        done = self.server.command("maildir", "check", str(what))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("show the same", done.stdout)


class Utf8Tests(MovingTests):
    """The names of folders are in UTF-8 on the disk."""

    layout = ":UTF-8"

    def take(self) -> Picture:
        found = os.listdir(self.server.maildir("anna"))
        self.assertIn(".Aärger & Co", found)
        self.assertEqual([name for name in found if "&A" in name], [])
        return super().take()


class UidlCase(MovingCase):
    """POP3's unique ids of a Dovecot that makes them in its own way."""

    def take_and_compare(self) -> None:
        self.dovecot.start()
        self.dovecot.deliver("anna", *(message(n) for n in range(3)))
        client = self.anna.imap()
        client.append("INBOX", "", "", message(3))
        client.create("Other")
        client.select("INBOX")
        client.copy("1", "Other")
        client.select("Other")
        client.copy("1", "INBOX")
        client.logout()
        before = self.take()
        self.to_mailsrv()
        self.assertEqual(changes(before, self.take()), [])
        client = self.anna.imap()
        client.append("INBOX", "", "", message(4))
        client.select("INBOX")
        client.copy("2", "INBOX")
        client.logout()
        after = self.take()
        self.to_dovecot()
        self.assertEqual(changes(after, self.take()), [])


class FileNameUidlTests(UidlCase):
    settings = '[store]\npop3_uidl_format = "%f"'
    dovecot_settings = "pop3_uidl_format = %f"

    def test_it(self) -> None:
        self.take_and_compare()


class GuidUidlTests(UidlCase):
    settings = '[store]\npop3_uidl_format = "%{guid}"'
    dovecot_settings = "pop3_uidl_format = %g"

    def test_it(self) -> None:
        self.take_and_compare()


class OldUidlTests(UidlCase):
    settings = '[store]\npop3_uidl_format = "%v.%u"'
    dovecot_settings = "pop3_uidl_format = %v.%u"

    def test_it(self) -> None:
        self.take_and_compare()


class SavedUidlTests(UidlCase):
    """Ids that we cannot make, but that Dovecot has written down."""

    dovecot_settings = "pop3_save_uidl = yes\npop3_uidl_format = saved-%u"

    def test_it(self) -> None:
        self.dovecot.start()
        self.dovecot.deliver("anna", *(message(n) for n in range(3)))
        before = self.take()
        self.to_mailsrv()
        self.assertEqual(changes(before, self.take()), [])
        self.to_dovecot()
        self.assertEqual(changes(before, self.take()), [])
