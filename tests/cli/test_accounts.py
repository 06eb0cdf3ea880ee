"""The commands on accounts, aliases, groups and domains."""

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.accounts.database import AccountDatabase
from mailsrv.accounts.passwords import verify_password
from mailsrv.cli import accounts
from mailsrv.cli.main import main
from mailsrv.settings import LoginSettings

SETTINGS = """
version = 1
hostname = "mail.example.test"
data = "data"
[login]
argon2_memory_kib = 8
argon2_passes = 1
argon2_lanes = 1
"""
ROOT = Path(__file__).parent.parent.parent
NOBODY = pwd.getpwnam("nobody")
ANNA, BERT = "anna@example.test", "bert@example.test"


class CommandCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(accounts, "SETTLE_S", 0.0)  # no server runs here
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        (self.folder / "mailsrv.toml").write_text(SETTINGS)
        self.data = self.folder / "data"
        self.database = AccountDatabase(self.data / "accounts.sqlite")
        self.addCleanup(self.database.close)

    def call(self, *arguments: str, stdin: str = "", ends: int = 0) -> str:
        """Run ``mailsrv`` with the settings; return what it says."""
        result = CliRunner().invoke(
            main,
            [*arguments, "--config", str(self.folder / "mailsrv.toml")],
            input=stdin,
        )
        self.assertEqual(result.exit_code, ends, result.output)
        return result.output

    def json(self, *arguments: str, stdin: str = "") -> Any:
        # Any: the value of a JSON text.
        return json.loads(self.call(*arguments, "--json", stdin=stdin))

    def refused(self, *arguments: str, stdin: str = "") -> str:
        return self.call(*arguments, stdin=stdin, ends=1)

    def add(self, *addresses: str) -> None:
        if not self.data.exists():
            self.call("domain", "add", "example.test")
        for address in addresses:
            self.call("account", "add", address, "--password-stdin", stdin="secret\n")


class AccountTests(CommandCase):
    def test_add(self) -> None:
        self.call("domain", "add", "example.test")
        made = self.json(
            "account",
            "add",
            "Anna@example.test",
            "--quota",
            "2K",
            "--password-stdin",
            stdin="se cret\r\nmore\n",
        )
        maildir = self.data / "mail" / ANNA / "Maildir"
        self.assertEqual(
            made,
            {
                "address": ANNA,
                "login": ANNA,
                "enabled": True,
                "quota_octets": 2048,
                "disabled_extensions": [],
                "files_sent": False,
                "password": "ARGON2ID",
                "scram": True,
                "maildir": str(maildir),
            },
        )
        account = self.database.snapshot().account(ANNA)
        assert account is not None
        self.assertTrue(
            verify_password(account.password_hash, "se cret", LoginSettings())
        )
        self.assertEqual(maildir.parent.stat().st_mode & 0o777, 0o700)
        # Clients look for these, and for subscriptions, at their first log-in.
        self.assertTrue((maildir / ".Sent" / "cur").is_dir())
        self.assertIn("Sent", (maildir / "subscriptions").read_text())

    def test_password_is_asked_for_twice(self) -> None:
        self.call("domain", "add", "example.test")
        self.call("account", "add", ANNA, stdin="one\ntwo\nsecret\nsecret\n")
        account = self.database.snapshot().account(ANNA)
        assert account is not None
        self.assertTrue(
            verify_password(account.password_hash, "secret", LoginSettings())
        )

    def test_empty_password(self) -> None:
        self.call("domain", "add", "example.test")
        said = self.refused("account", "add", ANNA, "--password-stdin", stdin="\n")
        self.assertIn("empty password", said)
        self.assertEqual(self.json("account", "list"), [])

    def test_refusal_comes_before_the_password(self) -> None:
        said = self.refused("account", "add", ANNA)
        self.assertIn("mailsrv domain add example.test", said)
        self.assertNotIn("Password", said)

    def test_passwd(self) -> None:
        self.add(ANNA)
        said = self.call("account", "passwd", "anna", "--password-stdin", stdin="new\n")
        self.assertIn("has a new password", said)
        account = self.database.snapshot().account(ANNA)
        assert account is not None
        self.assertTrue(verify_password(account.password_hash, "new", LoginSettings()))

    def test_disable_and_enable(self) -> None:
        self.add(ANNA)
        self.assertFalse(self.json("account", "disable", ANNA)["enabled"])
        self.assertIn("no", self.call("account", "list"))
        self.assertTrue(self.json("account", "enable", ANNA)["enabled"])

    def test_quota(self) -> None:
        self.add(ANNA)
        self.assertEqual(
            self.json("account", "quota", ANNA, "5 GiB")["quota_octets"], 5 * 1024**3
        )
        self.assertIsNone(self.json("account", "quota", ANNA, "none")["quota_octets"])
        for wrong in ("1.5G", "0", "lots"):
            said = self.call("account", "quota", ANNA, wrong, ends=2)
            self.assertIn("is no size", said)

    def test_extensions_that_are_not_offered(self) -> None:
        self.add(ANNA)

        def set_to(words: str, ends: int = 0) -> str:
            return self.call(
                "account", "set", ANNA, "--disabled-extensions", words, ends=ends
            )

        set_to("quota Idle")
        details = self.json("account", "show", ANNA)
        self.assertEqual(details["disabled_extensions"], ["IDLE", "QUOTA"])
        self.assertIn("IDLE, QUOTA", self.call("account", "list"))
        self.assertIn("cannot be switched off", set_to("IMAP4REV1", ends=2))
        set_to("none")
        details = self.json("account", "show", ANNA)
        self.assertEqual(details["disabled_extensions"], [])

    def test_show(self) -> None:
        self.add(ANNA, BERT)
        self.call("alias", "add", "info@example.test", ANNA)
        self.call("group", "add", "staff@example.test", ANNA, BERT)
        details = self.json("account", "show", "anna")
        self.assertEqual(details["aliases"], ["info@example.test"])
        self.assertEqual(details["groups"], ["staff@example.test"])
        self.assertIn("staff@example.test", self.call("account", "show", "anna"))

    def test_delete_keeps_the_mail(self) -> None:
        self.add(ANNA)
        mail = self.data / "mail" / ANNA
        (mail / "letter").write_text("kept")
        kept = Path(self.json("account", "delete", ANNA)["kept"])
        self.assertEqual(kept.parent, self.data / "deleted")
        self.assertEqual((kept / "letter").read_text(), "kept")
        # The next account of that name begins with nothing.
        self.add(ANNA)
        self.assertFalse((mail / "letter").exists())
        second = Path(self.json("account", "delete", ANNA)["kept"])
        self.assertNotEqual(second, kept)

    def test_purge_deletes_the_mail(self) -> None:
        self.add(ANNA)
        said = self.call("account", "delete", ANNA, "--purge")
        self.assertIn("its mail is deleted", said)
        self.assertEqual(list((self.data / "mail").iterdir()), [])
        self.assertEqual(list((self.data / "deleted").iterdir()), [])

    def test_unknown(self) -> None:
        self.add()
        for verb in ("show", "disable", "enable", "delete", "passwd"):
            self.assertIn("no account", self.refused("account", verb, "carl"))


