"""What answers say in the cases that are easily forgotten (RFC 5530, RFC 2180)."""

import shutil
import subprocess
from unittest import SkipTest

from tests.imap.office import Client, ImapCase
from tests.imap.test_condstore import append


class ExactTests(ImapCase):
    def selected(self, messages: int = 0) -> Client:
        client = self.logged_in()
        for _ in range(messages):
            append(client)
        client.send(b"1 SELECT INBOX\r\n")
        return client

    def test_inbox_is_one_however_it_is_spelled(self) -> None:
        client = self.logged_in()
        self.assertIn(b"1 OK", client.send(b"1 CREATE inbox/x\r\n"))
        self.assertIn(b"2 NO [ALREADYEXISTS]", client.send(b"2 CREATE INBOX/x\r\n"))
        self.assertIn(b"3 OK", client.send(b"3 SELECT Inbox/x\r\n"))
        self.assertIn(b'"/" INBOX/x\r\n', client.send(b'4 LIST "" iNbOx/%\r\n'))
        self.assertIn(b"5 OK", client.send(b"5 DELETE INBOX/x\r\n"))

    def test_append_to_a_mailbox_that_is_deleted_meanwhile(self) -> None:
        client, other = self.logged_in(), self.logged_in()
        for size, upto in ((20, 0), (20, 10), (700_000, 600_000)):
            other.send(b"1 CREATE a\r\n")
            client.send(b"1 APPEND a {%d+}\r\n" % size + b"x" * upto)
            self.assertIn(b"2 OK", other.send(b"2 DELETE a\r\n"))
            answer = client.send(b"x" * (size - upto) + b"\r\n")
            self.assertIn(b"1 NO [TRYCREATE]", answer, (size, upto))

    def test_store_of_messages_that_are_gone(self) -> None:
        client, other = self.selected(3), self.selected()
        other.send(b"2 STORE 2 FLAGS (\\Deleted)\r\n3 EXPUNGE\r\n")
        answer = client.send(b"4 STORE 1:3 +FLAGS (\\Flagged)\r\n")
        self.assertIn(b"* 3 FETCH (UID 3 FLAGS (\\Flagged", answer)
        self.assertIn(b"4 OK [EXPUNGEISSUED]", answer)
        answer = client.send(b"4 STORE 2 (UNCHANGEDSINCE 1) FLAGS (\\Seen)\r\n")
        self.assertIn(b"4 NO [EXPUNGEISSUED]", answer)
        self.assertIn(b"5 OK", client.send(b"5 STORE 2 +FLAGS.SILENT (\\Seen)\r\n"))
        self.assertIn(b"6 OK", client.send(b"6 UID STORE 1:3 +FLAGS (\\Seen)\r\n"))

    def test_keywords_are_told_before_flags_that_use_them(self) -> None:
        client, other = self.selected(2), self.selected()
        for n, items in enumerate((b"FLAGS", b"(FLAGS RFC822.SIZE)")):
            other.send(b"2 STORE 1 +FLAGS (k%d)\r\n" % n)
            answer = client.send(b"3 FETCH 1:2 %b\r\n" % items)
            told = answer.index(b"* FLAGS (")
            self.assertLess(told, answer.index(b"* 1 FETCH"))
            self.assertIn(b"k%d" % n, answer[told:].split(b"\r\n")[0])
            self.assertEqual(answer.count(b"* FLAGS"), 1)

    def test_copy_of_messages_that_are_gone_copies_none(self) -> None:
        client, other = self.selected(3), self.selected()
        other.send(b"2 STORE 2 FLAGS (\\Deleted)\r\n3 EXPUNGE\r\n")
        # Nothing that holds it back runs, so it is told with the answer.
        self.assertIn(b"3 NO [EXPUNGEISSUED]", client.send(b"3 COPY 1:3 Archive\r\n"))
        answer = client.send(b"4 STATUS Archive (MESSAGES)\r\n")
        self.assertIn(b"(MESSAGES 0)", answer)
        self.assertRegex(
            client.send(b"5 UID COPY 1:3 Archive\r\n"), rb"5 OK \[COPYUID \d+ 1,3 1:2\]"
        )

    def test_a_read_only_file_system(self) -> None:
        root = self.office.root / "anna@example.test"
        self.selected(1).lose()
        self.office.stop()
        aside = root.with_name("aside")
        root.rename(aside)
        root.mkdir()
        self._mount("-t", "tmpfs", "-o", "size=4m", "mailsrv", str(root))
        self.addCleanup(subprocess.run, ["umount", "-l", str(root)], check=True)
        shutil.copytree(aside, root, dirs_exist_ok=True)
        self._mount("-o", "remount,ro", str(root))
        client = self.logged_in()
        answer = client.send(b"1 SELECT INBOX\r\n")
        self.assertEqual(answer, b"1 NO [UNAVAILABLE] Try again later\r\n")
        self.assertIn(b"2 NO", client.send(b"2 CREATE x\r\n"))
        self._mount("-o", "remount,rw", str(root))
        self.assertIn(b"3 OK", client.send(b"3 SELECT INBOX\r\n"))

    def _mount(self, *arguments: str) -> None:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True)
        if done.returncode:
            raise SkipTest(f"a tmpfs needs root: {done.stderr.strip()}")
