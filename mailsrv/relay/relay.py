"""The carrier to other servers: finds the way, and sends.

Each recipient of a parcel ends with an answer: a host's, or why there was none.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger

from mailsrv.dns.resolver import DnsUnavailable, IResolver
from mailsrv.mime.downgrade import NotConvertible
from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.seven_bit import SevenBitCopies
from mailsrv.queue.values import Answer
from mailsrv.relay.attempt import Attempt, NotHere, for_now
from mailsrv.relay.connections import Connection, IdleConnections
from mailsrv.relay.hosts import HostFinder, MailHost, NoWay
from mailsrv.relay.own import SMTP_PORT, Own
from mailsrv.relay.racing import CONNECT_TIMEOUT_S, DownHosts, NotConnected, connect
from mailsrv.relay.routes import Route, Routes, read_password
from mailsrv.settings import Listener, RelaySettings
from mailsrv.smtp.client import ConnectionEnded, SmtpClient, TlsFailed
from mailsrv.smtp.client_engine import ClientEngine
from mailsrv.smtp.outgoing import Done, Lacking, Login
from mailsrv.smtp.reply import Reply
from mailsrv.threads import Pool
from mailsrv.tls.peer import (
    AnyHost,
    DomainPolicy,
    PeerPolicies,
    PeerTls,
    Unverified,
    Verified,
    unverified_context,
    verified_context,
)
from mailsrv.tls.peer_certificate import NotTrusted

log = Logger()

_NOBODY = NotHere(Reply(451, "4.4.1", "No mail server of the domain answers"))
_NO_PASSWORD = Reply(451, "4.7.0", "The password file of the route cannot be read")


class Relay:
    """Carries parcels over SMTP and LMTP. `stop` it in the end."""

    def __init__(
        self,
        settings: RelaySettings,
        *,
        hostname: str,
        listeners: list[Listener],
        resolver: IResolver,
        policies: PeerPolicies,
        seven_bit: SevenBitCopies,
        reading: Pool,
        reactor: Any,  # it provides more interfaces than one type has
        now: Callable[[], float],
        port: int = SMTP_PORT,  # of MX hosts
    ) -> None:
        self._port = port
        self._hostname = hostname
        self._own = Own(hostname, listeners)
        self._resolver = resolver
        self._policies = policies
        self._seven_bit = seven_bit
        self._reading = reading
        self._reactor = reactor
        self._now = now
        self._unverified = unverified_context()
        self._verified = verified_context()
        self._down = DownHosts(reactor.seconds)
        self._idle = IdleConnections(reactor)
        self._clients: set[SmtpClient] = set()  # that send, or are about to
        self._settings_number = 0
        self.use(settings)

    def use(self, settings: RelaySettings) -> None:
        """Take new settings for all that begins from now on.

        Connections that were made by the old ones serve nobody who comes now: the new
        ones may want TLS, or another certificate.
        """
        self._settings_number += 1
        self._idle.clear()
        self._routes = Routes(settings.route)
        self._hosts = HostFinder(
            self._resolver,
            self._own,
            private=settings.private_addresses,
            port=self._port,
        )

    async def stop(self) -> None:
        """Cut all connections; what was under way is tried again one day."""
        self._idle.stop()
        for client in list(self._clients):
            client.abort()

    def route(self, reverse_path: str, destination: str) -> str:
        return self._routes.find(reverse_path, destination).name

    async def carry(self, parcel: Parcel) -> Outcome:
        attempt = Attempt(parcel, self._now)
        route = self._routes.find(parcel.message.reverse_path, parcel.destination)
        require_tls = "REQUIRETLS" * parcel.message.require_tls
        tls_optional = "optional" * parcel.message.tls_optional
        needs = f"{route.tls} {require_tls} {tls_optional}"
        name = f"{self._settings_number} {route.name} {needs}"
        while (connection := self._idle.take(name)) is not None:
            said = await self._send(connection, name, attempt)
            if not isinstance(said, NotHere):
                return Outcome(said)
            if connection.client.usable:
                break  # it has answered, and would answer again
        try:
            return Outcome(await self._to_hosts(attempt, route, name))
        except NoWay as error:
            return Outcome(attempt.all(NotHere(error.reply)))

    async def _to_hosts(
        self, attempt: Attempt, route: Route, name: str
    ) -> tuple[Answer, ...]:
        """Try host after host until one has taken or refused the message."""
        message = attempt.parcel.message
        login = await self._login(route)
        if isinstance(login, NotHere):
            return attempt.all(login)
        policy = await self._policy(route, attempt.parcel)
        why = _NOBODY
        async for host in self._hosts_of(route, attempt.parcel.destination):
            said = await self._to_host(host, route, policy, login, attempt, name)
            if not isinstance(said, NotHere):
                return said
            log.info(
                "{mx}: {reason}",
                mx=said.peer or host.name,
                reason=said.reply.text,
                reply_code=said.reply.code,
                transaction=message.id,
                destination=attempt.parcel.destination,
            )
            # What one host lacks is for good only if no other one may have it.
            if why is _NOBODY or said.reply.code < 500:
                why = said
        return attempt.all(why)

    async def _hosts_of(self, route: Route, domain: str) -> AsyncIterator[MailHost]:
        target = route.target
        if target.path:
            yield MailHost("localhost", (), 0)
            return
        if target.host:
            hosts = self._hosts.of_name(target.host, target.port)
        else:
            hosts = self._hosts.of_domain(domain)
        async for host in hosts:
            yield host

    async def _policy(self, route: Route, parcel: Parcel) -> DomainPolicy:
        """Return what the way to a domain, or to a smarthost, has to show."""
        target, require_tls = route.target, parcel.message.require_tls
        if not target.host and not target.path:
            return await self._policies.for_domain(
                parcel.destination,
                require_tls=require_tls,
                tls_optional=parcel.message.tls_optional,
            )
        # RFC 8689 section 4.2.1 asks for a certificate that can be verified.
        if route.tls in ("require", "implicit") or (require_tls and target.host):
            return AnyHost(Verified(target.host, self._verified))
        never = target.path or route.tls == "never"
        return AnyHost(Unverified("never" if never else "may", self._unverified))

    async def _login(self, route: Route) -> Login | NotHere | None:
        file = route.password_file
        if file is None:
            return None
        try:
            password = await self._reading.run(lambda: read_password(Path(file)))
        except (OSError, ValueError):
            log.failure("{file} cannot be read", file=str(file))
            return NotHere(_NO_PASSWORD)
        return Login(route.login, password)

    async def _to_host(
        self,
        host: MailHost,
        route: Route,
        policy: DomainPolicy,
        login: Login | None,
        attempt: Attempt,
        name: str,
    ) -> tuple[Answer, ...] | NotHere:
        try:
            peer_tls = await policy.for_host(host.name, secure=host.secure)
            connection = await self._connect(host, route, peer_tls, login)
        except NotTrusted as error:
            return NotHere(Reply(451, "4.7.5", f"TLS: {error.text}"))
        except DnsUnavailable:
            reply = Reply(451, "4.7.5", "The name servers cannot say what TLS needs")
            return NotHere(reply)
        except NotConnected as error:
            return NotHere(Reply(451, "4.4.1", str(error)))
        if isinstance(connection, NotHere):
            return connection
        return await self._send(connection, name, attempt)

    async def _connect(
        self, host: MailHost, route: Route, peer_tls: PeerTls, login: Login | None
    ) -> Connection | NotHere:
        """Return a connection that is ready; without TLS if its TLS fails and may."""
        said = await self._connect_once(host, route, peer_tls, login)
        if isinstance(said, TlsFailed) and peer_tls.tls == "may":
            log.info("{mx}: {reason}; without TLS then", mx=host.name, reason=str(said))
            plain = Unverified("never", self._unverified)
            said = await self._connect_once(host, route, plain, login)
        if isinstance(said, ConnectionEnded):
            peer = "" if isinstance(said, TlsFailed) else host.name
            return NotHere(for_now(said.reply), peer)
        return said

    async def _connect_once(
        self, host: MailHost, route: Route, peer_tls: PeerTls, login: Login | None
    ) -> Connection | ConnectionEnded:
        lmtp = route.target.protocol == "lmtp"

        def make() -> SmtpClient:
            engine = ClientEngine(
                hostname=self._hostname, tls=peer_tls.tls, lmtp=lmtp, login=login
            )
            return SmtpClient(
                engine,
                self._reactor,
                host=host.name,
                tls=peer_tls,
                implicit_tls=route.tls == "implicit",
            )

        if route.target.path:
            client, ip = await self._connect_unix(route.target.path, make), ""
        else:
            client, ip = await connect(
                host.ips, host.port, make, down=self._down, reactor=self._reactor
            )
        self._clients.add(client)
        try:
            await client.ready()
        except ConnectionEnded as ended:
            return ended
        finally:
            self._clients.discard(client)
        peer = f"{host.name} [{ip}]" if ip else route.target.path
        return Connection(client, peer, self._reactor.seconds())

    async def _connect_unix(
        self, path: str, make: Callable[[], SmtpClient]
    ) -> SmtpClient:
        factory = Factory.forProtocol(make)
        factory.noisy = False
        endpoint = UNIXClientEndpoint(self._reactor, path, CONNECT_TIMEOUT_S)
        try:
            client: SmtpClient = await endpoint.connect(factory)
        except Exception as error:  # what a socket can fail with
            raise NotConnected(f"{path}: {error}") from error
        return client

    async def _send(
        self, connection: Connection, name: str, attempt: Attempt
    ) -> tuple[Answer, ...] | NotHere:
        """Send over a connection, and keep it for the next message if that can be."""
        client, peer = connection.client, connection.peer
        self._clients.add(client)
        try:
            done = await self._transact(client, attempt)
        except Lacking as lacking:
            return attempt.lacking(lacking.extension, peer, client.tls)
        finally:
            self._clients.discard(client)
            connection.messages += 1
            self._idle.give(name, connection)
        if done.uncertain:
            log.warn(
                "{mx} may have the message, and did not say so",
                mx=peer,
                transaction=attempt.parcel.message.id,
            )
        takes_dsn = "DSN" in client.engine.extensions
        return attempt.answered(done, peer, client.tls, takes_dsn=takes_dsn)

    async def _transact(self, client: SmtpClient, attempt: Attempt) -> Done:
        """Send the message, in 7 bits if it must be. Raises `Lacking`."""
        try:
            return await client.send(attempt.outgoing(), attempt.pieces())
        except Lacking as lacking:
            if lacking.extension != "8BITMIME":
                raise
            try:
                async with self._seven_bit.of(attempt.parcel) as parcel:
                    converted = replace(attempt, parcel=parcel)
                    return await client.send(converted.outgoing(), converted.pieces())
            except NotConvertible as error:
                log.info(
                    "{transaction} cannot be sent in 7 bits: {reason}",
                    transaction=attempt.parcel.message.id,
                    reason=str(error),
                )
                raise lacking from error
