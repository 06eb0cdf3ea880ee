"""Programs of this machine that send by ``mailsrv sendmail``: who they are.

The system says whose process is at the other end of a UNIX socket (SO_PEERCRED), and
whose a dropped file is; no password is asked for.
"""

import os
import pwd
import secrets
import socket
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.devices import Devices
from mailsrv.accounts.directory import Directory
from mailsrv.interfaces import IListenerService
from mailsrv.settings import SendmailSettings
from mailsrv.smtp.server import SmtpFactory
from mailsrv.smtp.transaction import Client
from mailsrv.threads import Threads

log = Logger()

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


class LocalUsers:
    """What the users of this machine may send."""

    def __init__(
        self,
        settings: SendmailSettings,
        directory: Callable[[], Directory],
        threads: Threads,
    ) -> None:
        self.settings = settings  # may be replaced
        self._directory = directory
        self._threads = threads

    async def of(self, uid: int) -> Devices:
        """Say what the user `uid` may do."""
        name = await self._threads.read.run(lambda: _name(uid))
        own = [f"{name}@{self.domain}"]
        for user in self.settings.users:
            if user.name == name:
                own += user.send_as
        return Devices(
            f"user {name}",
            tuple(_canonical(own)),
            self.settings.max_messages_per_hour,
            any_own_address=uid in (0, os.geteuid()),
        )

    def client(self, user: Devices) -> Client:
        """Return the other end of a session with a user's program."""
        return Client(
            secrets.token_hex(4), "", "submission", devices=user, domain=self.domain
        )

    @property
    def domain(self) -> str:
        """The domain of names that have none: the oldest one."""
        return next(iter(self._directory().domains), "localhost")


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"


def _canonical(addresses: list[str]) -> list[str]:
    found = []
    for address in addresses:
        try:
            found.append(parse(address).canonical)
        except InvalidAddress:  # a user's name that no address can have
            continue
    return found


@implementer(IListenerService)
class LocalUsersFactory(Factory):
    """Serves the socket of ``mailsrv sendmail``: submission without a log-in."""

    noisy = False

    def __init__(self, users: LocalUsers, submission: SmtpFactory) -> None:
        self.users = users
        self.submission = submission

    def buildProtocol(self, addr: IAddress | None) -> "Caller":
        return Caller(self)

    async def drain(self) -> None:
        """The sessions are those of submission, which are drained there."""


class Caller(Protocol):
    """A connection until it is known whose it is; then a session takes its place."""

    transport: Any  # a UNIX transport; no interface has its `protocol`

    def __init__(self, factory: LocalUsersFactory) -> None:
        self._factory = factory
        self._held = b""
        self._lost = False

    def connectionMade(self) -> None:
        self.transport.pauseProducing()
        option = self.transport.socket.getsockopt(
            socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
        )
        _, uid, _ = _CREDENTIALS.unpack(option)
        Deferred.fromCoroutine(self._enter(uid)).addErrback(self._broke)

    def dataReceived(self, data: bytes) -> None:
        self._held += data  # of one read: no more comes in a pause

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True

    async def _enter(self, uid: int) -> None:
        factory = self._factory
        user = await factory.users.of(uid)
        if self._lost:
            return
        client = factory.users.client(user)
        session: IProtocol = factory.submission.session(client)
        self.transport.protocol = session
        self.transport.resumeProducing()  # before: a session may pause it again
        session.makeConnection(self.transport)
        if self._held:
            session.dataReceived(self._held)

    def _broke(self, failure: Failure) -> None:
        log.failure("no session begins", failure, service="sendmail")
        self.transport.abortConnection()
