"""CPU and memory of a server's whole process tree, and what others burned meanwhile."""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def _stat() -> dict[int, tuple[int, float]]:
    """Every process: its parent, and its CPU seconds with those of ended children."""
    found: dict[int, tuple[int, float]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path("/proc", name, "stat").read_text()
            except OSError:
                continue  # ended meanwhile
            fields = text.rpartition(")")[2].split()
            found[int(name)] = int(fields[1]), sum(map(int, fields[11:15])) / TICKS
    return found


def tree(roots: list[int]) -> dict[int, float]:
    """Return the processes below `roots`, those included, with their CPU seconds."""
    processes = _stat()
    members = {pid for pid in roots if pid in processes}
    while True:
        more = {
            pid
            for pid, (parent, _) in processes.items()
            if parent in members and pid not in members
        }
        if not more:
            return {pid: processes[pid][1] for pid in members}
        members |= more


def memory_kib(roots: list[int]) -> int:
    """Return the proportional set size of the tree."""
    total = 0
    for pid in tree(roots):
        try:
            lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _machine_busy_s() -> float:
    with open("/proc/stat") as file:
        fields = [int(each) for each in file.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


@dataclass(slots=True)
class Meter:
    """``with Meter(pids) as meter``: seconds, the server's CPU, others' cores."""

    roots: list[int]
    seconds: float = 0.0
    server_cpu_s: float = 0.0
    other_cores: float = 0.0
    _begin: tuple[float, float, float] = field(default=(0, 0, 0))
    _begin_s: float = 0.0

    def __enter__(self) -> "Meter":
        self._begin = self._used()
        self._begin_s = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._begin_s
        server, own, busy = (
            after - before
            for before, after in zip(self._begin, self._used(), strict=True)
        )
        self.server_cpu_s = server
        others_s = max(0.0, busy - server - own)
        self.other_cores = others_s / max(self.seconds, 0.02)

    def _used(self) -> tuple[float, float, float]:
        return (
            sum(tree(self.roots).values()),
            sum(os.times()[:4]),
            _machine_busy_s(),
        )
