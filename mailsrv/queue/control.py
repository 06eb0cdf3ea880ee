"""The queue's door for other programs of this machine: a UNIX socket, JSON lines.

One request a line, one answer a line; only the user who owns the mail can reach it.
``{"do": "hold", "where": {"sender": "anna"}}`` is answered ``{"done": 3, "busy": 0}``,
what cannot be done ``{"error": "..."}``.
"""

import json
import os
from base64 import b64decode
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure

from mailsrv.queue.admin import ACTIONS, change
from mailsrv.queue.database import Filter
from mailsrv.queue.queue import Queue
from mailsrv.queue.values import Priority, State
from mailsrv.store.values import StoreError

log = Logger()

SOCKET = "queue.sock"  # in the data folder
FILTERS = tuple(field.name for field in fields(Filter))
MAX_MESSAGES = 50  # of one request
MAX_LINE = 2 * 1024 * 1024  # a message of 1 MiB in base64, and its envelope


class BadRequest(Exception):
    """What was asked for makes no sense; the text says why."""


def reached_by(folder_fd: int) -> str:
    """Return a path of the socket that is short, however long the folder's is.

    unix(7) allows 108 octets.
    """
    return f"/proc/self/fd/{folder_fd}/{SOCKET}"


class Control:
    """Answers requests on a queue."""

    def __init__(self, queue: Queue, now: Callable[[], float], reactor: Any) -> None:
        # Any: the reactor provides more interfaces than one type has.
        self._queue = queue
        self._now = now
        self._reactor = reactor
        self._port: IListeningPort | None = None
        self._folder_fd = -1
        self.stops = False

    def start(self, data: Path) -> None:
        """Listen. Without the socket the server works, but for these requests."""
        with suppress(FileNotFoundError):
            (data / SOCKET).unlink()  # a killed server's; the queue's lock is ours
        factory = Factory.forProtocol(lambda: _Session(self))
        factory.noisy = False
        self._folder_fd = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        path = reached_by(self._folder_fd)
        try:
            self._port = self._reactor.listenUNIX(path, factory, mode=0o600)
        except (CannotListenError, OSError) as error:
            log.error("{folder}: {reason}", folder=str(data), reason=str(error))

    async def stop(self) -> None:
        self.stops = True
        if self._port is not None:
            port, self._port = self._port, None
            await _stopped(port)
            os.close(self._folder_fd)

    async def answer(self, request: object) -> Mapping[str, object]:
        """Do what is asked. Raises BadRequest and StoreError."""
        if not isinstance(request, dict):
            raise BadRequest("a request is a JSON object")
        match request.get("do"):
            case "submit":
                return {"id": await self._submit(request)}
            case "submit-all":
                return {"ids": await self._submit_all(request)}
            case "sending":
                dispatcher = self._queue.dispatcher
                return {"rows": dispatcher.sending if dispatcher else []}
            case action if action in ACTIONS:
                wanted = _filter(request)
                changed = await change(self._queue, action, wanted, self._now)
                return {"done": changed.done, "busy": changed.busy}
        raise BadRequest(f"{request.get('do')!r} is nothing that the queue does")

    async def _submit_all(self, request: dict[str, Any]) -> list[str]:
        """Take several messages, which share the waits for the disk.

        When one fails others may have been taken: `once` makes it safe to ask again.
        """
        messages = request.get("messages")
        if not isinstance(messages, list) or len(messages) > MAX_MESSAGES:
            raise BadRequest(f"messages: a list of at most {MAX_MESSAGES}")
        if not all(isinstance(one, dict) for one in messages):
            raise BadRequest("messages: each is what submit needs")
        taking = [Deferred.fromCoroutine(self._submit(one)) for one in messages]
        taken = await DeferredList(taking, consumeErrors=True)
        for _, result in taken:
            if isinstance(result, Failure):
                result.raiseException()
        return [id for _, id in taken]

    async def _submit(self, request: dict[str, Any]) -> str:
        # Any: values of JSON.
        try:
            octets = b64decode(request["octets"], validate=True)
            forward_paths = [str(path) for path in request["forward_paths"]]
            priority = Priority(request.get("priority", Priority.LETTER))
            reverse_path, once = request["reverse_path"], request.get("once", "")
            if not (isinstance(reverse_path, str) and isinstance(once, str)):
                raise TypeError("texts")
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"not what submit needs: {error}") from error
        return await self._queue.submit(
            octets,
            reverse_path=reverse_path,
            forward_paths=forward_paths,
            priority=priority,
            once=once,
        )


class _Session(LineReceiver):
    """One client: its requests are answered one after the other."""

    delimiter = b"\n"
    MAX_LENGTH = MAX_LINE
    transport: Any  # what a UNIX socket's can do

    def __init__(self, control: Control) -> None:
        self._control = control

    def lineReceived(self, line: bytes) -> None:
        # Lines that were read already wait as well.
        self.pauseProducing()  # type: ignore[no-untyped-call]
        Deferred.fromCoroutine(self._answer(line))

    async def _answer(self, line: bytes) -> None:
        answer: Mapping[str, object]
        try:
            answer = await self._control.answer(json.loads(line))
        except BadRequest as bad:
            answer = {"error": str(bad)}
        except (ValueError, RecursionError):
            answer = {"error": "not JSON"}
        except StoreError as error:
            answer = {"error": f"the disk refuses: {error}"}
        except Exception:
            answer = {"error": "the server stops"}
            if not self._control.stops:
                log.failure("a request to the queue failed")
                answer = {"error": "the server failed: see its log"}
        self.transport.write(json.dumps(answer).encode() + b"\n")
        self.resumeProducing()  # type: ignore[no-untyped-call]


def _filter(request: Mapping[str, Any]) -> Filter:
    """Read a filter. Any: values of JSON."""
    where = request.get("where", {})
    if not isinstance(where, dict) or not all(
        name in FILTERS and isinstance(value, str) for name, value in where.items()
    ):
        raise BadRequest(f"where: texts by {', '.join(FILTERS)}")
    if not any(where.values()) and request.get("all") is not True:
        raise BadRequest('where: at least one filter, or "all": true')
    try:
        state = State(where["state"]) if where.get("state") else None
    except ValueError as error:
        raise BadRequest(f"where: {error}") from error
    return Filter(**{**where, "state": state})


async def _stopped(port: IListeningPort) -> None:
    stopping = port.stopListening()
    if isinstance(stopping, Deferred):
        await stopping
