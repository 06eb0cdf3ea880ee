"""sendmail(8)'s flags, and what becomes of a program's message."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.cli.sendmail_arguments import Arguments, Usage, parse
from mailsrv.cli.sendmail_message import read


class ArgumentsTests(SynchronousTestCase):
    def test_what_programs_pass(self) -> None:
        for line, expected in (
            ("-t -i", Arguments(recipients_in_header=True, ends_at_dot=False)),
            ("-ti", Arguments(recipients_in_header=True, ends_at_dot=False)),
            (
                "-oi -f a@b.test c",
                Arguments("send", "a@b.test", "", ("c",), False, False),
            ),
            ("-fa@b.test c", Arguments(sender="a@b.test", recipients=("c",))),
            ("-f <> c", Arguments(sender="", recipients=("c",))),
            ("-F Anna -oem c,d", Arguments(full_name="Anna", recipients=("c", "d"))),
            ("-- -c", Arguments(recipients=("-c",))),
            ("-bs", Arguments(mode="smtp")),
            ("-bp", Arguments(mode="queue")),
            ("-bi", Arguments(mode="nothing")),
            ("-q15m", Arguments(mode="nothing")),
            ("-B 8BITMIME -v c", Arguments(recipients=("c",))),
            (
                "-N success,delay c",
                Arguments(notify="SUCCESS,DELAY", recipients=("c",)),
            ),
            ("-R full -V id c", Arguments(ret="FULL", envid="id", recipients=("c",))),
        ):
            self.assertEqual(parse(line.split()), expected, line)

    def test_what_cannot_be_understood(self) -> None:
        for line in ("-f", "-bd", "-N never,delay c", "-N often c"):
            self.assertRaises(Usage, parse, line.split())

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=6))
    def test_no_command_line_breaks_it(self, words: list[str]) -> None:
        try:
            parse(words)
        except Usage:
            pass


class MessageTests(SynchronousTestCase):
    def test_message_of_cron(self) -> None:
        head = read(
            b"From: root (Cron Daemon)\nTo: root\nSubject: x\n\nout\n", user="root"
        )
        self.assertIn(b"root@localhost", head.octets)
        self.assertEqual(head.recipients, ("root@localhost",))
        self.assertEqual(head.body, b"out\n")
        self.assertTrue(head.octets.endswith(b"Subject: x\n\n"), head.octets)

    def test_text_without_a_header(self) -> None:
        head = read(b"hello\nthere\n", full_name="Anna B", user="anna")
        self.assertEqual(head.body, b"hello\nthere\n")
        self.assertIn(b"From: Anna B <anna@localhost>\n", head.octets)

    def test_all_recipients(self) -> None:
        head = read(b"To: a@x.test, B <b@x.test>\nCc: c\nBcc: d@x.test\n\n")
        self.assertEqual(
            head.recipients, ("a@x.test", "b@x.test", "c@localhost", "d@x.test")
        )

    def test_line_of_an_mbox_goes(self) -> None:
        head = read(b"From anna Mon Jan 1\nSubject: x\n\nbody")
        self.assertTrue(head.octets.startswith(b"Subject: x\n"))

    @settings(max_examples=80, deadline=None)
    @given(st.binary(max_size=200))
    def test_nothing_breaks_it_and_the_body_stays(self, octets: bytes) -> None:
        head = read(octets, user="anna")
        self.assertTrue(octets.endswith(head.body))
        self.assertTrue(head.octets.endswith(b"\n"))
