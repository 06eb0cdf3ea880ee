"""The built-in plugin "alias-file"."""

import os
from pathlib import Path

from mailsrv.doors import contracts
from mailsrv.plugins.alias_file import AliasFile, alias_file

TEXT = """
# of the office
support: anna, Bert@Example.Test
root:
    anna
broken
half: a@b@c
   # no alias
staff@else.test anna@example.test, carl
"""


class AliasFileMakerTests(contracts.PluginMakerContract):
    options = {"file": "/etc/aliases", "domain": "example.test"}
    bad_options = (
        {},
        {"file": "/etc/aliases"},
        {"file": "aliases", "domain": "example.test"},
        {"file": "/etc/aliases", "domain": "the office"},
        {"file": "/etc/aliases", "domain": ""},
        {"file": ["/etc/aliases"], "domain": "example.test"},
        {"file": "/etc/aliases", "domain": "example.test", "reload": True},
    )

    def provider(self) -> object:
        return alias_file


class AliasFileTests(contracts.RecipientResolverContract):
    known = "support@example.test"

    def provider(self) -> AliasFile:
        self.file = Path(self.mktemp()).absolute()
        self.file.write_text(TEXT)
        options = {"file": str(self.file), "domain": "example.test"}
        return AliasFile(options, self.services())

    def test_what_stands_in_the_file(self) -> None:
        resolver = self.provider()
        for name, targets in (
            ("support@example.test", ["anna@example.test", "bert@example.test"]),
            ("root@example.test", ["anna@example.test"]),
            ("staff@else.test", ["anna@example.test", "carl@example.test"]),
            ("broken@example.test", None),
            ("half@example.test", None),
        ):
            self.assertEqual(resolver.resolve(name), targets, name)

    def test_a_new_file_is_read(self) -> None:
        resolver = self.provider()
        self.assertIsNone(resolver.resolve("new@example.test"))
        new = self.file.with_suffix(".new")
        new.write_text("new: anna\n")
        os.replace(new, self.file)
        self.assertEqual(resolver.resolve("new@example.test"), ["anna@example.test"])
        self.assertIsNone(resolver.resolve("root@example.test"))

    def test_without_the_file_nobody_is_unknown(self) -> None:
        resolver = self.provider()
        self.file.unlink()
        self.assertRaises(FileNotFoundError, resolver.resolve, self.known)
