"""``mailsrv sendmail``: what cron, PHP and scripts call as sendmail(8).

Talks SMTP to the server's socket, which knows the user by the system. While there is
no server the message goes to the drop folder. Exit codes are those of sysexits(3).
"""

import os
import pwd
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO

import click

from mailsrv import settings_file
from mailsrv.cli import sendmail_message
from mailsrv.cli.sendmail_arguments import Arguments, Usage, parse
from mailsrv.cli.sendmail_message import MAX_HEADER_OCTETS, Head, qualified
from mailsrv.service import DEFAULT_FILE
from mailsrv.settings import SendmailSettings, Settings
from mailsrv.settings_file import SettingsError
from mailsrv.smtp.client_engine import NEED_DATA, ClientEngine
from mailsrv.smtp.drop import Dropped
from mailsrv.smtp.outgoing import (
    Done,
    Ended,
    Outgoing,
    OutgoingRecipient,
    Ready,
    Send,
    SendContent,
)
from mailsrv.smtp.reply import Reply

SOCKET = Path("/run/mailsrv/sendmail.sock")  # where the settings cannot be read
HELD_OCTETS = 1 << 20
LAST_ANSWERS_S = 10.0
STEP = 1 << 16
DOWN = "the mail server does not run"


class _Raw(click.Command):
    """A command whose flags are not click's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.params["words"] = tuple(args)
        return []


@click.command("sendmail", cls=_Raw)
def sendmail(words: tuple[str, ...]) -> None:
    """Send a message from standard input, as sendmail(8) does.

    For cron, PHP and scripts; takes sendmail's usual flags (-t -i -f -F -bs ...).
    """
    sys.exit(run(words))


def program() -> None:
    """Run as a program of its own, which ``/usr/sbin/sendmail`` may lead to."""
    sys.exit(run(sys.argv[1:]))


def run(words: "list[str] | tuple[str, ...]") -> int:
    """Do what the flags say; return the exit code."""
    try:
        arguments = parse(words)
    except Usage as error:
        return _fail(os.EX_USAGE, str(error))
    path, drop = _places()
    match arguments.mode:
        case "nothing":
            return os.EX_OK
        case "smtp":
            return _pass_through(path)
        case "queue":
            return _list_queue()
    return _send(arguments, path, drop)


def _places() -> tuple[Path, Path]:
    """Return the server's socket and its drop folder."""
    file = Path(os.environ.get("MAILSRV_CONFIG", DEFAULT_FILE))
    try:
        settings = settings_file.load(file)
    except SettingsError:  # it is the server's: programs may not be allowed to read it
        return SOCKET, SendmailSettings().drop
    return _socket(settings), settings.sendmail.drop


def _socket(settings: Settings) -> Path:
    for listener in settings.listen:
        if listener.service == "sendmail":
            return Path(listener.endpoint.split(":")[1])
    return SOCKET


def _send(arguments: Arguments, path: Path, drop: Path) -> int:
    user = pwd.getpwuid(os.getuid())
    name = arguments.full_name or user.pw_gecos.split(",")[0]
    with SpooledTemporaryFile(HELD_OCTETS) as file:
        lines = _lines(sys.stdin.buffer, arguments.ends_at_dot)
        head = sendmail_message.read(_start(lines), full_name=name, user=user.pw_name)
        size_octets, eight_bit = _write(file, head, lines)
        recipients = dict.fromkeys(map(qualified, arguments.recipients))
        if arguments.recipients_in_header:
            recipients |= dict.fromkeys(head.recipients)
        if not recipients:
            return _fail(os.EX_USAGE, "no recipients: name them, or use -t")
        sender = user.pw_name if arguments.sender is None else arguments.sender
        outgoing = Outgoing(
            qualified(sender),
            tuple(
                OutgoingRecipient(recipient, notify=arguments.notify)
                for recipient in recipients
            ),
            size_octets,
            eight_bit=eight_bit,
            smtputf8=not all(map(str.isascii, (sender, *recipients))),
            ret=arguments.ret,
            envid=arguments.envid,
        )
        replies = _submit(outgoing, file, path)
        return _settle(outgoing, replies, file, drop)


def _lines(stream: IO[bytes], ends_at_dot: bool) -> Iterator[bytes]:
    """Read lines, or pieces of long ones, with LF; they end before a lone dot."""
    whole = True  # the last piece ended a line
    while line := stream.readline(STEP):
        if whole and ends_at_dot and line in (b".\n", b".\r\n", b"."):
            return
        whole = line.endswith(b"\n")
        yield line.removesuffix(b"\r\n") + b"\n" if line.endswith(b"\r\n") else line


