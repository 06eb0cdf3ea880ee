"""SCRAM: the example of RFC 7677, scramp's client at the other end, hostile input."""

import base64
import hashlib
import hmac
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from scramp import ScramMechanism
from scramp.core import ScramClient
from scramp.utils import ScramException
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.sasl import (
    Challenge,
    Finished,
    KeysWanted,
    Outcome,
    Proof,
    SaslError,
)
from mailsrv.accounts.scram import (
    ITERATIONS,
    MAX_MESSAGE_OCTETS,
    ChannelBinding,
    Keys,
    Scram,
    feigned_keys,
    make_keys,
    read_keys,
)

KEYS = make_keys("pencil")
END_POINT = {"tls-server-end-point": b"hash of the certificate"}


def keys_of(password: str, salt: bytes, iterations: int) -> Keys:
    """As scramp makes them."""
    _, stored_key, server_key, _ = ScramMechanism("SCRAM-SHA-256").make_auth_info(
        password, iterations, salt
    )
    return Keys(iterations, salt, stored_key, server_key)


def first(message: bytes = b"n,,n=user,r=abc", keys: Keys = KEYS) -> tuple[Scram, str]:
    """An exchange after the first messages, and what the server has sent."""
    scram = Scram(plus=False, binding=None)
    return scram, answer(scram.start(message), keys)


def answer(outcome: Outcome, keys: Keys) -> str:
    assert isinstance(outcome, KeysWanted), outcome
    return outcome.answer(keys).data.decode()


