"""What stands in an account's folder when the server starts is made ready."""

import time

from tests.clients.server import PAUSE_S, ServerCase

MOST_S = 30.0


class TakingOverTests(ServerCase):
    started = False

    def test_a_maildir_is_taken_over_before_its_first_client_comes(self) -> None:
        maildir = self.server.maildir("anna")
        for folder in (maildir, maildir / ".Work"):
            for sub in ("cur", "new", "tmp"):
                (folder / sub).mkdir(parents=True, exist_ok=True)
            (folder / "cur" / "1.a.b:2,S").write_bytes(b"Subject: s\n\ntext\n")
        self.server.start()
        deadline = time.monotonic() + MOST_S
        lists = [folder / "dovecot-uidlist" for folder in (maildir, maildir / ".Work")]
        while not all(each.exists() for each in lists):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(PAUSE_S)
