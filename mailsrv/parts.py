"""All parts of a running server, joined by their constructors' arguments.

Made when root is dropped; nothing here knows of signals, ports or twistd.
"""

import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.database import AccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.sent_counts import SentCounts
from mailsrv.connections import ConnectionLimits
from mailsrv.doors.guest import BuiltIn, Guest, PluginFailed
from mailsrv.doors.plugin import Plugins
from mailsrv.flow import Flow
from mailsrv.imap.server import ImapFactory
from mailsrv.interfaces import (
    IChangeListener,
    IConnectionPolicy,
    IDeliverer,
    IListenerService,
    IMessagePolicy,
    IRecipientPolicy,
    IRecipientResolver,
    IScramKeys,
    ISenderPolicy,
    ITokenVerifier,
    IUserDatabase,
)
from mailsrv.mailboxes.store import MailStore
from mailsrv.pop3.server import Pop3Factory
from mailsrv.routing.router import Router
from mailsrv.routing.srs import Srs
from mailsrv.settings import ImapSettings, Pop3Settings, Settings, SmtpSettings
from mailsrv.smtp.engine import ROLES, Role
from mailsrv.smtp.local_users import LocalUsers, LocalUsersFactory
from mailsrv.smtp.pick_up import PickUp
from mailsrv.smtp.policies import Policies
from mailsrv.smtp.sending_limits import SendingLimits
from mailsrv.smtp.server import SmtpFactory
from mailsrv.store import durable
from mailsrv.threads import Threads
from mailsrv.tls.contexts import TlsContexts
from mailsrv.web.server import WebFactory

log = Logger()


