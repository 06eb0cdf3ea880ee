"""``mailsrv log``: what the log tells of a message."""

import bz2
import gzip
import io
import json
import lzma
import shutil
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, BinaryIO

import click

from mailsrv.cli.trace import trace

# How logrotate may have packed a file, by its first octets. Any: no type of typeshed
# is that of all these files.
_PACKED: Mapping[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ": lzma.LZMAFile,
}
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)


@click.group("log")
def log_group() -> None:
    """Read the log."""


@log_group.command("trace")
@click.argument("wanted", metavar="ID|ADDRESS")
@click.option(
    "--file",
    "files",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="A log file, oldest first if several (.gz, .bz2 and .xz too; - is the "
    "standard input). "
    "Default: the systemd journal of --unit.",
)
@click.option("--unit", default="mailsrv", show_default=True, help="A systemd unit.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def trace_command(
    wanted: str, files: tuple[Path, ...], unit: str, as_json: bool
) -> None:
    """Show all lines of a message's life.

    The message is named by its Message-ID, by the id that the sender was told at the
    end of the transaction, by the id of a report or a session, or by the ADDRESS of
    the sender or of a recipient. The exit code is 1 if the log has nothing of it.
    """
    if not wanted.strip("<> "):
        raise click.UsageError("name an id or an address")
    session, found = None, False
    with _log(files, unit) as read:
        for line in trace(wanted, read):
            if as_json:
                click.echo(json.dumps(dict(line.fields)))
            else:
                if found and line.get("session") != session:
                    click.echo()
                click.echo(line.text, nl=not line.text.endswith("\n"))
            session, found = line.get("session"), True
    if not found:
        raise click.ClickException(f"the log has nothing of {wanted}")


@contextmanager
def _log(files: tuple[Path, ...], unit: str) -> Iterator[Callable[[], Iterable[str]]]:
    """Give a way to read the log from its beginning, as often as one likes."""
    if files and Path("-") not in files:
        yield lambda: chain.from_iterable(map(_lines, files))
        return
    with tempfile.TemporaryFile("w+b") as kept:
        if files:
            shutil.copyfileobj(sys.stdin.buffer, kept)
        else:
            _copy_journal(unit, kept)

        def again() -> Iterable[str]:
            kept.seek(0)
            return (line.decode(errors="replace") for line in kept)

        yield again


def _lines(file: Path) -> Iterator[str]:
    with file.open("rb") as stream:
        begin = stream.read(6)
        stream.seek(0)
        octets: Any = stream
        for magic, unpacked in _PACKED.items():
            if begin.startswith(magic):
                octets = unpacked(stream)
        try:
            yield from io.TextIOWrapper(octets, errors="replace", newline="\n")
        except _BROKEN as error:
            raise click.ClickException(f"{file} cannot be read: {error}") from error


def _copy_journal(unit: str, target: IO[bytes]) -> None:
    command = ["journalctl", "--output=cat", "--no-pager", f"--unit={unit}"]
    try:
        subprocess.run(command, stdout=target, check=True)  # noqa: S603  # no shell
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.ClickException(
            f"cannot read the journal of {unit} ({error}); name the log by --file"
        ) from error
