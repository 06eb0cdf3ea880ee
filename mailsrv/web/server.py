"""The web service on Twisted: connections, their limits and time.

One request a connection: who opens a link comes once. What is answered stands in
`pages`. Addresses of pages are secrets, so no log has them.
"""

import re
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as HttpRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site
from zope.interface import implementer

from mailsrv.connections import ConnectionLimits
from mailsrv.interfaces import IListenerService
from mailsrv.web.pages import FAILED, HEADERS, Lists, answer, place

log = Logger()

MAX_BODY_OCTETS = 16 * 1024  # RFC 8058: one short field
MAX_CONNECTIONS = 500
MAX_CONNECTIONS_PER_ADDRESS = 100  # a proxy's are all from one
IDLE_S = 15.0
_ORIGIN = re.compile(rb"\Ahttps?://[^/]*+", re.IGNORECASE)
LIFE_S = 60.0  # of a connection, for who sends an octet now and then


# no-untyped-call below: Twisted's classes of HTTP have few types.
class _Request(Request):
    """A request whose body is short, or ends the connection."""

    channel: Any  # a _Channel; Twisted has it as an HTTPChannel
    _received_octets = 0

    def gotLength(self, length: int | None) -> None:
        # Twisted would make a file for a long body.
        super().gotLength(min(length or 0, MAX_BODY_OCTETS))  # type: ignore[no-untyped-call]

    def handleContentChunk(self, data: bytes) -> None:
        self._received_octets += len(data)
        if self._received_octets > MAX_BODY_OCTETS:
            self.channel.transport.abortConnection()
            return
        super().handleContentChunk(data)  # type: ignore[no-untyped-call]

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self._received_octets <= MAX_BODY_OCTETS:
            super().requestReceived(command, path, version)  # type: ignore[no-untyped-call]


class _Channel(HTTPChannel):
    """A connection."""

    transport: Any  # TCP, UNIX or TLS; no interface has all that they can do
    totalHeadersSize = 8192
    maxHeaders = 100
    site: "WebFactory"
    peer = ""  # the client's address, also behind a PROXY header
    _life: IDelayedCall | None = None

    def connectionMade(self) -> None:
        super().connectionMade()  # type: ignore[no-untyped-call]
        if not self.site.connections.acquire(self.peer):
            self.transport.abortConnection()
            return
        self.site.opened.add(self)
        self._life = self.site.clock.callLater(LIFE_S, self.transport.abortConnection)

    def checkPersistence(self, request: Request, version: bytes) -> bool:
        request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return False

    def connectionLost(self, reason: Failure) -> None:  # type: ignore[override]
        # Twisted gives it always.
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        if self._life is None:
            return
        if self._life.active():
            self._life.cancel()
        self._life = None
        self.site.connections.release(self.peer)
        self.site.closed(self)


class _Pages(Resource):
    """All that there is."""

    isLeaf = True

    def __init__(self, lists: Lists) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._lists = lists

    def render(self, request: Request) -> int:
        answering = Deferred.fromCoroutine(self._answer(request))
        answering.addErrback(lambda failure: log.failure("a page is not sent", failure))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        gone: list[Failure] = []
        request.notifyFinish().addErrback(gone.append)
        method = request.method.decode("ascii", "replace")
        path = _path(request)
        try:
            found = await answer(self._lists, method, path)
        except Exception:
            log.failure("a page failed", page=place(path))
            found = FAILED
        if gone:
            return
        request.setResponseCode(found.status)
        request.responseHeaders.removeHeader(b"Server")
        request.setHeader("Content-Type", "text/html; charset=utf-8")
        for name, value in (HEADERS | found.headers).items():
            request.setHeader(name, value)
        octets = found.octets
        request.setHeader("Content-Length", str(len(octets)))
        request.write(octets)
        request.finish()


def _path(request: HttpRequest) -> bytes:
    """Return the path alone, also of a whole address (RFC 9112 section 3.2.2)."""
    path: bytes = request.path
    return _ORIGIN.sub(b"", path, count=1)


@implementer(IListenerService)
class WebFactory(Site):
    """Makes the connections of the services ``web`` and ``https``."""

    noisy = False
    protocol = _Channel  # type: ignore[assignment]  # without HTTP/2's chooser
    requestFactory = _Request

    def __init__(self, lists: Lists, reactor: IReactorTime) -> None:
        super().__init__(  # type: ignore[no-untyped-call]
            _Pages(lists),
            timeout=IDLE_S,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self.clock = reactor
        self.connections = ConnectionLimits(
            MAX_CONNECTIONS, MAX_CONNECTIONS_PER_ADDRESS
        )
        self.opened: set[_Channel] = set()
        self._drained: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:  # as Twisted leaves it
        channel = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        channel.peer = getattr(addr, "host", "")
        return channel

    def log(self, request: HttpRequest) -> None:
        channel: Any = request.channel  # a _Channel
        log.info(
            "{method} {page}: {status}",
            method=request.method.decode("ascii", "replace")[:16],
            page=place(_path(request)) or "nothing here",
            status=request.code,
            peer=channel.peer,
        )

    def closed(self, channel: _Channel) -> None:
        self.opened.discard(channel)
        if self._drained is not None and not self.opened:
            drained, self._drained = self._drained, None
            drained.callback(None)

    async def drain(self) -> None:
        """End connections without a request, and wait for the others."""
        for channel in list(self.opened):
            if not channel.requests:
                channel.transport.abortConnection()
        if self.opened:
            self._drained = Deferred()
            await self._drained
