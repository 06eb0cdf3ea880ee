"""Thunderbird itself, headless, driven by ``thunderbird.js``."""

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from twisted.python.util import sibpath

from tests.clients.marionette import Marionette
from tests.clients.server import Server

SCRIPT = Path(sibpath(__file__, "thunderbird.js"))
CLEAR, TLS = 0, 3  # nsMsgSocketType
OPTIONS = (
    "--headless",
    "--no-remote",
    "--marionette",
    "--remote-allow-system-access",
)
START_S = 60.0
STEP_S = 60.0  # the longest that one step may take

# No dialogue, no telemetry, no look-up outside: there is no network.
PREFERENCES: dict[str, bool | int | str] = {
    "app.donation.eoy.version.viewed": 999,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "extensions.getAddons.cache.enabled": False,
    "extensions.update.enabled": False,
    "mail.biff.alert.show": False,
    "mail.provider.suppress_dialog_on_startup": True,
    "mail.shell.checkDefaultClient": False,
    "mail.spotlight.firstRunDone": True,
    "mailnews.start_page.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "http://127.0.0.1:9/",
    "toolkit.telemetry.enabled": False,
}


class Thunderbird:
    """A running program with its profile, which is made if it is new."""

    def __init__(
        self, profile: Path, preferences: dict[str, bool | int | str] | None = None
    ) -> None:
        profile.mkdir(exist_ok=True)
        home = profile / "home"
        home.mkdir(exist_ok=True)
        # 0: any free port, which it writes into its profile.
        wanted = PREFERENCES | {"marionette.port": 0} | (preferences or {})
        (profile / "user.js").write_text(
            "".join(
                f"user_pref({json.dumps(name)}, {json.dumps(value)});\n"
                for name, value in wanted.items()
            )
        )
        written = profile / "MarionetteActivePort"
        written.unlink(missing_ok=True)
        self._output = profile / "output"
        with self._output.open("wb") as output:
            self._program = subprocess.Popen(
                ["thunderbird", *OPTIONS, "--profile", str(profile)],
                env=os.environ | {"HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            self._marionette = Marionette(self._port(written), STEP_S)
        except BaseException:
            self.kill()
            raise

    def _port(self, written: Path) -> int:
        """Wait until the program has written where it listens."""
        deadline = time.monotonic() + START_S
        while not (written.exists() and written.read_text()):
            if time.monotonic() > deadline or self._program.poll() is not None:
                raise AssertionError(self._output.read_text())
            time.sleep(0.05)
        return int(written.read_text())

    def do(self, action: str, **values: object) -> Any:
        """Have Thunderbird do `action`. Any: what it returns, as JSON."""
        call = f"return run({json.dumps(action)}, {json.dumps(values)});"
        return self._marionette.run(f"{SCRIPT.read_text()}\n{call}")

    def set_up(self, server: Server) -> None:
        """Make Anna's account, with TLS throughout."""
        pem = server.ca.read_text().splitlines()
        anna = server.account("anna")
        self.do(
            "setUp",
            host="localhost",
            imap=server.ports["imaps"],
            smtp=server.ports["submissions"],
            socketType=TLS,
            address=anna.address,
            login=anna.login,
            password=server.password("anna"),
            ca="".join(pem[1:-1]),
        )

    def quit(self) -> None:
        """End it as a person does: the profile is saved."""
        self.do("quit")
        self._program.wait(START_S)
        self._marionette.close()

    def kill(self) -> None:
        """End it at once; of no effect if it has ended."""
        self._program.kill()
        self._program.wait()
