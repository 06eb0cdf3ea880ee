"""What is in etc/ fits the program."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import attrs
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.settings import Service, Settings
from mailsrv.settings_file import load
from tests.clients.server import ROOT

FILE = ROOT / "etc" / "mailsrv.toml"
# What an office has to say itself.
NO_DEFAULT = {"version", "hostname", "data", "user", "listen", "tls.certificate"}


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
            yield f"{where}{field.name}", field.default


class SettingsFileTests(SynchronousTestCase):
    def test_it_loads(self) -> None:
        settings = load(FILE)
        self.assertEqual(settings.data, Path("/var/lib/mailsrv"))
        self.assertEqual(
            {listener.service for listener in settings.listen}, set(get_args(Service))
        )

    def test_it_has_every_key_with_its_default(self) -> None:
        written = dict(leaves(tomllib.loads(FILE.read_text())))
        known = dict(tree(Settings))
        self.assertEqual(set(written), set(known))
        for key in known.keys() - NO_DEFAULT:
            self.assertEqual(written[key], known[key], key)


class UnitTests(SynchronousTestCase):
    def test_it_runs_what_the_package_installs(self) -> None:
        unit = (ROOT / "etc" / "mailsrv.service").read_text()
        self.assertIn("/bin/twistd --nodaemon --pidfile= mailsrv --config", unit)
        self.assertIn("/bin/mailsrv check-config", unit)
        self.assertIn("Type=notify", unit)
