"""A deliverer that gives messages to programs, as Postfix's pipe(8) does."""

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from threading import Timer
from typing import Any

from zope.interface import implementer

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.doors.message import MAX_READ_OCTETS, Message
from mailsrv.doors.plugin import Plugin
from mailsrv.interfaces import IBlocking, IDeliverer, IPluginServices

RUNS_S = 60.0  # of one program, before it is killed


class NotTaken(Exception):
    """The program did not take the message: it comes again."""


@implementer(IDeliverer, IBlocking)
class Pipe:
    """Gives the mail of the accounts in ``commands`` to programs on their input.

    A command is a list: a program with its whole path, and arguments. It gets
    SENDER and RECIPIENT in its environment, runs as the server's user and without a
    shell, and has taken the message when its exit status is 0; with any other the
    message is deferred.
    """

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        # Any: values of TOML.
        if unknown := options.keys() - {"commands"}:
            raise ValueError(f"{', '.join(unknown)}: only commands is known")
        commands = options.get("commands")
        if not isinstance(commands, dict) or not commands:
            raise ValueError('commands: a table such as { "a@b.test" = ["/bin/x"] }')
        for account, command in commands.items():
            words = isinstance(command, list) and all(
                isinstance(word, str) and "\0" not in word for word in command
            )
            if not words or not command or not command[0].startswith("/"):
                raise ValueError(f"commands.{account}: a list that begins with a path")
        self._commands = {
            _canonical(account): list(commands[account]) for account in commands
        }

    def deliver(self, message: Message, account: str) -> bool:
        command = self._commands.get(account)
        if command is None:
            return False
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "SENDER": message.sender.reverse_path,
            "RECIPIENT": account,
        }
        process = subprocess.Popen(  # noqa: S603  the admin's command, no shell
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
        )
        timer = Timer(RUNS_S, _kill, [process])
        timer.start()
        try:
            with process:
                _feed(process, message)
        finally:
            timer.cancel()
        if process.returncode != 0:
            raise NotTaken(f"{command[0]} ended with {process.returncode}")
        return True


def _canonical(account: str) -> str:
    try:
        return parse(account).canonical
    except InvalidAddress as error:
        raise ValueError(f"commands.{account}: is no address of an account") from error


def _feed(process: "subprocess.Popen[bytes]", message: Message) -> None:
    assert process.stdin is not None  # noqa: S101  a pipe
    at = 0
    try:
        while octets := message.read_blocking(at, MAX_READ_OCTETS):
            process.stdin.write(octets)
            at += len(octets)
        process.stdin.close()
    except BrokenPipeError:  # it may know all that it wants: its status counts
        with suppress(BrokenPipeError):
            process.stdin.close()
    except BaseException:
        _kill(process)  # what it has of the message is not all
        raise


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End it and what it has started."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


pipe = Plugin("pipe", Pipe)
