"""Logins: right and wrong ones, what is remembered, what guessers wait for."""

from typing import cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import authenticator
from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.edits import (
    add_account,
    add_alias,
    add_domain,
    set_enabled,
    set_password_hash,
)
from mailsrv.accounts.exchange import Attempt, BadCredentials, LoginUnavailable
from mailsrv.accounts.live import LiveDirectory
from mailsrv.accounts.passwords import hash_password, needs_rehash, verify_password
from mailsrv.accounts.strangers import stand_in
from mailsrv.settings import LoginSettings
from tests.inline_threads import InlineThreads

CHEAP = LoginSettings(argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1, scram="off")
ANNA, BERT = "anna@example.test", "bert@example.test"


def office(directory: Directory) -> Directory:
    directory = add_domain(directory, "example.test")
    directory = add_account(directory, ANNA, hash_password("secret", CHEAP))
    directory = add_alias(directory, "info@example.test", [ANNA])
    return add_account(directory, BERT, hash_password("sésame", CHEAP))


class AuthenticatorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.clock = self.threads.clock
        self.database = MemoryAccountDatabase()
        self.database.edit(office)
        self.live = LiveDirectory(
            self.database, threads=self.threads, reactor=self.clock
        )
        self.live.start()
        self.addCleanup(self.live.stop)
        self.logins = Authenticator(
            live=self.live, threads=self.threads, reactor=self.clock, settings=CHEAP
        )

    def login(
        self, login: str, password: str, peer: str = "192.0.2.1", authzid: str = ""
    ) -> "Deferred[Account]":
        return Deferred.fromCoroutine(
            self.logins.login(login, password, Attempt(peer), authzid=authzid)
        )

    def good(self, login: str, password: str, peer: str = "192.0.2.1") -> Account:
        return self.successResultOf(self.login(login, password, peer))

    def refused(self, login: str, password: str, peer: str = "192.0.2.1") -> float:
        """Wait until the login is refused; return the seconds that it took."""
        begun = self.clock.seconds()
        result = self.login(login, password, peer)
        outcome: list[object] = []
        result.addBoth(outcome.append)
        while not outcome:
            self.clock.advance(1 / 64)
        self.assertIsInstance(getattr(outcome[0], "value", None), BadCredentials)
        return self.clock.seconds() - begun

    def hashes(self, waiting: "Deferred[Account]") -> int:
        """How many hashes a held login costs."""
        count = 0
        while self.threads.hash_jobs.jobs:
            self.threads.hash_jobs.step()
            count += 1
        self.assertTrue(waiting.called)
        return count


class LoginTests(AuthenticatorCase):
    def test_right_password(self) -> None:
        self.assertEqual(self.good(ANNA, "secret").name, ANNA)
        self.assertEqual(self.good("ANNA", "secret").name, ANNA)

    def test_wrong_password_and_unknown_name_fail_alike(self) -> None:
        for login, password in ((ANNA, "Secret"), ("nobody", "secret"), ("", "")):
            self.refused(login, password)

    def test_alias_is_no_login(self) -> None:
        self.refused("info@example.test", "secret")

    def test_password_typed_decomposed(self) -> None:
        self.good(BERT, "se\u0301same")

    def test_authzid(self) -> None:
        self.successResultOf(self.login(ANNA, "secret", authzid="anna"))
        self.failureResultOf(self.login(ANNA, "secret", authzid=BERT), BadCredentials)

    def test_unknown_name_costs_one_hash_as_a_wrong_password_does(self) -> None:
        self.threads.hash_jobs.held = True
        for login in (ANNA, "nobody"):
            waiting = self.login(login, "wrong")
            self.assertEqual(self.hashes(waiting), 1)
            self.failureResultOf(waiting, BadCredentials)

    def test_unknown_name_costs_the_hash_of_some_account(self) -> None:
        directory = self.live.current
        drawn = {name: stand_in(directory, name) for name in map(str, range(40))}
        self.assertEqual({getattr(a, "name", "") for a in drawn.values()}, {ANNA, BERT})
        # The same one at each attempt, and after a restart.
        again = self.database.snapshot()
        for name, account in drawn.items():
            self.assertEqual(stand_in(again, name.upper()), account)
        self.assertIsNone(stand_in(Directory(), "nobody"))

    def test_hash_of_another_server_is_replaced(self) -> None:
        self.database.edit(lambda d: set_password_hash(d, ANNA, "{PLAIN}old secret"))
        self.successResultOf(Deferred.fromCoroutine(self.live.refresh()))
        self.refused(ANNA, "secret")
        self.clock.advance(1)
        self.good(ANNA, "old secret")
        account = self.live.current.account(ANNA)
        assert account is not None
        self.assertTrue(account.password_hash.startswith("$argon2id$"))
        self.clock.advance(CHEAP.cache_s + 1)
        self.good(ANNA, "old secret")

    def test_account_added_just_now(self) -> None:
        hashed = hash_password("new", CHEAP)
        self.database.edit(lambda d: add_account(d, "carl@example.test", hashed))
        self.good("carl", "new")

    def test_password_changed_just_now(self) -> None:
        hashed = hash_password("new", CHEAP)
        self.database.edit(lambda d: set_password_hash(d, ANNA, hashed))
        self.good(ANNA, "new")
        self.refused(ANNA, "secret")

    def test_disabled_account(self) -> None:
        self.good(ANNA, "secret")
        self.database.edit(lambda d: set_enabled(d, ANNA, False))
        self.successResultOf(Deferred.fromCoroutine(self.live.refresh()))
        self.refused(ANNA, "secret")

    def test_hash_with_old_parameters_is_made_anew(self) -> None:
        self.logins.settings = LoginSettings(
            argon2_memory_kib=16, argon2_passes=1, argon2_lanes=1
        )
        self.good(ANNA, "secret")
        hashed = self.live.current.entries[ANNA]
        assert isinstance(hashed, Account)
        self.assertFalse(needs_rehash(hashed.password_hash, self.logins.settings))
        self.assertTrue(verify_password(hashed.password_hash, "secret", CHEAP))

    def test_database_that_cannot_be_read_refuses_nobody(self) -> None:
        self.threads.read_jobs.held = True
        waiting = self.login("nobody", "secret")
        self.database.version = None  # type: ignore[assignment,method-assign]
        self.threads.read_jobs.release()
        self.failureResultOf(waiting, TypeError)


