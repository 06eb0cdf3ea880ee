"""What is in etc/ fits the program."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import authenticator
from mailsrv.logs import text_line
from mailsrv.settings import Service, Settings
from mailsrv.settings_file import load
from tests.clients.server import ROOT

FILE = ROOT / "etc" / "mailsrv.toml"
# What an office has to say itself.
NO_DEFAULT = {
    "version",
    "hostname",
    "data",
    "user",
    "listen",
    "tls.certificate",
    "sendmail.domain",
}
AS_EXAMPLE = {
    "plugin",
    "relay.route",
    "relay.tls_policy",
    "sendmail.users",
    "smtp.trusted_networks",
}  # in comments: there is none that every office has
IN_COMMENT = {"web.url"}  # the default is that there is none


def leaves(table: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    # Any: values of TOML.
    for name, value in table.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{where}{name}.")
        else:
            yield f"{where}{name}", value


def tree(cls: type, where: str = "") -> Iterator[tuple[str, Any]]:
    # Any: defaults of all types.
    for field in attrs.fields(cls):
        hint = get_type_hints(cls)[field.name]
        if attrs.has(hint):
            yield from tree(hint, f"{where}{field.name}.")
        else:
            default = field.default
            made = isinstance(default, attrs.Factory)  # type: ignore[arg-type]
            yield f"{where}{field.name}", default.factory() if made else default


class SettingsFileTests(SynchronousTestCase):
    def test_it_loads(self) -> None:
        settings = load(FILE)
        self.assertEqual(settings.data, Path("/var/lib/mailsrv"))
        # LMTP is for those who have another server in front; pages need a name.
        services = {listener.service for listener in settings.listen}
        self.assertEqual(services | {"lmtp", "web", "https"}, set(get_args(Service)))

    def test_it_has_every_key_with_its_default(self) -> None:
        written = dict(leaves(tomllib.loads(FILE.read_text())))
        known = dict(tree(Settings))
        self.assertEqual(set(written), set(known) - AS_EXAMPLE - IN_COMMENT)
        for key in IN_COMMENT:
            self.assertIn(f"# {key.rpartition('.')[2]} = ", FILE.read_text())
        for key in AS_EXAMPLE:
            self.assertIn(f"# [[{key}]]\n", FILE.read_text())
        settings = load(FILE)
        for key in known.keys() - NO_DEFAULT - AS_EXAMPLE - IN_COMMENT:
            read = attrgetter(key)(settings)  # "4h" has become seconds
            self.assertEqual(read, known[key], key)


class UnitTests(SynchronousTestCase):
    def test_it_runs_what_the_package_installs(self) -> None:
        unit = (ROOT / "etc" / "mailsrv.service").read_text()
        self.assertIn("/bin/twistd --nodaemon --pidfile= mailsrv --config", unit)
        self.assertIn("/bin/mailsrv check-config", unit)
        self.assertIn("Type=notify", unit)


class Fail2banFilterTests(SynchronousTestCase):
    def setUp(self) -> None:
        lines = (ROOT / "etc" / "fail2ban-filter.conf").read_text().splitlines()
        (rule,) = [line for line in lines if line.startswith("failregex")]
        pattern = rule.partition(" = ")[2].replace("<HOST>", r"(?P<host>[0-9a-f.:]+)")
        self.pattern = re.compile(pattern)

    def banned(self, message: str, namespace: str, **fields: str) -> str | None:
        line = text_line(
            {
                "log_level": LogLevel.info,
                "log_namespace": namespace,
                "log_format": message,
                "session": "0123abcd",
                **fields,
            }
        )
        # fail2ban takes the time away before it compares.
        found = self.pattern.search(line.partition("Z")[2])
        return found and found["host"]

    def test_it_finds_a_failed_login(self) -> None:
        for peer in ("192.0.2.7", "2001:db8::7"):
            self.assertEqual(
                self.banned(
                    "login failed", authenticator.__name__, peer=peer, user="a b"
                ),
                peer,
            )

    def test_it_finds_nothing_else(self) -> None:
        fake = (
            "info mailsrv.accounts.authenticator session=1 peer=192.0.2.1 login failed"
        )
        for namespace in (authenticator.__name__, "mailsrv.smtp.session"):
            self.assertIsNone(
                self.banned("login", namespace, peer="192.0.2.7", user=fake)
            )
        self.assertIsNone(
            self.banned("login failed", "mailsrv.smtp", peer="192.0.2.7", user=fake)
        )
