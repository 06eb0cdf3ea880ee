"""AUTH from its name to the account: what is offered, SCRAM, tokens, strangers."""

import json

from scramp.core import ScramClient
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import authenticator
from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.edits import set_enabled, set_password_hash
from mailsrv.accounts.exchange import (
    Attempt,
    BadCredentials,
    Exchange,
    LoginUnavailable,
)
from mailsrv.accounts.passwords import hash_password
from mailsrv.accounts.sasl import Challenge, SaslError
from mailsrv.accounts.scram import Keys, feigned_keys, make_keys
from mailsrv.doors.guest import BuiltIn, Guest
from mailsrv.settings import LoginSettings
from tests.accounts.test_authenticator import ANNA, BERT, CHEAP, AuthenticatorCase
from tests.accounts.test_scram import final
from tests.doors.memory import MemoryTokens

SCRAM = "SCRAM-SHA-256"
KEYS = {ANNA: str(make_keys("secret")), BERT: str(make_keys("sésame"))}


def settings(scram: str, *, plus: bool = False) -> LoginSettings:
    return LoginSettings(
        argon2_memory_kib=8,
        argon2_passes=1,
        argon2_lanes=1,
        scram_plus=plus,
        scram=scram,  # type: ignore[arg-type]  # one of its words
    )


class ExchangeCase(AuthenticatorCase):
    def setUp(self) -> None:
        super().setUp()
        self.logins.settings = settings("auto")

    def give_keys(self, *names: str) -> None:
        def change(directory: Directory) -> Directory:
            for name in names:
                account = directory.account(name)
                assert account is not None
                directory = set_password_hash(
                    directory, name, account.password_hash, KEYS[name]
                )
            return directory

        self.database.edit(change)
        self.refresh()

    def refresh(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.live.refresh()))

    def begin(self, name: str = SCRAM, peer: str = "192.0.2.1") -> Exchange:
        exchange = self.logins.exchange(name, Attempt(peer), None)
        assert exchange is not None
        return exchange

    def start(self, exchange: Exchange, initial: bytes | None) -> "Deferred[object]":
        return Deferred.fromCoroutine(exchange.start(initial))

    def step(self, exchange: Exchange, response: bytes) -> "Deferred[object]":
        return Deferred.fromCoroutine(exchange.step(response))

    def scram(
        self, login: str, password: str, peer: str = "192.0.2.1"
    ) -> "tuple[Exchange, ScramClient, Deferred[object]]":
        """All up to the client's proof, whose answer may take time."""
        exchange, client = self.begin(peer=peer), ScramClient([SCRAM], login, password)
        sent = self.successResultOf(
            self.start(exchange, client.get_client_first().encode())
        )
        assert isinstance(sent, Challenge)
        client.set_server_first(sent.data.decode())
        return (
            exchange,
            client,
            self.step(exchange, client.get_client_final().encode()),
        )

    def account_of(self, name: str) -> Account:
        account = self.live.current.account(name)
        assert account is not None
        return account


