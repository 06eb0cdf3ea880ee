"""Asks the running server for something, over the socket in its data folder."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 120.0  # a change of many rows takes a while


class ServerAway(Exception):
    """The server does not answer, or says what is wrong; the text is for people."""


def call(path: Path, request: Mapping[str, object]) -> dict[str, Any]:
    """Return the answer to a request. Raises ServerAway. Any: values of JSON."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_S)
        try:
            connection.connect(str(path))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as stream:
                line = stream.readline()
        except (FileNotFoundError, ConnectionError) as error:
            text = f"the server does not run (nobody answers at {path}): start it first"
            raise ServerAway(text) from error
        except OSError as error:
            raise ServerAway(f"{path}: {error}") from error
    if not line:
        raise ServerAway("the server has stopped")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ServerAway(str(answer["error"]))
    return answer
