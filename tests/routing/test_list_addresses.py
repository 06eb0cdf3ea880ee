"""Which addresses are those of a list."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import parse
from mailsrv.accounts.directory import Directory
from mailsrv.routing.list_addresses import Command, ListAddress, find, write

STAFF, ANNA = "staff@example.test", "anna@example.test"


class ListAddressesTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = edits.add_domain(Directory(), "example.test", "+-")
        directory = edits.add_account(directory, ANNA, "hash")
        self.directory = edits.add_list(directory, STAFF, [ANNA])

    def found(self, text: str) -> ListAddress | None:
        return find(self.directory, parse(text))

    def test_commands(self) -> None:
        for text, command, token in (
            ("Staff@example.test", Command.POST, ""),
            ("staff-owner@example.test", Command.OWNER, ""),
            ("STAFF-Subscribe@example.test", Command.SUBSCRIBE, ""),
            ("staff-unsubscribe@example.test", Command.UNSUBSCRIBE, ""),
            ("staff-unsubscribe+7-AB@example.test", Command.UNSUBSCRIBE, "7-ab"),
            ("staff-bounces+7-ab@example.test", Command.BOUNCES, "7-ab"),
            ("staff-approve+7-ab@example.test", Command.APPROVE, "7-ab"),
        ):
            self.assertEqual(self.found(text), ListAddress(STAFF, command, token))

    def test_no_commands(self) -> None:
        for text in (
            ANNA,
            "anna-owner@example.test",
            "anna-bounces@example.test",
            "staff-bounces@example.test",
            "staff-other@example.test",
            "staff-@example.test",
            "-owner@example.test",
            "staff-owner@example.org",
            "other-owner@example.test",
        ):
            self.assertIsNone(self.found(text), text)

    def test_newsletters_of_an_account(self) -> None:
        text = write(ANNA, Command.BOUNCES, "7-ab")
        self.assertEqual(text, "anna-bounces+7-ab@example.test")
        expected = ListAddress(ANNA, Command.BOUNCES, "7-ab")
        self.assertEqual(self.found(text), expected)
        self.assertIsNone(self.found(write(ANNA, Command.SUBSCRIBE, "7")))

    def test_an_entry_of_the_whole_name_comes_first(self) -> None:
        name = "staff-owner@example.test"
        self.directory = edits.add_account(self.directory, name, "hash")
        self.assertIsNone(self.found(name))
