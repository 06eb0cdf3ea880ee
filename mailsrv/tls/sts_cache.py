"""The MTA-STS policies of domains: looked up, fetched, kept (RFC 8461 section 3 and 5).

A delivery waits for a policy that is not known yet, for a while; one that is known is
renewed behind it.
"""

from collections.abc import Callable

from dns.rdtypes.ANY.TXT import TXT
from twisted.internet.defer import Deferred
from twisted.logger import Logger

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
_MAX_FAILED = 1000  # domains that are remembered for that
_URL = "https://mta-sts.{domain}/.well-known/mta-sts.txt"


class StsCache:
    """Asks the DNS for the id of a policy, and fetches it when that is a new one."""

    def __init__(
        self,
        records: PeerRecords,
        resolver: IResolver,
        https: Https,
        pool: Pool,
        now: Callable[[], float],
    ) -> None:
        """`pool` has one thread: all work on `records` is done there."""
        self._records = records
        self._resolver = resolver
        self._https = https
        self._pool = pool
        self._now = now
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
            return await waiting
        self._fetching[domain] = []
        policy = None
        try:
            policy = await self._fetch(domain, id)
        finally:
            for other in self._fetching.pop(domain):
                other.callback(policy)
        return policy

    async def _fetch(self, domain: str, id: str) -> StsPolicy | None:
        try:
            url = _URL.format(domain=domain)
            answer = await self._https.get(url, max_octets=MAX_POLICY)
            if answer.status != 200 or answer.media_type != "text/plain":
                raise BadPolicy(f"status {answer.status}, {answer.media_type}")
            policy = parse_policy(answer.body)
        except (HttpsFailed, BadPolicy) as error:
            log.warn(
                "the MTA-STS policy of {domain} cannot be had: {reason}",
                domain=domain,
                reason=str(error),
            )
            if len(self._failed) >= _MAX_FAILED:
                self._failed.clear()
            self._failed[domain] = self._now() + _AGAIN_S
            return None
        kept = KeptPolicy(id, policy, self._now())
        await self._pool.run(lambda: self._records.keep(domain, kept))
        return policy
