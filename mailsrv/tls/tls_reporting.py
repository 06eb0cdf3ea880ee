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
from mailsrv.tls.sts_cache import PolicyFailed
from mailsrv.tls.tls_report import (
    TlsReport,
    failure_of,
    mailbox_of,
    parse_record,
    policy_of,
)

log = Logger()

_DAY_S = 86400
FLUSH_S = 60.0  # between writes of what was counted
_LOOK_EVERY = 60  # flushes: once an hour for days that are over
_KEEP_DAYS = 7
_TRY_DAYS = 2  # days back for which reports are still sent


class Submit(Protocol):
    """See `queue.queue.Queue.submit`."""

    def __call__(
        self,
        octets: bytes,
        *,
        reverse_path: str,
        forward_paths: list[str],
        once: str,
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
        self._posted: set[tuple[int, str, str]] = set()  # day, domain and URI
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

    def note_policy(self, failed: PolicyFailed) -> None:
        """Count a policy that could not be had (RFC 8460 section 4.3.2.2)."""
        if not self.sends:
            return
        policy = {
            "policy-type": "sts",
            "policy-string": [],
            "policy-domain": failed.domain,
        }
        text = json.dumps({"result-type": failed.result_type})
        day = int(self._now() // _DAY_S)
        one = Sessions(day, failed.domain, json.dumps(policy), text, 1)
        self._counted.append(one)

    async def flush(self) -> None:
        """Write what was counted since the last time."""
        counted, self._counted = list(merged(self._counted)), []
        try:
            if counted:
                await self._pool.run(lambda: self._records.count(counted))
        except BaseException:
            self._counted += counted  # for the next time
            raise

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
            # What cannot be sent now goes an hour later, for a day (RFC 8460 5.5).
            if today - day > _TRY_DAYS or await self._report(day, domain):
                await self._pool.run(partial(self._records.mark, day, domain))
        self._posted = {one for one in self._posted if today - one[0] <= _TRY_DAYS}
        await self._pool.run(lambda: self._records.remove(today - _KEEP_DAYS))

    async def _report(self, day: int, domain: str) -> bool:
        """Send a report to all who are to get it; False: some have to wait."""
        try:
            uris = await self._wanted(domain)
        except DnsUnavailable:
            return False
        if not uris:
            return True
        sessions = await self._pool.run(lambda: self._records.sessions(day, domain))
        report = TlsReport(domain, day, self._hostname, sessions)
        sent = True
        for uri in uris:
            if uri.startswith("https:"):
                sent = await self._post(report, uri) and sent
            else:
                sent = await self._mail(report, uri) and sent
        return sent

    async def _wanted(self, domain: str) -> tuple[str, ...]:
        try:
            found = await self._resolver.query(f"_smtp._tls.{domain}", "TXT")
        except NoSuchName:
            return ()
        return parse_record(
            [b"".join(r.strings) for r in found.records if isinstance(r, TXT)]
        )

    async def _post(self, report: TlsReport, uri: str) -> bool:
        one = report.day, report.domain, uri
        if one in self._posted:
            return True
        body = BytesIO(report.compressed())
        try:
            await self._https.post(uri, "application/tlsrpt+gzip", body)
        except HttpsFailed as error:
            log.warn("no TLS report to {uri}: {reason}", uri=uri, reason=str(error))
            return False
        self._posted.add(one)
        return True

    async def _mail(self, report: TlsReport, uri: str) -> bool:
        to = mailbox_of(uri)
        if to is None:
            return True
        octets = report.mail(f"postmaster@{self._hostname}", to, self._now())
        once = f"tlsrpt:{report.id}:{to}"  # however often this is tried
        try:
            await self._submit(octets, reverse_path="", forward_paths=[to], once=once)
        except Exception:
            log.failure("no TLS report to {uri}", uri=uri)
            return False
        return True


def _failed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # else the server ends
        log.failure("TLS reports failed", failure)
