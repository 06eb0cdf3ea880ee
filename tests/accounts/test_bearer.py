"""The messages of OAUTHBEARER and XOAUTH2."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.bearer import OAuthBearer, XOAuth2
from mailsrv.accounts.sasl import Challenge, Outcome, SaslError, Token
from mailsrv.doors.values import TokenRefused

# RFC 7628 section 4.1.
EXAMPLE = (
    b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
    b"auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01"
)


class OAuthBearerTests(SynchronousTestCase):
    def claims(self, outcome: Outcome) -> tuple[str, str]:
        assert isinstance(outcome, Token)
        return outcome.login, outcome.token

    def test_rfc_7628_section_4_1(self) -> None:
        self.assertEqual(OAuthBearer().start(None), Challenge(b""))
        self.assertEqual(
            self.claims(OAuthBearer().start(EXAMPLE)),
            ("user@example.com", "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="),
        )

    def test_what_may_differ(self) -> None:
        for wire, claims in (
            (b"n,,\x01auth=Bearer t\x01\x01", ("", "t")),
            (b"y,a=a=2Cb=3Dc,\x01auth=bearer  t.t-_~+/\x01\x01", ("a,b=c", "t.t-_~+/")),
        ):
            self.assertEqual(self.claims(OAuthBearer().step(wire)), claims)

    def test_question_for_the_scope(self) -> None:
        # RFC 7628 section 4.3.
        asked = (
            b"n,a=user@example.com,\x01host=server.example.com\x01port=143\x01"
            b"auth=\x01\x01"
        )
        self.assertEqual(
            self.claims(OAuthBearer().start(asked)), ("user@example.com", "")
        )

    def test_wrong_messages(self) -> None:
        for wrong in (
            b"",
            b"n,,\x01auth=\x01auth=\x01\x01",
            b"n,,\x01auth=\x01auth=Bearer t\x01\x01",
            b"\x01",
            b"n,a=x,\x01\x01",
            b"n,a=x,\x01auth=Bearer t\x01",
            b"n,a=x,\x01auth=Basic t\x01\x01",
            b"n,a=x,\x01auth=Bearer \x01\x01",
            b"n,a=x,\x01auth=Bearer a b\x01\x01",
            b"n,a=x,\x01auth=Bearer t\x01auth=Bearer t\x01\x01",
            b"p=tls-unique,a=x,\x01auth=Bearer t\x01\x01",
            b"n,a=\xff,\x01auth=Bearer t\x01\x01",
            b"n,a=x,\x01auth=Bearer t\x01\x01x",
            b"n,a=x,auth=Bearer t\x01\x01",
        ):
            with self.assertRaises(SaslError, msg=repr(wrong)):
                OAuthBearer().step(wrong)

    def test_refusal(self) -> None:
        told = OAuthBearer.refusal(TokenRefused("mail", "https://a.test/x"))
        self.assertEqual(
            json.loads(told.data),
            {
                "status": "invalid_token",
                "scope": "mail",
                "openid-configuration": "https://a.test/x",
            },
        )
        told = OAuthBearer.refusal(TokenRefused())
        self.assertEqual(json.loads(told.data), {"status": "invalid_token"})

    def test_token_is_not_shown(self) -> None:
        self.assertNotIn("vF9dft4qmTc2", repr(OAuthBearer().step(EXAMPLE)))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=100))
    def test_any_octets_end_well(self, response: bytes) -> None:
        for mechanism in (OAuthBearer(), XOAuth2()):
            for wire in (response, b"n,," + response, b"user=a" + response):
                try:
                    mechanism.step(wire)
                except SaslError:
                    pass


class XOAuth2Tests(SynchronousTestCase):
    def test_message(self) -> None:
        outcome = XOAuth2().start(b"user=a@b.test\x01auth=Bearer t=\x01\x01")
        assert isinstance(outcome, Token)
        self.assertEqual((outcome.login, outcome.token), ("a@b.test", "t="))

    def test_wrong_messages(self) -> None:
        for wrong in (
            b"",
            b"user=a\x01auth=Bearer t\x01",
            b"user=\x01auth=Bearer t\x01\x01",
            b"auth=Bearer t\x01\x01",
            b"user=a\x01auth=Basic t\x01\x01",
            b"user=\xff\x01auth=Bearer t\x01\x01",
        ):
            with self.assertRaises(SaslError, msg=repr(wrong)):
                XOAuth2().step(wrong)

    def test_refusal(self) -> None:
        told = XOAuth2.refusal(TokenRefused("mail"))
        self.assertEqual(
            json.loads(told.data),
            {"status": "401", "schemes": "bearer", "scope": "mail"},
        )
