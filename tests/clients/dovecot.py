"""A real Dovecot on the mail of a test server, with its accounts and certificate.

Both run as the user ``mail``: Dovecot reads no mail as root. It is 2.3 or 2.4, as PATH
has it; settings are given as 2.3 writes them.
"""

import os
import pwd
import shutil
import signal
import smtplib
import socket
import subprocess
import time
from collections.abc import Mapping
from functools import cache

from twisted.trial.unittest import SkipTest

from tests.clients.server import HOST, PAUSE_S, START_S, STOP_S, Server

USER = "mail"


class Dovecot:
    """Serves IMAP and POP3 with TLS, and LMTP on a socket in its folder.

    On the ports of `server`, which is stopped then, unless `ports` say otherwise.
    `mail` is a Maildir that stands for that of the server's accounts; `layout` is
    added to mail_location (":UTF-8" or nothing), `settings` to the end of the file.
    """

    def __init__(
        self,
        server: Server,
        *,
        ports: Mapping[str, int] | None = None,
        mail: str = "",
        layout: str = "",
        settings: str = "",
    ) -> None:
        for program in ("dovecot", "doveadm"):
            if shutil.which(program) is None:
                raise SkipTest(f"{program} is not installed (Debian: dovecot-core)")
        if os.geteuid() != 0:
            raise SkipTest("needs root, to run Dovecot as another user")
        self.server = server
        self.ports = ports or server.ports
        self.folder = server.folder.parent / "dovecot"  # its helpers are other users
        self.folder.mkdir(exist_ok=True)
        self.folder.chmod(0o755)
        self.lmtp_socket = self.folder / "run" / "lmtp"
        self.tolerated: tuple[str, ...] = ("Killed with signal",)  # its own end
        self._config = self.folder / "dovecot.conf"
        self._log = self.folder / "errors.log"
        self._process: subprocess.Popen[bytes] | None = None
        owner = pwd.getpwnam(USER)
        passwords = self.folder / "passwd"
        passwords.write_text(
            "".join(
                f"{account.address}:{{PLAIN}}{account.password}\n"
                for account in server.accounts.values()
            )
        )
        passwords.chmod(0o644)
        new = version() >= (2, 4)
        if new:
            layout = "mailbox_list_utf8 = yes" if layout == ":UTF-8" else layout
            settings = in_2_4(settings)
        self._config.write_text(
            (_CONFIG_2_4 if new else _CONFIG).format(
                version=".".join(map(str, version())),
                home=self.folder,
                host=HOST,
                tls=server.folder / "tls",
                maildir=mail or f"{server.folder}/data/mail/{_USER[new]}/Maildir",
                homes=self.folder / "homes",
                layout=layout,
                uid=owner.pw_uid,
                gid=owner.pw_gid,
                imap=self.ports["imap"],
                imaps=self.ports["imaps"],
                pop3=self.ports["pop3"],
                pop3s=self.ports["pop3s"],
                settings=settings,
            )
        )

    def start(self) -> None:
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                ["dovecot", "-F", "-c", self._config],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        deadline = time.monotonic() + START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(
                    (self.folder / "output").read_text() + self.errors()
                )
            time.sleep(PAUSE_S)

    def _answers(self) -> bool:
        try:
            for name in ("imaps", "pop3s"):
                socket.create_connection((HOST, self.ports[name]), 1.0).close()
        except OSError:
            return False
        return self.lmtp_socket.exists()

    def stop(self) -> None:
        """End it, and fail if it found anything wrong with the mail."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        finally:
            self.kill()
        if errors := self.errors():
            raise AssertionError(f"in Dovecot's log:\n{errors}")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def errors(self) -> str:
        """What it has logged as a warning or an error, but for what is tolerated."""
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        return "\n".join(
            line for line in lines if not any(text in line for text in self.tolerated)
        )

    def forget_errors(self) -> None:
        self._log.unlink(missing_ok=True)

    def doveadm(self, *arguments: str, data: bytes = b"") -> str:
        """Run doveadm beside the running server."""
        done = subprocess.run(
            ["doveadm", "-c", self._config, *arguments],
            input=data,
            capture_output=True,
            timeout=60,
        )
        said = (done.stdout + done.stderr).decode()
        if done.returncode:
            raise AssertionError(said)
        return said

    def deliver(self, name: str, *messages: bytes) -> None:
        """Bring messages to an account by LMTP."""
        with smtplib.LMTP(str(self.lmtp_socket)) as client:
            for message in messages:
                address = self.server.account(name).address
                client.sendmail("x@other.test", [address], message)


@cache
def version() -> tuple[int, ...]:
    """The version of the Dovecot that PATH has."""
    done = subprocess.run(["dovecot", "--version"], capture_output=True, text=True)
    return tuple(map(int, done.stdout.split()[0].split(".")))


def in_2_4(settings: str) -> str:
    """Write settings of 2.3 as 2.4 has them."""
    for old, new in (
        ("%f", "%{filename}"),
        ("%g", "%{guid}"),
        ("%u", "%{uid}"),
        ("%v", "%{uidvalidity}"),
    ):
        settings = settings.replace(old, new)
    return settings


_USER = ("%u", "%{user}")
_SERVICES = """\
namespace inbox {{
  inbox = yes
  separator = /
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
}}
service lmtp {{
  unix_listener lmtp {{
    mode = 0666
  }}
}}
{settings}
"""
_CONFIG = (
    """\
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/errors.log
info_log_path = /dev/null
debug_log_path = /dev/null
protocols = imap pop3 lmtp
listen = {host}
ssl = yes
ssl_cert = <{tls}/server.pem
ssl_key = <{tls}/server.key
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_username_format = %Lu
mail_location = maildir:{maildir}{layout}
mail_max_userip_connections = 200
first_valid_uid = 1
first_valid_gid = 1
default_client_limit = 1000
passdb {{
  driver = passwd-file
  args = {home}/passwd
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={homes}/%u allow_all_users=yes
}}
"""
    + _SERVICES
)
_CONFIG_2_4 = (
    """\
dovecot_config_version = {version}
dovecot_storage_version = {version}
base_dir = {home}/run
state_dir = {home}/state
log_path = {home}/errors.log
info_log_path = /dev/null
debug_log_path = /dev/null
protocols = imap pop3 lmtp
listen = {host}
ssl = yes
ssl_server_cert_file = {tls}/server.pem
ssl_server_key_file = {tls}/server.key
auth_allow_cleartext = yes
auth_mechanisms = plain login
auth_username_format = %{{user | lower}}
mail_driver = maildir
mail_path = {maildir}
{layout}
mail_max_userip_connections = 200
first_valid_uid = 1
first_valid_gid = 1
default_client_limit = 1000
passdb passwd-file {{
  passwd_file_path = {home}/passwd
}}
userdb static {{
  fields {{
    uid = {uid}
    gid = {gid}
    home = {homes}/%{{user}}
  }}
  static_allow_all_users = yes
}}
"""
    + _SERVICES
)
