"""Mail to servers of every kind, over a real network with a signed DNS.

Each recipient ends delivered once, waiting for a reason, or reported.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.cli.quickstart import set_up
from tests.clients.server import CHEAP, PAUSE_S, WAIT_S, environment
from tests.lab import dns, postfix
from tests.lab.network import OFFICE4, Network, missing
from tests.tls.peers import Issued, issue

STS = "version: STSv1\nmode: enforce\nmx: {mx}\nmax_age: 86400\n"
SETTINGS = """
[dns]
servers = ["127.0.0.1"]
[queue]
retry_after = ["1s", "2s"]
lifetime = "40s"
warn_after = "1h"
[relay]
private_addresses = true
"""


class Lab:
    """The world's hosts, by name; each has the next address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hosts: list[dict[str, object]] = []
        self.records: list[str] = []
        self.ips = [dns.NAME_SERVER]
        self.authority = issue(authority=True, common_name="lab")

    def ip(self, *, six: bool = False) -> str:
        number = len(self.ips) + 1
        self.ips.append(f"fd77::{number}" if six else f"10.77.0.{number + 10}")
        return self.ips[-1]

    def host(
        self,
        name: str,
        certificate: Issued | None = None,
        *,
        six: bool = False,
        **how: object,
    ) -> str:
        """Add a mail server NAME.lab; return its name."""
        ip = self.ip(six=six)
        host = {"name": f"{name}.lab", "ips": [ip], **how}
        if certificate is not None:
            host["chain"] = self.chain(name, certificate)
        self.hosts.append(host)
        self.records.append(f"{name} {'AAAA' if six else 'A'} {ip}")
        return f"{name}.lab"

    def chain(self, name: str, certificate: Issued) -> str:
        """Write a certificate with its key, for a server."""
        file = self.folder / f"{name}.pem"
        key = certificate.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        chain = [certificate.certificate, *certificate.above]
        file.write_bytes(key + b"".join(c.public_bytes(Encoding.PEM) for c in chain))
        return str(file)

    def mx(self, domain: str, *hosts: str) -> None:
        for preference, host in enumerate(hosts, 1):
            self.records.append(f"{domain} MX {preference} {host}.")

    def tlsa(self, host: str, certificate: Issued) -> None:
        key = certificate.certificate.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )
        digest = hashlib.sha256(key).hexdigest()
        self.records.append(f"_25._tcp.{host}. TLSA 3 1 1 {digest}")

    def sts(self, domain: str, mx: str, certificate: Issued) -> None:
        ip = self.ip()
        chain = self.chain(f"sts-{domain}", certificate)
        policy = STS.format(mx=mx)
        self.hosts.append(
            {"name": "web", "ips": [ip], "chain": chain, "policy": policy}
        )
        self.records.append(f"mta-sts.{domain} A {ip}")
        self.records.append(f'_mta-sts.{domain} TXT "v=STSv1; id=1;"')


def build(lab: Lab) -> None:
    """All that a server of the office meets."""
    good = lab.authority
    lab.mx("plain", lab.host("mx-plain"))
    lab.mx("tls", lab.host("mx-tls", issue("mx-tls.lab")))  # self-signed
    lab.mx("grey", lab.host("mx-grey", greylists=True))
    lab.mx("drops", lab.host("mx-drops", drops=True))
    lab.mx("slow", lab.host("mx-slow", slow_s=2))
    lab.mx("six", lab.host("mx-six", six=True))
    dead = lab.ip()
    lab.records.append(f"mx-dead A {dead.rpartition('.')[0]}.250")  # nobody is there
    lab.mx("backup", "mx-dead.lab", lab.host("mx-backup"))
    lab.mx("busy", lab.host("mx-busy", busy=True), lab.host("mx-idle"))
    lab.records.append("null MX 0 .")
    certificate = issue("other.lab", days=-1)
    lab.mx("dane", lab.host("mx-dane", certificate))
    lab.tlsa("mx-dane.lab", certificate)  # what the names say does not count
    lab.mx("baddane", lab.host("mx-baddane", issue("mx-baddane.lab", by=good)))
    lab.tlsa("mx-baddane.lab", certificate)
    lab.mx("sts", lab.host("mx-sts", issue("mx-sts.lab", by=good)))
    lab.sts("sts", "mx-sts.lab", issue("mta-sts.sts.lab", by=good))
    lab.mx("badsts", lab.host("mx-badsts", issue("mx-badsts.lab", by=good, days=-1)))
    lab.sts("badsts", "mx-badsts.lab", issue("mta-sts.badsts.lab", by=good))


def add_postfix(lab: Lab) -> tuple[str, str]:
    """Give Postfix a name, with DANE; return its address and its certificate."""
    certificate = issue("mx-postfix.lab", by=lab.authority)
    ip = lab.ip()
    lab.records.append(f"mx-postfix A {ip}")
    lab.mx("postfix", "mx-postfix.lab")
    lab.tlsa("mx-postfix.lab", certificate)
    return ip, lab.chain("postfix", certificate)


