"""All parts of a running server, joined by their constructors' arguments.

Made when root is dropped; nothing here knows of signals or of twistd.
"""

from typing import Any, get_args

from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.database import AccountDatabase
from mailsrv.accounts.live import LiveDirectory
from mailsrv.settings import Service, Settings
from mailsrv.threads import Threads
from mailsrv.tls.contexts import TlsContexts


class Parts:
    """The parts, and what is done with all of them together."""

    def __init__(
        self,
        settings: Settings,
        tls: TlsContexts | None,
        reactor: Any,  # the global one: it provides more interfaces than one type has
    ) -> None:
        self.threads = Threads(reactor)
        self._database = AccountDatabase(settings.data / "accounts.sqlite")
        self._live = LiveDirectory(
            self._database, threads=self.threads, reactor=reactor
        )
        self._authenticator = Authenticator(
            live=self._live,
            threads=self.threads,
            reactor=reactor,
            settings=settings.login,
        )
        self.factories: dict[str, IProtocolFactory] = dict.fromkeys(
            get_args(Service), Factory.forProtocol(Protocol)
        )

    def start(self) -> None:
        """Read the accounts, blocking: without them no mail could be answered."""
        self._live.start()

    async def use(self, settings: Settings) -> None:
        """Hand new settings to all, and read the accounts again."""
        self._authenticator.settings = settings.login
        await self._live.refresh()

    async def drain(self) -> None:
        """Wait until no session is left; idle ones are ended at once."""

    async def stop(self) -> None:
        """Close what is open. Call it after `drain`."""
        self._live.stop()
        self.threads.stop()
        self._database.close()
