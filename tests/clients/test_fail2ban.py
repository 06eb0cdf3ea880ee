"""fail2ban itself reads our log with our filter."""

import shutil
import subprocess
from pathlib import Path

from twisted.logger import LogLevel
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.accounts import authenticator
from mailsrv.logs import text_line
from tests.clients.server import ROOT


class Fail2banTests(SynchronousTestCase):
    def test_it_counts_the_failed_logins(self) -> None:
        if not shutil.which("fail2ban-regex"):
            raise SkipTest("fail2ban is not installed")
        file = Path(self.mktemp())
        file.write_text(
            "".join(
                text_line(
                    {
                        "log_time": 1e9,
                        "log_level": LogLevel.info,
                        "log_namespace": authenticator.__name__,
                        "log_format": message,
                        "session": "0123abcd",
                        "peer": "192.0.2.7",
                        "user": "anna login failed",
                    }
                )
                + "\n"
                for message in ("login failed", "login", "login failed")
            )
        )
        done = subprocess.run(
            ["fail2ban-regex", file, ROOT / "etc" / "fail2ban-filter.conf"],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        self.assertIn("3 lines, 0 ignored, 2 matched, 1 missed", done.stdout)