class LabTests(SynchronousTestCase):
    def setUp(self) -> None:
        if why := missing():
            raise SkipTest(why)
        # Not trial's folder: knot's socket takes no long path.
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-lab-")
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        self.lab = Lab(self.folder)
        build(self.lab)
        ip, chain = add_postfix(self.lab)
        network = Network(self.lab.ips)
        self.addCleanup(network.close)
        dns.start(network, self.folder / "dns", "\n".join(self.lab.records))
        self.results = self.folder / "results"
        self.results.touch()
        hosts = self.folder / "hosts.json"
        hosts.write_text(json.dumps(self.lab.hosts))
        world = (sys.executable, "-m", "tests.lab.world", str(hosts), str(self.results))
        log = self.folder / "world.log"
        network.start(network.world, *world, log=log, env=environment())
        self.eventually(lambda: "ready" in log.read_text(), log)
        home = self.folder / "postfix"
        self.postfix = postfix.start(network, home, ip, chain)
        # Before it is sent to: who does not answer is left alone for a minute.
        self.eventually(lambda: postfix.has_started(home), home / "out")
        self.start_server(network)

    def start_server(self, network: Network) -> None:
        made = set_up(
            self.folder / "server",
            "office.lab",
            ip_address(OFFICE4),
            0,
            ["anna"],
            CHEAP,
        )
        self.maildir = Path(made.maildir.format(account="anna@office.lab"))
        self.config = Path(made.config)
        with self.config.open("a") as file:
            file.write(SETTINGS)
            if "sendmail.sock" not in self.config.read_text():
                file.write(
                    '[[listen]]\nservice = "sendmail"\n'
                    'endpoint = "unix:/run/mailsrv-lab.sock:mode=666"\n'
                )
        authorities = self.folder / "authorities.pem"
        authority = self.lab.authority.certificate
        authorities.write_bytes(authority.public_bytes(Encoding.PEM))
        self.environment = {
            **environment(),
            "MAILSRV_CONFIG": str(self.config),
            "SSL_CERT_FILE": str(authorities),
        }
        self.log = self.folder / "mailsrv.log"
        run = "from twisted.scripts.twistd import run; run()"
        network.start(
            network.office,
            *(sys.executable, "-c", run, "--nodaemon", "--pidfile="),
            *("mailsrv", f"--config={self.config}"),
            log=self.log,
            env=self.environment,
        )
        self.eventually(lambda: " ready: " in self.log.read_text(), self.log)

    def eventually(self, condition: Callable[[], object], log: Path) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                text = log.read_text()[-6000:] if log.exists() else ""
                raise AssertionError(f"never\n{text}\n{self.taken()}")
            time.sleep(PAUSE_S)

    def send(self, *to: str) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-c"),
                "from mailsrv.cli.sendmail import program; program()",
                *("-f", "anna@office.lab", *to),
            ],
            env={**os.environ, **self.environment},
            input=f"From: anna@office.lab\nSubject: to {to[0]}\n\nhello\n",
            capture_output=True,
            text=True,
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def taken(self) -> "Counter[tuple[str, str, bool]]":
        """How often each recipient was reached: by which host, and by TLS."""
        found: Counter[tuple[str, str, bool]] = Counter()
        for line in self.results.read_text().splitlines():
            host, _, recipients, tls = json.loads(line)
            found.update((host, recipient, tls) for recipient in recipients)
        return found

    def reports(self) -> str:
        return "\n".join(f.read_text() for f in self.maildir.glob("new/*"))

    def test_each_recipient_ends_well(self) -> None:
        good = {
            "a@plain.lab": ("mx-plain.lab", False, 1),
            "a@tls.lab": ("mx-tls.lab", True, 1),
            "a@grey.lab": ("mx-grey.lab", False, 1),
            "a@drops.lab": ("mx-drops.lab", False, 2),  # its answer was lost
            "a@slow.lab": ("mx-slow.lab", False, 1),
            "a@six.lab": ("mx-six.lab", False, 1),
            "a@backup.lab": ("mx-backup.lab", False, 1),
            "a@busy.lab": ("mx-idle.lab", False, 1),
            "a@dane.lab": ("mx-dane.lab", True, 1),
            "a@sts.lab": ("mx-sts.lab", True, 1),
        }
        lost = ("a@null.lab", "a@gone.lab", "a@baddane.lab", "a@badsts.lab")
        for address in (*good, *lost):
            self.send(address)
        self.send("a@postfix.lab", "b@postfix.lab")
        self.send("b@plain.lab", "nobody@plain.lab", "c@plain.lab")
        expected = {(h, a, tls): n for a, (h, tls, n) in good.items()}
        expected |= {("mx-plain.lab", f"{x}@plain.lab", False): 1 for x in "bc"}
        self.eventually(lambda: len(self.taken()) == len(expected), self.log)
        everybody = (*lost, "nobody@plain.lab")
        self.eventually(
            lambda: all(f"rfc822; {a}" in self.reports() for a in everybody), self.log
        )
        self.assertEqual(self.taken(), Counter(expected))
        self.eventually(lambda: len(postfix.messages(self.postfix)) == 2, self.log)
        for octets in postfix.messages(self.postfix):
            self.assertIn("using TLSv1.3", octets)
            self.assertIn("DKIM-Signature: v=1", octets)
        log = self.log.read_text()
        self.assertIn("verified by DANE", log)
        self.assertIn("verified by MTA-STS", log)
        reports = self.reports()
        self.assertIn("TLSA", reports)
        self.assertIn("expired", reports)
        for address in good:
            self.assertNotIn(f"rfc822; {address}\n", reports)
