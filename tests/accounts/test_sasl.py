"""PLAIN and LOGIN: the examples of RFC 4616 and the habits of clients."""

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.sasl import (
    MAX_LINE_OCTETS,
    Challenge,
    Credentials,
    Login,
    Mechanism,
    Plain,
    SaslCancelled,
    SaslError,
    decode_initial,
    decode_response,
    encode_challenge,
)


class PlainTests(SynchronousTestCase):
    def test_rfc_4616_section_4(self) -> None:
        self.assertEqual(Plain().start(None), Challenge(b""))
        self.assertEqual(
            Plain().step(b"\0tim\0tanstaaftanstaaf"),
            Credentials("tim", "tanstaaftanstaaf"),
        )
        self.assertEqual(
            Plain().start(b"Ursel\0Kurt\0xipj3plmq"),
            Credentials("Kurt", "xipj3plmq", "Ursel"),
        )

    def test_utf_8(self) -> None:
        self.assertEqual(
            Plain().start("\0jörg@büro.test\0paßwort".encode()),
            Credentials("jörg@büro.test", "paßwort"),
        )

    def test_wrong_messages(self) -> None:
        for wrong in (
            b"",
            b"\0",
            b"\0a\0",
            b"\0\0b",
            b"a\0b",
            b"\0a\0b\0c",
            b"\0\xff\0b",
        ):
            with self.assertRaises(SaslError, msg=repr(wrong)):
                Plain().start(wrong)


class LoginTests(SynchronousTestCase):
    def test_two_questions(self) -> None:
        login = Login()
        self.assertEqual(login.start(None), Challenge(b"Username:"))
        self.assertEqual(login.step(b"anna"), Challenge(b"Password:"))
        self.assertEqual(login.step(b"secret"), Credentials("anna", "secret"))

    def test_initial_response_answers_the_first(self) -> None:
        login = Login()
        self.assertEqual(login.start(b"anna"), Challenge(b"Password:"))
        self.assertEqual(login.step(b"secret"), Credentials("anna", "secret"))

    def test_wrong_answers(self) -> None:
        for wrong in (b"", b"a\0b", b"\xff"):
            with self.assertRaises(SaslError, msg=repr(wrong)):
                Login().step(wrong)


class LinesTests(SynchronousTestCase):
    def test_cancel(self) -> None:
        with self.assertRaises(SaslCancelled):
            decode_response(b"*")

    def test_initial(self) -> None:
        self.assertIsNone(decode_initial(None))
        self.assertEqual(decode_initial(b"="), b"")
        self.assertEqual(decode_initial(b"AGE="), b"\0a")

    def test_no_base64(self) -> None:
        for wrong in (b"=", b"AGE", b"AG E=", b"!", b"A" * (MAX_LINE_OCTETS + 4)):
            with self.assertRaises(SaslError, msg=repr(wrong)):
                decode_response(wrong)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=100))
    def test_round_trip(self, data: bytes) -> None:
        self.assertEqual(decode_response(encode_challenge(Challenge(data))), data)

    @settings(max_examples=50, deadline=None)
    @given(st.sampled_from([Plain, Login]), st.lists(st.binary(max_size=30)))
    def test_any_octets_end_well(
        self, make: Callable[[], Mechanism], responses: list[bytes]
    ) -> None:
        mechanism = make()
        try:
            result = mechanism.start(None)
            for response in responses:
                if isinstance(result, Credentials):
                    break
                result = mechanism.step(response)
        except SaslError:
            pass

    def test_password_is_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Credentials("anna", "secret")))