class RememberedTests(AuthenticatorCase):
    def test_second_login_needs_no_hash(self) -> None:
        self.good(ANNA, "secret")
        self.threads.hash_jobs.held = True
        self.good("anna", "secret")

    def test_five_at_once_need_one_hash(self) -> None:
        self.threads.hash_jobs.held = True
        waiting = [self.login(ANNA, "secret") for _ in range(5)]
        self.assertEqual(self.hashes(waiting[-1]), 1)
        for result in waiting:
            self.successResultOf(result)

    def test_is_forgotten(self) -> None:
        self.good(ANNA, "secret")
        self.clock.advance(CHEAP.cache_s + 1)
        self.threads.hash_jobs.held = True
        self.assertNoResult(self.login(ANNA, "secret"))

    def test_nothing_kept_holds_the_password(self) -> None:
        self.good(ANNA, "secret")
        self.refused(ANNA, "geheim")
        logins = self.logins
        parts = (logins, logins._guessers, logins._remembered)
        kept = repr([vars(part) for part in parts])
        self.assertNotIn("secret", kept)
        self.assertNotIn("geheim", kept)


class GuesserTests(AuthenticatorCase):
    def test_waits_grow_up_to_the_limit(self) -> None:
        waits = [self.refused(ANNA, f"guess {n}") for n in range(10)]
        self.assertEqual(waits, [0, 0.25, 0.5, 1, 2, 4, 8, 15, 15, 15])

    def test_unknown_name_waits_as_long(self) -> None:
        waits = [self.refused("nobody", f"guess {n}") for n in range(4)]
        self.assertEqual(waits, [0, 0.25, 0.5, 1])

    def test_same_wrong_password_counts_once(self) -> None:
        waits = [self.refused(ANNA, "mistyped") for _ in range(4)]
        self.assertEqual(waits, [0, 0.25, 0.25, 0.25])

    def test_parallel_guesses_take_one_after_the_other(self) -> None:
        results = [self.login(ANNA, f"guess {n}") for n in range(4)]
        self.assertEqual([r.called for r in results], [True, False, False, False])
        self.clock.advance(0.25)
        self.assertEqual([r.called for r in results], [True, True, False, False])
        self.clock.pump([0.5, 1])
        for result in results:
            self.failureResultOf(result, BadCredentials)

    def test_too_many_parallel_guesses_are_a_temporary_error(self) -> None:
        self.patch(authenticator, "MAX_QUEUED_LOGINS", 2)
        results = [self.login(ANNA, f"guess {n}") for n in range(5)]
        self.failureResultOf(results.pop(), LoginUnavailable)
        for _ in range(100):
            self.clock.advance(1)
        for result in results:
            self.failureResultOf(result, BadCredentials)
        self.assertEqual(self.logins._locks, {})

    def test_owner_elsewhere_does_not_wait(self) -> None:
        for n in range(10):
            self.refused(ANNA, f"guess {n}")
        self.good(ANNA, "secret", "198.51.100.1")

    def test_owner_at_a_known_address_does_not_wait_for_a_neighbour(self) -> None:
        self.good(ANNA, "secret", "192.0.2.1")
        self.clock.advance(CHEAP.cache_s + 1)
        for n in range(10):
            self.refused(ANNA, f"guess {n}", "192.0.2.99")
        self.login(ANNA, "guess", "192.0.2.99")
        self.good(ANNA, "secret", "192.0.2.1")

    def test_guesser_at_a_known_address_waits(self) -> None:
        self.good(ANNA, "secret", "192.0.2.1")
        waits = [self.refused(ANNA, f"guess {n}", "192.0.2.1") for n in range(4)]
        self.assertEqual(waits, [0, 0.25, 0.5, 1])

    def test_right_password_forgives(self) -> None:
        self.refused(ANNA, "one")
        self.refused(ANNA, "two")
        self.clock.advance(1)
        self.good(ANNA, "secret")
        self.assertEqual(self.refused(ANNA, "three"), 0)


class LogTests(AuthenticatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def test_one_line_a_login(self) -> None:
        self.good("anna", "secret")
        self.refused("Nobody@Elsewhere.test", "geheim")
        self.refused("my password", "geheim")
        self.refused("my@password", "geheim")
        lines = [(e["log_format"], e["user"], e["peer"]) for e in self.events]
        self.assertEqual(
            lines,
            [
                ("login", ANNA, "192.0.2.1"),
                ("login failed", "nobody@elsewhere.test", "192.0.2.1"),
                ("login failed", "?", "192.0.2.1"),
                ("login failed", "?", "192.0.2.1"),
            ],
        )
        self.assertNotIn("geheim", repr(self.events))
        self.assertNotIn("my password", repr(self.events))
        self.assertNotIn("my@password", repr(self.events))
