"""Further passwords of an account."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.app_passwords import NotForThis, digest_of, log_in
from mailsrv.accounts.directory import Account, AppPassword, Directory
from mailsrv.accounts.edits import EditRefused

ANNA = "anna@example.test"
PASSWORD = "abcde-fghij-kmnpq-rstuv"


def app(label: str = "shop", **changes: object) -> AppPassword:
    made = AppPassword(label, digest_of(PASSWORD), "send", 10, None)
    return made._replace(**changes)  # type: ignore[arg-type]


class LogInTests(SynchronousTestCase):
    def log_in(
        self, *apps: AppPassword, password: str = PASSWORD, service: str = "submission"
    ) -> str | None:
        account = Account(ANNA, ANNA, "hash", app_passwords=apps)
        found = log_in(account, password, service, 1000.0)
        return None if found is None else found.app

    def test_right_and_wrong(self) -> None:
        self.assertEqual(self.log_in(app()), "shop")
        self.assertEqual(self.log_in(app(), password=PASSWORD.upper()), "shop")
        spaced = PASSWORD.replace("-", " ")
        self.assertEqual(
            self.log_in(app("x", digest="no"), app(), password=spaced), "shop"
        )
        self.assertIsNone(self.log_in(app(), password="wrong"))
        self.assertIsNone(self.log_in(password=""))

    def test_for_sending_alone(self) -> None:
        with self.assertRaises(NotForThis):
            self.log_in(app(), service="imap")
        self.assertEqual(self.log_in(app(scope="all"), service="imap"), "shop")

    def test_its_time(self) -> None:
        self.assertEqual(self.log_in(app(ends_at_utc=1001.0)), "shop")
        with self.assertRaises(NotForThis):
            self.log_in(app(ends_at_utc=1000.0))

    def test_account_that_is_disabled(self) -> None:
        account = Account(ANNA, ANNA, "hash", enabled=False, app_passwords=(app(),))
        self.assertIsNone(log_in(account, PASSWORD, "submission", 0.0))


class EditsTests(SynchronousTestCase):
    def test_add_and_remove(self) -> None:
        office = edits.add_domain(Directory(), "example.test")
        office = edits.add_account(office, ANNA, "hash")

        def add(directory: Directory, label: str) -> Directory:
            return edits.add_app_password(
                directory,
                ANNA,
                label,
                "digest",
                scope="send",
                max_messages_per_hour=5,
                ends_at_utc=None,
            )

        office = add(office, "shop")
        self.assertRaises(EditRefused, add, office, "shop")
        self.assertRaises(EditRefused, add, office, " ")
        account = office.account(ANNA)
        assert account is not None
        by_shop = log_in(
            Account(ANNA, ANNA, "hash", app_passwords=(app(),)),
            PASSWORD,
            "submission",
            0,
        )
        assert by_shop is not None
        self.assertTrue(office.admits(by_shop))
        office = edits.remove_app_password(office, ANNA, "shop")
        self.assertFalse(office.admits(by_shop))
        self.assertTrue(office.admits(account))
        remove = edits.remove_app_password
        self.assertRaises(EditRefused, remove, office, ANNA, "shop")
