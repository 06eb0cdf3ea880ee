"""OAUTHBEARER (RFC 7628) and XOAUTH2: a token of an OAuth server instead of a password.

Pure; who the token is for is said by an `ITokenVerifier`. XOAUTH2 has no RFC: it is
what Google and Microsoft had before, with an own form of the same.
"""

import json
import re

from mailsrv.accounts.sasl import Challenge, Outcome, SaslError, Token, text
from mailsrv.doors.values import TokenRefused

# RFC 6750 section 2.1, after the word Bearer in any case. The line of the protocol
# bounds all.
_TOKEN = rb"auth=[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9\-._~+/]+=*)"
# RFC 7628 section 4.3: without a token a client asks what token it needs.
_TOKEN_OR_NONE = rb"auth=|" + _TOKEN
# RFC 7628 section 3.1; a channel binding (p) is for mechanisms that there are not.
_OAUTHBEARER = re.compile(
    rb"[ny],(?:a=([^,\x00\x01]+))?,\x01((?:[A-Za-z]+=[^\x00\x01]*\x01)+)\x01"
)
_XOAUTH2 = re.compile(rb"user=([^\x00\x01]+)\x01" + _TOKEN + rb"\x01\x01")


class OAuthBearer:
    """One exchange. The empty token is none, and nobody's."""

    def start(self, initial: bytes | None) -> Outcome:
        return Challenge(b"") if initial is None else self.step(initial)

    def step(self, response: bytes) -> Token:
        found = _OAUTHBEARER.fullmatch(response)
        if found is None:
            raise SaslError("no message of OAUTHBEARER")
        # Looser than RFC 7628 section 3.2, which has host and port compared: a server
        # behind a proxy, or with several names, does not know what clients call it.
        pairs = found[2].split(b"\x01")
        tokens = [
            match[1] or b""
            for pair in pairs
            if (match := re.fullmatch(_TOKEN_OR_NONE, pair))
        ]
        if len(tokens) != 1:
            raise SaslError("not one bearer token")
        name = (found[1] or b"").replace(b"=2C", b",").replace(b"=3D", b"=")
        return Token(text(name), tokens[0].decode(), self.refusal)

    @staticmethod
    def refusal(refused: TokenRefused) -> Challenge:
        """RFC 7628 section 3.2.2."""
        answer = {"status": "invalid_token"}
        if refused.scope:
            answer["scope"] = refused.scope
        if refused.openid_configuration:
            answer["openid-configuration"] = refused.openid_configuration
        return Challenge(json.dumps(answer).encode())


class XOAuth2:
    """One exchange."""

    def start(self, initial: bytes | None) -> Outcome:
        return Challenge(b"") if initial is None else self.step(initial)

    def step(self, response: bytes) -> Token:
        found = _XOAUTH2.fullmatch(response)
        if found is None:
            raise SaslError("no message of XOAUTH2")
        return Token(text(found[1]), found[2].decode(), self.refusal)

    @staticmethod
    def refusal(refused: TokenRefused) -> Challenge:
        answer = {"status": "401", "schemes": "bearer", "scope": refused.scope}
        return Challenge(json.dumps(answer).encode())
