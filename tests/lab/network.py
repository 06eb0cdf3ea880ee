"""Two hosts in network namespaces of their own: the office, and the world.

Needs root, iproute2, and a kernel that allows it; `missing` says what is not there.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

OFFICE4, OFFICE6 = "10.77.0.1", "fd77::1"
PROGRAMS = ("ip", "knotd", "keymgr", "unbound", "postfix")


def missing() -> str:
    """Say why there can be no lab; empty: there can."""
    if os.geteuid() != 0:
        return "the lab needs root"
    for program in PROGRAMS:
        if shutil.which(program) is None:
            return f"the lab needs {program}"
    try:
        Network(("10.77.0.2",)).close()
    except subprocess.CalledProcessError:
        return "the lab needs network namespaces"
    return ""


class Network:
    """The namespaces; `close` them."""

    def __init__(self, world: Sequence[str]) -> None:
        """`world`: the addresses of all servers there, IPv4 and IPv6."""
        mark = os.getpid()
        self.office, self.world = f"mailsrv-office-{mark}", f"mailsrv-world-{mark}"
        self._processes: list[subprocess.Popen[bytes]] = []
        for name in (self.office, self.world):
            _ip("netns", "add", name)
            self.run(name, "ip", "link", "set", "lo", "up")
        ends = f"mo{mark}", f"mw{mark}"
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        sides = (
            (self.office, ends[0], (OFFICE4, OFFICE6)),
            (self.world, ends[1], world),
        )
        for name, end, addresses in sides:
            _ip("link", "set", end, "netns", name)
            for address in addresses:
                six = ":" in address
                prefix = f"{address}/64" if six else f"{address}/24"
                nodad = ["nodad"] if six else []
                self.run(name, "ip", "addr", "add", prefix, "dev", end, *nodad)
            self.run(name, "ip", "link", "set", end, "up")

    def run(self, name: str, *command: str) -> None:
        """Run a command in a namespace, and wait for it."""
        _ip("netns", "exec", name, *command)

    def start(
        self,
        name: str,
        *command: str,
        log: Path,
        env: dict[str, str] | None = None,
    ) -> "subprocess.Popen[bytes]":
        """Start a program in a namespace; it ends with the lab."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", name, *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
            )
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for name in (self.office, self.world):
            pids = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True
            )
            for pid in pids.stdout.split():
                os.kill(int(pid), 9)  # what Postfix has started
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
