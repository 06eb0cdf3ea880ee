"""Mail readers of Debian in a terminal: neomutt and aerc; and offlineimap both ways."""

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.clients.server import WAIT_S
from tests.clients.terminal import Terminal
from tests.clients.test_imap_clients import ImapCase, message

COMPOSED = "Written by a reader."


class ReaderCase(ImapCase):
    program = ""

    def setUp(self) -> None:
        if shutil.which(self.program) is None:
            raise SkipTest(f"{self.program} is not installed")
        super().setUp()
        self.client = self.imaplib_client()
        self.addCleanup(self.client.shutdown)
        for n in range(1, 4):
            self.client.append("INBOX", "", "", message(n))

    def home(self) -> dict[str, str]:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "SSL_CERT_FILE": str(self.server.ca),
            "EDITOR": "true",
        }

    def eventually(self, what: str, condition: Callable[[], bool]) -> None:
        if not self.soon(condition, WAIT_S):
            raise AssertionError(f"never: {what}")

    def soon(self, condition: Callable[[], bool], wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def search(self, mailbox: str, *keys: str) -> list[bytes]:
        self.client.select(mailbox, readonly=True)
        found: list[bytes] = self.client.search(None, *keys)[1][0].split()
        return found


class NeomuttTests(ReaderCase):
    program = "neomutt"

    def rules(self) -> Path:
        rules = self.folder / "neomuttrc"
        (self.folder / "bodies").mkdir(exist_ok=True)
        account = "anna@example.test"
        password = self.server.password("anna")
        imap, smtp = (self.server.ports[name] for name in ("imaps", "submissions"))
        rules.write_text(
            f'set imap_user="{account}"\nset imap_pass="{password}"\n'
            f'set smtp_url="smtps://{account.replace("@", "%40")}@localhost:{smtp}/"\n'
            f'set smtp_pass="{password}"\nset from="{account}"\n'
            f'set folder="imaps://localhost:{imap}/"\nset spoolfile="+INBOX"\n'
            f'set record="+Sent"\nset trash="+Trash"\nset mail_check=1\nset timeout=1\n'
            f'set certificate_file="{self.server.ca}"\nset ssl_force_tls=yes\n'
            f'set header_cache="{self.folder}/headers"\n'
            f'set message_cachedir="{self.folder}/bodies"\n'
            "set imap_check_subscribed=yes\nset sleep_time=0\nset confirmappend=no\n"
            "set abort_unmodified=no\nset delete=yes\nset move=no\nset quit=yes\n"
            "set wait_key=no\n"
            'set status_format="-- %f %m messages --"\n'
        )
        return rules

    def start(self) -> Terminal:
        terminal = Terminal(
            "neomutt", "-n", "-F", str(self.rules()), environment=self.home()
        )
        self.addCleanup(terminal.close)
        return terminal

    def test_a_session(self) -> None:
        terminal = self.start()
        terminal.wait_for("mail 3")
        terminal.press("1\n\n")  # to the first message, and read it
        terminal.wait_for("body")
        terminal.press("i")
        terminal.press("2\nF")  # flag the second
        terminal.press("3\nC+Archive\n")  # copy the third
        terminal.wait_for("Cop")
        terminal.press("3\nd$")  # delete it: to Trash
        self.eventually("copied", lambda: bool(self.search("Archive", "ALL")))
        self.eventually("trashed", lambda: bool(self.search("Trash", "ALL")))
        self.assertEqual(self.search("INBOX", "FLAGGED"), [b"2"])
        self.assertEqual(self.search("INBOX", "SEEN"), [b"1"])
        # Somebody else's change comes by IDLE or at the next look.
        self.client.select("INBOX")
        self.client.append("INBOX", "", "", message(4))
        terminal.press("$")
        terminal.wait_for("mail 4")
        terminal.press("q")
        self.assertEqual(terminal.wait(), 0)
        # Again, from the header cache.
        before = self.server.log().count("login user=anna")
        terminal = self.start()
        terminal.wait_for("mail 4")
        terminal.press("q")
        self.assertEqual(terminal.wait(), 0)
        self.assertGreater(self.server.log().count("login user=anna"), before)

    def test_send(self) -> None:
        text = self.folder / "text"
        text.write_text(COMPOSED)
        self.run_client(
            "sh",
            "-c",
            f"HOME={self.folder} neomutt -n -F {self.rules()} -s Composed"
            f" ben@example.test < {text}",
        )
        ben = self.server.maildir("ben")
        self.eventually("delivered", lambda: bool(list((ben / "new").iterdir())))

    def test_compose(self) -> None:
        terminal = self.start()
        terminal.wait_for("mail 3")
        terminal.press("mben@example.test\nComposed\n")
        terminal.wait_for("Send")
        terminal.press("y")
        self.eventually("kept", lambda: len(self.search("Sent", "ALL")) == 1)
        self.assertEqual(len(self.search("Sent", "SUBJECT", "Composed")), 1)
        ben = self.server.maildir("ben")
        self.eventually("delivered", lambda: bool(list((ben / "new").iterdir())))


class AercTests(ReaderCase):
    program = "aerc"

    def configured(self) -> dict[str, str]:
        home = self.home()
        folder = Path(home["HOME"]) / ".config" / "aerc"
        folder.mkdir(parents=True)
        login = f"anna%40example.test:{self.server.password('anna')}@localhost"
        imap, smtp = (self.server.ports[name] for name in ("imaps", "submissions"))
        (folder / "accounts.conf").write_text(
            f"[anna]\nsource = imaps://{login}:{imap}\n"
            f"outgoing = smtps+plain://{login}:{smtp}\ndefault = INBOX\n"
            "from = Anna <anna@example.test>\ncopy-to = Sent\ncache-headers = true\n"
        )
        (folder / "accounts.conf").chmod(0o600)
        editor = self.folder / "editor"
        editor.write_text(f'#!/bin/sh\necho "{COMPOSED}" >> "$1"\n')
        editor.chmod(0o755)
        return {**home, "EDITOR": str(editor)}

    def test_a_session(self) -> None:
        self.client.create("Neu")
        self.client.subscribe("Neu")
        terminal = Terminal("aerc", environment=self.configured())
        self.addCleanup(terminal.close)
        terminal.wait_for("mail 1")

        def do(keys: str, mailbox: str, *search: str, count: int = 1) -> None:
            terminal.press(keys)
            self.eventually(
                keys, lambda: len(self.search(mailbox, *(search or ("ALL",)))) == count
            )

        def flagged() -> bool:
            terminal.press(":flag\n")
            return self.soon(lambda: len(self.search("INBOX", "FLAGGED")) == 1, 5)

        # It shows its list before it takes commands; this one may be given again.
        self.eventually(":flag", flagged)
        do(":read\n", "INBOX", "SEEN")
        do(":cp Neu\n", "Neu")
        do(":mv Archive\n", "Archive")
        do(":delete\n", "INBOX")
        self.client.select("INBOX")
        self.client.append("INBOX", "", "", message(7))
        terminal.wait_for("mail 7")  # by IDLE
        terminal.press(":compose -H 'To: ben@example.test' -H 'Subject: Composed'\n")
        terminal.wait_for("Send")
        terminal.press("y")
        self.eventually(
            "sent", lambda: len(self.search("Sent", "BODY", f'"{COMPOSED}"')) == 1
        )
        ben = self.server.maildir("ben")
        self.eventually("delivered", lambda: bool(list((ben / "new").iterdir())))
        terminal.press(":quit\n")
        self.assertEqual(terminal.wait(), 0)


class OfflineimapTests(ReaderCase):
    program = "offlineimap"

    def sync(self) -> None:
        rules = self.folder / "offlineimaprc"
        rules.write_text(
            _OFFLINEIMAPRC.format(
                folder=self.folder,
                port=self.server.ports["imaps"],
                password=self.server.password("anna"),
                ca=self.server.ca,
            )
        )
        self.run_client("offlineimap", "-c", str(rules), "-o", "-u", "basic")

    def near(self, name: str = "INBOX") -> list[Path]:
        folder = self.folder / "near" / name
        return sorted(p for sub in ("new", "cur") for p in (folder / sub).iterdir())

    def test_both_ways(self) -> None:
        self.sync()
        self.assertEqual(len(self.near()), 3)
        self.assertTrue((self.folder / "near" / "Sent" / "cur").is_dir())
        # Here a flag, a deletion, a new message and a new folder; there too.
        one, two, _ = self.near()
        cur = self.folder / "near" / "INBOX" / "cur"
        one.rename(cur / f"{one.name.split(':')[0]}:2,FS")
        two.unlink()
        (cur / "1.new.here:2,S").write_bytes(b"Subject: from here\n\nx\n")
        made = self.folder / "near" / "Made"
        for sub in ("cur", "new", "tmp"):
            (made / sub).mkdir(parents=True)
        self.client.select("INBOX")
        self.client.store("3", "+FLAGS", r"(\Answered)")
        self.client.create("There")
        self.client.append("There", "", "", message(9))
        self.sync()
        self.assertEqual(len(self.search("INBOX", "FLAGGED", "SEEN")), 1)
        self.assertEqual(len(self.search("INBOX", "ANSWERED")), 1)
        self.assertEqual(len(self.search("INBOX", "SUBJECT", '"from here"')), 1)
        self.assertEqual(len(self.search("INBOX", "ALL")), 3)
        self.assertEqual(self.client.status("Made", "(MESSAGES)")[0], "OK")
        self.assertEqual(len(self.near("There")), 1)
        self.assertEqual(sum(":2,R" in path.name for path in self.near()), 1)
        before = self.near()
        self.sync()
        self.assertEqual(self.near(), before)


_OFFLINEIMAPRC = """\
[general]
accounts = anna
metadata = {folder}/offlineimap
[Account anna]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {folder}/near
[Repository far]
type = IMAP
remotehost = localhost
remoteport = {port}
remoteuser = anna@example.test
remotepass = {password}
ssl = yes
sslcacertfile = {ca}
"""
