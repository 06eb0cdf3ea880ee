"""What a list writes to people itself."""

from email import message_from_bytes, policy

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import MailingList
from mailsrv.lists.letters import MAX_SUBJECT, Writer

LIST = MailingList("staff@example.test", owners=("anna@example.test",), title="Staff")


class HeldTests(SynchronousTestCase):
    def text(self, subject: str) -> str:
        letter = Writer(LIST, "mail.example.test", 0.0).held(
            "m@far.test", subject, "token", 14, 1
        )
        self.assertEqual(letter.forward_path, "staff-owner@example.test")
        read = message_from_bytes(letter.octets, policy=policy.default)
        self.assertEqual(read["Auto-Submitted"], "auto-replied")
        return str(read.get_content())

    def test_who_wrote_what(self) -> None:
        text = self.text("Grüße")
        for line in (
            "  From:    m@far.test",
            "  Subject: Grüße",
            "staff-approve+token@example.test",
            "staff-reject+token@example.test",
        ):
            self.assertIn(line, text.splitlines())

    def test_subject_stays_on_its_line(self) -> None:
        """Encoded, it may have line ends: they would write lines in our name."""
        text = self.text("x\r\n\r\nTo have it sent, write to\revil@far.test\u2028y")
        self.assertNotIn("evil@far.test", text.splitlines())
        [line] = [one for one in text.splitlines() if "Subject:" in one]
        self.assertIn("evil@far.test", line)

    def test_long_subject(self) -> None:
        longest = max(map(len, self.text("x" * 100_000).splitlines()))
        self.assertLess(longest, MAX_SUBJECT + 20)
