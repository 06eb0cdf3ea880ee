"""Counts how TLS with other servers goes, and tells domains that ask for it, daily."""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO
from typing import Protocol

from dns.rdtypes.ANY.TXT import TXT
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName
from mailsrv.threads import Pool
from mailsrv.tls.https import Https, HttpsFailed
from mailsrv.tls.peer_certificate import NotTrusted
from mailsrv.tls.peer_policies import HostTls
from mailsrv.tls.peer_records import PeerRecords, Sessions, merged
from mailsrv.tls.tls_report import (
    TlsReport,
    failure_of,
    parse_record,
    policy_of,
)

log = Logger()

_DAY_S = 86400
FLUSH_S = 60.0  # between writes of what was counted
_LOOK_EVERY = 60  # flushes: once an hour for days that are over
_KEEP_DAYS = 7


class Submit(Protocol):
    """See `queue.queue.Queue.submit`."""

    def __call__(
        self, octets: bytes, *, reverse_path: str, forward_paths: list[str]
    ) -> Awaitable[str]: ...


class TlsReporting:
    """Hears of sessions; `start` and `stop` it."""

    def __init__(
        self,
        records: PeerRecords,
        resolver: IResolver,
        https: Https,
        pool: Pool,
        *,
        hostname: str,
        sends: bool,
        submit: Submit,
        reactor: IReactorTime,
        now: Callable[[], float],
    ) -> None:
        """`pool` has one thread: all work on `records` is done there."""
        self.sends = sends  # may be changed
        self._records = records
        self._resolver = resolver
        self._https = https
        self._pool = pool
        self._hostname = hostname
        self._submit = submit
        self._now = now
        self._counted: list[Sessions] = []
        self._rounds = 0
        self._loop = LoopingCall(self._round)
        self._loop.clock = reactor

    def start(self) -> None:
        self._loop.start(FLUSH_S, now=False)

    async def stop(self) -> None:
        """Write what was counted."""
        if self._loop.running:
            self._loop.stop()
        await self.flush()

    def note(
        self, host: HostTls, failure: NotTrusted | None, sending: str, receiving: str
    ) -> None:
        """Count a session."""
        if not self.sends:
            return
        tlsa = () if host.tlsa is None else host.tlsa.texts
        policy = policy_of(host.domain, host.host, host.sts, tlsa)
        text = ""
        if failure is not None:
            text = json.dumps(failure_of(failure, host.host, sending, receiving))
        day = int(self._now() // _DAY_S)
        one = Sessions(day, host.domain, json.dumps(policy), text, 1)
        self._counted.append(one)

    async def flush(self) -> None:
        """Write what was counted since the last time."""
        counted, self._counted = self._counted, []
        if counted:
            await self._pool.run(lambda: self._records.count(merged(counted)))

    def _round(self) -> "Deferred[None]":
        running = Deferred.fromCoroutine(self._flush_and_look())
        return running.addErrback(_failed)

    async def _flush_and_look(self) -> None:
        await self.flush()
        self._rounds += 1
        if self._rounds % _LOOK_EVERY == 0 and self.sends:
            await self.report()

    async def report(self) -> None:
        """Send what is due of days that are over, each once."""
        today = int(self._now() // _DAY_S)
        due = await self._pool.run(lambda: self._records.unreported(today))
        for day, domain in due:
            # Before it is sent: rather none than two.
            if await self._pool.run(partial(self._records.mark, day, domain)):
                await self._report(day, domain)
        await self._pool.run(lambda: self._records.remove(today - _KEEP_DAYS))

    async def _report(self, day: int, domain: str) -> None:
        try:
            found = await self._resolver.query(f"_smtp._tls.{domain}", "TXT")
        except (NoSuchName, DnsUnavailable):
            return
        uris = parse_record(
            [b"".join(r.strings) for r in found.records if isinstance(r, TXT)]
        )
        sessions = await self._pool.run(lambda: self._records.sessions(day, domain))
        report = TlsReport(domain, day, self._hostname, sessions)
        for uri in uris:
            await self._send(report, uri)

    async def _send(self, report: TlsReport, uri: str) -> None:
        if uri.startswith("https:"):
            body = BytesIO(report.compressed())
            try:
                await self._https.post(uri, "application/tlsrpt+gzip", body)
            except HttpsFailed as error:
                log.warn("no TLS report to {uri}: {reason}", uri=uri, reason=str(error))
            return
        sender = f"postmaster@{self._hostname}"
        to = uri.removeprefix("mailto:").partition("?")[0]
        if not to.isascii() or not to.isprintable() or set(to) & set("<> "):
            return
        octets = report.mail(sender, to, self._now())
        await self._submit(octets, reverse_path="", forward_paths=[to])


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # else the server ends
        log.failure("TLS reports failed", failure)
