"""Start the servers that are measured, each from its own folder, all on loopback.

Postfix and Dovecot run as Debian ships them where it matters for mail: both sync,
Dovecot by ``mail_fsync = optimized``, its default. Logs go to files.
"""

import grp
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from mailsrv.cli.quickstart import set_up
from mailsrv.settings import LoginSettings

HOST, DOMAIN = "127.0.0.1", "bench.test"
SMTP_USERS = [f"u{number}" for number in range(8)]
IDLE_USERS = [f"idle{number}" for number in range(50)]
BOX_USERS = [f"box{number}" for number in range(7)]
USERS = SMTP_USERS + IDLE_USERS + BOX_USERS
CHEAP = LoginSettings(argon2_memory_kib=64, argon2_passes=1, argon2_lanes=1)
POSTFIX_FOLDERS = (
    "incoming active deferred bounce defer flush trace hold corrupt saved private"
    " public maildrop pid"
).split()


@dataclass(slots=True)
class Target:
    """A running server."""

    name: str
    smtp_port: int
    imap_port: int
    pop3_port: int
    maildir: str  # with {user}
    passwords: dict[str, str]
    pids: list[int] = field(default_factory=list)
    hello: bytes = b"EHLO"  # LHLO: at `smtp_port` LMTP is spoken

    def address(self, user: str) -> str:
        return f"{user}@{DOMAIN}"

    def stop(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGTERM)
            os.waitpid(pid, 0)


Starter = Callable[[Path, int], Target]


def mailsrv(folder: Path, port: int) -> Target:
    """Start mailsrv as quickstart sets it up; cheap hashes, as Dovecot's are plain."""
    made = set_up(folder, DOMAIN, ip_address(HOST), port, USERS, CHEAP)
    os.umask(0o022)  # Postfix's daemons read as another user
    config = Path(made.config)
    text = config.read_text()
    if "max_connections_per_address" not in text:  # all clients are one host here
        text += "\n[smtp]\nmax_connections_per_address = 1000\n"
        config.write_text(text + "[imap]\nmax_connections_per_address = 2000\n")
    passwords = {
        each.address.partition("@")[0]: each.password or "" for each in made.accounts
    }
    command = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]
    command += ["--nodaemon", "--pidfile=", "mailsrv", f"--config={config}"]
    pid = _spawn(command, folder / "mailsrv.log")
    maildir = made.maildir.format(account=f"{{user}}@{DOMAIN}")
    smtp, imap, pop3 = (made.ports[each] for each in ("smtp", "imap", "pop3"))
    _wait(smtp, imap, pop3)
    return Target("mailsrv", smtp, imap, pop3, maildir, passwords, [pid])


def postfix_virtual(folder: Path, port: int) -> Target:
    """Start Postfix with its own virtual delivery agent, and Dovecot to read."""
    return _postfix(folder, port, "postfix-virtual", "virtual:")


def postfix_lmtp(folder: Path, port: int) -> Target:
    """Start Postfix that hands its mail to Dovecot by LMTP."""
    socket_path = folder / "dovecot" / "run" / "bench-lmtp"
    return _postfix(folder, port, "postfix-lmtp", f"lmtp:unix:{socket_path}")


def dovecot(folder: Path, port: int) -> Target:
    """Start Dovecot alone; mail comes by LMTP."""
    mail, owner = _mail_folder(folder)
    pids = [_dovecot(folder / "dovecot", mail, owner, port + 1)]
    passwords = {user: "secret" for user in USERS}
    maildir = f"{mail}/{{user}}"
    return Target(
        "dovecot", port + 3, port + 1, port + 2, maildir, passwords, pids, b"LHLO"
    )


STARTERS: dict[str, Starter] = {
    "mailsrv": mailsrv,
    "postfix-virtual": postfix_virtual,
    "postfix-lmtp": postfix_lmtp,
    "dovecot": dovecot,
}


