"""Decides about logins: passwords checked off the reactor, guessers delayed."""

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from mailsrv.accounts.directory import Account
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import hash_password, verify_password
from mailsrv.settings import LoginSettings
from mailsrv.threads import Threads

log = Logger()


class BadCredentials(Exception):
    """Wrong name, wrong password or a disabled account: the peer is not told which."""


class LoginUnavailable(Exception):
    """No decision now (too many at once): a temporary error, try again."""


class Authenticator:
    """One for the process; called in the reactor thread."""

    def __init__(
        self,
        *,
        live: LiveDirectory,
        threads: Threads,
        reactor: IReactorTime,
        settings: LoginSettings,
    ) -> None:
        self._live = live
        self._threads = threads
        self.settings = settings

    async def login(
        self,
        login: str,
        password: str,
        peer: str,
        *,
        authzid: str = "",
        session: str = "-",
        service: str = "-",
    ) -> Account:
        """Return the account; raises `BadCredentials` or `LoginUnavailable`.

        `peer` is the address of the client as text. May take seconds for guessers.
        Any other exception means that no decision could be made: a temporary error.
        """
        account = self._live.current.login(login)
        if account is None:
            account = (await self._live.refresh()).login(login)
        if account is None:
            await self._threads.hash.run(lambda: hash_password(password, self.settings))
            raise BadCredentials
        hashed = account.password_hash
        if not await self._threads.hash.run(lambda: verify_password(hashed, password)):
            raise BadCredentials
        if not account.enabled:
            raise BadCredentials
        return account
