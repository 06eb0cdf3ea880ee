"""OpenDKIM verifies what we sign."""

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.trust.dkim import Signer
from mailsrv.trust.dkim_keys import KeyFolder, State
from tests.trust.test_dkim import BODY, DOMAIN, HEADER, NOW

OPENDKIM = "/usr/sbin/opendkim"


class OpenDkimTests(SynchronousTestCase):
    def setUp(self) -> None:
        if shutil.which(OPENDKIM) is None:
            raise SkipTest("OpenDKIM is not installed")
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        keys = KeyFolder(self.folder / "dkim")
        made = keys.make(DOMAIN, State.ACTIVE, NOW)
        records = [keys.record(DOMAIN, key) for key in made]
        (self.folder / "records").write_text(
            "".join(f"{record.name} {record.value}\n" for record in records)
        )
        (self.folder / "conf").write_text(
            f"Mode v\nSyslog no\nTestPublicKeys {self.folder}/records\n"
        )

    def results(self, message: bytes) -> str:
        file = self.folder / "message"
        file.write_bytes(message)
        done = subprocess.run(
            [OPENDKIM, "-x", str(self.folder / "conf"), "-vv", "-t", str(file)],
            capture_output=True,
            timeout=20,
            check=False,
        )
        return done.stdout.decode()

    def test_it_verifies_both(self) -> None:
        fields = Signer(self.folder / "dkim", lambda: NOW).sign(HEADER, [BODY])
        good = fields + HEADER + b"\r\n" + BODY
        found = self.results(good)
        self.assertEqual(found.count("dkim=pass"), 2, found)
        self.assertIn("header.a=rsa-sha256", found)
        self.assertNotIn("dkim=pass", self.results(good.replace(b"always", b"never")))
