"""Decides about logins: passwords checked off the reactor, guessers delayed.

The order of a login: a remembered good one answers at once; else one login at a time
of an account from a network, after the wait that `guessers` puts on it, with a turn
of the hashing threads. Unknown names take the same way with the same cost.
"""

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from twisted.internet.defer import DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from mailsrv.accounts import app_passwords
from mailsrv.accounts.app_passwords import NotForThis
from mailsrv.accounts.bearer import OAuthBearer, XOAuth2
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.edits import set_password_hash
from mailsrv.accounts.exchange import (
    Attempt,
    BadCredentials,
    BadToken,
    Exchange,
    LoginUnavailable,
)
from mailsrv.accounts.guessers import Guessers, network
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import (
    hash_password,
    needs_rehash,
    new_keys,
    verify_password,
)
from mailsrv.accounts.remembered import RememberedLogins
from mailsrv.accounts.sasl import Login, Mechanism, Plain, Proof, Token
from mailsrv.accounts.scram import (
    ChannelBinding,
    Keys,
    Scram,
    feigned_keys,
    read_keys,
)
from mailsrv.accounts.strangers import full_name, loggable, stand_in
from mailsrv.accounts.turns import TooManyWaiting, Turns
from mailsrv.doors.guest import Asked, PluginFailed
from mailsrv.doors.values import TokenRefused
from mailsrv.settings import LoginSettings
from mailsrv.threads import Threads

log = Logger()

HASH_SLOTS = 2  # as many as `Threads` has hashing threads
MAX_QUEUED_LOGINS = 50  # of one account from one network or known address
MAX_NAME = 320  # characters kept of a log-in name: 64 + @ + 255


