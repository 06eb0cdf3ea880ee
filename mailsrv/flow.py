"""What mail goes through once it is accepted: the queue, and all who carry from it."""

import time
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from mailsrv.accounts.live import LiveDirectory
from mailsrv.dns.client import DnsResolver
from mailsrv.doors.guest import Asked, BuiltIn
from mailsrv.lists.carrier import ListCarrier
from mailsrv.lists.members import Members
from mailsrv.lists.policy import ListPosting
from mailsrv.lists.posting import Distributor
from mailsrv.lists.tokens import Tokens
from mailsrv.mailboxes.store import MailStore
from mailsrv.queue.addressing import Addressing
from mailsrv.queue.alias import AliasCarrier
from mailsrv.queue.control import Control
from mailsrv.queue.dispatch import Carriers
from mailsrv.queue.local import LocalCarrier
from mailsrv.queue.queue import Queue
from mailsrv.queue.reports import Reporter
from mailsrv.queue.settling import rules
from mailsrv.queue.seven_bit import SevenBitCopies
from mailsrv.queue.turns import Turns
from mailsrv.relay import tls_policies
from mailsrv.relay.relay import Relay
from mailsrv.routing.router import Router
from mailsrv.settings import Settings
from mailsrv.store import durable
from mailsrv.threads import Threads
from mailsrv.tls.https import Https
from mailsrv.tls.peer import unverified_context
from mailsrv.tls.peer_policies import Policies
from mailsrv.tls.peer_records import PeerRecords
from mailsrv.tls.sts_cache import StsCache
from mailsrv.tls.tls_reporting import TlsReporting
from mailsrv.trust.dkim import Signer
from mailsrv.trust.dkim_keys import KEYS_FOLDER

log = Logger()

_RENEW_S = 3600.0  # between looks for MTA-STS policies that are a day old
_SWEEP_S = 3600.0  # between looks for held posts, and words, that are of no use


