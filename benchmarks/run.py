"""Measure mailsrv beside Postfix and Dovecot in one run: ``make bench``.

Parts: smtp, large (SMTP with 1 MiB), idle; imap and pop3 read mailboxes of 10,000
messages, delivered by the server or found as another program left them.

Each round runs every work on every server, in turning order; the tables show the
median with the lowest and highest. Figures of one run compare; others do not.
"""

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

from benchmarks import idle_load, imap_load, pop3_load
from benchmarks.boxes import deliver, found
from benchmarks.corpus import large_mail, real_mail
from benchmarks.meter import Meter
from benchmarks.servers import BOX_USERS, HOST, SMTP_USERS, STARTERS, Target
from benchmarks.smtp_load import BENCH_ID, Load

PORT = 21500
_SENDING = ("mailsrv", "postfix-virtual", "postfix-lmtp")
_READING = ("mailsrv", "dovecot")
PARTS = {  # with the servers that are measured in each
    "smtp": _SENDING,
    "large": _SENDING,
    "idle": _SENDING,
    "imap": _READING,
    "pop3": _READING,
}
Row = dict[str, float | str]


def quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def smtp(
    target: Target,
    name: str,
    messages: list[bytes],
    *,
    count: int,
    connections: int,
    per_session: int,
) -> Row:
    """Send `count` messages; check that each accepted one stands there once."""
    run = f"r{os.getpid()}x{time.monotonic_ns()}"
    folders = [
        Path(target.maildir.format(user=user), place)
        for user in SMTP_USERS
        for place in ("new", "cur")
    ]
    before = _files(folders)
    load = Load(
        (HOST, target.smtp_port),
        messages,
        [target.address(user) for user in SMTP_USERS],
        run=run,
        count=count,
        connections=connections,
        per_session=per_session,
    )
    begin = time.time()
    with Meter(target.pids) as meter:
        result = load.go()
        deadline = time.monotonic() + 120
        while len(_files(folders)) - len(before) < len(result.accepted):
            if time.monotonic() > deadline:
                break
            time.sleep(0.02)
        time.sleep(1.2)  # what the server still does for them counts as well
    seen: list[int] = []
    last = begin
    for path in _files(folders) - before:
        number = _number(path, run)
        if number is not None:
            seen.append(number)
            last = max(last, path.stat().st_ctime)
    missing = len(result.accepted - set(seen))
    if missing or len(seen) != len(set(seen)) or result.refused:
        raise SystemExit(
            f"{target.name} {name}: {missing} missing, {len(seen) - len(set(seen))}"
            f" doubled, refused {dict(result.refused)}: no figures"
        )
    return {
        "server": target.name,
        "work": name,
        "accepted_per_s": len(result.accepted) / result.seconds,
        "delivered_per_s": len(seen) / (last - begin),
        "ack_p50_ms": quantile(result.latencies_s, 0.5) * 1000,
        "ack_p99_ms": quantile(result.latencies_s, 0.99) * 1000,
        "cpu_ms_per_message": meter.server_cpu_s * 1000 / len(result.accepted),
        "other_cores": meter.other_cores,
    }


def _files(folders: list[Path]) -> set[Path]:
    return {
        Path(entry.path)
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder)
    }


def _number(path: Path, run: str) -> int | None:
    try:
        head = path.open("rb").read(65536)
    except FileNotFoundError:
        return None
    found = re.search(rb"^%s%s-(\d+)\r?$" % (BENCH_ID, run.encode()), head, re.M)
    return int(found[1]) if found else None


def idle(target: Target, sessions: int) -> Row:
    """Open idle sessions, then tell them of 20 deliveries."""
    with Meter(target.pids) as meter:
        result = idle_load.run(target, sessions, 20)
    return {
        "server": target.name,
        "work": f"IDLE, {sessions} sessions with TLS, 50 accounts",
        "kib_per_session": result.kib_per_session,
        "told_p50_ms": quantile(result.told_s, 0.5) * 1000,
        "told_p99_ms": quantile(result.told_s, 0.99) * 1000,
        "not_told_in_2_s": result.missed,
        "other_cores": meter.other_cores,
    }


def reading(target: Target, messages: list[bytes], parts: list[str]) -> Iterator[Row]:
    """Read mailboxes that were delivered, then others that were found."""
    count = len(messages)
    one, two, three, four, five, six, small = BOX_USERS
    with_imap, with_pop3 = "imap" in parts, "pop3" in parts
    users = [one, two] * with_imap + [three] * with_pop3
    # Both servers learn from what clients ask; a client is set up before mail comes.
    deliver(target, users, messages[:1])
    for user in users:
        imap_load.get_acquainted(target, user)
    deliver(target, users, messages[1:])
    name = f"of {count} delivered messages"
    if with_imap:
        figures = imap_load.run(target, one, two, messages, writes=True)
        yield {"server": target.name, "work": f"IMAP {name}", **figures}
    if with_pop3:
        found(target, small, messages[:50])
        figures = pop3_load.run(target, three, small, count)
        yield {"server": target.name, "work": f"POP3 {name}", **figures}
    name = f"of a Maildir with {count} messages"
    if with_imap:
        for user in (four, five):
            found(target, user, messages)
        figures = imap_load.run(target, four, five, messages, writes=False)
        yield {"server": target.name, "work": f"IMAP {name}", **figures}
    if with_pop3:
        found(target, six, messages)
        figures = pop3_load.run(target, six, small, count)
        yield {"server": target.name, "work": f"POP3 {name}", **figures}