class Authenticator:
    """One for the process; called in the reactor thread."""

    def __init__(
        self,
        *,
        live: LiveDirectory,
        threads: Threads,
        reactor: IReactorTime,
        settings: LoginSettings,
        users: Sequence[Asked] = (),
        key_holders: Sequence[Asked] = (),
        verifiers: Sequence[Asked] = (),
    ) -> None:
        """`users` are the databases that know passwords beside our own ones (behind
        `IUserDatabase`), `key_holders` those of them that know keys (`IScramKeys`),
        `verifiers` know tokens (`ITokenVerifier`).
        """
        self.settings = settings
        self._users = users
        self._key_holders = key_holders
        self._verifiers = verifiers
        self._live = live
        self._threads = threads
        self._clock = reactor
        self._guessers = Guessers()
        self._turns = Turns(HASH_SLOTS)
        # One login at a time of an account from a network: five connections that
        # a client opens at once cost one hash, and guesses have no short cut.
        self._locks: dict[tuple[str, str], DeferredLock] = {}
        self._remembered = RememberedLogins()

    def mechanisms(self, *, can_bind: bool) -> tuple[str, ...]:
        """The names of the SASL mechanisms to offer.

        `can_bind` says whether the connection has channel bindings. PLAIN and LOGIN
        come first, since devices look for them there; the others choose for themselves.
        """
        names = ["PLAIN", "LOGIN"]
        if self._offers_scram():
            plus = can_bind and self.settings.scram_plus
            names += ["SCRAM-SHA-256-PLUS"] if plus else []
            names.append("SCRAM-SHA-256")
        if self._verifiers:
            names += ["OAUTHBEARER", "XOAUTH2"]
        return tuple(names)

    def _offers_scram(self) -> bool:
        # The name comes after the choice of a mechanism: a client whose account lacks
        # keys would fail with the right password, and often not try another way.
        if self.settings.scram == "auto":
            all_users = len(self._key_holders) == len(self._users)
            return all_users and self._live.current.all_have_scram_keys
        return self.settings.scram == "on"

    def exchange(
        self, name: str, attempt: Attempt, binding: ChannelBinding | None
    ) -> Exchange | None:
        """Begin an exchange of a mechanism; None: it is not offered."""
        if name not in self.mechanisms(can_bind=binding is not None):
            return None
        mechanism: Mechanism
        match name:
            case "PLAIN":
                mechanism = Plain()
            case "LOGIN":
                mechanism = Login()
            case "OAUTHBEARER":
                mechanism = OAuthBearer()
            case "XOAUTH2":
                mechanism = XOAuth2()
            case _:
                # Without -PLUS a client may say that we have no channel bindings.
                offered = binding if self.settings.scram_plus else None
                mechanism = Scram(plus=name.endswith("-PLUS"), binding=offered)
        return Exchange(self, mechanism, attempt)

    async def login(
        self, login: str, password: str, attempt: Attempt, *, authzid: str = ""
    ) -> Account:
        """Return the account; raises `BadCredentials` or `LoginUnavailable`.

        May take seconds for guessers. Any other exception means that no decision could
        be made: a temporary error.
        """
        login = login[:MAX_NAME]
        checked = self._by_password(login, password, attempt)
        return await self._logged(checked, login, authzid, attempt)

    async def scram_keys(self, login: str) -> Keys:
        """The keys of a log-in name; feigned ones if it has none, or is none."""
        # All of it for each name: no name is known by the time that it takes.
        directory = await self._live.refresh()
        account = directory.login(login[:MAX_NAME])
        stranger = full_name(directory, login[:MAX_NAME])
        name = stranger if account is None else account.name
        feigned = str(feigned_keys(directory.probe_key, name))
        return await self._keys_of(account, name) or read_keys(feigned)

    async def _keys_of(self, account: Account | None, name: str) -> Keys | None:
        """The keys of an account; as slowly for one that is not there."""
        try:
            for holder in self._key_holders:
                stored = await holder.ask(partial(_keys, name), str, type(None))
                if stored is not None and account is not None:
                    return _read(stored, holder.name)
        except PluginFailed as error:
            raise LoginUnavailable from error
        if account is None or account.scram_keys is None:
            return None
        return read_keys(account.scram_keys)

    async def prove(self, proof: Proof, attempt: Attempt) -> Account:
        """As `login`, for somebody who has shown that he knows the password."""
        login = proof.login[:MAX_NAME]
        checked = self._by_proof(login, proof, attempt.peer)
        return await self._logged(checked, login, proof.authzid, attempt)

    async def bearer(self, token: Token, attempt: Attempt) -> Account:
        """As `login`, for somebody with a token; raises `BadToken` in its place."""
        login = token.login[:MAX_NAME]
        checked = self._by_token(login, token.token, attempt.peer)
        return await self._logged(checked, login, "", attempt)

    async def _logged(
        self, checked: Awaitable[Account], login: str, authzid: str, attempt: Attempt
    ) -> Account:
        """Await the decision and write its line."""
        about = {
            "session": attempt.session,
            "peer": attempt.peer,
            "service": attempt.service,
        }
        try:
            account = await checked
            if not _may_act_as(account, authzid, self._live.current):
                raise BadCredentials
        except BadCredentials:
            log.info("login failed", user=loggable(self._live.current, login), **about)
            raise
        by = {"app_password": account.app} if account.app else {}
        log.info("login", user=account.name, **by, **about)
        return account

    def _by_app_password(
        self, login: str, password: str, service: str
    ) -> Account | None:
        """The account, if one of its app passwords was given."""
        account = self._live.current.login(login)
        if account is None:
            return None
        try:
            return app_passwords.log_in(account, password, service, time.time())
        except NotForThis as error:
            raise BadCredentials from error

    async def _by_password(
        self, login: str, password: str, attempt: Attempt
    ) -> Account:
        peer = attempt.peer
        if (app := self._by_app_password(login, password, attempt.service)) is not None:
            return app

        def remembered() -> Account | None:
            account = self._live.current.login(login)
            now = self._clock.seconds()
            if account is not None and self._remembered.has(account, password, now):
                return account
            return None

        if (account := remembered()) is not None:
            return account
        async with self._turn_of(login, peer) as name:
            if (account := remembered()) is not None:
                return account  # by the login before this one
            await self._wait(name, peer)
            digest = self._remembered.digest(name, "", password)
            try:
                good = await self._verify(login, password, peer)
            except PluginFailed as error:
                # It counts, or one might guess our own passwords meanwhile.
                self._guessers.failed(name, peer, digest, self._clock.seconds())
                raise LoginUnavailable from error
            return self._counted(name, peer, digest, good)

    async def _by_proof(self, login: str, proof: Proof, peer: str) -> Account:
        async with self._turn_of(login, peer) as name:
            await self._wait(name, peer)
            account = self._live.current.login(login)
            good = (
                proof.is_good
                and account is not None
                and account.enabled
                # Not those of a password that was changed since the exchange began.
                and await self._keys_of(account, account.name) == proof.keys
            )
            # The same wrong password counts again: its proofs differ, and to compare
            # them takes the key that is made of it, which we do not know.
            digest = secrets.token_bytes(32)
            return self._counted(name, peer, digest, account if good else None)

    async def _by_token(self, login: str, token: str, peer: str) -> Account:
        async with self._turn_of(login, peer) as name:
            await self._wait(name, peer)
            answer = await self._verified(token, login)
            good, refused = None, TokenRefused()
            if isinstance(answer, TokenRefused):
                refused = answer
            elif token:  # no token is nobody's, whatever a verifier says
                good = await self._holder(answer, login)
            try:
                digest = self._remembered.digest(name, "", token)
                return self._counted(name, peer, digest, good)
            except BadCredentials:
                raise BadToken(refused) from None

    async def _verified(self, token: str, login: str) -> str | TokenRefused:
        """What the verifiers say, of which the first that knows the token counts."""
        answer: str | TokenRefused = TokenRefused()
        ask = partial(_whose, token, login)
        try:
            for verifier in self._verifiers:
                answer = await verifier.ask(ask, str, TokenRefused)
                if isinstance(answer, str):
                    break
        except PluginFailed as error:
            raise LoginUnavailable from error
        return answer

    async def _holder(self, name: str, login: str) -> Account | None:
        """The account of a token, if the client claims to be no other."""
        directory = self._live.current
        if directory.login(name) is None:
            directory = await self._live.refresh()
        account = directory.login(name)
        if account is None or not account.enabled:
            return None
        return account if not login or directory.login(login) == account else None

    @asynccontextmanager
    async def _turn_of(self, login: str, peer: str) -> AsyncIterator[str]:
        """Logins of an account from a network come one by one; what counts them."""
        directory = self._live.current
        account = directory.login(login)
        # An account is the same with its domain and without: unknown names are, too.
        stranger = f"unknown {full_name(directory, login)}"
        name = stranger if account is None else account.name
        source = self._guessers.source(name, peer, self._clock.seconds())
        lock = self._locks.setdefault((name, source), DeferredLock())
        if len(lock.waiting) >= MAX_QUEUED_LOGINS:
            raise LoginUnavailable
        await lock.acquire()
        try:
            yield name
        except TooManyWaiting as error:
            raise LoginUnavailable from error
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop((name, source), None)

    async def _wait(self, name: str, peer: str) -> None:
        wait_s = self._guessers.wait_s(
            name, peer, self._clock.seconds(), self.settings.max_delay_s
        )
        if wait_s > 0:
            await deferLater(self._clock, wait_s)

    def _counted(
        self, name: str, peer: str, digest: bytes, good: Account | None
    ) -> Account:
        """Return the account, or remember a failure of what `digest` stands for."""
        now = self._clock.seconds()
        if good is None:
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
        if newer != account:
            if await self._is_password(newer, login, password, peer):
                return await self._accepted(newer, password)
            account = newer
        if await self._is_known_elsewhere(account, login, password):
            return await self._accepted(account, password, ours=False)
        return None

    async def _is_known_elsewhere(
        self, account: Account | None, login: str, password: str
    ) -> bool:
        """Ask the other databases, for an unknown name as well: it takes its time."""
        name = account.name if account else full_name(self._live.current, login)
        for users in self._users:
            good = await users.ask(partial(_checked, name, password), bool)
            if good and account is not None:
                return True
        return False

    async def _is_password(
        self, account: Account | None, login: str, password: str, peer: str
    ) -> bool:
        settings = self.settings
        trusted = self._guessers.is_trusted(peer, self._clock.seconds())
        await self._turns.take(network(peer), trusted)
        try:
            known = account or stand_in(self._live.current, login)
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

    async def _accepted(
        self, account: Account | None, password: str, *, ours: bool = True
    ) -> Account | None:
        if account is None or not account.enabled:
            return None
        if ours and self._needs_renewal(account):
            try:
                account = await self._renew(account, password)
            except Exception:  # a right password counts, whatever the disk says
                log.failure("cannot store a new hash for {user}", user=account.name)
        forgotten_at = self._clock.seconds() + self.settings.cache_s
        self._remembered.add(account, password, forgotten_at)
        return account

    def _needs_renewal(self, account: Account) -> bool:
        wants_keys = self.settings.scram != "off"
        return (account.scram_keys is not None) is not wants_keys or needs_rehash(
            account.password_hash, self.settings
        )

    async def _renew(self, account: Account, password: str) -> Account:
        """Store what is made of the password by the settings of today."""
        settings, database = self.settings, self._live.database

        def store() -> None:
            hashed = account.password_hash
            if needs_rehash(hashed, settings):
                hashed = hash_password(password, settings)
            keys = new_keys(password, settings)

            def change(directory: Directory) -> Directory:
                if directory.account(account.name) != account:
                    return directory  # somebody has just set another password
                return set_password_hash(directory, account.name, hashed, keys)

            database.edit(change)

        await self._threads.hash.run(store)
        return (await self._live.refresh()).account(account.name) or account


# Any: what plugins are and answer.


def _checked(account: str, password: str, users: Any) -> Any:
    return users.check_password(account, password)


def _keys(account: str, users: Any) -> Any:
    return users.scram_keys(account)


def _may_act_as(account: Account, authzid: str, directory: Directory) -> bool:
    """RFC 4616 section 2: nobody acts for another here."""
    return not authzid or directory.login(authzid) == account


def _whose(token: str, login: str, verifier: Any) -> Any:
    return verifier.verify(token, login)


def _read(stored: str, plugin: str) -> Keys:
    try:
        return read_keys(stored)
    except ValueError as error:
        log.error("{plugin} gives what are no keys of SCRAM-SHA-256", plugin=plugin)
        raise PluginFailed(plugin) from error
