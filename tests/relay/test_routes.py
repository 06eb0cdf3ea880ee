"""Which way mail takes, what is wrong with routes, and where this server itself is."""

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.relay.own import Own
from mailsrv.relay.racing import in_turn
from mailsrv.relay.routes import Routes, Target, parse_target, problems
from mailsrv.settings import Listener, RelayRoute


class RouteTests(SynchronousTestCase):
    def test_targets(self) -> None:
        for text, expected in (
            ("mx", None),
            ("Smtp.example:587", Target("smtp", "smtp.example", 587)),
            ("192.0.2.1:25", Target("smtp", "192.0.2.1", 25)),
            ("[2001:db8::1]:25", Target("smtp", "2001:db8::1", 25)),
            ("lmtp:localhost:24", Target("lmtp", "localhost", 24)),
            ("lmtp:unix:/run/lmtp", Target("lmtp", path="/run/lmtp")),
        ):
            self.assertEqual(parse_target(text), expected)
        for text in ("", "host", "host:0", "host:65536", "unix:/x", "a b:25", "[x]:25"):
            self.assertRaises(ValueError, parse_target, text)

    def test_first_one_that_fits(self) -> None:
        routes = Routes(
            [
                RelayRoute(to="mx", recipient_domain="direct.test"),
                RelayRoute(to="a.test:25", sender_domain="Shop.test"),
                RelayRoute(to="b.test:25", recipient_domain="far.test"),
            ]
        )
        for reverse_path, destination, host in (
            ("x@shop.test", "far.test", "a.test"),
            ("x@other.test", "far.test", "b.test"),
            ("x@shop.test", "direct.test", ""),
            ("x@other.test", "near.test", ""),
            ("", "far.test", "b.test"),
        ):
            found = routes.find(reverse_path, destination)
            self.assertEqual(found.target.host, host, (reverse_path, destination))
        self.assertEqual(routes.find("", "near.test").name, "near.test")

    def test_what_is_wrong(self) -> None:
        password = Path(self.mktemp())
        password.write_text("secret\n")
        password.chmod(0o644)
        gone = Path("/no/such/file")
        for route, key in (
            (RelayRoute(to="nowhere"), "to"),
            (RelayRoute(to="mx", tls="require"), "to"),
            (RelayRoute(to="a.test:25", recipient_domain="a b"), "recipient_domain"),
            (RelayRoute(to="lmtp:unix:/x", tls="require"), "tls"),
            (RelayRoute(to="a.test:25", login="x"), "login"),
            (
                RelayRoute(to="a.test:25", login="x", password_file=gone),
                "password_file",
            ),
            (
                RelayRoute(to="a.test:25", login="x", password_file=password),
                "password_file",
            ),
        ):
            [(found, _, _)] = problems([route])
            self.assertEqual(found, f"relay.route[1].{key}")
        every = RelayRoute(to="a.test:25")
        [(found, _, _)] = problems([every, RelayRoute(to="mx", sender_domain="b.test")])
        self.assertEqual(found, "relay.route[2]")


class OwnTests(SynchronousTestCase):
    def test_where_we_listen(self) -> None:
        own = Own(
            "Mail.example.test",
            [
                Listener(service="smtp", endpoint="tcp:25"),
                Listener(service="submission", endpoint="tcp:587:interface=127.0.0.1"),
                Listener(service="imap", endpoint="tcp:143"),
                Listener(service="lmtp", endpoint="unix:/run/lmtp"),
            ],
        )
        self.assertTrue(own.is_name("mail.Example.test."))
        self.assertFalse(own.is_name("example.test"))
        for ip, port, here in (
            ("127.0.0.1", 25, True),
            ("127.0.0.1", 587, True),
            ("127.0.0.2", 587, False),
            ("127.0.0.1", 143, False),
            ("192.0.2.1", 25, False),  # an address of nobody's
        ):
            self.assertIs(own.is_here(ip, port), here, (ip, port))

    def test_families_in_turn(self) -> None:
        ips = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
        self.assertEqual(in_turn(ips), ["2001:db8::1", "192.0.2.1", "192.0.2.2"])
