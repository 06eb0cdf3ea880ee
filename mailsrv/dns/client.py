"""The resolver of the server: a stub that asks, keeps and shares what it hears."""

import secrets
from pathlib import Path
from typing import Any

from dns.rcode import Rcode
from dns.rdatatype import RdataType
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.dns.cache import Cache, Key
from mailsrv.dns.exchange import NoAnswer, ask
from mailsrv.dns.message import MAX_CNAMES, Answer, Question
from mailsrv.dns.resolver import (
    DnsUnavailable,
    Found,
    HostAddress,
    IResolver,
    NoSuchName,
    dns_name,
    find_addresses,
)
from mailsrv.dns.servers import RESOLV_CONF, Server, Servers
from mailsrv.settings import DnsSettings
from mailsrv.threads import Threads

# All servers are asked in turn, then again with more patience.
ROUNDS_S = (2.0, 4.0, 8.0)
MAX_QUESTIONS = 200  # at a time: each has a socket

_TRY_WITHOUT_EDNS = (Rcode.FORMERR, Rcode.NOTIMP)  # RFC 6891 section 7


@implementer(IResolver)
class DnsResolver:
    """Asks the name servers of the settings or of the system."""

    def __init__(
        self,
        settings: DnsSettings,
        *,
        threads: Threads,
        reactor: Any,  # the global one: UDP, TCP and time
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        self._threads = threads
        self._reactor = reactor
        self._resolv_conf = resolv_conf
        self._cache = Cache(reactor.seconds)
        self._running: dict[Key, list[Deferred[Found]]] = {}
        self._slots = DeferredSemaphore(MAX_QUESTIONS)
        self._settings = settings
        self._servers = self._make_servers()
        self._asked: tuple[Server, ...] = ()  # as they stood when last asked
        self._first = 0  # the server that answered last

    def use(self, settings: DnsSettings) -> None:
        """Take new settings up; questions that run are answered by the old ones."""
        if settings != self._settings:
            self._settings = settings
            self._servers = self._make_servers()

    def _make_servers(self) -> Servers:
        return Servers(
            self._settings.servers,
            validates=self._settings.validates,
            threads=self._threads,
            seconds=self._reactor.seconds,
            file=self._resolv_conf,
        )

    async def addresses(self, name: str) -> tuple[HostAddress, ...]:
        return await find_addresses(self, name)

    async def query(self, name: str, type: str) -> Found:
        dns_name(name)
        key = (name.lower(), type)
        known = self._cache.get(key)
        if isinstance(known, NoSuchName):
            raise NoSuchName(known.name, secure=known.secure)
        if known is not None:
            return known
        waiting: Deferred[Found] = Deferred()
        if key in self._running:
            self._running[key].append(waiting)
        else:
            self._running[key] = [waiting]
            looking = Deferred.fromCoroutine(self._look_up(key))
            looking.addBoth(self._tell, key)
        return await waiting

    def _tell(self, result: Found | Failure, key: Key) -> None:
        """Give all who have asked the same the one answer."""
        for waiting in self._running.pop(key):
            if not waiting.called:
                waiting.callback(result)  # a Failure fires the errback chain

    async def _look_up(self, key: Key) -> Found:
        name, type = key
        secure, ttl_s, octets = True, float("inf"), 0
        for _ in range(MAX_CNAMES + 1):
            answer, server = await self._slots.run(
                Deferred.fromCoroutine, self._ask(name, RdataType.from_text(type))
            )
            secure = secure and answer.authenticated and server.trusted
            ttl_s, octets = min(ttl_s, answer.ttl_s), octets + answer.size_octets
            if not answer.incomplete:
                break
            name = answer.canonical
        else:
            raise DnsUnavailable(f"too many CNAMEs from {key[0]}")
        if answer.rcode is Rcode.NXDOMAIN:
            missing = NoSuchName(key[0], secure=secure)
            self._cache.put(key, missing, ttl_s, octets)
            raise missing
        found = Found(answer.records, secure, answer.canonical, ttl_s)
        self._cache.put(key, found, ttl_s, octets)
        return found

    async def _ask(self, name: str, type: RdataType) -> tuple[Answer, Server]:
        """Ask one server after the other. Raises `DnsUnavailable`."""
        servers = await self._servers.current()
        if servers != self._asked:
            if self._asked:
                self._cache.clear()
            self._asked, self._first = servers, 0
        left = servers[self._first :] + servers[: self._first]
        reason = ""
        for timeout_s in ROUNDS_S:
            for server in left:
                try:
                    answer = await self._ask_server(server, name, type, timeout_s)
                except NoAnswer as error:
                    reason = str(error)
                    continue
                if answer.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
                    if server in self._asked:
                        self._first = self._asked.index(server)
                    return answer, server
                # It will say the same again.
                reason = f"{server.ip}: {answer.rcode.name}"
                left = tuple(other for other in left if other != server)
        raise DnsUnavailable(f"{name} {type.name}: {reason}")

    async def _ask_server(
        self, server: Server, name: str, type: RdataType, timeout_s: float
    ) -> Answer:
        for plain in (False, True):
            id = secrets.randbits(16)
            question = Question(name, type, id, server.trusted, plain)
            answer = await ask(
                server, question, timeout_s=timeout_s, reactor=self._reactor
            )
            if answer.rcode not in _TRY_WITHOUT_EDNS:
                break
        return answer