class RootTests(SynchronousTestCase):
    def test_root_becomes_the_user_of_the_settings(self) -> None:
        config = self.folder_for_others() / "mailsrv.toml"
        config.write_text('user = "nobody"' + SETTINGS)
        self.as_root("domain add bücher.example", config)
        self.as_root("account add anna@bücher.example --password-stdin", config)
        self.assert_owner_of(config.parent / "data")

    def test_root_becomes_the_owner_of_the_data(self) -> None:
        folder = self.folder_for_others()
        (folder / "data").mkdir(0o700)
        os.chown(folder / "data", NOBODY.pw_uid, NOBODY.pw_gid)
        (folder / "mailsrv.toml").write_text(SETTINGS)
        arguments = f"quickstart --dir {folder} --domain example.test --account anna"
        self.as_root(arguments)
        self.assert_owner_of(folder / "data")

    def folder_for_others(self) -> Path:
        if os.geteuid() != 0:
            raise SkipTest("only root can become another user")
        folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        return folder

    def as_root(self, arguments: str, config: Path | None = None) -> None:
        """Run ``mailsrv`` in another process, since root does not come back."""
        program = "from mailsrv.cli.main import main; main()"
        command = [sys.executable, "-c", program, *arguments.split()]
        if config is not None:
            command += ["--config", str(config)]
        subprocess.run(
            command, input=b"secret\n", cwd=ROOT, check=True, capture_output=True
        )

    def assert_owner_of(self, data: Path) -> None:
        made = list(data.rglob("*"))
        self.assertGreater(len(made), 10)
        self.assertEqual({path.stat().st_uid for path in made}, {NOBODY.pw_uid})
        self.assertEqual({path.stat().st_mode & 0o077 for path in made}, {0})


class AddressTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(ANNA, BERT)

    def test_domains(self) -> None:
        self.call("domain", "add", "BÜCHER.example", "--separators", "-")
        self.json("domain", "set", "xn--bcher-kva.example", "--catch-all", ANNA)
        self.assertEqual(
            self.json("domain", "list"),
            [
                {"domain": "example.test", "separators": "+", "catch_all": None},
                {"domain": "bücher.example", "separators": "-", "catch_all": ANNA},
            ],
        )
        details = self.json("domain", "show", "example.test")
        self.assertEqual(details["addresses"], [ANNA, BERT])
        self.call("domain", "set", "bücher.example", "--catch-all", "none")
        self.call("domain", "delete", "bücher.example")
        self.assertIn("still has", self.refused("domain", "delete", "example.test"))

    def test_aliases(self) -> None:
        name = "info@example.test"
        said = self.call("alias", "add", name, ANNA)
        self.assertEqual(said, f"mail for {name} goes to {ANNA}\n")
        self.call("alias", "add", name, BERT)
        expected = {"address": name, "targets": [ANNA, BERT]}
        self.assertEqual(self.json("alias", "list"), [expected])
        self.assertEqual(self.json("alias", "show", name), expected)
        self.call("alias", "delete", name, ANNA)
        self.assertEqual(self.json("alias", "show", name)["targets"], [BERT])
        self.call("alias", "delete", name)
        self.assertEqual(self.json("alias", "list"), [])

    def test_alias_outside(self) -> None:
        said = self.call("alias", "add", "info@example.test", "Carl@other.test", ANNA)
        self.assertIn(f"goes to {ANNA}, Carl@other.test", said)
        self.call("alias", "delete", "info@example.test", "Carl@other.test")
        targets = self.json("alias", "show", "info@example.test")["targets"]
        self.assertEqual(targets, [ANNA])

    def test_groups(self) -> None:
        name = "staff@example.test"
        self.call("group", "add", name, ANNA, BERT, "--send-as", ANNA)
        expected = {"address": name, "members": [ANNA, BERT], "send_as": [ANNA]}
        self.assertEqual(self.json("group", "list"), [expected])
        self.assertIn(BERT, self.call("group", "list"))
        self.call("group", "delete", name, BERT)
        self.assertEqual(self.json("group", "show", name)["members"], [ANNA])
        self.assertIn("no alias", self.refused("alias", "delete", name))
        self.call("group", "delete", name)
        self.assertEqual(self.json("group", "list"), [])
