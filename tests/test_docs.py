"""The documents keep up with the code."""

import csv
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docs.settings_reference import reference
from mailsrv.settings import Settings
from tests.clients.server import ROOT
from tests.test_etc import AS_EXAMPLE, tree

CITED = re.compile(r"\bRFC (\d{3,5})\b")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of docs/rfc.rst."""

    number: str
    title: str
    status: str
    modules: list[str]
    tests: list[str]
    note: str


@cache
def rows() -> list[Row]:
    text = (ROOT / "docs" / "rfc.rst").read_text()
    lines = [
        line.strip()
        for line in text.splitlines()
        if line.count("|") == 5 and ":header:" not in line
    ]
    return [
        Row(
            number.strip(),
            title.strip(),
            status.strip(),
            modules.split(),
            tests.split(),
            note.strip(),
        )
        for number, title, status, modules, tests, note in csv.reader(
            lines, delimiter="|", skipinitialspace=True
        )
    ]


def cited_in(path: Path) -> set[str]:
    return set(CITED.findall(path.read_text()))


def python_file(name: str) -> Path:
    """The file of a module, or of a package (its folder)."""
    path = ROOT / name.replace(".", "/")
    return path if path.is_dir() else path.with_suffix(".py")


def cited(path: Path) -> set[str]:
    files = path.rglob("*.py") if path.is_dir() else [path]
    return set().union(*(cited_in(file) for file in files))


class RfcTableTests(SynchronousTestCase):
    def test_every_cited_rfc_has_a_row(self) -> None:
        missing = cited(ROOT / "mailsrv") - {row.number for row in rows()}
        self.assertEqual(sorted(missing, key=int), [])

    def test_rows_are_in_order_and_complete(self) -> None:
        self.assertGreater(len(rows()), 20)
        numbers = [int(row.number) for row in rows()]
        self.assertEqual(numbers, sorted(set(numbers)))
        for row in rows():
            self.assertIn(row.status, ("yes", "part"), row)
            self.assertTrue(row.title and row.modules, row)
            if row.status == "part":
                self.assertTrue(row.note, f"RFC {row.number}: what is missing?")

    def test_modules_exist_and_cite_it(self) -> None:
        for row in rows():
            for name in row.modules:
                self.assertTrue(python_file(name).exists(), f"{row.number}: {name}")
            found = set().union(*(cited(python_file(name)) for name in row.modules))
            self.assertIn(row.number, found, f"RFC {row.number} in {row.modules}")

    def test_tests_exist(self) -> None:
        for row in rows():
            if row.status == "yes":
                self.assertTrue(row.tests, f"RFC {row.number} has no test")
            for name in row.tests:
                self.assertTrue(python_file(name).exists(), f"{row.number}: {name}")


class SettingsReferenceTests(SynchronousTestCase):
    def test_every_key_is_in_it(self) -> None:
        text = reference()
        for key, _ in tree(Settings):
            many = key in ("listen", *AS_EXAMPLE, "tls.certificate")
            shown = f"[[{key}]]" if many else f"``{key}``"
            self.assertIn(shown, text)
        self.assertNotIn("attr", text)


class PluginsPageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.text = (ROOT / "docs" / "plugins.rst").read_text()

    def test_every_door_is_on_it(self) -> None:
        source = (ROOT / "mailsrv" / "interfaces.py").read_text()
        interfaces = re.findall(r"^class (I\w+)", source, re.MULTILINE)
        # Not for plugins to provide.
        for name in {*interfaces} - {"IAccountDatabase", "IContent"}:
            self.assertIn(f"   :pyobject: {name}\n", self.text)

    def test_every_built_in_plugin_is_on_it(self) -> None:
        for file in (ROOT / "mailsrv" / "plugins").glob("*.py"):
            if file.stem != "__init__":
                self.assertIn(f"``{file.stem.replace('_', '-')}``\n", self.text)

    def test_the_examples_are_short(self) -> None:
        names = re.findall(r"literalinclude:: \.\./(tests/\S+\.py)", self.text)
        self.assertEqual(len(names), 3)
        for name in names:
            lines = (ROOT / name).read_text().splitlines()
            self.assertLessEqual(len([line for line in lines if line]), 30, name)