class Parts:
    """The parts, and what is done with all of them together."""

    def __init__(
        self,
        settings: Settings,
        tls: TlsContexts | None,
        reactor: Any,  # the global one: it provides more interfaces than one type has
    ) -> None:
        self.threads = Threads(reactor)
        plugins = Plugins(settings, reactor)
        self._database = AccountDatabase(settings.data / "accounts.sqlite")
        self._live = LiveDirectory(
            self._database, threads=self.threads, reactor=reactor
        )
        self._authenticator = Authenticator(
            live=self._live,
            threads=self.threads,
            reactor=reactor,
            settings=settings.login,
            users=plugins.providers(IUserDatabase),
            key_holders=plugins.providers(IScramKeys),
            verifiers=plugins.providers(ITokenVerifier),
        )
        self._mail_store = MailStore(
            settings.data / "mail",
            threads=self.threads,
            reactor=reactor,
            settings=settings.store,
            listeners=plugins.providers(IChangeListener),
        )
        self._smtp_limits = _limits(settings.smtp)
        self._imap_limits = _limits(settings.imap)
        self._pop3_limits = _limits(settings.pop3)
        router = Router(
            self._live,
            plugins.providers(IRecipientResolver),
            Srs(durable.secret(settings.data / "srs.secret"), time.time),
        )
        self._flow = Flow(
            settings,
            live=self._live,
            router=router,
            mail_store=self._mail_store,
            deliverers=plugins.providers(IDeliverer),
            threads=self.threads,
            reactor=reactor,
        )
        self._serves_sendmail = any(
            listener.service == "sendmail" for listener in settings.listen
        )
        self._sent_counts = SentCounts(settings.data / "sending.sqlite")
        self._limits = SendingLimits(
            self._sent_counts,
            settings.sending,
            account=router.account,
            submit=self._flow.queue.submit,
            pool=self.threads.read,
            now=time.time,
        )
        policies = self._policies(plugins)
        self._smtp: dict[Role, SmtpFactory] = {
            role: SmtpFactory(
                role,
                hostname=settings.hostname,
                settings=settings.smtp,
                tls_settings=settings.tls,
                tls=tls,
                router=router,
                authenticator=self._authenticator,
                mail_store=self._mail_store,
                queue=self._flow.queue,
                connections=self._smtp_limits,
                reactor=reactor,
                plugins=policies,
                log_wire=settings.log.level == "debug",
            )
            for role in ROLES
        }
        self._local_users = LocalUsers(
            settings.sendmail, lambda: self._live.current, self.threads
        )
        self._pick_up = PickUp(
            settings.sendmail.drop,
            self._local_users,
            self._smtp["submission"],
            self._flow.queue.report_refused,
            self.threads,
            reactor,
        )
        self._imap = ImapFactory(
            settings=settings.imap,
            tls_settings=settings.tls,
            tls=tls,
            authenticator=self._authenticator,
            mail_store=self._mail_store,
            connections=self._imap_limits,
            reactor=reactor,
            log_wire=settings.log.level == "debug",
        )
        self._pop3 = Pop3Factory(
            settings=settings.pop3,
            tls_settings=settings.tls,
            tls=tls,
            authenticator=self._authenticator,
            mail_store=self._mail_store,
            connections=self._pop3_limits,
            reactor=reactor,
        )
        self._web = WebFactory(self._flow.lists, reactor)
        self.connection_policies = plugins.providers(IConnectionPolicy)
        self._guest_services = plugins.providers(IListenerService)
        self.factories = self._by_service()
        self._live.changed.append(self._accounts_changed)

    def _policies(self, plugins: Plugins) -> Policies:
        """Return who is asked of SMTP's commands: what is built in comes first."""
        limits = BuiltIn("sending-limits", self._limits)
        return Policies(
            [limits, *plugins.providers(ISenderPolicy)],
            [limits, self._flow.list_posting, *plugins.providers(IRecipientPolicy)],
            plugins.providers(IMessagePolicy),
            plugins.providers(IDeliverer),
        )

    def _by_service(self) -> dict[str, IListenerService]:
        """Return the factories by the names that listeners use.

        One serves a protocol with TLS from the first octet and without.
        """
        return {
            **{
                guest.name: IListenerService(guest.provider)
                for guest in self._guest_services
            },
            "smtp": self._smtp["mx"],
            "submission": self._smtp["submission"],
            "submissions": self._smtp["submission"],
            "lmtp": self._smtp["lmtp"],
            "sendmail": LocalUsersFactory(self._local_users, self._smtp["submission"]),
            "imap": self._imap,
            "imaps": self._imap,
            "pop3": self._pop3,
            "pop3s": self._pop3,
            "web": self._web,
            "https": self._web,
        }

    def start(self) -> "Deferred[None]":
        """Read the accounts, blocking: without them no mail could be answered."""
        self._live.start()
        return Deferred.fromCoroutine(self._start_store())

    async def _start_store(self) -> None:
        await self._mail_store.start()
        await self._mail_store.accounts_changed(self._live.current.accounts())
        await self._flow.start()
        if self._serves_sendmail:
            await self._pick_up.start()

    async def use(self, settings: Settings) -> None:
        """Hand new settings to all, and read the accounts again."""
        self._authenticator.settings = settings.login
        self._mail_store.settings = settings.store
        self._flow.use(settings)
        self._local_users.settings = settings.sendmail
        self._limits.settings = settings.sending
        self._imap.settings = settings.imap
        self._pop3.settings = settings.pop3
        self._imap.tls_settings = self._pop3.tls_settings = settings.tls
        for factory in self._smtp.values():
            factory.tls_settings = settings.tls
            factory.settings = settings.smtp
            factory.log_wire = settings.log.level == "debug"
        self._imap.log_wire = settings.log.level == "debug"
        _change(self._smtp_limits, settings.smtp)
        _change(self._imap_limits, settings.imap)
        _change(self._pop3_limits, settings.pop3)
        await self._live.refresh()

    def _accounts_changed(self, directory: Directory) -> None:
        """End sessions of accounts that are gone, then let go of their mail."""
        self._imap.accounts_changed(directory)
        self._smtp["submission"].accounts_changed(directory)
        self._pop3.accounts_changed(directory)
        closing = Deferred.fromCoroutine(
            self._mail_store.accounts_changed(directory.accounts())
        )
        closing.addErrback(
            lambda failure: log.failure("closing accounts failed", failure)
        )

    async def drain(self) -> None:
        """Wait until no session is left; idle ones are ended at once."""
        drains: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self._imap.drain,
            self._pop3.drain,
            self._web.drain,
            self._flow.drain,
            *(factory.drain for factory in self._smtp.values()),
            *(partial(_drain, guest) for guest in self._guest_services),
        ]
        await DeferredList(
            [Deferred.fromCoroutine(drain()) for drain in drains],
            fireOnOneErrback=True,
        )

    async def stop(self) -> None:
        """Close what is open. Call it after `drain`."""
        self._live.stop()
        self._pick_up.stop()
        await self._flow.stop()
        self._sent_counts.close()
        await self._mail_store.stop()
        self.threads.stop()
        self._database.close()


async def _drain(service: Guest) -> None:
    with suppress(PluginFailed):  # it ends with the process, then
        await service.ask(lambda factory: factory.drain(), type(None))


def _limits(section: SmtpSettings | ImapSettings | Pop3Settings) -> ConnectionLimits:
    return ConnectionLimits(
        section.max_connections, section.max_connections_per_address
    )


def _change(
    limits: ConnectionLimits, section: SmtpSettings | ImapSettings | Pop3Settings
) -> None:
    limits.max_all = section.max_connections
    limits.max_per_address = section.max_connections_per_address