def _start(lines: Iterator[bytes]) -> bytes:
    """Return the lines up to the first empty one, or as many as are looked at."""
    found, octets = [], 0
    for line in lines:
        found.append(line)
        octets += len(line)
        if line == b"\n" or octets > MAX_HEADER_OCTETS:
            break
    return b"".join(found)


def _write(file: IO[bytes], head: Head, lines: Iterator[bytes]) -> tuple[int, bool]:
    """Write the message with CRLF; return its size, and whether it has 8-bit octets."""
    eight_bit = False
    for piece in (head.octets, head.body, *()):
        file.write(piece.replace(b"\n", b"\r\n"))
        eight_bit = eight_bit or not piece.isascii()
    for line in lines:
        file.write(line.replace(b"\n", b"\r\n"))
        eight_bit = eight_bit or not line.isascii()
    return file.tell(), eight_bit


def _submit(outgoing: Outgoing, file: IO[bytes], path: Path) -> tuple[Reply, ...]:
    """Give the message to the server; replies without one are temporary."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            return _transact(connection, outgoing, file)
    except OSError:
        return (Reply(451, "4.4.1", DOWN),) * len(outgoing.recipients)


def _transact(
    connection: socket.socket, outgoing: Outgoing, file: IO[bytes]
) -> tuple[Reply, ...]:
    engine = ClientEngine(hostname="localhost", tls="never")
    replies: tuple[Reply, ...] | None = None
    while True:
        match engine.next_event():
            case Ready() if replies is None:
                engine.begin(outgoing)
            case Ready():
                engine.quit()
            case Send(octets):
                connection.sendall(octets)
            case SendContent():
                file.seek(0)
                while piece := file.read(STEP):
                    connection.sendall(engine.content(piece))
                engine.content_end()
            case Done(answers):
                replies = answers
            case Ended(reply):
                return replies or (reply,) * len(outgoing.recipients)
            case event if event is NEED_DATA:
                connection.settimeout(engine.timeout_s)
                if data := connection.recv(STEP):
                    engine.receive(data)
                else:
                    engine.lost()


def _settle(
    outgoing: Outgoing, replies: tuple[Reply, ...], file: IO[bytes], drop: Path
) -> int:
    """Drop what has to wait, and tell of what is refused."""
    code = os.EX_OK
    later = []
    for recipient, reply in zip(outgoing.recipients, replies, strict=True):
        if 400 <= reply.code < 500:
            later.append(recipient.forward_path)
        elif not reply.positive:
            code = os.EX_NOUSER if reply.enhanced_code == "5.1.1" else os.EX_NOPERM
            _fail(code, f"{recipient.forward_path}: {reply.text}")
    if later:
        file.seek(0)
        envelope = Dropped(
            outgoing.reverse_path,
            tuple(later),
            outgoing.recipients[0].notify,  # one flag for all
            outgoing.ret,
            outgoing.envid,
        )
        try:
            envelope.write(drop, file)
        except OSError as error:
            why = replies[0].text
            return _fail(os.EX_TEMPFAIL, f"{why}, and {drop}: {error.strerror}")
    return code


def _list_queue() -> int:
    from mailsrv.cli.main import main  # which knows this command as well

    main(["queue", "list"], standalone_mode=False)
    return os.EX_OK


def _pass_through(path: Path) -> int:
    """-bs: the program speaks SMTP itself."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            print(f"421 4.3.2 {DOWN}", end="\r\n", flush=True)
            return os.EX_TEMPFAIL
        sources = [0, connection.fileno()]
        while True:
            # At the end of its input the program still hears the answers.
            timeout_s = None if 0 in sources else LAST_ANSWERS_S
            found = select.select(sources, (), (), timeout_s)[0]
            if not found:
                return os.EX_OK
            for ready in found:
                data = os.read(ready, STEP)
                if ready != 0:
                    if not data:
                        return os.EX_OK
                    sys.stdout.buffer.write(data)
                    sys.stdout.buffer.flush()
                elif data:
                    connection.sendall(data)
                else:
                    sources.remove(0)


def _fail(code: int, text: str) -> int:
    print(f"sendmail: {text}", file=sys.stderr)
    return code
