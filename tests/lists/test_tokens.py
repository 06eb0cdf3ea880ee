"""Tokens are good for one purpose and one row, and some for a time."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.tokens import BadToken, Purpose, Tokens

DAY_S = 86400.0


class TokensTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 20_000 * DAY_S
        self.tokens = Tokens(b"k" * 32, lambda: self.now)

    def test_round_trip(self) -> None:
        for row in (0, 1, 35, 36, 10_000, 36**5 - 1):
            token = self.tokens.make(Purpose.BOUNCE, row)
            self.assertEqual(self.tokens.read(Purpose.BOUNCE, token.upper()), row)
            self.assertLessEqual(len(token), 5 + 1 + 16)

    def refused(self, purpose: Purpose, token: str) -> None:
        with self.assertRaises(BadToken):
            self.tokens.read(purpose, token)

    def test_another_purpose(self) -> None:
        self.refused(Purpose.UNSUBSCRIBE, self.tokens.make(Purpose.BOUNCE, 7))

    def test_any_other_letter(self) -> None:
        token = self.tokens.make(Purpose.CONFIRM, 7, 3)
        for place in range(len(token)):
            other = "a" if token[place] != "a" else "b"
            self.refused(Purpose.CONFIRM, token[:place] + other + token[place + 1 :])
        for wrong in ("", "-", "7", "7-" + "a" * 16, token + "a", token[1:], "é" * 20):
            self.refused(Purpose.CONFIRM, wrong)

    def test_end_cannot_be_left_out(self) -> None:
        row, _, mac = self.tokens.make(Purpose.CONFIRM, 7, 3).split("-")
        self.refused(Purpose.CONFIRM, f"{row}-{mac}")

    def test_lifetime(self) -> None:
        token = self.tokens.make(Purpose.CONFIRM, 7, 3)
        self.now += 3 * DAY_S
        self.assertEqual(self.tokens.read(Purpose.CONFIRM, token), 7)
        self.now += DAY_S
        self.refused(Purpose.CONFIRM, token)

    def test_another_key(self) -> None:
        other = Tokens(b"j" * 32, lambda: self.now)
        self.refused(Purpose.BOUNCE, other.make(Purpose.BOUNCE, 7))
