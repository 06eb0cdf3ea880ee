"""Programs that know an account from Dovecot meet mailsrv, and the other way round.

Each has its state from the one server when the other takes the port over. Counted is
what goes over the wire: only mail that is new may be fetched.
"""

import shutil
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from mailsrv.cli.quickstart import PORTS
from tests.clients.counting_proxy import CountingProxy
from tests.clients.dovecot import USER, Dovecot
from tests.clients.picture import Login
from tests.clients.server import ServerCase, free_port_base
from tests.clients.thunderbird import CLEAR, Thunderbird

OLD = 6  # messages in INBOX
FOLDERS = ("Kunden", "Kunden/&AMQ-lter")  # with one message each


def message(subject: str) -> bytes:
    return (
        f"From: x@other.test\r\nTo: anna@example.test\r\nSubject: {subject}\r\n"
        f"Message-ID: <{subject}@other.test>\r\n"
        f"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\nThis is {subject}.\r\n"
    ).encode()


class OldStateCase(ServerCase):
    """`sync` runs the program once; `service` is what it speaks."""

    user = USER
    started = False
    # What is fetched could not be counted.
    settings = '[imap]\ndisabled_extensions = ["COMPRESS=DEFLATE"]'
    service = "imap"
    program = ""

    def setUp(self) -> None:
        if shutil.which(self.program) is None:
            raise SkipTest(f"{self.program} is not installed")
        super().setUp()
        base = free_port_base()
        self.dovecot = Dovecot(
            self.server, ports={name: base + port for name, port in PORTS.items()}
        )
        self.addCleanup(self.dovecot.stop)
        self.anna = Login(self.server, "anna", dict(self.dovecot.ports))
        self.proxy = CountingProxy(self.dovecot.ports[self.service])
        self.addCleanup(self.proxy.close)
        self.dovecot.start()
        self.dovecot.deliver("anna", *(message(f"old {n}") for n in range(OLD)))
        client = self.anna.imap()
        for name in FOLDERS:
            client.create(f'"{name}"')
            client.subscribe(f'"{name}"')
            client.append(f'"{name}"', r"(\Seen)", "", message(f"in {len(name)}"))
        client.select("INBOX")
        client.store("2", "+FLAGS", r"(\Seen \Flagged $label1)")
        client.logout()

    def sync(self) -> None:
        raise NotImplementedError

    def fetched(self) -> int:
        """Run the program; return how much it has fetched."""
        before = self.proxy.count
        self.sync()
        return self.proxy.count - before

    def to_mailsrv(self) -> None:
        self.dovecot.stop()
        self.server.start()
        self.proxy.backend = self.server.ports[self.service]
        self.anna.ports = self.server.ports

    def to_dovecot(self) -> None:
        self.server.stop()
        self.dovecot.start()
        self.proxy.backend = self.dovecot.ports[self.service]
        self.anna.ports = dict(self.dovecot.ports)

    def there_and_back(self, first: int) -> None:
        self.assertEqual(self.fetched(), first)
        self.assertEqual(self.fetched(), 0)
        self.to_mailsrv()
        self.assertEqual(self.fetched(), 0)
        self.append("new 1")
        self.assertEqual(self.fetched(), 1)
        self.to_dovecot()
        self.assertEqual(self.fetched(), 0)
        self.append("new 2")
        self.assertEqual(self.fetched(), 1)

    def append(self, subject: str) -> None:
        client = self.anna.imap()
        client.append("INBOX", "", "", message(subject))
        client.logout()

    def run_client(self, *command: str | Path, home: Path | None = None) -> str:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": "/usr/bin:/bin", "HOME": str(home or self.folder)},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


class MbsyncTests(OldStateCase):
    program = "mbsync"

    def setUp(self) -> None:
        super().setUp()
        near = self.folder / "near"
        near.mkdir()
        self.rules = self.folder / "mbsyncrc"
        self.rules.write_text(
            _MBSYNCRC.format(
                port=self.proxy.port, password=self.anna.password, near=near
            )
        )

    def sync(self) -> None:
        self.run_client("mbsync", "--config", self.rules, "all")

    def test_it(self) -> None:
        self.there_and_back(OLD + len(FOLDERS))
        files = [p for p in (self.folder / "near").glob("**/*") if ",U=" in p.name]
        self.assertEqual(len(files), OLD + len(FOLDERS) + 2)


class GetmailTests(OldStateCase):
    program = "getmail"
    service = "pop3"

    def setUp(self) -> None:
        super().setUp()
        self.getmail = self.folder / "getmail"
        self.getmail.mkdir()
        (self.getmail / "getmailrc").write_text(
            _GETMAILRC.format(
                port=self.proxy.port,
                login=self.anna.address,
                password=self.anna.password,
                # Its own Maildir refuses to work for root.
                dd=shutil.which("dd"),
                got=self.folder / "got",
            )
        )

    def sync(self) -> None:
        self.run_client("getmail", "--getmaildir", self.getmail)

    def test_it(self) -> None:
        self.there_and_back(OLD)