class OfferTests(ExchangeCase):
    def offered(self, scram: str, *, can_bind: bool = False) -> bool:
        self.logins.settings = settings(scram)
        return SCRAM in self.logins.mechanisms(can_bind=can_bind)

    def test_once_all_have_keys(self) -> None:
        self.assertFalse(self.offered("auto"))
        self.give_keys(ANNA)
        self.assertFalse(self.offered("auto"))
        self.assertTrue(self.offered("on"))
        self.give_keys(BERT)
        self.assertTrue(self.offered("auto"))
        self.assertFalse(self.offered("off"))

    def test_disabled_accounts_do_not_matter(self) -> None:
        self.give_keys(ANNA)
        self.database.edit(lambda d: set_enabled(d, BERT, False))
        self.refresh()
        self.assertTrue(self.offered("auto"))

    def test_what_is_not_offered_is_not_begun(self) -> None:
        for name in (SCRAM, "SCRAM-SHA-256-PLUS", "CRAM-MD5", ""):
            self.assertIsNone(self.logins.exchange(name, Attempt("192.0.2.1"), None))

    def test_plus_where_it_is_wanted_and_there_are_channel_bindings(self) -> None:
        self.give_keys(ANNA, BERT)
        plus = "SCRAM-SHA-256-PLUS"
        self.assertNotIn(plus, self.logins.mechanisms(can_bind=True))
        self.logins.settings = settings("auto", plus=True)
        self.assertNotIn(plus, self.logins.mechanisms(can_bind=False))
        self.assertEqual(
            self.logins.mechanisms(can_bind=True), ("PLAIN", "LOGIN", plus, SCRAM)
        )

    def test_flag_of_clients_that_miss_plus(self) -> None:
        self.give_keys(ANNA, BERT)
        for plus in (False, True):
            self.logins.settings = settings("auto", plus=plus)
            exchange = self.logins.exchange(
                SCRAM, Attempt("192.0.2.1"), {"tls-exporter": b"x"}.get
            )
            assert exchange is not None
            begun = self.start(exchange, b"y,,n=anna,r=abc")
            if plus:  # it was there
                self.failureResultOf(begun, SaslError)
            else:
                self.successResultOf(begun)


class KeysTests(ExchangeCase):
    def test_made_when_a_password_is_verified(self) -> None:
        hashed = self.account_of(ANNA).password_hash
        self.good(ANNA, "secret")
        self.assertIsNotNone(self.account_of(ANNA).scram_keys)
        self.assertEqual(self.account_of(ANNA).password_hash, hashed)

    def test_deleted_where_scram_is_off(self) -> None:
        self.give_keys(ANNA)
        self.logins.settings = CHEAP
        self.good(ANNA, "secret")
        self.assertIsNone(self.account_of(ANNA).scram_keys)

    def test_kept_as_they_are(self) -> None:
        self.give_keys(ANNA)
        self.good(ANNA, "secret")
        self.assertEqual(self.account_of(ANNA).scram_keys, KEYS[ANNA])

    def test_not_shown(self) -> None:
        self.give_keys(ANNA)
        self.assertNotIn("SCRAM", repr(self.account_of(ANNA)))


