"""Asks the running server for something, over the socket in its data folder."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from mailsrv.queue.control import reached_by

TIMEOUT_S = 120.0  # a change of many rows takes a while


class ServerAway(Exception):
    """The server does not answer, or says what is wrong; the text is for people."""


class ServerCall:
    """A connection to the server, for one request after the other."""

    def __init__(self, data: Path) -> None:
        """Connect. Raises ServerAway."""
        self._data = data
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(TIMEOUT_S)
        try:
            folder_fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._socket.connect(reached_by(folder_fd))
            finally:
                os.close(folder_fd)
        except OSError as error:
            self._socket.close()
            raise self._away(error) from error
        self._stream = self._socket.makefile("rb")

    def __enter__(self) -> "ServerCall":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stream.close()
        self._socket.close()

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Return the answer. Raises ServerAway. Any: values of JSON."""
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            line = self._stream.readline()
        except OSError as error:
            raise self._away(error) from error
        if not line:
            raise ServerAway("the server has stopped")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ServerAway(str(answer["error"]))
        return answer

    def _away(self, error: OSError) -> ServerAway:
        if isinstance(error, FileNotFoundError | ConnectionError):
            return ServerAway(
                f"the server does not run (nobody answers in {self._data}):"
                " start it first"
            )
        return ServerAway(f"{self._data}: {error}")
