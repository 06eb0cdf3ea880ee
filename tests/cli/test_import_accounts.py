"""``mailsrv account import``: all or nothing, and nothing twice."""

from mailsrv.accounts.passwords import verify_password
from mailsrv.settings import LoginSettings
from tests.accounts.test_schemes import HASHES, PASSWORD
from tests.cli.test_accounts import ANNA, BERT, CommandCase

USERS = f"""# of the old server
anna:{HASHES["SHA512-CRYPT"]}:5000:5000::/home/anna::userdb_quota_rule=*:storage=1G
bert@example.test:{HASHES["BLF-CRYPT"]}::::::
"""


class ImportTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.users = self.folder / "users"
        self.users.write_text(USERS)
        self.call("domain", "add", "example.test")

    def arguments(self, *more: str) -> list[str]:
        command = ["account", "import", str(self.users), "--domain", "example.test"]
        return [*command, *more]

    def test_import(self) -> None:
        rows = self.json(*self.arguments())
        self.assertEqual(
            rows,
            [
                {
                    "address": ANNA,
                    "password": "SHA512-CRYPT",
                    "quota_octets": 1024**3,
                    "account": "imported",
                },
                {
                    "address": BERT,
                    "password": "BLF-CRYPT",
                    "quota_octets": None,
                    "account": "imported",
                },
            ],
        )
        account = self.database.snapshot().account(ANNA)
        assert account is not None
        self.assertTrue(
            verify_password(account.password_hash, PASSWORD, LoginSettings())
        )
        self.assertTrue((self.data / "mail" / ANNA / "Maildir" / ".Sent").is_dir())
        self.assertEqual(self.json("account", "show", ANNA)["password"], "SHA512-CRYPT")

    def test_nothing_is_imported_twice(self) -> None:
        self.call(*self.arguments())
        self.call("account", "passwd", ANNA, "--password-stdin", stdin="new\n")
        self.users.write_text(USERS + f"carl:{HASHES['SSHA']}\n")
        rows = self.json(*self.arguments())
        self.assertEqual(
            [row["account"] for row in rows],
            ["exists already", "exists already", "imported"],
        )
        self.assertEqual(self.json("account", "show", ANNA)["password"], "ARGON2ID")

    def test_dry_run(self) -> None:
        rows = self.json(*self.arguments("--dry-run"))
        self.assertEqual({row["account"] for row in rows}, {"would be imported"})
        self.assertEqual(self.json("account", "list"), [])
        self.assertFalse((self.data / "mail").exists())

    def test_all_errors_at_once_and_nothing_is_done(self) -> None:
        self.add("carl@example.test")
        self.call("alias", "add", "dora@example.test", "carl@example.test")
        self.users.write_text(
            USERS
            + "emil::::\n"
            + f"fritz@elsewhere.test:{HASHES['SSHA']}\n"
            + f"dora:{HASHES['SSHA']}\n"
        )
        said = self.refused(*self.arguments())
        for line, problem in (
            (4, "has no password"),
            (5, "`mailsrv domain add elsewhere.test` makes it one"),
            (6, "dora@example.test exists already, as alias"),
        ):
            self.assertRegex(said, f"users:{line}: .*{problem}")
        self.assertEqual(len(self.json("account", "list")), 1)

    def test_no_hash_is_printed(self) -> None:
        said = self.call(*self.arguments()) + self.call("account", "show", ANNA)
        self.assertNotIn("$6$", said)
        self.assertNotIn("48fAwRvW9NOE1", said)