class ScramTests(ExchangeCase):
    def setUp(self) -> None:
        super().setUp()
        self.give_keys(ANNA, BERT)

    def refused_after(self, login: str, password: str) -> float:
        """Wait until the proof is refused; return the seconds that it took."""
        begun = self.clock.seconds()
        outcome: list[object] = []
        self.scram(login, password)[2].addBoth(outcome.append)
        while not outcome:
            self.clock.advance(1 / 64)
        self.assertIsInstance(getattr(outcome[0], "value", None), BadCredentials)
        return self.clock.seconds() - begun

    def test_right_password(self) -> None:
        for login, password, name in (
            (ANNA, "secret", ANNA),
            ("anna", "secret", ANNA),
            (BERT, "sésame", BERT),
        ):
            exchange, client, answer = self.scram(login, password)
            sent = self.successResultOf(answer)
            assert isinstance(sent, Challenge)
            client.set_server_final(sent.data.decode())
            account = self.successResultOf(self.step(exchange, b""))
            assert isinstance(account, Account)
            self.assertEqual(account.name, name)

    def test_nobody_is_in_before_the_last_response(self) -> None:
        exchange = self.begin()
        self.failureResultOf(self.step(exchange, b""), SaslError)
        exchange, _, answer = self.scram(ANNA, "secret")
        self.successResultOf(answer)
        self.failureResultOf(self.step(exchange, b"x"), SaslError)

    def test_proofs_that_fail_are_counted(self) -> None:
        waits = [self.refused_after(ANNA, f"guess {n}") for n in range(5)]
        self.assertEqual(waits, [0, 0.25, 0.5, 1, 2])
        # And with guesses of other mechanisms.
        self.assertEqual(self.refused(ANNA, "guess 5"), 4)

    def test_unknown_name_waits_as_long(self) -> None:
        waits = [self.refused_after("nobody", f"guess {n}") for n in range(4)]
        self.assertEqual(waits, [0, 0.25, 0.5, 1])

    def test_name_without_domain_counts_as_the_whole_one(self) -> None:
        # Else the waits would tell which of them are accounts.
        for names in ((ANNA, "anna", "Anna"), ("x@example.test", "x", "X")):
            waits = [
                self.refused_after(name, f"guess {n}") for n, name in enumerate(names)
            ]
            self.assertEqual(waits, [0, 0.25, 0.5], names)

    def test_right_proof_waits_too_and_forgives(self) -> None:
        for n in range(3):
            self.refused_after(ANNA, f"guess {n}")
        *_, answer = self.scram(ANNA, "secret")
        self.assertNoResult(answer)
        self.clock.advance(1)
        self.successResultOf(answer)
        self.assertEqual(self.refused_after(ANNA, "guess"), 0)

    def test_disabled_account(self) -> None:
        self.database.edit(lambda d: set_enabled(d, ANNA, False))
        self.refused_after(ANNA, "secret")

    def test_password_changed_within_the_exchange(self) -> None:
        exchange, client = self.begin(), ScramClient([SCRAM], ANNA, "secret")
        sent = self.successResultOf(
            self.start(exchange, client.get_client_first().encode())
        )
        assert isinstance(sent, Challenge)
        hashed, keys = hash_password("new", CHEAP), str(make_keys("new"))
        self.database.edit(lambda d: set_password_hash(d, ANNA, hashed, keys))
        self.refresh()
        client.set_server_first(sent.data.decode())
        self.failureResultOf(
            self.step(exchange, client.get_client_final().encode()), BadCredentials
        )

    def test_nobody_acts_for_another(self) -> None:
        for authzid, good in ((BERT, False), ("anna", True)):
            exchange = self.begin()
            bare, header = f"n={ANNA},r=abc", f"n,a={authzid},"
            sent = self.successResultOf(
                self.start(exchange, f"{header}{bare}".encode())
            )
            assert isinstance(sent, Challenge)
            proof = final(sent.data.decode(), bare, header.encode(), b"secret")
            answer = self.step(exchange, proof)
            if good:
                self.successResultOf(answer)
            else:
                self.failureResultOf(answer, BadCredentials)


class StrangerTests(ExchangeCase):
    def salt(self, login: str) -> bytes:
        sent = self.successResultOf(
            self.start(self.begin(), f"n,,n={login},r=abc".encode())
        )
        assert isinstance(sent, Challenge)
        return sent.data.partition(b",s=")[2]

    def test_unknown_names_have_salts_that_stay(self) -> None:
        self.give_keys(ANNA, BERT)
        for name in ("nobody", ANNA):
            self.assertEqual(self.salt(name), self.salt(name))
        # With and without the domain, in any case, as accounts have.
        for one, other in (("nobody", "Nobody@example.test"), ("anna", ANNA.upper())):
            self.assertEqual(self.salt(one), self.salt(other))
        self.assertNotEqual(self.salt("nobody"), self.salt("somebody"))
        self.assertEqual(len(self.salt("nobody")), len(self.salt(ANNA)))

    def test_keys_are_feigned_for_all_names(self) -> None:
        # So that no name is known by the time that its answer takes.
        self.give_keys(ANNA, BERT)
        feigned: list[str] = []

        def counted(probe_key: bytes, name: str) -> Keys:
            feigned.append(name)
            return feigned_keys(probe_key, name)

        self.patch(authenticator, "feigned_keys", counted)
        for name in ("nobody@example.test", ANNA):
            self.salt(name)
        self.assertEqual(feigned, ["nobody@example.test", ANNA])

    def test_accounts_without_keys_look_unknown(self) -> None:
        self.logins.settings = settings("on")
        self.assertEqual(self.salt("anna"), self.salt(ANNA))
        self.assertEqual(len(self.salt("anna")), len(self.salt("nobody")))