def _mail_folder(folder: Path) -> tuple[Path, pwd.struct_passwd]:
    """Make the folder of Maildirs; return it and whose it is."""
    owner = pwd.getpwnam("mail")
    mail = folder / "mail"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    mail.mkdir(exist_ok=True)
    os.chown(mail, owner.pw_uid, owner.pw_gid)
    return mail, owner


def _postfix(folder: Path, port: int, name: str, transport: str) -> Target:
    mail, owner = _mail_folder(folder)
    post = pwd.getpwnam("postfix")
    pids = [_dovecot(folder / "dovecot", mail, owner, port + 1)]
    home = folder / "postfix"
    for each in ("etc", "data", *(f"queue/{name}" for name in POSTFIX_FOLDERS)):
        (home / each).mkdir(parents=True, exist_ok=True)
    os.chown(home / "data", post.pw_uid, post.pw_gid)
    drop = grp.getgrnam("postdrop").gr_gid
    for each in POSTFIX_FOLDERS[:-1]:
        shared = each in ("public", "maildrop")
        os.chown(home / "queue" / each, post.pw_uid, drop if shared else -1)
        (home / "queue" / each).chmod(
            {"public": 0o710, "maildrop": 0o730}.get(each, 0o700)
        )
    boxes = "".join(f"{user}@{DOMAIN} {user}/\n" for user in USERS)
    (home / "boxes").write_text(boxes)
    template = Path(__file__).with_name("postfix.cf").read_text()
    (home / "etc" / "main.cf").write_text(
        template.format(
            home=home,
            mail=mail,
            domain=DOMAIN,
            transport=transport,
            uid=owner.pw_uid,
            gid=owner.pw_gid,
        )
    )
    services = Path(__file__).with_name("postfix-master.cf").read_text()
    (home / "etc" / "master.cf").write_text(services.format(host=HOST, port=port))
    master = ["/usr/lib/postfix/sbin/master", "-c", str(home / "etc"), "-d"]
    pids.append(_spawn(master, folder / "postfix.out"))
    _wait(port)
    passwords = {user: "secret" for user in USERS}
    return Target(name, port, port + 1, port + 2, f"{mail}/{{user}}", passwords, pids)


def _dovecot(folder: Path, mail: Path, owner: pwd.struct_passwd, port: int) -> int:
    """Start Dovecot with a certificate as quickstart makes it.

    IMAP on `port`, POP3 and LMTP on the next two.
    """
    for each in ("state", "home"):
        (folder / each).mkdir(parents=True, exist_ok=True)
    os.chown(folder / "home", owner.pw_uid, owner.pw_gid)
    set_up(folder / "tls", DOMAIN, ip_address(HOST), port, ["nobody"], CHEAP)
    os.umask(0o022)  # Postfix's daemons read as another user
    passwords = "".join(f"{user}:{{PLAIN}}secret\n" for user in USERS)
    (folder / "passwd").write_text(passwords)
    template = Path(__file__).with_name("dovecot.conf").read_text()
    values = {
        "HOME": str(folder),
        "MAIL": str(mail),
        "HOST": HOST,
        "PORT": str(port),
        "POP": str(port + 1),
        "LMTP": str(port + 2),
        "UID": str(owner.pw_uid),
        "GID": str(owner.pw_gid),
    }
    text = re.sub(r"@([A-Z]+)@", lambda found: values[found[1]], template)
    (folder / "dovecot.conf").write_text(text)
    command = ["dovecot", "-F", "-c", str(folder / "dovecot.conf")]
    pid = _spawn(command, folder / "dovecot.out")
    _wait(port, port + 1, port + 2)
    return pid


def _spawn(command: list[str], log: Path) -> int:
    with log.open("ab") as out:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        ).pid


def _wait(*ports: int) -> None:
    for port in ports:
        for _ in range(600):
            try:
                socket.create_connection((HOST, port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise SystemExit(f"nothing listens on port {port}")


def trusting() -> ssl.SSLContext:
    """Return a context that takes any certificate: speed is measured, not trust."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
