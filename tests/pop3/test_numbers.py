"""Message numbers, marks and sums of a session."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.pop3.numbers import NoSuchMessage, Numbers
from mailsrv.store.values import UID


class NumbersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.numbers = Numbers(
            [(UID(7), b"a", 10), (UID(9), b"b", 20), (UID(12), b"c", 5)]
        )

    def test_lists(self) -> None:
        lines = [self.numbers.listing(n) for n in self.numbers.all()]
        self.assertEqual(lines, ["1 10", "2 20", "3 5"])
        self.assertEqual(self.numbers.unique_id(2), "2 b")
        self.numbers.check(3)
        self.assertEqual((self.numbers.count, self.numbers.octets), (3, 35))

    def test_numbers_stay_after_delete(self) -> None:
        self.numbers.delete(2)
        self.assertEqual(list(self.numbers.all()), [1, 3])
        self.assertEqual((self.numbers.count, self.numbers.octets), (2, 15))
        self.assertEqual(self.numbers.listing(3), "3 5")
        self.assertEqual(self.numbers.deleted_uids(), [9])

    def test_reset(self) -> None:
        self.numbers.delete(2)
        self.numbers.reset()
        self.assertEqual((self.numbers.count, self.numbers.octets), (3, 35))
        self.assertEqual(self.numbers.deleted_uids(), [])

    def test_no_such_message(self) -> None:
        self.numbers.delete(2)
        for number in (0, 2, 4, -1):
            for call in (self.numbers.check, self.numbers.delete, self.numbers.listing):
                with self.assertRaises(NoSuchMessage):
                    call(number)
