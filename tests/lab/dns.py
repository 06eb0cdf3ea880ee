"""The lab's DNS: knot signs the zone ``lab.`` in the world, unbound validates here."""

import subprocess
import time
from pathlib import Path

from tests.lab.network import Network

NAME_SERVER = "10.77.0.53"
_KNOT = """\
server:
    rundir: "{home}"
    listen: {ip}@53
database:
    storage: "{home}/db"
log:
  - target: "{home}/knot.log"
    any: info
policy:
  - id: lab
    algorithm: ecdsap256sha256
    single-type-signing: on
zone:
  - domain: lab.
    file: "{home}/lab.zone"
    dnssec-signing: on
    dnssec-policy: lab
    journal-content: none
    zonefile-sync: -1
    zonefile-load: whole
"""
_UNBOUND = """\
server:
    interface: 127.0.0.1
    port: 53
    do-daemonize: no
    username: ""
    chroot: ""
    directory: "{home}"
    pidfile: "{home}/unbound.pid"
    logfile: "{home}/unbound.log"
    use-syslog: no
    do-not-query-localhost: no
    module-config: "validator iterator"
    trust-anchor-file: "{home}/anchor"
    access-control: 127.0.0.0/8 allow
    private-domain: "lab."
stub-zone:
    name: "lab."
    stub-addr: {ip}
remote-control:
    control-enable: no
"""


def start(network: Network, home: Path, records: str) -> None:
    """Serve `records` of the zone, and resolve them at the office's loopback."""
    home.mkdir(exist_ok=True)
    (home / "db").mkdir(exist_ok=True)
    zone = "$ORIGIN lab.\n$TTL 300\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\n"
    (home / "lab.zone").write_text(f"{zone}ns A {NAME_SERVER}\n{records}\n")
    (home / "knot.conf").write_text(_KNOT.format(home=home, ip=NAME_SERVER))
    conf = str(home / "knot.conf")
    network.start(network.world, "knotd", "-c", conf, log=home / "knotd.log")
    anchor = _wait_for_key(conf, home)
    (home / "anchor").write_text(anchor)
    (home / "unbound.conf").write_text(_UNBOUND.format(home=home, ip=NAME_SERVER))
    network.start(
        network.office,
        *("unbound", "-c", str(home / "unbound.conf")),
        log=home / "unbound.out",
    )


def _wait_for_key(conf: str, home: Path) -> str:
    """Return the DS of the zone's key, once knot has made it."""
    for _ in range(300):
        found = subprocess.run(
            ["keymgr", "-c", conf, "lab.", "ds"], capture_output=True, text=True
        )
        lines = [line for line in found.stdout.splitlines() if " DS " in line]
        if lines and "signing" in _read(home / "knot.log"):
            return lines[0] + "\n"
        time.sleep(0.05)
    raise AssertionError(f"knot makes no key: {_read(home / 'knot.log')}")


def _read(file: Path) -> str:
    return file.read_text() if file.exists() else ""
