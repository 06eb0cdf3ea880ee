"""Passwords and keys that are kept elsewhere: user databases behind their door."""

from twisted.internet.defer import Deferred

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.exchange import LoginUnavailable
from mailsrv.accounts.scram import Keys, read_keys
from mailsrv.doors.guest import Guest
from mailsrv.settings import LoginSettings
from tests.accounts.test_authenticator import ANNA, BERT, CHEAP, AuthenticatorCase
from tests.doors.memory import MemoryKeyUsers, MemoryUsers


class UsersCase(AuthenticatorCase):
    def with_users(
        self,
        *databases: object,
        keys: tuple[object, ...] = (),
        settings: LoginSettings = CHEAP,
    ) -> None:
        guests = {
            database: Guest("ldap", database, 10.0, self.clock)
            for database in databases
        }
        self.logins = Authenticator(
            live=self.live,
            threads=self.threads,
            reactor=self.clock,
            settings=settings,
            users=list(guests.values()),
            key_holders=[guests[database] for database in keys],
        )


class PasswordTests(UsersCase):
    def test_either_password_is_good(self) -> None:
        self.with_users(MemoryUsers({ANNA: "of ldap"}))
        for password in ("secret", "of ldap"):
            for login in (ANNA, "anna"):
                self.assertEqual(self.good(login, password).name, ANNA)
        self.refused(ANNA, "neither")
        self.refused(BERT, "of ldap")

    def test_all_databases_are_asked(self) -> None:
        self.with_users(MemoryUsers({BERT: "one"}), MemoryUsers({ANNA: "two"}))
        self.assertEqual(self.good(ANNA, "two").name, ANNA)
        self.assertEqual(self.good(BERT, "one").name, BERT)

    def test_nothing_of_it_is_stored(self) -> None:
        renewing = LoginSettings(argon2_memory_kib=16, argon2_passes=1, argon2_lanes=1)
        self.with_users(MemoryUsers({ANNA: "of ldap"}), settings=renewing)
        before = self.database.snapshot()
        self.good(ANNA, "of ldap")
        self.assertEqual(self.database.snapshot(), before)
        self.good(ANNA, "secret")
        self.assertNotEqual(self.database.snapshot(), before)

    def test_it_is_remembered_for_a_while(self) -> None:
        users = MemoryUsers({ANNA: "of ldap"})
        self.with_users(users)
        self.good(ANNA, "of ldap")
        users._passwords.clear()
        self.good(ANNA, "of ldap")
        self.clock.advance(CHEAP.cache_s)
        self.refused(ANNA, "of ldap")

    def test_who_is_no_account_stays_out(self) -> None:
        stranger = "nobody@example.test"
        self.with_users(MemoryUsers({stranger: "of ldap"}))
        self.refused(stranger, "of ldap")

    def test_without_an_answer_it_is_temporary_but_counts(self) -> None:
        self.with_users(object())
        for number in range(20):
            login = self.login(ANNA, f"guess {number}")
            while not login.called:
                self.clock.advance(1.0)
            self.failureResultOf(login, LoginUnavailable)
        self.assertGreater(self.clock.seconds(), 20)
        self.flushLoggedErrors(AttributeError)

    def test_our_own_passwords_need_no_other_database(self) -> None:
        self.with_users(object())
        self.assertEqual(self.good(ANNA, "secret").name, ANNA)


class UserKeysTests(UsersCase):
    def keys(self, login: str) -> Keys:
        keys: Keys = self.successResultOf(
            Deferred.fromCoroutine(self.logins.scram_keys(login))
        )
        return keys

    def test_scram_is_offered_only_if_all_know_keys(self) -> None:
        settings = LoginSettings(
            argon2_memory_kib=8, argon2_passes=1, argon2_lanes=1, scram="auto"
        )
        with_keys = MemoryKeyUsers({ANNA: "of ldap"})
        for name, password in ((ANNA, "secret"), (BERT, "sésame")):
            self.with_users(settings=settings)
            self.good(name, password)  # makes the keys of ours
        for databases, keys, offered in (
            ((), (), True),
            ((with_keys,), (with_keys,), True),
            ((MemoryUsers({}),), (), False),
            ((with_keys, MemoryUsers({})), (with_keys,), False),
        ):
            self.with_users(*databases, keys=keys, settings=settings)
            names = self.logins.mechanisms(can_bind=False)
            self.assertEqual("SCRAM-SHA-256" in names, offered, databases)

    def test_its_keys_come_first(self) -> None:
        users = MemoryKeyUsers({ANNA: "of ldap"})
        stored: list[str | None] = []

        class Fixed(MemoryKeyUsers):
            async def scram_keys(self, account: str) -> str | None:
                return stored[0] if account == ANNA else None

        stored.append(
            self.successResultOf(Deferred.fromCoroutine(users.scram_keys(ANNA)))
        )
        fixed = Fixed({})
        self.with_users(fixed, keys=(fixed,))
        assert stored[0] is not None
        self.assertEqual(self.keys("anna"), read_keys(stored[0]))
        self.assertNotEqual(self.keys(BERT), read_keys(stored[0]))
        self.assertEqual(self.keys("nobody"), self.keys("nobody"))

    def test_without_an_answer_it_is_temporary(self) -> None:
        broken = object()
        self.with_users(broken, keys=(broken,))
        asked = Deferred.fromCoroutine(self.logins.scram_keys(ANNA))
        self.failureResultOf(asked, LoginUnavailable)
        self.flushLoggedErrors(AttributeError)

    def test_what_are_no_keys_is_temporary(self) -> None:
        class Wrong(MemoryKeyUsers):
            async def scram_keys(self, account: str) -> str | None:
                return "x" * 100

        wrong = Wrong({})
        self.with_users(wrong, keys=(wrong,))
        asked = Deferred.fromCoroutine(self.logins.scram_keys(ANNA))
        self.failureResultOf(asked, LoginUnavailable)
