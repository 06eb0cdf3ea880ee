"""What a list does to the header of a post, and which posts it takes for whose."""

from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import MailingList
from mailsrv.lists import post

LIST = MailingList("staff@example.test", ("anna@example.test",))
HEADER = (
    b"Received: from x\r\n\tby y; today\r\n"
    b"DKIM-Signature: v=1; a=rsa-sha256; d=Example.org;\r\n\ts=a; b=abc\r\n"
    b'From: "Ben, B" <Ben@Mail.Example.org>\r\nTo: staff@example.test\r\n'
    b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n"
    b"List-Unsubscribe: <mailto:else@example.net>\r\n"
    b"MIME-Version: 1.0\r\n"
)


def read(*lines: str) -> post.Post:
    return post.read("".join(f"{line}\r\n" for line in lines).encode())


class PostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.post = post.read(HEADER)

    def test_author(self) -> None:
        self.assertEqual(self.post.author, ("Ben, B", "ben@mail.example.org"))
        for line in ("From: a@x.test, b@x.test", "From: nobody", "Subject: x"):
            self.assertEqual(read(line).author, ("", ""), line)
        self.assertEqual(read("From: a@x.test", "From: b@x.test").author, ("", ""))

    def test_signatures(self) -> None:
        for domain, signed in (
            ("example.org", True),
            ("mail.example.org", True),
            ("ample.org", False),
            ("example.com", False),
        ):
            self.assertEqual(self.post.is_signed_by(domain), signed, domain)

    def test_mail_of_programs(self) -> None:
        for line in (
            "Auto-Submitted: auto-replied",
            "auto-submitted: auto-generated; owner",
            "Precedence: bulk",
            "Precedence: auto_reply",
            "X-Autoreply: yes",
            "Content-Type: multipart/report; report-type=delivery-status",
        ):
            self.assertTrue(read("Subject: x", line).is_automatic, line)
        for line in ("Auto-Submitted: no", "Precedence: list", "Content-Type: text/x"):
            self.assertFalse(read("Subject: x", line).is_automatic, line)

    def test_what_a_program_writes_by_itself_is_no_answer(self) -> None:
        self.assertFalse(read("Auto-Submitted: auto-generated; a=b").is_answer)
        self.assertFalse(read("Auto-Submitted: no").is_answer)
        for line in ("Auto-Submitted: auto-replied", "Precedence: junk"):
            self.assertTrue(read("Subject: x", line).is_answer, line)

    def test_loops(self) -> None:
        for line in (
            "List-Id: Our staff <Staff.example.test>",
            "List-ID: <staff.example.test>",
            "X-Loop: staff@example.test",
        ):
            self.assertTrue(read(line).has_passed(LIST.name), line)
        for line in ("List-Id: <x.staff.example.test>", "X-Loop: a@example.test"):
            self.assertFalse(read(line).has_passed(LIST.name), line)

    def test_only_the_lists_own_fields_change(self) -> None:
        out = post.distributed(self.post, LIST, rewrite_from=False)
        kept = HEADER.replace(b"List-Unsubscribe: <mailto:else@example.net>\r\n", b"")
        self.assertTrue(out.endswith(kept))
        self.assertEqual(
            out.removesuffix(kept).decode().splitlines(),
            [
                "List-Id: <staff.example.test>",
                "List-Help: <mailto:staff-request@example.test>",
                "List-Owner: <mailto:staff-owner@example.test>",
                "Precedence: list",
                "X-Loop: staff@example.test",
                "List-Post: <mailto:staff@example.test>",
            ],
        )
        self.assertFalse(post.changes_signed(self.post, LIST))
        self.assertTrue(post.read(out).has_passed(LIST.name))

    def test_tag_is_put_once(self) -> None:
        tagged = replace(LIST, subject_tag="[Bücher]")
        out = post.read(post.distributed(self.post, tagged, rewrite_from=False))
        self.assertEqual(len(out.all(b"subject")), 1)
        self.assertEqual(post.subject(out), "[Bücher] Grüße")
        self.assertTrue(post.changes_signed(self.post, tagged))
        self.assertFalse(post.changes_signed(out, tagged))
        again = post.read(post.distributed(out, tagged, rewrite_from=False))
        self.assertEqual(again.all(b"subject"), out.all(b"subject"))

    def test_from_rewritten(self) -> None:
        titled = replace(LIST, title="Our staff")
        out = post.read(post.distributed(self.post, titled, rewrite_from=True))
        self.assertEqual(out.author, ("Ben, B via Our staff", LIST.name))
        self.assertEqual(out.all(b"reply-to"), [b'"Ben, B" <ben@mail.example.org>'])
        self.assertEqual(len(out.all(b"from")), 1)

    def test_replies_to_the_list(self) -> None:
        both = replace(LIST, reply_to="list")
        out = post.read(post.distributed(self.post, both, rewrite_from=True))
        self.assertEqual(out.all(b"reply-to"), [b"staff@example.test"])

    def test_announcements_and_open_lists(self) -> None:
        news = replace(LIST, posting="announce", joining="open", title="News, daily")
        out = post.read(post.distributed(self.post, news, rewrite_from=False))
        self.assertEqual(out.all(b"list-post"), [b"NO"])
        self.assertEqual(out.first(b"list-id"), b'"News, daily" <staff.example.test>')
        subscribe = b"<mailto:staff-subscribe@example.test>"
        self.assertEqual(out.all(b"list-subscribe"), [subscribe])

    def test_one_click(self) -> None:
        fields = post.unsubscribe_fields(LIST.name, "7-abc", "https://m.test/")
        self.assertEqual(
            fields.decode().splitlines(),
            [
                "List-Unsubscribe: <https://m.test/unsubscribe/7-abc>,",
                " <mailto:staff-unsubscribe+7-abc@example.test>",
                "List-Unsubscribe-Post: List-Unsubscribe=One-Click",
            ],
        )
        by_mail = post.unsubscribe_fields(LIST.name, "7-abc", None)
        self.assertNotIn(b"Post", by_mail)
