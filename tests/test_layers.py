"""Imports point one way (docs/architecture): this table is the rule."""

import ast
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parent.parent / "mailsrv"

# A package may import those of lower rank and itself; equal ranks do not meet.
RANK = {
    "mime": 0,
    "settings": 0,
    "interfaces": 0,
    "proxy_protocol": 0,
    "settings_file": 1,
    "logs": 1,
    "threads": 1,
    "store": 1,
    "doors": 2,
    "dns": 2,
    "accounts": 3,
    "tls": 3,
    "connections": 4,
    "mailboxes": 4,
    "outlet": 4,
    "routing": 4,
    "trust": 4,
    "imap": 5,
    "pop3": 5,
    "queue": 5,
    "smtp": 6,
    "relay": 7,
    "lists": 7,
    "checks": 8,
    "flow": 8,
    "web": 8,
    "listeners": 9,
    "parts": 9,
    "service": 10,
    "cli": 11,
    "plugins": 11,
}
# Engines: octets and values only.
PURE = {"grammar", "parser", "engine", "client_engine", "format", "reply", "sequence"}
PURE |= {"search_keys", "search_arguments"}


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    if path.name == "interfaces.py":  # names the values passed, for mypy alone
        tree.body = [n for n in tree.body if not isinstance(n, ast.If)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


class LayersTests(SynchronousTestCase):
    def modules(self) -> list[tuple[Path, str]]:
        found = [
            (path, path.relative_to(ROOT).with_suffix("").parts[0])
            for path in sorted(ROOT.rglob("*.py"))
        ]
        self.assertGreater(len(found), 5)
        return [(path, package) for path, package in found if package != "__init__"]

    def test_imports_point_one_way(self) -> None:
        for path, package in self.modules():
            for name in imports(path):
                head, _, rest = name.partition(".")
                if head != "mailsrv" or not rest:
                    continue
                other = rest.split(".")[0]
                if other != package:
                    self.assertLess(
                        RANK[other], RANK[package], f"{path} imports {name}"
                    )

    def test_engines_and_store_do_not_know_twisted(self) -> None:
        for path, package in self.modules():
            if package in ("store", "mime", "settings") or path.stem in PURE:
                for name in imports(path):
                    self.assertNotEqual(
                        name.split(".")[0], "twisted", f"{path} imports {name}"
                    )

    def test_inits_are_empty(self) -> None:
        for path in ROOT.rglob("__init__.py"):
            if path.parent.name != "plugins":
                self.assertEqual(path.read_text(), "", str(path))
