"""Dovecot's imaptest, if the environment's IMAPTEST names its binary.

Its scripted tests are looked for in IMAPTEST_TESTS, or else in `tests` beside the
binary. IMAPTEST_S is for how many seconds the stress lasts (60).
"""

import os
import re
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.clients.server import HOST, ServerCase

SECONDS = int(os.environ.get("IMAPTEST_S", "60"))
CLIENTS = 50
_GROUPS = re.compile(r"(\d+) test groups: (\d+) failed, (\d+) skipped")


class ImaptestTests(ServerCase):
    def setUp(self) -> None:
        self.binary = os.environ.get("IMAPTEST", "")
        if not self.binary:
            raise SkipTest("the environment variable IMAPTEST names no binary")
        beside = Path(self.binary).parent / "tests"
        self.tests = Path(os.environ.get("IMAPTEST_TESTS", beside))
        super().setUp()

    def run_imaptest(self, *options: str) -> str:
        done = subprocess.run(
            [
                self.binary,
                f"host={HOST}",
                f"port={self.server.ports['imap']}",
                f"user={self.server.account('anna').address}",
                f"pass={self.server.password('anna')}",
                f"mbox={self.tests / 'default.mbox'}",
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=SECONDS + 300,
            errors="replace",
        )
        return done.stdout + done.stderr

    def test_scripted(self) -> None:
        said = self.run_imaptest(f"test={self.tests}")
        found = _GROUPS.search(said)
        assert found is not None, said[-5000:]
        self.assertGreater(int(found[1]), 50)
        failed = re.findall(r"^\*\*\* Test .*$\n.*$", said, re.MULTILINE)
        self.assertEqual((failed, int(found[2])), ([], 0))

    def test_stress(self) -> None:
        said = self.run_imaptest(f"clients={CLIENTS}", f"secs={SECONDS}")
        self.assertIn("Totals:", said)
        wrong = [line for line in said.splitlines() if "Error:" in line]
        self.assertEqual(wrong, [])
