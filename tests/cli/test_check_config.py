"""``mailsrv check-config``: what would keep a server from serving."""

import os
from pathlib import Path

from click.testing import CliRunner
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.cli.main import main
from tests.tls.certificates import pair, write


class ConfigCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        (self.folder / "data").mkdir(parents=True)
        self.folder.chmod(0o700)

    def check(self, text: str, least: str = "") -> str:
        """Return the output; the exit status is 1 unless it says good."""
        least = least or (
            'version = 1\nhostname = "mail.example.test"\ndata = "data"\n'
        )
        file = self.folder / "mailsrv.toml"
        file.write_text(least + text)
        result = CliRunner().invoke(main, ["check-config", str(file)])
        self.assertEqual(result.exit_code, 0 if ": good" in result.output else 1)
        return result.output.replace(f"{file}: ", "")

    LISTEN = '[[listen]]\nservice = "imap"\nendpoint = "tcp:143"\n'

    def certificate(self) -> str:
        write(self.folder, pair("mail.example.test"))
        return '[[tls.certificate]]\nchain = "server.pem"\nkey = "server.key"\n'


class CheckConfigTests(ConfigCase):
    def test_good(self) -> None:
        self.assertEqual(
            self.check(self.LISTEN + self.certificate()),
            "good (imap for mail.example.test)\n",
        )

    def test_nothing_to_listen_on(self) -> None:
        self.assertIn("listen: is empty", self.check(""))

    def test_web_pages(self) -> None:
        said = self.check(
            self.LISTEN + self.certificate() + '[web]\nurl = "http://example.test"\n'
        )
        self.assertIn('web.url: "http://example.test" is no address with TLS', said)
        self.assertIn("web.url: no service answers there", said)
        web = '[[listen]]\nservice = "https"\nendpoint = "tcp:443"\n'
        for url in ("https://mail.example.test", "https://a.test:8443/mail/"):
            said = self.check(
                self.LISTEN + web + self.certificate() + f'[web]\nurl = "{url}"\n'
            )
            self.assertIn("good (", said)

    def test_trusted_networks(self) -> None:
        said = self.check(
            self.LISTEN
            + """
[[smtp.trusted_networks]]
networks = ["192.168.1.20"]
send_as = ["scanner@example.test"]
[[smtp.trusted_networks]]
networks = ["0.0.0.0/0", "192.168.1.20/24"]
send_as = ["scanner"]
"""
        )
        self.assertEqual(
            said.splitlines(),
            [
                'smtp.trusted_networks[2].networks: "0.0.0.0/0" would let strangers'
                " send as your people; allowed: private networks, and single public"
                " addresses",
                "smtp.trusted_networks[2].networks: 192.168.1.20/24 has host bits set;"
                ' allowed: such as "192.168.1.20" or "192.168.1.0/24"',
                "smtp.trusted_networks[2].send_as: 'scanner' has no @; allowed: such as"
                ' "scanner@example.com"',
            ],
        )

    def test_name_servers(self) -> None:
        dns = '[dns]\nservers = ["127.0.0.1:53", "dns.example.test"]\n'
        self.assertEqual(
            self.check(self.LISTEN + dns),
            'dns.servers[2]: "dns.example.test" is no address; allowed: "192.0.2.53",'
            ' "192.0.2.53:5353" or "[::1]:5353"\n',
        )

    def test_endpoints(self) -> None:
        for endpoint, good in (
            ("tcp:25", True),
            ("tcp6:25:interface=\\\\:\\\\:1", True),
            ("haproxy:tcp:25", True),
            ("systemd:domain=INET:index=0", True),
            ("haproxy:systemd:domain=INET:index=0", True),
            ("haproxy:ssl:993", False),
            ("unix:/tmp/x", True),
            ("ssl:993", False),
            ("tpc:25", False),
            ("tcp:smtp", False),
            ("tcp", False),
            ("tcp:25:nonsense=1", False),
        ):
            output = self.check(
                f'[[listen]]\nservice = "smtp"\nendpoint = "{endpoint}"\n'
            )
            self.assertEqual(output.startswith("good"), good, (endpoint, output))
            if not good:
                self.assertIn("listen[1].endpoint: ", output)

    def test_lmtp_is_for_this_machine(self) -> None:
        for endpoint, good in (
            ("unix:/tmp/x", True),
            ("tcp:24:interface=127.0.0.1", True),
            ("tcp6:24:interface=\\\\:\\\\:1", True),
            ("tcp:24", False),
            ("tcp:24:interface=192.0.2.1", False),
            ("tcp:24:interface=localhost", False),
        ):
            text = f'[[listen]]\nservice = "lmtp"\nendpoint = "{endpoint}"\n'
            output = self.check(text)
            self.assertEqual("can be reached from elsewhere" in output, not good)

    def test_who_may_say_whose_connection_it_is(self) -> None:
        devices = (
            '[[smtp.trusted_networks]]\nnetworks = ["192.168.1.20"]\n'
            'send_as = ["scanner@example.test"]\n'
        )
        for endpoint, more, trusted, wrong in (
            ("haproxy:tcp:587", "", devices, "could claim"),
            ("haproxy:tcp:587:interface=127.0.0.1", "", devices, ""),
            ("haproxy:unix:/tmp/x", "", devices, ""),
            ("haproxy:tcp:587", 'proxies = ["192.0.2.1"]\n', devices, ""),
            ("haproxy:tcp:587", "", "", ""),
            ("haproxy:tcp:587", 'proxies = ["a.test"]\n', "", "a.test"),
            ("tcp:587", 'proxies = ["192.0.2.1"]\n', "", "asks no proxy"),
            ("tcp:587", "", devices, ""),
        ):
            text = f'[[listen]]\nservice = "submission"\nendpoint = "{endpoint}"\n'
            output = self.check(text + more + trusted)
            self.assertEqual("listen[1].proxies" in output, bool(wrong), output)
            self.assertIn(wrong, output)

    def test_implicit_tls_needs_a_certificate(self) -> None:
        output = self.check('[[listen]]\nservice = "imaps"\nendpoint = "tcp:993"\n')
        self.assertIn("listen[1].service", output)

    def test_certificates_are_read(self) -> None:
        text = self.LISTEN + self.certificate()
        (self.folder / "server.key").write_bytes(pair("a.test").key_pem())
        self.assertIn("is not the key of", self.check(text))
        (self.folder / "server.key").unlink()
        self.assertIn("No such file", self.check(text))

    def test_every_error_of_the_machine_at_once(self) -> None:
        output = self.check(
            self.LISTEN.replace("tcp:", "tpc:"),
            'version = 1\nhostname = "a"\ndata = "nowhere"\nuser = "no-such-user"\n',
        )
        self.assertIn("listen[1].endpoint", output)
        self.assertIn("user: ", output)
        self.assertIn("data: ", output)

    def test_the_data_folder(self) -> None:
        least = 'version = 1\nhostname = "a"\ndata = "nowhere"\n'
        self.assertIn("No such file", self.check(self.LISTEN, least))
        (self.folder / "nowhere").write_text("")
        self.assertIn("is not a folder", self.check(self.LISTEN, least))


class UserTests(ConfigCase):
    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() != 0:
            raise SkipTest("needs root, to give files to another user")

    LEAST = (
        'version = 1\nhostname = "mail.example.test"\ndata = "data"\nuser = "nobody"\n'
    )

    def test_the_user_has_to_own_all_mail(self) -> None:
        output = self.check(self.LISTEN, self.LEAST)
        self.assertIn("data does not belong to nobody", output)
        os.chown(self.folder / "data", 65534, 65534)
        self.assertIn("good", self.check(self.LISTEN, self.LEAST))
        (self.folder / "data" / "mail" / "anna@example.test").mkdir(parents=True)
        self.assertIn("mail does not belong", self.check(self.LISTEN, self.LEAST))

    def test_the_user_has_to_read_the_keys(self) -> None:
        os.chown(self.folder / "data", 65534, 65534)
        output = self.check(self.LISTEN + self.certificate(), self.LEAST)
        self.assertIn("tls.certificate[1].key: nobody cannot read", output)
