"""A real ``twistd mailsrv`` for the tests that real clients make.

`ServerCase` starts one for each test from a new quickstart folder, with the accounts
anna and ben of example.test, and fails the test if the log shows an error.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.cli.quickstart import PORTS, NewAccount, set_up
from mailsrv.settings import LoginSettings

ROOT = Path(__file__).parent.parent.parent
HOST = "127.0.0.1"
DOMAIN = "example.test"
CHEAP = LoginSettings(
    cache_s=300.0,
    max_delay_s=1.0,
    argon2_memory_kib=64,
    argon2_passes=1,
    argon2_lanes=1,
)
START_S = 30.0  # a loaded machine; usually under one second
STOP_S = 30.0
RELOADED = "are reloaded"  # what the log says then
WAIT_S = 60.0  # for what the server does by itself
PAUSE_S = 0.02  # between two looks at another process
BAD_LEVELS = (" error ", " critical ")


class Server:
    """A folder of quickstart, and the process that serves it."""

    def __init__(
        self,
        folder: Path,
        *,
        accounts: Sequence[str] = ("anna", "ben"),
        settings: str = "",
        login: LoginSettings = CHEAP,
        user: str | None = None,
    ) -> None:
        """Set up `folder`; `settings` is TOML for the end of its settings.

        With `user` the server becomes that user, who then owns the folder.
        """
        self.folder = folder.absolute()
        set_up_here = set_up(
            self.folder, DOMAIN, ip_address(HOST), free_port_base(), accounts, login
        )
        self.config = Path(set_up_here.config)
        self.ca = Path(set_up_here.ca)
        self.ports = set_up_here.ports
        self.accounts = {
            account.address.partition("@")[0]: account
            for account in set_up_here.accounts
        }
        self._maildir = set_up_here.maildir
        self.log_file = self.folder / "mailsrv.log"
        self._process: subprocess.Popen[bytes] | None = None
        if settings:
            with self.config.open("a") as stream:
                stream.write(f"\n{settings}\n")
        if user is not None:
            text = self.config.read_text()
            self.config.write_text(f'user = "{user}"\n{text}')
            give_to(user, self.folder)

    def account(self, name: str) -> NewAccount:
        """The account ``NAME@example.test``: `address`, `login` and `password`."""
        return self.accounts[name]

    def password(self, name: str) -> str:
        password = self.accounts[name].password
        assert password is not None
        return password

    def maildir(self, name: str) -> Path:
        """The Maildir (that is INBOX) of an account."""
        return Path(self._maildir.format(account=self.accounts[name].address))

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it serves."""
        self.log_file.write_bytes(b"")
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-c",
                    "from twisted.scripts.twistd import run; run()",
                    "--nodaemon",
                    "--pidfile=",
                    "mailsrv",
                    f"--config={self.config}",
                ],
                cwd=self.folder,
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_S
        while not (" ready: " in self.log() and self._answers()):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(PAUSE_S)

    def _answers(self) -> bool:
        """Whether every port takes connections."""
        for port in self.ports.values():
            try:
                socket.create_connection((HOST, port), timeout=1.0).close()
            except OSError:
                return False
        return True

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run the ``mailsrv`` command with the settings of this server."""
        return subprocess.run(
            self.command_line(*arguments),
            env={**environment(), "MAILSRV_CONFIG": str(self.config)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    def command_line(self, *arguments: str) -> list[str]:
        main = "from mailsrv.cli.main import main; main()"
        return [sys.executable, "-c", main, *arguments]

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until the log holds `text` so many times."""
        deadline = time.monotonic() + WAIT_S
        while self.log().count(text) < times:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in the log:\n{self.log()}")
            time.sleep(PAUSE_S)

    def log(self) -> str:
        try:
            return self.log_file.read_text(errors="replace")
        except FileNotFoundError:
            return ""

    def hang_up(self) -> None:
        """Have the settings read again."""
        self._signal(signal.SIGHUP)

    def reload(self) -> None:
        """Have settings and accounts read again, and wait until they are used."""
        times = self.log().count(RELOADED)
        self.hang_up()
        self.wait_for_log(RELOADED, times + 1)

    def kill(self) -> None:
        """End the process as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def terminate(self) -> None:
        """Ask the process to end and wait for it."""
        if self._process is not None:
            self._signal(signal.SIGTERM)
            try:
                status = self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(
                    f"the server did not stop:\n{self.log()}"
                ) from None
            self._process = None
            # twistd ends itself by the signal that it got, once all is closed.
            if status not in (0, -signal.SIGTERM):
                raise AssertionError(f"ended with {status}:\n{self.log()}")

    def stop(self) -> None:
        """End it well, and fail if its log shows that something went wrong."""
        self.terminate()
        bad = self.bad_lines()
        if bad:
            raise AssertionError("in the server's log:\n" + "\n".join(bad))

    def bad_lines(self) -> list[str]:
        """Lines of errors and of tracebacks, and what Python says at its end."""
        return [
            line
            for line in self.log().splitlines()
            if line.startswith("\t")
            or "Traceback" in line
            or "Unhandled" in line
            or any(level in line[:40] for level in BAD_LEVELS)
        ]

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class ServerCase(SynchronousTestCase):
    """Has a running `server` in each test."""

    accounts: Sequence[str] = ("anna", "ben")
    settings = ""
    user: str | None = None
    started = True  # when a test begins

    def setUp(self) -> None:
        # Not trial's folder: some clients take no long path for their sockets.
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        if self.user is not None:
            self.folder.chmod(0o755)
        self.server = Server(
            self.folder / "server",
            accounts=self.accounts,
            settings=self.settings,
            user=self.user,
        )
        if self.started:
            self.server.start()
        self.addCleanup(self.server.stop)


def environment() -> dict[str, str]:
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def give_to(user: str, *paths: Path) -> None:
    """Let `user` own folders and all that is in them."""
    subprocess.run(["chown", "-R", f"{user}:", *paths], check=True)


def free_port_base() -> int:
    """A base whose seven ports are all free just now.

    Below 32768, where Linux takes the ports of outgoing connections from.
    """
    bases = list(range(10000, 31000, 1000))
    first = os.getpid() % len(bases)
    for base in bases[first:] + bases[:first]:
        if all(_is_free(base + port) for port in PORTS.values()):
            return base
    raise AssertionError("no free ports")


def free_port() -> int:
    """A port that is free just now; below 32768 as well."""
    first = 31000 + os.getpid() % 700
    return next(port for port in range(first, 32768) if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True
