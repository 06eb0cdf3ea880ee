"""Messages a second out to Postfix's smtp-sink: mailsrv beside Postfix in one run.

    python -m benchmarks.outgoing FOLDER [--count 3000] [--rounds 3] [--connections 10]

Submitted over ten connections while the queue sends; the time ends when the queue is
empty. To one destination, and to a hundred, each an address of its own. Both servers
sync. Then mailsrv's memory and its start with 100,000 recipients that wait.
"""

import argparse
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import servers
from benchmarks.meter import Meter, memory_kib
from benchmarks.servers import DOMAIN, HOST
from benchmarks.smtp_load import Load
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.values import Message, Priority, Recipient

PORT, SINK_PORT = 23500, 23999
DESTINATIONS = 100
SENDER = f"load@{DOMAIN}"
WAITING = 100_000
OCTETS = 5000
MAIN = "from mailsrv.cli.main import main; main()"


def place(number: int) -> str:
    """Return the address of a destination: all are the same sink."""
    return f"127.0.1.{number + 1}"


def domain(number: int) -> str:
    return f"dest{number}.test"


def mailsrv(folder: Path) -> tuple[list[int], int, Callable[[], int]]:
    """Start it; return its processes, a port to submit to, and what waits."""
    target = servers.mailsrv(folder, PORT)
    target.stop()
    config = folder / "mailsrv.toml"
    text = config.read_text()
    text = text.replace(
        "[smtp]\n",
        "[[smtp.trusted_networks]]\nnetworks = ['127.0.0.1']\n"
        f"send_as = ['{SENDER}']\nmax_messages_per_hour = 10000\n[smtp]\n",
        1,
    )
    for number in range(DESTINATIONS):
        text += (
            f'\n[[relay.route]]\nto = "{place(number)}:{SINK_PORT}"\n'
            f'recipient_domain = "{domain(number)}"\ntls = "never"\n'
        )
    config.write_text(text)
    subprocess.run(
        [
            *(sys.executable, "-c", MAIN, "alias", "add"),
            *(SENDER, f"{servers.SMTP_USERS[0]}@{DOMAIN}"),
        ],
        env={**os.environ, "MAILSRV_CONFIG": str(config)},
        check=True,
        capture_output=True,
    )
    target = servers.mailsrv(folder, PORT)
    shutil.rmtree(folder / "data" / "dkim", ignore_errors=True)  # Postfix signs nothing
    path = folder / "data" / "queue.sqlite"

    def waits() -> int:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])

    return target.pids, PORT + 587, waits


def postfix(folder: Path) -> tuple[list[int], int, Callable[[], int]]:
    target = servers.postfix_virtual(folder, PORT + 2000)
    home = folder / "postfix"
    lines = (f"{domain(n)} smtp:[{place(n)}]:{SINK_PORT}" for n in range(DESTINATIONS))
    (home / "transport").write_text("\n".join(lines) + "\n")
    with (home / "etc" / "main.cf").open("a") as file:
        file.write(f"transport_maps = texthash:{home}/transport\n")
    subprocess.run(["postfix", "-c", str(home / "etc"), "reload"], check=True)
    places = [home / "queue" / name for name in ("incoming", "active", "deferred")]

    def waits() -> int:
        return sum(len(files) for p in places for _, _, files in os.walk(p))

    return target.pids, PORT + 2000, waits


def run(
    server: tuple[list[int], int, Callable[[], int]],
    messages: list[bytes],
    count: int,
    connections: int,
    destinations: int,
) -> tuple[float, float]:
    """Return messages a second, and milliseconds of CPU a message."""
    pids, port, waits = server
    to = [f"someone@{domain(n)}" for n in range(destinations)]
    load = Load(
        (HOST, port),
        messages,
        to,
        run=f"o{time.monotonic_ns()}",
        count=count,
        connections=connections,
        per_session=100,
        sender=SENDER.encode(),
    )
    begun = time.monotonic()
    with Meter(pids) as meter:
        result = load.go()
        if len(result.accepted) != count:
            raise SystemExit(f"refused: {dict(result.refused)}")
        while waits():
            time.sleep(0.02)
    seconds = time.monotonic() - begun
    return count / seconds, meter.server_cpu_s * 1000 / count


def fill(data: Path) -> None:
    """Put recipients into a queue that is not running, none of them due."""
    spool = data / "spool" / "Maildir" / "new"
    database = QueueDatabase(data / "queue.sqlite")
    due = time.time() + 86400
    for first in range(0, WAITING, 1000):
        entries = []
        for number in range(first, first + 1000):
            id = f"bench{number}"
            (spool / id).write_bytes(b"Subject: x\n\nx\n")
            to = f"someone{number}@{domain(number % 10_000)}"
            sent = Message(id, id, SENDER, None, due - 86400, Priority.BULK, 16)
            row = Recipient(id, to, domain(number % 10_000), due)
            entries.append((sent, (row,)))
        database.write(entries, ())
    database.close()


def waiting(folder: Path) -> tuple[float, float]:
    """Return seconds to start with a full queue, and the MiB that it takes then."""
    fill(folder / "data")
    begun = time.monotonic()
    target = servers.mailsrv(folder, PORT)
    seconds = time.monotonic() - begun
    time.sleep(3.0)  # what it does behind its ports
    mib = memory_kib(target.pids) / 1024
    target.stop()
    return seconds, mib


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--connections", type=int, default=10)
    options = parser.parse_args()
    folder: Path = options.folder.absolute()
    shutil.rmtree(folder / "out", ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    head = f"From: <{SENDER}>\r\nSubject: benchmark\r\n\r\n".encode()
    messages = [head + (b"x" * 76 + b"\r\n") * (OCTETS // 78)]
    sink = subprocess.Popen(
        ["smtp-sink", "-u", "nobody", f"inet:0.0.0.0:{SINK_PORT}", "2048"],
        start_new_session=True,
    )
    found: dict[str, list[tuple[float, float]]] = {}
    started = {
        "mailsrv": mailsrv(folder / "out" / "mailsrv"),
        "postfix": postfix(folder / "out" / "postfix"),
    }
    try:
        for _ in range(options.rounds):
            for destinations in (1, DESTINATIONS):
                for name, server in started.items():
                    figures = run(
                        server,
                        messages,
                        options.count,
                        options.connections,
                        destinations,
                    )
                    found.setdefault(f"{name} to {destinations}", []).append(figures)
    finally:
        for pids, _, _ in started.values():
            for pid in pids:
                os.kill(pid, 15)
                os.waitpid(pid, 0)
        sink.terminate()
    for name, rows in found.items():
        rates, cpu = zip(*rows, strict=True)
        print(
            f"{name:18} {statistics.median(rates):7.0f}/s"
            f" ({min(rates):.0f} to {max(rates):.0f}),"
            f" {statistics.median(cpu):.2f} ms CPU a message"
        )
    seconds, mib = waiting(folder / "out" / "mailsrv")
    print(f"start with {WAITING} waiting: {seconds:.1f} s, then {mib:.0f} MiB")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