class MpopTests(OldStateCase):
    program = "mpop"
    service = "pop3"

    def sync(self) -> None:
        rules = self.folder / "mpoprc"
        rules.write_text(
            f"account anna\nhost 127.0.0.1\nport {self.proxy.port}\ntls off\n"
            f"auth user\nuser {self.anna.address}\npassword {self.anna.password}\n"
            f"keep on\nuidls_file {self.folder}/uidls\n"
            f"delivery mbox {self.folder}/got\nreceived_header off\n"
        )
        rules.chmod(0o600)
        self.run_client("mpop", "--file", rules, "anna")

    def test_it(self) -> None:
        self.there_and_back(OLD)


class OfflineimapTests(OldStateCase):
    program = "offlineimap"

    def sync(self) -> None:
        rules = self.folder / "offlineimaprc"
        rules.write_text(
            _OFFLINEIMAPRC.format(
                folder=self.folder,
                port=self.proxy.port,
                login=self.anna.address,
                password=self.anna.password,
            )
        )
        self.run_client("offlineimap", "-c", rules, "-o", "-u", "quiet")

    def test_it(self) -> None:
        self.there_and_back(OLD + len(FOLDERS))


class ThunderbirdTests(OldStateCase):
    program = "thunderbird"

    def test_it(self) -> None:
        thunderbird = self.begin()
        thunderbird.do(
            "setUp",
            host="127.0.0.1",
            imap=self.proxy.port,
            smtp=self.proxy.port,  # nothing is sent
            socketType=CLEAR,
            address=self.anna.address,
            login=self.anna.address,
            password=self.anna.password,
        )
        self.look(thunderbird, f"old {OLD - 1}")
        for folder in ("Inbox", "Kunden"):
            thunderbird.do("download", folder=folder)
        thunderbird.quit()
        self.assertEqual(self.uids(), {b"%d" % n for n in range(1, OLD + 1)})
        for number, change in enumerate((self.to_mailsrv, self.to_dovecot), 1):
            self.proxy.cut()
            change()
            self.append(f"new {number}")
            self.proxy.fetched.clear()
            thunderbird = self.begin()
            thunderbird.do("logIn", password=self.anna.password)
            self.look(thunderbird, f"new {number}")
            source = thunderbird.do("source", folder="Inbox", subject="old 0")
            self.assertIn("This is old 0.", source["end"])
            thunderbird.do("download", folder="Inbox")
            thunderbird.quit()
            self.assertEqual(self.uids(), {b"%d" % (OLD + number)})

    def begin(self) -> Thunderbird:
        thunderbird = Thunderbird(self.folder / "profile", _NOTHING_BY_ITSELF)
        self.addCleanup(thunderbird.kill)
        return thunderbird

    def look(self, thunderbird: Thunderbird, newest: str) -> None:
        thunderbird.do("waitFor", folder="Inbox", subject=newest)
        seen = thunderbird.do("waitFor", folder="Inbox", subject="old 1")
        self.assertTrue(seen["read"] and seen["flagged"])
        thunderbird.do("waitFor", folder="Kunden", subject="in 6")

    def uids(self) -> set[bytes]:
        """Of all that was fetched of any message."""
        return {key.partition(b" ")[0] for key in self.proxy.fetched}


_NOTHING_BY_ITSELF: dict[str, bool | int | str] = {
    "mail.server.default.autosync_offline_stores": False,
    "mail.server.default.check_new_mail": False,
    "mail.server.default.login_at_startup": False,
}

_MBSYNCRC = """\
IMAPAccount anna
Host 127.0.0.1
Port {port}
User anna@example.test
Pass {password}
SSLType None
AuthMechs LOGIN
DisableExtension COMPRESS=DEFLATE

IMAPStore far
Account anna

MaildirStore near
Path {near}/
Inbox {near}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
"""

_GETMAILRC = """\
[retriever]
type = SimplePOP3Retriever
server = 127.0.0.1
port = {port}
username = {login}
password = {password}
[destination]
type = MDA_external
path = {dd}
arguments = ('of={got}', 'oflag=append', 'conv=notrunc', 'status=none')
allow_root_commands = true
[options]
read_all = false
"""

_OFFLINEIMAPRC = """\
[general]
accounts = anna
metadata = {folder}/offlineimap
[Account anna]
localrepository = near
remoterepository = far
[Repository near]
type = Maildir
localfolders = {folder}/offline
[Repository far]
type = IMAP
remotehost = 127.0.0.1
remoteport = {port}
remoteuser = {login}
remotepass = {password}
ssl = no
starttls = no
auth_mechanisms = LOGIN
"""