class BearerTests(ExchangeCase):
    def setUp(self) -> None:
        super().setUp()
        self.provider = MemoryTokens({"good": ANNA, "gone": "gone@example.test"})
        self.verifier = BuiltIn("tokens", self.provider)
        self.logins = Authenticator(
            live=self.live,
            threads=self.threads,
            reactor=self.clock,
            settings=CHEAP,
            verifiers=[self.verifier],
        )

    def test_offered_where_somebody_knows_tokens(self) -> None:
        self.assertEqual(
            self.logins.mechanisms(can_bind=True),
            ("PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"),
        )

    def bearer(self, token: str, login: str = ANNA) -> "tuple[Exchange, object]":
        exchange = self.begin("XOAUTH2")
        wire = f"user={login}\1auth=Bearer {token}\1\1".encode()
        outcome: list[object] = []
        self.start(exchange, wire).addBoth(outcome.append)
        while not outcome:
            self.clock.advance(1 / 64)
        return exchange, outcome[0]

    def test_good_token(self) -> None:
        for login in (ANNA, "anna"):
            _, account = self.bearer("good", login)
            assert isinstance(account, Account)
            self.assertEqual(account.name, ANNA)

    def test_oauthbearer(self) -> None:
        for name in (b"a=anna@example.test", b""):
            outcome = self.start(
                self.begin("OAUTHBEARER"),
                b"n,%b,\1host=mail.example.test\1port=143\1auth=Bearer good\1\1" % name,
            )
            self.assertIsInstance(self.successResultOf(outcome), Account)

    def test_refused_tokens(self) -> None:
        for token, login in (
            ("bad", ANNA),
            ("good", BERT),  # Anna's token for another's mail
            ("good", "nobody"),
            ("gone", "gone@example.test"),
        ):
            exchange, told = self.bearer(token, login)
            assert isinstance(told, Challenge)
            self.assertIn("status", json.loads(told.data))
            self.failureResultOf(self.step(exchange, b""), BadCredentials)

    def test_no_token_is_a_question(self) -> None:
        self.provider._tokens[""] = ANNA  # nor must a verifier say so
        exchange = self.begin("OAUTHBEARER")
        told = self.successResultOf(
            self.start(exchange, b"n,a=anna@example.test,\1auth=\1\1")
        )
        assert isinstance(told, Challenge)
        self.assertEqual(json.loads(told.data)["status"], "invalid_token")
        self.failureResultOf(self.step(exchange, b"\1"), BadCredentials)

    def test_disabled_account(self) -> None:
        self.database.edit(lambda d: set_enabled(d, ANNA, False))
        self.refresh()
        self.assertIsInstance(self.bearer("good")[1], Challenge)

    def test_guessed_tokens_wait(self) -> None:
        begun = self.clock.seconds()
        for n in range(4):
            self.bearer(f"bad{n}")
        self.assertEqual(self.clock.seconds() - begun, 0 + 0.25 + 0.5 + 1)

    def test_verifier_that_fails_is_a_temporary_error(self) -> None:
        self.logins._verifiers = [Guest("broken", object(), 1.0, self.threads.clock)]
        exchange = self.begin("XOAUTH2")
        wire = b"user=anna\1auth=Bearer good\1\1"
        self.failureResultOf(self.start(exchange, wire), LoginUnavailable)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)

    def test_another_verifier_is_asked(self) -> None:
        other = BuiltIn("others", MemoryTokens({"other": BERT}))
        self.logins._verifiers = [self.verifier, other]
        for token, login in (("good", ANNA), ("other", BERT)):
            self.assertIsInstance(self.bearer(token, login)[1], Account)


class DirectoryTests(SynchronousTestCase):
    def test_nobody_has_keys_where_nobody_is(self) -> None:
        self.assertFalse(Directory().all_have_scram_keys)
