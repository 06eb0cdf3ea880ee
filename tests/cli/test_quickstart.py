"""``mailsrv quickstart``: everything a first server needs, and nothing twice."""

import json
import ssl
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from cryptography import x509
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.database import AccountDatabase
from mailsrv.accounts.directory import Alias
from mailsrv.cli.main import main
from mailsrv.settings_file import load


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".sqlite" not in path.name
    }


class QuickstartTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()

    def run_it(self, *arguments: str) -> str:
        base = ["quickstart", "--dir", str(self.folder), "--domain", "example.test"]
        result = CliRunner().invoke(main, [*base, *arguments])
        self.assertEqual(result.exit_code, 0, result.output)
        return result.output

    def json(self, *arguments: str) -> Any:
        # Any: the value of a JSON text.
        return json.loads(self.run_it("--json", *arguments))

    def test_json_has_what_scripts_need(self) -> None:
        made = self.json("--account", "anna", "--account", "ben", "--port-base", "7000")
        self.assertEqual(
            set(made),
            {"config", "domain", "ca", "host", "ports", "maildir", "accounts"},
            made,
        )
        self.assertEqual(
            made["ports"],
            {
                "smtp": 7025,
                "submission": 7587,
                "submissions": 7465,
                "imap": 7143,
                "imaps": 7993,
                "pop3": 7110,
                "pop3s": 7995,
            },
        )
        anna, ben = made["accounts"]
        self.assertEqual(anna["address"], "anna@example.test")
        self.assertEqual(anna["login"], "anna@example.test")
        self.assertGreater(len(ben["password"]), 15)
        self.assertNotEqual(anna["password"], ben["password"])
        self.assertIn("{account}", made["maildir"])

    def test_mail_of_the_domain_will_be_signed(self) -> None:
        config = self.json()["config"]
        shown = CliRunner().invoke(main, ["dkim", "show", "--config", config, "--json"])
        keys = json.loads(shown.output)
        self.assertEqual([key["state"] for key in keys], ["active", "active"])
        self.json("--account", "ben")
        again = CliRunner().invoke(main, ["dkim", "show", "--config", config, "--json"])
        self.assertEqual(json.loads(again.output), keys)

    def test_the_settings_are_good(self) -> None:
        self.json()
        result = CliRunner().invoke(
            main, ["check-config", str(self.folder / "mailsrv.toml")]
        )
        self.assertEqual(result.exit_code, 0, result.output)

    def test_accounts_may_follow_one_option(self) -> None:
        made = self.json("--account", "anna", "ben", "carl@example.test")
        self.assertEqual(
            [account["login"] for account in made["accounts"]],
            [f"{name}@example.test" for name in ("anna", "ben", "carl")],
        )

    def test_postmaster_and_abuse_are_the_first_account_s(self) -> None:
        self.json("--account", "anna", "--account", "ben")
        database = AccountDatabase(self.folder / "data" / "accounts.sqlite")
        self.addCleanup(database.close)
        entries = database.snapshot().entries
        for name in ("postmaster", "abuse"):
            alias = entries[f"{name}@example.test"]
            assert isinstance(alias, Alias)
            self.assertEqual(alias.targets, ("anna@example.test",))

    def test_run_again_it_changes_nothing(self) -> None:
        first = self.json("--account", "anna")
        before = contents(self.folder)
        again = self.json("--account", "anna", "--port-base", "9000")
        self.assertEqual(contents(self.folder), before)
        self.assertEqual(again["ports"], first["ports"])
        self.assertEqual(again["accounts"][0]["password"], None)

    def test_run_again_it_adds_what_is_new(self) -> None:
        self.json("--account", "anna")
        anna, ben = self.json("--account", "anna", "--account", "ben")["accounts"]
        self.assertIsNone(anna["password"])
        self.assertIsNotNone(ben["password"])

    def test_secrets_are_for_their_owner(self) -> None:
        self.json()
        for name in ("mailsrv.toml", "tls/server.key", "tls/ca.key"):
            self.assertEqual((self.folder / name).stat().st_mode & 0o077, 0, name)

    def test_the_certificate_is_for_all_names_and_the_address(self) -> None:
        made = self.json("--host", "127.0.0.1")
        chain = (self.folder / "tls" / "server.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(chain)
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        self.assertEqual(
            set(names.get_values_for_type(x509.DNSName)),
            {"example.test", "mail.example.test", "localhost"},
        )
        (address,) = names.get_values_for_type(x509.IPAddress)
        self.assertEqual(str(address), "127.0.0.1")
        ssl.create_default_context(cafile=made["ca"])

    def test_ipv6(self) -> None:
        made = self.json("--host", "::1")
        listeners = load(Path(made["config"])).listen
        self.assertEqual(listeners[0].endpoint, "tcp6:2025:interface=\\:\\:1")
        self.assertEqual(made["ports"]["smtp"], 2025)

    def test_clear_text_only_where_nobody_else_listens(self) -> None:
        self.json("--host", "192.0.2.1")
        settings = load(self.folder / "mailsrv.toml")
        self.assertFalse(settings.tls.clear_text_passwords_on_loopback)

    def test_the_table_has_log_ins_and_ports(self) -> None:
        table = self.run_it("--account", "anna")
        self.assertIn("anna@example.test", table)
        self.assertIn("2993", table)
        self.assertIn("localhost", table)
        again = self.run_it("--account", "anna")
        self.assertIn("mailsrv account passwd anna@example.test", again)

    def test_the_table_names_an_address_that_is_not_localhost(self) -> None:
        table = self.run_it("--account", "anna", "--host", "127.0.0.2")
        self.assertIn("127.0.0.2  port 2993", table)
        self.assertNotIn("localhost", self.run_it("--account", "anna"))

    def test_an_alias_is_no_account(self) -> None:
        self.run_it("--account", "anna")
        base = ["quickstart", "--dir", str(self.folder), "--domain", "example.test"]
        result = CliRunner().invoke(main, [*base, "--account", "postmaster"])
        self.assertIn("exists already, as alias", result.output)
        mail = self.folder / "data" / "mail"
        self.assertEqual([m.name for m in mail.iterdir()], ["anna@example.test"])

    def test_what_is_wrong_is_said(self) -> None:
        for arguments in (
            ["--domain", "example..test"],
            ["--domain", "example.test", "--host", "nowhere"],
            ["--domain", "example.test", "--account", "a b"],
            ["--domain", "example.test", "--account", "anna@example.org"],
        ):
            result = CliRunner().invoke(
                main, ["quickstart", "--dir", str(self.folder), *arguments]
            )
            self.assertEqual(result.exit_code, 1, arguments)
            self.assertTrue(result.output.startswith("Error: "), result.output)
            if "anna@example.org" not in arguments:  # that is seen later
                self.assertFalse(self.folder.exists(), arguments)
