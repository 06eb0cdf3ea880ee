"""A Postfix of Debian as a mail server of the world, with its own folder."""

import grp
import os
import pwd
from pathlib import Path

from tests.lab.network import Network

MASTER = Path("/usr/lib/postfix/sbin/master")
_FOLDERS = (
    *("incoming", "active", "deferred", "bounce", "defer", "flush", "trace", "hold"),
    *("corrupt", "saved", "private", "public", "maildrop", "pid"),
)
_MAIN = """\
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
inet_interfaces = {ip}
inet_protocols = ipv4
myhostname = mx-postfix.lab
mydestination =
virtual_mailbox_domains = postfix.lab
virtual_mailbox_maps = static:box/
virtual_mailbox_base = {home}/mail
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
smtpd_tls_chain_files = {chain}
smtpd_tls_security_level = may
smtpd_tls_received_header = yes
maillog_file = {home}/maillog
maillog_file_prefixes = {home}
alias_maps =
"""
_SERVICES = """\
{ip}:25 inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""


def start(network: Network, home: Path, ip: str, chain: str) -> Path:
    """Start it; return the folder where its messages are, one file each."""
    before = os.umask(0o022)  # that of other tests keeps Postfix's users out
    try:
        _write(home, ip, chain)
    finally:
        os.umask(before)
    network.start(
        network.world, str(MASTER), "-c", str(home / "etc"), "-d", log=home / "out"
    )
    return home / "mail" / "box" / "new"


def _write(home: Path, ip: str, chain: str) -> None:
    owner, post = pwd.getpwnam("mail"), pwd.getpwnam("postfix")
    drop = grp.getgrnam("postdrop").gr_gid
    home.mkdir()
    for folder in (home, *home.parents[:1]):
        folder.chmod(0o755)
    for name in ("etc", "data", "mail", *(f"queue/{each}" for each in _FOLDERS)):
        (home / name).mkdir(parents=True)
    os.chown(home / "data", post.pw_uid, post.pw_gid)
    os.chown(home / "mail", owner.pw_uid, owner.pw_gid)
    for name in _FOLDERS[:-1]:
        shared = name in ("public", "maildrop")
        os.chown(home / "queue" / name, post.pw_uid, drop if shared else -1)
        mode = {"public": 0o710, "maildrop": 0o730}.get(name, 0o700)
        (home / "queue" / name).chmod(mode)
    values = {"home": home, "ip": ip, "chain": chain}
    main = _MAIN.format(**values, uid=owner.pw_uid, gid=owner.pw_gid)
    (home / "etc" / "main.cf").write_text(main)
    (home / "etc" / "master.cf").write_text(_SERVICES.format(**values))


def has_started(home: Path) -> bool:
    """Whether it listens."""
    log = home / "maillog"
    return log.exists() and "daemon started" in log.read_text()


def messages(folder: Path) -> list[str]:
    return [file.read_text() for file in folder.glob("*")]
