"""The MTA-STS policies of domains: looked up, fetched, kept (RFC 8461 section 3 and 5).

A delivery waits for a policy that is new. Those that are kept are fetched again each
day.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dns.rdtypes.ANY.TXT import TXT
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName
from mailsrv.threads import Pool
from mailsrv.tls.https import Https, HttpsFailed
from mailsrv.tls.mta_sts import (
    MAX_POLICY,
    BadPolicy,
    StsPolicy,
    parse_policy,
    parse_record,
)
from mailsrv.tls.peer_records import KeptPolicy, PeerRecords

log = Logger()

_AGAIN_S = 300.0  # after a policy could not be fetched (section 3.3)
_RENEW_S = 86400.0
_MAX_FAILED = 1000  # domains that are remembered for that
_URL = "https://mta-sts.{domain}/.well-known/mta-sts.txt"


@dataclass(frozen=True, slots=True)
class PolicyFailed:
    """A policy that could not be had; `result_type` is of RFC 8460 4.3.2.2."""

    domain: str
    result_type: str


class StsCache:
    """Asks the DNS for the id of a policy, and fetches it when that is a new one."""

    def __init__(
        self,
        records: PeerRecords,
        resolver: IResolver,
        https: Https,
        pool: Pool,
        now: Callable[[], float],
        note: Callable[[PolicyFailed], None],
    ) -> None:
        """`pool` has one thread: all work on `records` is done there."""
        self._records = records
        self._resolver = resolver
        self._https = https
        self._pool = pool
        self._now = now
        self._note = note
        self._failed: dict[str, float] = {}
        self._fetching: dict[str, list[Deferred[StsPolicy | None]]] = {}

    async def policy(self, domain: str) -> StsPolicy | None:
        """Return the policy that counts for a domain now; None: it has none."""
        kept = await self._pool.run(lambda: self._records.policy(domain))
        if kept is not None and not kept.is_valid(self._now()):
            kept = None
        id = await self._id(domain)
        if id is None or (kept is not None and kept.id == id):
            # Section 5.1: a policy outlives its record.
            return None if kept is None else kept.policy
        fetched = await self._fetch_once(domain, id)
        if fetched is not None:
            return fetched
        return None if kept is None else kept.policy

    async def renew(self) -> None:
        """Fetch again what is a day old, and forget what counts no more.

        Section 10.2: so who wants to undo a policy has to keep us from it for all of
        its time, and not only when that ends.
        """
        before = self._now() - _RENEW_S
        domains = await self._pool.run(lambda: self._records.older_than(before))
        for domain in domains:
            await self._renew(domain)

    async def _renew(self, domain: str) -> None:
        kept = await self._pool.run(lambda: self._records.policy(domain))
        if kept is None:
            return
        if kept.is_valid(self._now()):
            await self._fetch_once(domain, await self._id(domain) or kept.id)
        else:
            await self._pool.run(lambda: self._records.forget(domain))

    async def _id(self, domain: str) -> str | None:
        try:
            found = await self._resolver.query(f"_mta-sts.{domain}", "TXT")
        except (NoSuchName, DnsUnavailable):
            return None
        return parse_record(
            [b"".join(r.strings) for r in found.records if isinstance(r, TXT)]
        )

    async def _fetch_once(self, domain: str, id: str) -> StsPolicy | None:
        """Fetch; those who ask meanwhile wait for the same answer."""
        if self._failed.get(domain, 0.0) > self._now():
            return None
        waiting: Deferred[StsPolicy | None] = Deferred()
        if domain in self._fetching:
            self._fetching[domain].append(waiting)
        else:
            self._fetching[domain] = [waiting]
            fetching = Deferred.fromCoroutine(self._fetch(domain, id))
            fetching.addBoth(self._tell, domain)
        return await waiting

    def _tell(self, result: StsPolicy | Failure | None, domain: str) -> None:
        """Give all who wait the one answer; a failure is not the same as none."""
        for waiting in self._fetching.pop(domain):
            if not waiting.called:
                waiting.callback(result)  # a Failure fires the errback chain

    async def _fetch(self, domain: str, id: str) -> StsPolicy | None:
        url = _URL.format(domain=domain)
        try:
            answer = await self._https.get(url, max_octets=MAX_POLICY)
            if answer.status != 200:
                raise HttpsFailed(f"status {answer.status}")
            if answer.media_type != "text/plain":
                raise BadPolicy(f"it is {answer.media_type or 'of no kind'}")
            policy = parse_policy(answer.body)
        except HttpsFailed as error:
            kind = "sts-webpki-invalid" if error.tls else "sts-policy-fetch-error"
            self._cannot_be_had(PolicyFailed(domain, kind), error)
            return None
        except BadPolicy as error:
            self._cannot_be_had(PolicyFailed(domain, "sts-policy-invalid"), error)
            return None
        kept = KeptPolicy(id, policy, self._now())
        await self._pool.run(lambda: self._records.keep(domain, kept))
        return policy

    def _cannot_be_had(self, failed: PolicyFailed, why: Exception) -> None:
        log.warn(
            "the MTA-STS policy of {domain} cannot be had: {reason}",
            domain=failed.domain,
            reason=str(why),
        )
        self._note(failed)
        if len(self._failed) >= _MAX_FAILED:
            self._failed.clear()
        self._failed[failed.domain] = self._now() + _AGAIN_S
