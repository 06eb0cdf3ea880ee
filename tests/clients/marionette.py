"""Drive a Mozilla program through its Marionette socket.

A message is ``LENGTH:JSON``; a command is ``[0, id, name, parameters]`` and its
answer ``[1, id, error, value]``.
"""

import json
import socket
from typing import Any


class MarionetteError(Exception):
    """The program answered a command with an error."""


class Marionette:
    """One session in the program's privileged (chrome) context."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._stream = self._socket.makefile("rb")
        self._last_id = 0
        self._receive()  # its greeting
        self.command("WebDriver:NewSession", capabilities={})
        self.command("Marionette:SetContext", value="chrome")
        self.command("WebDriver:SetTimeouts", script=int(timeout_s * 1000))

    def command(self, name: str, **parameters: object) -> Any:
        """Send one command; return its value. Any: JSON."""
        self._last_id += 1
        message = json.dumps([0, self._last_id, name, parameters]).encode()
        self._socket.sendall(b"%d:%b" % (len(message), message))
        _, _, error, value = self._receive()
        if error:
            raise MarionetteError(error)
        return value

    def run(self, script: str) -> Any:
        """Evaluate `script`, the body of an async function; return its value."""
        answer = self.command(
            "WebDriver:ExecuteAsyncScript",
            script=(
                "const done = arguments[arguments.length - 1];"
                f"(async () => {{{script}}})().then("
                "value => done({value: value ?? null}),"
                "error => done({error: `${error} ${error?.stack}`}))"
            ),
            args=[],
        )["value"]
        if "error" in answer:
            raise MarionetteError(answer["error"])
        return answer["value"]

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def _receive(self) -> Any:
        digits = b""
        while (octet := self._stream.read(1)) != b":":
            if not octet:
                raise MarionetteError("the program closed the connection")
            digits += octet
        return json.loads(self._stream.read(int(digits)))
