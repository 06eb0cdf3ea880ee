"""Decides about logins: passwords checked off the reactor, guessers delayed.

The order of a login: a remembered good one answers at once; else one login at a time
of an account from a network, after the wait that `guessers` puts on it, with a turn
of the hashing threads. Unknown names take the same way with the same cost.
"""

import hashlib
import hmac
import secrets
from collections import OrderedDict

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress, fold, parse
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.edits import set_password_hash
from mailsrv.accounts.guessers import Guessers, network
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import hash_password, needs_rehash, verify_password
from mailsrv.accounts.turns import TooManyWaiting, Turns
from mailsrv.settings import LoginSettings
from mailsrv.threads import Threads

log = Logger()

HASH_SLOTS = 2  # as many as `Threads` has hashing threads
MAX_QUEUED_LOGINS = 50  # of one account from one network or known address
MAX_REMEMBERED_LOGINS = 20_000
MAX_NAME = 320  # characters kept of a log-in name: 64 + @ + 255


class BadCredentials(Exception):
    """Wrong name, wrong password or a disabled account: the peer is not told which."""


class LoginUnavailable(Exception):
    """No decision now, since too many log in at once: a temporary error."""


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
        self.settings = settings
        self._live = live
        self._threads = threads
        self._clock = reactor
        self._guessers = Guessers()
        self._turns = Turns(HASH_SLOTS)
        # One login at a time of an account from a network: five connections that
        # a client opens at once cost one hash, and guesses have no short cut.
        self._locks: dict[tuple[str, str], DeferredLock] = {}
        # Digests of good logins -> when they are forgotten. No password is kept: the
        # key dies with the process.
        self._key = secrets.token_bytes(32)
        self._good: OrderedDict[bytes, float] = OrderedDict()

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
        try:
            account = await self._checked(login[:MAX_NAME], password, peer)
            if not _may_act_as(account, authzid, self._live.current):
                raise BadCredentials
        except BadCredentials:
            log.info(
                "login failed",
                session=session,
                peer=peer,
                user=_loggable(login[:MAX_NAME], self._live.current),
                service=service,
            )
            raise
        log.info(
            "login", session=session, peer=peer, user=account.name, service=service
        )
        return account

    async def _checked(self, login: str, password: str, peer: str) -> Account:
        account = self._live.current.login(login)
        if account is not None and self._is_remembered(account, password):
            return account
        name = f"unknown {fold(login)}" if account is None else account.name
        source = self._guessers.source(name, peer, self._clock.seconds())
        lock = self._locks.setdefault((name, source), DeferredLock())
        if len(lock.waiting) >= MAX_QUEUED_LOGINS:
            raise LoginUnavailable
        await lock.acquire()
        try:
            return await self._in_turn(name, login, password, peer)
        except TooManyWaiting as error:
            raise LoginUnavailable from error
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop((name, source), None)

    async def _in_turn(
        self, name: str, login: str, password: str, peer: str
    ) -> Account:
        account = self._live.current.login(login)
        if account is not None and self._is_remembered(account, password):
            return account  # by the login before this one
        wait_s = self._guessers.wait_s(
            name, peer, self._clock.seconds(), self.settings.max_delay_s
        )
        if wait_s > 0:
            await deferLater(self._clock, wait_s)
        good = await self._verify(login, password, peer)
        now = self._clock.seconds()
        if good is None:
            digest = self._digest(name, "", password)
            self._guessers.failed(name, peer, digest, now)
            raise BadCredentials
        self._guessers.succeeded(name, peer, now)
        return good

    async def _verify(self, login: str, password: str, peer: str) -> Account | None:
        """Check against the directory as it is now, at the cost of one hash.

        Only a password that was changed in this moment costs a second one.
        """
        account = self._live.current.login(login)
        if account is None:
            account = (await self._live.refresh()).login(login)
        if await self._is_password(account, login, password, peer):
            return await self._accepted(account, password)
        newer = (await self._live.refresh()).login(login)
        if newer == account:
            return None
        if await self._is_password(newer, login, password, peer):
            return await self._accepted(newer, password)
        return None

    async def _is_password(
        self, account: Account | None, login: str, password: str, peer: str
    ) -> bool:
        settings = self.settings
        trusted = self._guessers.is_trusted(peer, self._clock.seconds())
        await self._turns.take(network(peer), trusted)
        try:
            known = account or _stand_in(self._live.current, login)
            if known is None:
                await self._threads.hash.run(lambda: hash_password(password, settings))
                return False
            hashed = known.password_hash
            good = await self._threads.hash.run(
                lambda: verify_password(hashed, password, settings)
            )
            return good and account is not None
        finally:
            self._turns.release()

    async def _accepted(self, account: Account | None, password: str) -> Account | None:
        if account is None or not account.enabled:
            return None
        if needs_rehash(account.password_hash, self.settings):
            try:
                account = await self._rehash(account, password)
            except Exception:  # a right password counts, whatever the disk says
                log.failure("cannot store a new hash for {user}", user=account.name)
        self._remember(account, password)
        return account

    async def _rehash(self, account: Account, password: str) -> Account:
        """Store the password's hash with the parameters that are set now."""
        settings, database = self.settings, self._live.database

        def store() -> None:
            hashed = hash_password(password, settings)

            def change(directory: Directory) -> Directory:
                if directory.account(account.name) != account:
                    return directory  # somebody has just set another password
                return set_password_hash(directory, account.name, hashed)

            database.edit(change)

        await self._threads.hash.run(store)
        return (await self._live.refresh()).account(account.name) or account

    def _is_remembered(self, account: Account, password: str) -> bool:
        """Whether this password was good for the account as it is now."""
        digest = self._digest(account.name, account.password_hash, password)
        forgotten_at = self._good.get(digest)
        return (
            account.enabled
            and forgotten_at is not None
            and self._clock.seconds() < forgotten_at
        )

    def _remember(self, account: Account, password: str) -> None:
        digest = self._digest(account.name, account.password_hash, password)
        self._good[digest] = self._clock.seconds() + self.settings.cache_s
        self._good.move_to_end(digest)
        if len(self._good) > MAX_REMEMBERED_LOGINS:
            self._good.popitem(last=False)

    def _digest(self, name: str, password_hash: str, password: str) -> bytes:
        """Stands for a password of an account and, through its hash, of this moment."""
        parts = (name, password_hash, password)
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, hashlib.sha256)


def _may_act_as(account: Account, authzid: str, directory: Directory) -> bool:
    """RFC 4616 section 2: nobody acts for another here."""
    return not authzid or directory.login(authzid) == account


def _stand_in(directory: Directory, login: str) -> Account | None:
    """The account whose hash an unknown name costs, always the same one.

    Accounts may have hashes of different schemes and costs: so unknown names take as
    long as known ones do, whatever the mixture is.
    """
    accounts = tuple(directory.accounts())
    if not accounts:
        return None
    name = fold(login).encode("utf-8", "surrogatepass")
    drawn = hmac.digest(directory.probe_key, b"stand-in " + name, hashlib.sha256)
    return accounts[int.from_bytes(drawn) % len(accounts)]


def _loggable(login: str, directory: Directory) -> str:
    """What the log shows of a refused log-in name: people type passwords there."""
    account = directory.login(login)
    if account is not None:
        return account.name
    try:
        return parse(login).canonical
    except InvalidAddress:
        return "?"
