"""Mailing lists of a real server, with members here and elsewhere."""

import re
import smtplib
import ssl
import time
import urllib.request
from collections.abc import Callable

from tests.clients.server import HOST, PAUSE_S, WAIT_S, ServerCase, free_port
from tests.clients.sink import Sink

STAFF = "staff@example.test"


class ListTests(ServerCase):
    def setUp(self) -> None:
        self.sink = Sink()
        self.addCleanup(self.sink.server_close)
        self.addCleanup(self.sink.shutdown)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.settings = (
            f'[web]\nurl = "{self.url}"\n[[listen]]\nservice = "web"\n'
            f'endpoint = "tcp:{port}:interface=127.0.0.1"\n'
            '[queue]\nretry_after = ["1h"]\n[[relay.route]]\n'
            f'to = "127.0.0.1:{self.sink.port}"\ntls = "never"\n'
        )
        super().setUp()
        self.anna = self.server.account("anna").address
        self.ben = self.server.account("ben").address
        self.run_list("create", STAFF, "--owner", self.anna)

    def run_list(self, *arguments: str) -> str:
        done = self.server.command("list", *arguments)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def eventually(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never\n{self.server.log()}")
            time.sleep(PAUSE_S)

    def post(self, sender: str, to: str, subject: str = "Hi", body: str = "x") -> None:
        """Send as another server would."""
        with smtplib.SMTP(HOST, self.server.ports["smtp"]) as client:
            client.sendmail(
                sender,
                [to],
                f"From: {sender}\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{body}\r\n",
            )

    def submit(self, name: str, *to: str, fields: str = "") -> None:
        """Send as an account here does: logged in."""
        account = self.server.account(name)
        with smtplib.SMTP(HOST, self.server.ports["submission"]) as client:
            client.starttls(context=self.tls())
            client.login(account.login, self.server.password(name))
            client.sendmail(
                account.address,
                list(to),
                f"From: {account.address}\r\nSubject: Hi\r\n{fields}\r\nx\r\n",
            )

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.server.ca))
        context.check_hostname = False  # it is asked by its address
        return context

    def mails(self, account: str) -> list[str]:
        return [f.read_text() for f in self.server.maildir(account).glob("new/*")]

    def members(self) -> str:
        return self.run_list("members", STAFF)

    def accepted(self, sender: str, to: str) -> bool:
        try:
            self.post(sender, to)
        except smtplib.SMTPRecipientsRefused:
            return False
        return True

    def test_post_to_members_here_and_elsewhere(self) -> None:
        self.run_list("subscribe", STAFF, self.ben, "carl@far.test")
        self.run_list("set", STAFF, "--subject-tag", "[Staff]", "--title", "The staff")
        self.server.reload()
        self.post("carl@far.test", STAFF)
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        reverse_path, octets = self.sink.copies["carl@far.test"]
        self.assertRegex(reverse_path, r"^staff-bounces\+[a-z0-9-]+@example\.test$")
        text = octets.decode()
        for field in (
            "List-Id: The staff <staff.example.test>",
            "List-Post: <mailto:staff@example.test>",
            "Subject: [Staff] Hi",
            "From: carl@far.test",
            " <mailto:staff-unsubscribe+",
        ):
            self.assertIn(field, text)
        self.eventually(lambda: len(self.mails("ben")) == 1)
        self.assertIn("\n\nx\n", self.mails("ben")[0])
        self.assertFalse(self.accepted("stranger@far.test", STAFF))

    def test_dead_member_is_found_by_its_bounces(self) -> None:
        self.run_list("subscribe", STAFF, self.ben, "dead@far.test")
        self.sink.answers["dead@far.test"] = "550 5.1.1 Nobody"
        self.server.reload()
        self.submit("ben", STAFF)
        self.server.wait_for_log("dead@far.test: failed")
        self.server.wait_for_log("staff-bounces+")
        self.assertEqual(self.mails("anna"), [])  # the list sees to it

    def test_joining_and_leaving_by_mail(self) -> None:
        self.run_list("set", STAFF, "--joining", "open")
        self.server.reload()
        self.post("carl@far.test", "staff-subscribe@example.test")
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertIn("unconfirmed", self.members())
        confirm = self.address("staff-confirm", "carl@far.test")
        self.sink.copies.clear()
        self.post("carl@far.test", confirm)
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertRegex(self.members(), r"carl@far.test +subscribed")
        leave = self.address("staff-unsubscribe", "carl@far.test")
        self.post("somebody@else.test", leave)
        self.eventually(lambda: re.search("carl@far.test +unsub", self.members()))

    def address(self, start: str, to: str) -> str:
        """An address with a token, of the last letter to somebody."""
        found = re.search(rf"{start}\+[a-z0-9-]+@example\.test", self.text(to))
        assert found is not None, self.text(to)
        return found[0]

    def text(self, to: str) -> str:
        return self.sink.copies[to][1].decode()

    def test_nobody_takes_others_off(self) -> None:
        """Without a token, the address is asked; an account that has logged in is not.

        Who asks for others makes this server write to them once a day at most.
        """
        self.run_list("subscribe", STAFF, self.ben, "carl@far.test")
        self.server.reload()
        for _ in range(3):
            self.post("carl@far.test", "staff-unsubscribe@example.test")
            self.post(self.ben, "staff-unsubscribe@example.test")
        self.submit("ben", "staff-unsubscribe@example.test")
        self.eventually(lambda: re.search("ben@example.test +unsub", self.members()))
        self.assertRegex(self.members(), "carl@far.test +subscribed")
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertEqual(len(self.sink.messages), 1)
        self.post("carl@far.test", self.address("staff-unsubscribe", "carl@far.test"))
        self.eventually(lambda: re.search("carl@far.test +unsub", self.members()))

    def test_leaving_by_one_click(self) -> None:
        self.run_list("subscribe", STAFF, self.ben, "carl@far.test")
        self.server.reload()
        self.submit("ben", STAFF)
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        text = self.text("carl@far.test")
        self.assertIn("List-Unsubscribe-Post: List-Unsubscribe=One-Click", text)
        found = re.search(rf"<({re.escape(self.url)}/unsubscribe/[a-z0-9-]+)>", text)
        assert found is not None, text
        with urllib.request.urlopen(found[1], timeout=WAIT_S) as page:
            self.assertIn("carl@far.test", page.read().decode())
        self.assertRegex(self.members(), "carl@far.test +subscribed")
        body = b"List-Unsubscribe=One-Click"
        urllib.request.urlopen(found[1], body, timeout=WAIT_S).close()
        self.assertRegex(self.members(), "carl@far.test +unsubscribed")
        self.assertNotIn(found[1].rpartition("/")[2], self.server.log())

    def test_moderator_decides(self) -> None:
        self.run_list("subscribe", STAFF, "carl@far.test")
        self.run_list("set", STAFF, "--posting", "moderated")
        self.server.reload()
        self.post("stranger@else.test", STAFF)
        self.eventually(lambda: len(self.mails("anna")) == 1)
        self.assertEqual(self.sink.copies, {})
        [question] = self.mails("anna")
        self.assertIn("stranger@else.test", question)
        found = re.search(r"staff-approve\+[a-z0-9-]+@example\.test", question)
        assert found is not None
        self.post(self.anna, found[0])
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertIn("From: stranger@else.test", self.text("carl@far.test"))
        # Another owner may say so as well: the members hear nothing of it.
        self.post(self.ben, found[0])
        reject = found[0].replace("-approve+", "-reject+")
        self.post(self.ben, reject)
        self.server.wait_for_log(f"{reject}: delivered")
        self.run_list("set", STAFF, "--posting", "anyone")
        self.server.reload()
        self.post("stranger@else.test", STAFF, "Last")
        self.eventually(lambda: "Subject: Last" in self.text("carl@far.test"))
        self.assertEqual(len(self.sink.messages), 2)

    def held(self, account: str) -> list[str]:
        """The addresses that approve posts, from the letters to an owner."""
        found = re.findall(r"\S+-approve\+\S+", "".join(self.mails(account)))
        return sorted(found)

    def test_one_message_to_two_moderated_lists(self) -> None:
        self.run_list("create", "board@example.test", "--owner", self.anna)
        for name, member in ((STAFF, "carl@far.test"), ("board@example.test", "d@e.f")):
            self.run_list("subscribe", name, member)
            self.run_list("set", name, "--posting", "moderated")
        self.server.reload()
        with smtplib.SMTP(HOST, self.server.ports["smtp"]) as client:
            client.sendmail(
                "s@else.test",
                [STAFF, "board@example.test"],
                "From: s@else.test\r\nSubject: x\r\n\r\nx\r\n",
            )
        self.eventually(lambda: len(self.held("anna")) == 2)
        board, staff = self.held("anna")
        # The decision on one of them says nothing of the other.
        self.submit("anna", board.replace("-approve+", "-reject+"))
        self.server.wait_for_log("board-reject+")
        self.submit("anna", staff)
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertNotIn("d@e.f", self.sink.copies)

    def test_nobody_posts_in_the_name_of_an_account_here(self) -> None:
        self.run_list("subscribe", STAFF, self.ben, "carl@far.test")
        self.server.command("alias", "add", "all@example.test", STAFF)
        for posting in ("members", "moderated", "announce"):
            self.run_list("set", STAFF, "--posting", posting)
            self.server.reload()
            for to in (STAFF, "all@example.test"):
                self.assertFalse(self.accepted(self.anna, to), (posting, to))
        # Nor in From alone.
        self.run_list("set", STAFF, "--posting", "members")
        self.server.reload()
        with smtplib.SMTP(HOST, self.server.ports["smtp"]) as client:
            text = f"From: {self.anna}\r\nSubject: x\r\n\r\nx\r\n"
            client.sendmail("carl@far.test", [STAFF], text)
        self.eventually(lambda: len(self.held("anna")) == 1)
        self.assertEqual(self.sink.copies, {})
        self.submit("ben", STAFF)
        self.eventually(lambda: "carl@far.test" in self.sink.copies)

    def test_posts_of_programs(self) -> None:
        """What answers by itself is not passed on; what a program writes is."""
        self.run_list("subscribe", STAFF, self.ben, "carl@far.test")
        self.server.reload()
        self.submit("ben", STAFF, fields="Auto-Submitted: auto-replied\r\n")
        self.submit("ben", STAFF, fields="Auto-Submitted: auto-generated\r\n")
        self.eventually(lambda: "carl@far.test" in self.sink.copies)
        self.assertIn("auto-generated", self.text("carl@far.test"))
        self.assertEqual(len(self.sink.messages), 1)

    def test_one_message_to_lists_of_the_same_local_part(self) -> None:
        self.assertEqual(self.server.command("domain", "add", "b.test").returncode, 0)
        self.run_list("create", "staff@b.test", "--owner", self.anna)
        self.run_list("subscribe", STAFF, "carl@far.test", self.ben)
        self.run_list("subscribe", "staff@b.test", "dora@far.test", self.ben)
        self.server.reload()
        to = [STAFF, "staff@b.test", "staff-owner@example.test", "staff-owner@b.test"]
        self.submit("ben", *to)
        both = {"carl@far.test", "dora@far.test"}
        self.eventually(lambda: both <= self.sink.copies.keys())
        self.eventually(lambda: len(self.mails("anna")) == 2)
        self.eventually(lambda: len(self.mails("ben")) == 2)

    def test_owner_is_reached(self) -> None:
        self.server.reload()
        self.post("stranger@else.test", "staff-owner@example.test")
        self.eventually(lambda: len(self.mails("anna")) == 1)