def works(
    target: Target, corpus: list[bytes], parts: list[str], count: int
) -> list[Row]:
    rows: list[Row] = []
    if "smtp" in parts:
        for connections, per_session in ((1, 50), (10, 1), (10, 50)):
            name = f"SMTP 5 KB, {connections} connections, {per_session} a session"
            rows.append(
                smtp(
                    target,
                    name,
                    corpus,
                    count=300 if connections == 1 else 1500,
                    connections=connections,
                    per_session=per_session,
                )
            )
    if "large" in parts:
        name = "SMTP 1 MiB, 4 connections, 1 a session"
        rows.append(
            smtp(target, name, large_mail(), count=150, connections=4, per_session=1)
        )
    if "idle" in parts:
        rows.append(idle(target, 500))
    if "imap" in parts or "pop3" in parts:
        rows += reading(target, list(islice(cycle(corpus), count)), parts)
    return rows


def tables(rows: list[Row]) -> str:
    """Write the tables of docs/performance.rst."""
    text: list[str] = []
    for work in dict.fromkeys(row["work"] for row in rows):
        of_work = [row for row in rows if row["work"] == work]
        figures = [key for key in of_work[0] if key not in ("server", "work")]
        servers = list(dict.fromkeys(str(row["server"]) for row in of_work))
        text += [f"{work}", "~" * len(str(work)), "", ".. list-table::"]
        text += ["   :header-rows: 1", "", "   * - figure"]
        text += [f"     - {server}" for server in sorted(servers)]
        for figure in figures:
            text.append(f"   * - {figure}")
            for server in sorted(servers):
                values = [
                    float(row[figure]) for row in of_work if row["server"] == server
                ]
                text.append(
                    f"     - {statistics.median(values):.5g}"
                    f" [{min(values):.5g} .. {max(values):.5g}]"
                )
        text.append("")
    return "\n".join(text)


def reading_tables(rows: list[Row]) -> str:
    """Write the tables of reading: medians of milliseconds, clock and CPU."""
    text: list[str] = []
    for title in dict.fromkeys(str(row["work"]) for row in rows):
        of_work = [row for row in rows if row["work"] == title]
        servers = sorted({str(row["server"]) for row in of_work})
        columns = [(s, f) for s in servers for f in (": ms", ": CPU ms")]
        names = [key[:-4] for key in of_work[0] if key.endswith(": ms")]
        heads = (f'"{server}{figure}"' for server, figure in columns)
        text += [f".. csv-table:: {title}", f'   :header: "", {", ".join(heads)}', ""]
        for name in names:
            medians = (
                statistics.median(
                    float(row[name + figure])
                    for row in of_work
                    if row["server"] == server
                )
                for server, figure in columns
            )
            shown = ", ".join(f"{m:.1f}" if m < 100 else f"{m:.0f}" for m in medians)
            text.append(f'   "{name}", {shown}')
        text.append("")
    return "\n".join(text)


def machine() -> str:
    """One line on what was measured with."""
    versions = [f"Python {platform.python_version()}"]
    for command in (["postconf", "-d", "-h", "mail_version"], ["dovecot", "--version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        versions.append(f"{command[0]} {done.stdout.strip()}")
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, {', '.join(versions)}, "
        f"load average {os.getloadavg()[0]:.1f} at the end"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--servers", default=",".join(STARTERS))
    parser.add_argument("--count", type=int, default=10_000, help="messages to read")
    options = parser.parse_args()
    scratch: Path = options.scratch.absolute()
    corpus = real_mail(scratch / "corpus")
    rows: list[Row] = []
    names = options.servers.split(",")
    # Nothing is deleted between two works: ext4 makes new files slowly where others
    # went shortly before.
    shutil.rmtree(scratch / "rounds", ignore_errors=True)
    for number in range(options.rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            parts = [p for p in options.parts.split(",") if name in PARTS[p]]
            if not parts:
                continue
            target = STARTERS[name](scratch / "rounds" / f"{number}-{name}", PORT)
            try:
                for row in works(target, corpus, parts, options.count):
                    rows.append(row)
                    print(json.dumps(row), flush=True)
            finally:
                target.stop()
    read = [row for row in rows if str(row["work"])[:4] in ("IMAP", "POP3")]
    others = [row for row in rows if row not in read]
    print(f"\n{machine()}\n\n{tables(others)}\n{reading_tables(read)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
