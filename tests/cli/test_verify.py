"""``mailsrv verify``."""

import os
import time

from mailsrv.store.account import AccountStore
from mailsrv.store.index import Connections
from mailsrv.store.maildir import UniqueNames
from tests.cli.test_accounts import ANNA, BERT, CommandCase


class VerifyTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.add(ANNA, BERT)
        self.connections = Connections()
        for name in (ANNA, BERT):
            root = self.data / "mail" / name
            store = AccountStore(
                root, connections=self.connections, quota_octets=None, now=time.time
            )
            store.ensure_default_folders()
            (root / "Maildir/new" / UniqueNames("x").next().decode()).touch()
            store.open("INBOX")
        self.connections.close()

    def test_all_is_well(self) -> None:
        self.assertIn("All is well", self.call("verify"))

    def test_finding_is_told_then_mended(self) -> None:
        maildir = self.data / "mail" / ANNA / "Maildir"
        os.unlink(maildir / "dovecot-uidlist")
        self.assertIn(f"{ANNA}: INBOX: the uidlist is missing", self.refused("verify"))
        self.call("verify", BERT)
        self.assertIn("mended, 0 left", self.call("verify", "--mend", ANNA))
        self.call("verify")

    def test_unknown_account(self) -> None:
        self.assertIn("no account", self.refused("verify", "nobody@example.test"))
