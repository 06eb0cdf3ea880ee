"""Look-ups: log-in names, subaddresses, who may send as whom."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import parse
from mailsrv.accounts.directory import Account, Alias, Directory, Domain, Group

ANNA, BERT = "anna@example.test", "bert@example.test"


def office() -> Directory:
    directory = edits.add_domain(Directory(), "example.test")
    directory = edits.add_domain(directory, "bücher.example", "-+")
    for name in (ANNA, BERT, "anna@bücher.example", "mary-ann@bücher.example"):
        directory = edits.add_account(directory, name, "hash")
    directory = edits.add_account(directory, "mary@bücher.example", "hash")
    directory = edits.add_alias(directory, "info@example.test", [ANNA])
    directory = edits.add_alias(directory, "office@example.test", ["info@example.test"])
    directory = edits.add_group(directory, "staff@example.test", [ANNA, BERT], [BERT])
    return edits.add_alias(directory, "all@example.test", ["staff@example.test"])


class DirectoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = office()

    def name(self, login: str) -> str | None:
        account = self.office.login(login)
        return account.name if account else None

    def test_login_names(self) -> None:
        for login, name in (
            (ANNA, ANNA),
            ("ANNA@Example.Test", ANNA),
            ("bert", BERT),
            ("BERT", BERT),
            ("anna", None),  # in two domains
            ("anna@BÜCHER.example", "anna@xn--bcher-kva.example"),
            ("anna@xn--bcher-kva.example", "anna@xn--bcher-kva.example"),
            ("bert+x@example.test", None),
            ("info@example.test", None),
            ("bert@", None),
            ("", None),
            ("\0", None),
        ):
            self.assertEqual(self.name(login), name, login)

    def found(self, address: str) -> str | None:
        entry = self.office.find(parse(address))
        return entry.name if entry else None

    def test_subaddresses(self) -> None:
        for address, name in (
            ("anna+x@example.test", ANNA),
            ("Anna+x+y@example.test", ANNA),
            ("anna+@example.test", ANNA),
            ("info+x@example.test", "info@example.test"),
            ("anna-x@example.test", None),
            ("+anna@example.test", None),
            ("mary-ann@bücher.example", "mary-ann@xn--bcher-kva.example"),
            ("mary-ann-x@bücher.example", "mary-ann@xn--bcher-kva.example"),
            ("mary-x+y@bücher.example", "mary@xn--bcher-kva.example"),
            ("anna@other.test", None),
        ):
            self.assertEqual(self.found(address), name, address)

    def may_send(self, name: str, address: str) -> bool:
        account = self.office.account(name)
        assert account is not None
        return self.office.may_send_as(account, address)

    def test_sender_addresses(self) -> None:
        for address in (
            ANNA,
            "Anna+lists@EXAMPLE.test",
            "info@example.test",
            "info+x@example.test",
            "office@example.test",
        ):
            self.assertTrue(self.may_send(ANNA, address), address)
            self.assertFalse(self.may_send(BERT, address), address)
        for address in ("staff@example.test", "all@example.test"):
            self.assertTrue(self.may_send(BERT, address), address)
            self.assertFalse(self.may_send(ANNA, address), address)
        for address in ("nobody@example.test", "anna@other.test", "anna", "", "<>"):
            self.assertFalse(self.may_send(ANNA, address), address)

    def test_disabled_account_may_not_send(self) -> None:
        account = self.office.account(ANNA)
        assert account is not None
        self.assertTrue(self.office.may_send_as(account, ANNA))
        self.office = edits.set_enabled(self.office, ANNA, False)
        self.assertFalse(self.office.may_send_as(account, ANNA))

    def test_loops_in_a_broken_database_end(self) -> None:
        anna = Account(ANNA, ANNA, "hash")
        one = Alias("one@example.test", ("two@example.test", ANNA))
        two = Group("two@example.test", ("one@example.test", "gone@example.test"))
        directory = Directory(
            {"example.test": Domain("example.test")},
            {entry.name: entry for entry in (anna, one, two)},
        )
        self.assertEqual(directory.members(one), (anna,))
        self.assertTrue(directory.may_send_as(anna, "one@example.test"))

    def test_password_hash_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Account(ANNA, ANNA, "secret")))