def final(
    sent: str,
    bare: str = "n=user,r=abc",
    header: bytes = b"n,,",
    password: bytes = b"pencil",
) -> bytes:
    """The client's final message, made by hand."""
    nonce, salt, iterations = (field[2:] for field in sent.split(","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password, base64.b64decode(salt), int(iterations)
    )
    without = f"c={base64.b64encode(header).decode()},r={nonce}"
    key = hmac.digest(salted, b"Client Key", "sha256")
    signed = f"{bare},{sent},{without}".encode()
    signature = hmac.digest(hashlib.sha256(key).digest(), signed, "sha256")
    proof = bytes(a ^ b for a, b in zip(key, signature, strict=True))
    return f"{without},p={base64.b64encode(proof).decode()}".encode()


def run(
    client: ScramClient, scram: Scram, keys: Keys = KEYS
) -> tuple[Proof, Callable[[], object]]:
    """Let scramp's client talk to the server; how it ended, and what it thinks."""
    wanted = scram.start(client.get_client_first().encode())
    client.set_server_first(answer(wanted, keys))
    outcome = scram.step(client.get_client_final().encode())
    assert isinstance(outcome, Proof)
    return outcome, lambda: client.set_server_final(outcome.challenge.data.decode())


class ExampleTests(SynchronousTestCase):
    def test_rfc_7677_section_3(self) -> None:
        keys = keys_of("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="), 4096)
        scram = Scram(plus=False, binding=None)
        scram.start(b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        # The server's nonce of the example.
        nonce = b"rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        scram._nonce = nonce
        sent = scram._server_first(keys).data
        self.assertEqual(sent, b"r=" + nonce + b",s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
        proof = b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        outcome = scram.step(b"c=biws,r=" + nonce + b",p=" + proof)
        assert isinstance(outcome, Proof)
        self.assertTrue(outcome.is_good)
        self.assertEqual(
            outcome.challenge,
            Challenge(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="),
        )
        self.assertEqual(scram.step(b""), Finished())


class ClientTests(SynchronousTestCase):
    def client(self, password: str, name: str = "anna@example.test") -> ScramClient:
        return ScramClient(["SCRAM-SHA-256"], name, password)

    def test_both_prove_themselves(self) -> None:
        outcome, takes = run(self.client("pencil"), Scram(plus=False, binding=None))
        self.assertTrue(outcome.is_good)
        self.assertEqual(outcome.login, "anna@example.test")
        takes()

    def test_wrong_password(self) -> None:
        outcome, takes = run(self.client("pen"), Scram(plus=False, binding=None))
        self.assertFalse(outcome.is_good)
        with self.assertRaises(ScramException):
            takes()

    def test_prepared_as_rfc_4013_says(self) -> None:
        for password, typed in (("I\u00adX", "IX"), ("\u00aa", "a"), ("ﬁn é", "fin é")):
            outcome, _ = run(
                self.client(typed), Scram(plus=False, binding=None), make_keys(password)
            )
            self.assertTrue(outcome.is_good, password)

    def test_password_of_newer_characters(self) -> None:
        self.assertEqual(
            make_keys("\U0001f600").iterations, ITERATIONS
        )  # scramp refuses it

    def test_name_with_comma_and_equals(self) -> None:
        outcome, _ = run(
            self.client("pencil", 'a,b=c="d"'), Scram(plus=False, binding=None)
        )
        self.assertEqual(outcome.login, 'a,b=c="d"')

    def test_with_the_certificate(self) -> None:
        def client(data: bytes) -> ScramClient:
            return ScramClient(
                ["SCRAM-SHA-256-PLUS"],
                "anna",
                "pencil",
                channel_binding=("tls-server-end-point", data),
            )

        outcome, takes = run(
            client(END_POINT["tls-server-end-point"]),
            Scram(plus=True, binding=END_POINT.get),
        )
        self.assertTrue(outcome.is_good)
        takes()
        outcome, _ = run(
            client(b"of another certificate"), Scram(plus=True, binding=END_POINT.get)
        )
        self.assertFalse(outcome.is_good)


class BindingTests(SynchronousTestCase):
    def begin(
        self, flag: bytes, *, plus: bool, binding: ChannelBinding | None
    ) -> Outcome:
        return Scram(plus=plus, binding=binding).start(flag + b",,n=user,r=abc")

    def test_flags_that_agree(self) -> None:
        for flag, plus, binding in (
            (b"n", False, None),
            (b"y", False, None),
            (b"n", False, END_POINT.get),
            (b"p=tls-server-end-point", True, END_POINT.get),
        ):
            self.begin(flag, plus=plus, binding=binding)

    def test_flags_that_do_not(self) -> None:
        for flag, plus, binding in (
            # A client that thinks that -PLUS was not offered, though it was.
            (b"y", False, END_POINT.get),
            (b"n", True, END_POINT.get),
            (b"y", True, END_POINT.get),
            (b"p=tls-server-end-point", False, END_POINT.get),
            (b"p=tls-server-end-point", False, None),
            (b"p=tls-unique", True, END_POINT.get),
            (b"p=", True, END_POINT.get),
        ):
            with self.assertRaises(SaslError, msg=repr(flag)):
                self.begin(flag, plus=plus, binding=binding)

    def test_flag_cannot_be_changed_on_the_way(self) -> None:
        scram, sent = first()
        outcome = scram.step(final(sent, header=b"y,,"))
        assert isinstance(outcome, Proof)
        self.assertFalse(outcome.is_good)

    def test_identity_to_act_as(self) -> None:
        scram, sent = first(b"n,a=other,n=user,r=abc")
        outcome = scram.step(final(sent, header=b"n,a=other,"))
        assert isinstance(outcome, Proof)
        self.assertEqual((outcome.is_good, outcome.authzid), (True, "other"))


class HostileTests(SynchronousTestCase):
    def test_first_messages(self) -> None:
        for wrong in (
            b"",
            b"n,,",
            b"n,,n=user",
            b"n,,r=abc,n=user",
            b"n,,m=x,n=user,r=abc",
            b"n,,n=us=er,r=abc",
            b"n,,n=us=3der,r=abc",
            b"n,,n==2,r=abc",
            b"n,,n=user,r=",
            b"n,,n=user,r=a c",
            b"n,,n=user,r=\xc3\xa4",
            b"n,,n=\xff,r=abc",
            b"n,,n=us\0er,r=abc",
            b"n,,n=user,r=abc,",
            b"n,,n=user,r=abc,x",
            b"q,,n=user,r=abc",
            b"p=a b,,n=user,r=abc",
            b"n,b=x,n=user,r=abc",
            b"n,,n=user,r=" + b"a" * 257,
            b"n,,n=" + b"u" * MAX_MESSAGE_OCTETS + b",r=abc",
        ):
            with self.assertRaises(SaslError, msg=repr(wrong[:40])):
                Scram(plus=False, binding=None).start(wrong)

    def test_extensions_are_passed_over_and_signed(self) -> None:
        scram, sent = first(b"n,,n=user,r=abc,x=1")
        outcome = scram.step(final(sent, bare="n=user,r=abc,x=1"))
        assert isinstance(outcome, Proof)
        self.assertTrue(outcome.is_good)

    def test_mandatory_extensions_are_errors(self) -> None:
        # RFC 5802 section 5.1: wherever they stand, signed or not.
        with self.assertRaises(SaslError):
            first(b"n,,n=user,r=abc,m=x")
        scram, sent = first()
        nonce = sent.partition(",")[0]
        with self.assertRaises(SaslError):
            scram.step(f"c=biws,{nonce},m=x,p={'A' * 43}=".encode())

    def test_final_messages(self) -> None:
        for change in (
            lambda m: b"",
            lambda m: m[:-1],
            lambda m: m + b"A",
            lambda m: m.replace(b"r=abc", b"r=abd"),
            lambda m: m.replace(b"p=", b"p=*"),
            lambda m: m.partition(b",p=")[0],
            lambda m: m.partition(b",p=")[0] + b",p=AAAA",
            lambda m: m + b",p=AAAA",
            lambda m: b"c=*" + m[6:],
        ):
            scram, sent = first()
            with self.assertRaises(SaslError):
                scram.step(change(final(sent)))

    def test_one_exchange_proves_once(self) -> None:
        scram, sent = first()
        message = final(sent)
        scram.step(message)
        with self.assertRaises(SaslError):
            scram.step(message)

    def test_answers_of_an_exchange_fit_no_other(self) -> None:
        _, sent = first()
        scram, _ = first()
        with self.assertRaises(SaslError):
            scram.step(final(sent))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.binary(max_size=60), max_size=4))
    def test_any_octets_end_well(self, responses: list[bytes]) -> None:
        scram = Scram(plus=False, binding=None)
        try:
            for response in [b"n,,n=u,r=x", *responses]:
                outcome = scram.step(response)
                if isinstance(outcome, KeysWanted):
                    outcome.answer(KEYS)
        except SaslError:
            pass


class KeysTests(SynchronousTestCase):
    def test_database_form(self) -> None:
        text = str(KEYS)
        self.assertRegex(text, r"^SCRAM-SHA-256\$32768:[^$:]{24}\$[^$:]{44}:[^$:]{44}$")
        self.assertEqual(read_keys(text), KEYS)
        for wrong in ("", "SCRAM-SHA-1$1:a$b:c", text + "$"):
            with self.assertRaises(ValueError):
                read_keys(wrong)

    def test_secrets_are_not_shown(self) -> None:
        self.assertNotIn(repr(KEYS.stored_key)[2:10], repr(KEYS))

    def test_salts_differ(self) -> None:
        self.assertNotEqual(make_keys("pencil").salt, KEYS.salt)

    def test_feigned_keys_look_real_and_stay(self) -> None:
        feigned = feigned_keys(b"key", "nobody@example.test")
        self.assertEqual(feigned, feigned_keys(b"key", "nobody@example.test"))
        self.assertNotEqual(feigned, feigned_keys(b"key", "nobody@other.test"))
        self.assertNotEqual(feigned, feigned_keys(b"another", "nobody@example.test"))
        self.assertEqual(len(str(feigned)), len(str(KEYS)))
        self.assertEqual(feigned.iterations, KEYS.iterations)