class Flow:
    """The parts, joined. `start` them, `drain` and `stop` them."""

    def __init__(
        self,
        settings: Settings,
        *,
        live: LiveDirectory,
        router: Router,
        mail_store: MailStore,
        deliverers: Sequence[Asked],
        threads: Threads,
        reactor: Any,  # it provides more interfaces than one type has
    ) -> None:
        """Raises `QueueUnavailable`."""
        self._data = settings.data
        self._web = settings.web
        self._threads = threads
        signer = Signer(settings.data / KEYS_FOLDER, time.time)
        most, most_of_route = _turns(settings)
        self.queue = Queue(
            settings.data,
            rules(settings.queue),
            Turns(most, most_of_route),
            router=router,
            mail_store=mail_store,
            reporter=Reporter(settings.hostname, router.is_own_domain),
            sign=signer.sign,
            threads=threads,
            reactor=reactor,
            now=time.time,
        )
        self._resolver = DnsResolver(settings.dns, threads=threads, reactor=reactor)
        self._peers = PeerRecords(settings.data / "peers.sqlite")
        https = Https(
            self._resolver, reactor=reactor, private=settings.relay.private_addresses
        )
        self._tls_reporting = TlsReporting(
            self._peers,
            self._resolver,
            https,
            threads.peers,
            hostname=settings.hostname,
            sends=settings.relay.tls.reports,
            submit=self.queue.submit,
            reactor=reactor,
            now=time.time,
        )
        self._sts = StsCache(
            self._peers,
            self._resolver,
            https,
            threads.peers,
            time.time,
            self._tls_reporting.note_policy,
        )
        self._policies = Policies(
            settings.relay.tls,
            tls_policies.canonical(settings.relay.tls_policy),
            resolver=self._resolver,
            sts=self._sts,
            context=unverified_context(),
            note=self._tls_reporting.note,
        )
        self._relay = Relay(
            settings.relay,
            hostname=settings.hostname,
            listeners=settings.listen,
            resolver=self._resolver,
            policies=self._policies,
            seven_bit=SevenBitCopies(self.queue.spooled, signer.sign, threads.read),
            reading=threads.read,
            reactor=reactor,
            now=time.time,
        )
        self._members = Members(settings.data / "lists.sqlite", time.time)
        self.lists = self._list_carrier(settings, live, router, signer)
        self.list_posting = BuiltIn(
            "list-posting",
            ListPosting(self._members, lambda: live.current, threads.read),
        )
        local = LocalCarrier(
            router,
            mail_store,
            self.queue.spooled,
            deliverers,
            reading=threads.read,
            now=time.time,
        )
        alias = AliasCarrier(time.time)
        self._carriers = Carriers(local, self.lists, self._relay, alias)
        self._control = Control(self.queue, time.time, reactor)
        self._sweep = LoopingCall(self._sweep_old)
        self._renewal = LoopingCall(self._renew_policies)
        self._sweep.clock = self._renewal.clock = reactor

    def _list_carrier(
        self, settings: Settings, live: LiveDirectory, router: Router, signer: Signer
    ) -> ListCarrier:
        key = durable.secret(settings.data / "lists.secret")
        tokens = Tokens(key, time.time)
        addressing = Addressing(router)
        distributor = Distributor(
            self._members,
            tokens,
            signer,
            addressing,
            self.queue.spooled,
            self._resolver,
            self._base_url,
            self._threads.read,
            time.time,
        )
        return ListCarrier(
            self._members,
            tokens,
            distributor,
            directory=lambda: live.current,
            addressing=addressing,
            spool=self.queue.spooled,
            submit=self.queue.submit,
            held_folder=settings.data / "held",
            hostname=settings.hostname,
            base_url=self._base_url,
            reading=self._threads.read,
            now=time.time,
        )

    async def start(self) -> None:
        await self.queue.start(self._carriers)
        self._control.start(self._data)
        self._sweep.start(_SWEEP_S, now=False)
        self._renewal.start(_RENEW_S, now=False)
        self._tls_reporting.start()

    def use(self, settings: Settings) -> None:
        """Take new settings up."""
        self._web = settings.web
        self._resolver.use(settings.dns)
        self._relay.use(settings.relay)
        single = tls_policies.canonical(settings.relay.tls_policy)
        self._policies.use(settings.relay.tls, single)
        self._tls_reporting.sends = settings.relay.tls.reports
        self.queue.rules = rules(settings.queue)
        self.queue.turns.most, self.queue.turns.most_of_route = _turns(settings)

    async def drain(self) -> None:
        """Begin no more attempts, and wait for those that run."""
        await self.queue.drain()

    async def stop(self) -> None:
        """Cut what still runs, and close the rows."""
        for loop in (self._sweep, self._renewal):
            if loop.running:
                loop.stop()
        await self._control.stop()
        await self._relay.stop()
        await self.queue.stop()
        await self._tls_reporting.stop()
        await self._threads.peers.run(self._peers.close)
        await self._threads.read.run(self._members.close)

    def _base_url(self) -> str | None:
        return self._web.url

    def _sweep_old(self) -> "Deferred[None]":
        return Deferred.fromCoroutine(self._forget_old()).addErrback(_not_swept)

    async def _forget_old(self) -> None:
        await self._threads.read.run(self.lists.sweep)
        await self.queue.forget_words()

    def _renew_policies(self) -> "Deferred[None]":
        renewing = Deferred.fromCoroutine(self._sts.renew())
        return renewing.addErrback(_not_renewed)


def _turns(settings: Settings) -> tuple[int, int]:
    queue = settings.queue
    return queue.max_deliveries, queue.max_deliveries_per_destination


def _not_swept(failure: Failure) -> None:
    if not failure.check(CancelledError):  # else the server ends
        log.failure("forgetting what is old failed", failure)


def _not_renewed(failure: Failure) -> None:
    if not failure.check(CancelledError):  # else the server ends
        log.failure("renewing MTA-STS policies failed", failure)
