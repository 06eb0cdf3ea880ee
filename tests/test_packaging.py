"""The package as it is installed: from a wheel, from the sources, editable.

Slow, since each has a virtual environment of its own; not part of ``make check``.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.server import ROOT, free_port_base

START_S = 60.0
SOURCES = ("mailsrv", "twisted", "setup.cfg", "pyproject.toml", "README.rst")


class Installed(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        # A copy: building leaves files among the sources.
        self.sources = self.folder / "sources"
        for name in SOURCES:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source,
                    self.sources / name,
                    ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"),
                )
            else:
                shutil.copy(source, self.sources / name)

    def run_in(self, folder: Path, *command: str | Path) -> str:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        done = subprocess.run(
            command,
            cwd=folder,
            env={**environment, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def new_environment(self) -> Path:
        """Make a virtual environment; return its ``bin``."""
        folder = self.folder / "env"
        venv.create(folder, with_pip=True, symlinks=True)
        return folder / "bin"

    def assert_works(self, binaries: Path) -> None:
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        listing = self.run_in(elsewhere, binaries / "twistd", "--help")
        self.assertIn("    mailsrv ", listing)
        self.run_in(elsewhere, binaries / "mailsrv", "--version")
        options = self.run_in(elsewhere, binaries / "twistd", "mailsrv", "--help")
        self.assertIn("--config", options)


class PackagingTests(Installed):
    def test_from_a_wheel(self) -> None:
        binaries = self.new_environment()
        self.run_in(
            self.sources, binaries / "pip", "wheel", "--no-deps", "-w", "dist", "."
        )
        (wheel,) = (self.sources / "dist").glob("*.whl")
        names = self.run_in(self.folder, sys.executable, "-m", "zipfile", "-l", wheel)
        self.assertIn("twisted/plugins/mailsrv_plugin.py", names)
        self.assertNotIn("twisted/__init__.py", names)
        self.assertNotIn("twisted/plugins/__init__.py", names)
        self.assertNotIn("tests/", names)
        self.run_in(self.sources, binaries / "pip", "install", wheel)
        shutil.rmtree(self.sources)
        self.assert_works(binaries)

    def test_from_the_sources(self) -> None:
        binaries = self.new_environment()
        self.run_in(self.sources, binaries / "pip", "install", ".")
        self.assert_works(binaries)

    def test_editable(self) -> None:
        binaries = self.new_environment()
        self.run_in(self.sources, binaries / "pip", "install", "-e", ".")
        self.assert_works(binaries)


class ReadmeTests(Installed):
    """The ten lines of the README give a working server."""

    def test_its_commands(self) -> None:
        readme = (ROOT / "README.rst").read_text()
        (block,) = re.findall(
            r"on Linux, and these sources::\n\n((?:    .*\n)+)", readme
        )
        *commands, serve = [line.strip() for line in block.splitlines()]
        base = free_port_base()
        for command in commands:
            if " quickstart " in command:
                command += f" --port-base {base}"
            printed = self.run_in(self.sources, "sh", "-c", command)
        password = re.search(r"anna@example\.test +(\S+)", printed)
        assert password is not None
        log = (self.folder / "log").open("wb")
        self.addCleanup(log.close)
        server = subprocess.Popen(
            ["sh", "-c", f"exec {serve}"],
            cwd=self.sources,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        self.addCleanup(server.wait)
        self.addCleanup(server.terminate)
        deadline = time.monotonic() + START_S
        while " ready: " not in (self.folder / "log").read_text():
            self.assertIsNone(server.poll(), (self.folder / "log").read_text())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        (curl,) = re.findall(r"^    (curl .*)$", readme, re.MULTILINE)
        curl = curl.replace("2993", str(base + 993)).replace(
            "anna@example.test", f"anna@example.test:{password[1]}"
        )
        self.assertIn("INBOX", self.run_in(self.sources, "sh", "-c", curl))
