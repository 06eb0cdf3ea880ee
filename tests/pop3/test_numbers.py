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
        self.assertEqual(list(self.numbers.listing()), [b"1 10", b"2 20", b"3 5"])
        self.assertEqual(list(self.numbers.unique_ids()), [b"1 a", b"2 b", b"3 c"])
        self.assertEqual(list(self.numbers.unique_ids(2)), [b"2 b"])
        self.numbers.check(3)
        self.assertEqual((self.numbers.count, self.numbers.octets), (3, 35))

    def test_numbers_stay_after_delete(self) -> None:
        self.numbers.delete(2)
        self.assertEqual(list(self.numbers.unique_ids()), [b"1 a", b"3 c"])
        self.assertEqual((self.numbers.count, self.numbers.octets), (2, 15))
        self.assertEqual(list(self.numbers.listing(3)), [b"3 5"])
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
