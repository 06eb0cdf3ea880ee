"""Verdicts cannot carry what would break the protocol."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.doors.values import Defer, Edit, Reject


class VerdictTests(SynchronousTestCase):
    def test_texts_are_one_line_of_ascii(self) -> None:
        for text in ("", "a\r\nRCPT", "a\nb", "nein, ÄÖ", "x" * 401, "\x1b[0m"):
            self.assertRaises(ValueError, Reject, text)
            self.assertRaises(ValueError, Defer, text)

    def test_codes_fit_the_verdict(self) -> None:
        Reject("no", 554, "5.7.0")
        Defer("later", 421, "4.7.0")
        for code, enhanced in ((450, "5.7.1"), (550, "4.7.1"), (250, "5.7.1")):
            self.assertRaises(ValueError, Reject, "no", code, enhanced)
        for code, enhanced in ((550, "4.7.1"), (450, "5.7.1"), (450, "4.7")):
            self.assertRaises(ValueError, Defer, "no", code, enhanced)

    def test_fields_are_one_line(self) -> None:
        Edit(add=(("X-Spam", "yes; score=5"),), remove=("Subject",))
        for name in ("", "X Spam", "X-Spam:", "X\r\nY", "Ü"):
            self.assertRaises(ValueError, Edit, (), (name,))
            self.assertRaises(ValueError, Edit, ((name, "a"),))
        for value in ("a\r\nb", "a\nb", "a\0", "ä", "x" * 1000):
            self.assertRaises(ValueError, Edit, (("X-Spam", value),))

    def test_fields_do_not_hide_those_of_the_message(self) -> None:
        Edit(add=(("X", "x" * 507),) * 128)
        self.assertRaises(ValueError, Edit, (("X", "x" * 508),) * 128)
