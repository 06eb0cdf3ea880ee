"""``mailsrv dkim``."""

from tests.cli.test_accounts import CommandCase


class DkimTests(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.call("domain", "add", "example.test")

    def test_make_prints_records_for_a_zone(self) -> None:
        said = self.call("dkim", "make", "Example.TEST")
        self.assertEqual(said.count("._domainkey.example.test. IN TXT "), 2)
        self.assertIn("v=DKIM1; k=rsa; p=", said)
        self.assertIn("v=DKIM1; k=ed25519; p=", said)
        self.assertEqual(self.call("dkim", "show", "example.test"), said)
        self.assertTrue((self.data / "dkim" / "example.test" / "keys.json").exists())

    def test_only_for_own_domains_and_once(self) -> None:
        self.assertIn("domain add", self.refused("dkim", "make", "else.test"))
        self.call("dkim", "make", "example.test")
        self.assertIn("already", self.refused("dkim", "make", "example.test"))
        for name in ("../example.test", "[192.0.2.1]", "a b"):
            self.refused("dkim", "make", name)

    def test_rotation(self) -> None:
        self.call("dkim", "make", "example.test")
        following = self.json("dkim", "rotate", "example.test")
        self.assertEqual([key["state"] for key in following], ["next", "next"])
        self.call("dkim", "rotate", "example.test", "--switch")
        listed = self.json("dkim", "show")
        states = [key["state"] for key in listed]
        self.assertEqual(states, ["retired", "retired", "active", "active"])
        old, new = listed[0]["selector"], listed[2]["selector"]
        self.assertIn("rotate", self.refused("dkim", "remove", "example.test", new))
        said = self.call("dkim", "remove", "example.test", old)
        self.assertIn(f"{old}._domainkey.example.test", said)
        self.call("dkim", "remove", "example.test", ends=2)
        gone = self.json("dkim", "remove", "example.test", "--all")
        self.assertEqual(len(gone["removed"]), 3)
        self.assertIn("no keys yet", self.call("dkim", "show"))
        self.assertIn("no keys", self.refused("dkim", "show", "example.test"))

    def test_json_has_what_a_form_asks_for(self) -> None:
        (rsa, _) = self.json("dkim", "make", "example.test")
        self.assertEqual(rsa["type"], "TXT")
        self.assertEqual(rsa["name"], f"{rsa['selector']}._domainkey.example.test")
        self.assertGreater(len(rsa["value"]), 255)
        self.assertIn(rsa["value"][:200], rsa["zone"])
