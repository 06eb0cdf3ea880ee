"""Asks the running server for something, over the socket in its data folder."""

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mailsrv.queue.control import reached_by

TIMEOUT_S = 120.0  # a change of many rows takes a while


class ServerAway(Exception):
    """The server does not answer, or says what is wrong; the text is for people."""


def call(data: Path, request: Mapping[str, object]) -> dict[str, Any]:
    """Return the answer to a request. Raises ServerAway. Any: values of JSON."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            _connect(connection, data)
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionError) as error:
            text = f"the server does not run (nobody answers in {data}): start it first"
            raise ServerAway(text) from error
        except OSError as error:
            raise ServerAway(f"{data}: {error}") from error
    if not line:
        raise ServerAway("the server has stopped")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ServerAway(str(answer["error"]))
    return answer


def _connect(connection: socket.socket, data: Path) -> None:
    folder_fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(reached_by(folder_fd))
    finally:
        os.close(folder_fd)
