"""Log-in with a token: the example plugin, in a running server and by itself."""

import hmac
import imaplib
import json
import os
import smtplib
import ssl
import time
from base64 import b64encode, urlsafe_b64encode
from pathlib import Path

from mailsrv.doors import contracts
from tests.clients.server import ServerCase
from tests.clients.test_smtp_clients import SmtpClientCase
from tests.clients.token_plugin.mailsrv.plugins.jwt_tokens import JwtTokens

KEY = "0123456789abcdef0123456789abcdef"
OPTIONS = {"key": KEY, "audience": "mail"}
PLUGINS = Path(__file__).parent / "token_plugin"


def token(email: str, *, key: str = KEY, lives_s: float = 60.0) -> str:
    """A token as the sign-on server makes it."""
    claims = {"email": email, "aud": "mail", "exp": time.time() + lives_s}
    parts = (json.dumps(part).encode() for part in ({"alg": "HS256"}, claims))
    text = ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    signature = urlsafe_b64encode(hmac.digest(key.encode(), text.encode(), "sha256"))
    return f"{text}.{signature.decode().rstrip('=')}"


class JwtTokensTests(contracts.TokenVerifierContract):
    # Made when the module is read: a long run of all tests comes here much later.
    token = token("anna@example.test", lives_s=86_400.0)

    def provider(self) -> JwtTokens:
        return JwtTokens(OPTIONS, self.services())

    def test_expired(self) -> None:
        verify = self.provider().verify
        self.assertNotEqual(verify(token("a@b.test", lives_s=-1), ""), "a@b.test")
        self.assertEqual(verify(token("a@b.test"), ""), "a@b.test")


class TokenCase(ServerCase):
    settings = f"""
[[plugin]]
name = "jwt-tokens"
[plugin.options]
key = "{KEY}"
audience = "mail"
"""

    def setUp(self) -> None:
        path = os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), f"{PLUGINS}"])
        )
        self.patch(os, "environ", {**os.environ, "PYTHONPATH": path})
        super().setUp()
        self.anna = self.server.account("anna").address


class LogInTests(TokenCase):
    def authenticate(self, mechanism: str, *answers: str) -> str:
        """Log in by IMAP; return what the server said at last before its verdict."""
        imap = imaplib.IMAP4("127.0.0.1", self.server.ports["imap"])
        waiting = list(answers)
        told: list[bytes] = []

        def answer(challenge: bytes) -> bytes:
            told.append(challenge)
            return waiting.pop(0).encode()

        try:
            self.assertIn(f"AUTH={mechanism}", imap.capabilities)
            imap.authenticate(mechanism, answer)
            imap.logout()
        except imap.error as error:
            return f"{told[-1].decode()} {error}"
        return ""

    def test_imap(self) -> None:
        good = token(self.anna)
        for mechanism, message in (
            ("OAUTHBEARER", f"n,a={self.anna},\1auth=Bearer {good}\1\1"),
            ("XOAUTH2", f"user={self.anna}\1auth=Bearer {good}\1\1"),
        ):
            self.assertEqual(self.authenticate(mechanism, message), "")
        self.assertIn(f"login user={self.anna}", self.server.log())

    def test_refused(self) -> None:
        for bad in (token(self.anna, lives_s=-5), token("ben@example.test")):
            told = self.authenticate(
                "OAUTHBEARER", f"n,a={self.anna},\1auth=Bearer {bad}\1\1", "\1"
            )
            self.assertIn('{"status": "invalid_token"}', told)
            self.assertIn("AUTHENTICATIONFAILED", told)
            self.assertNotIn(bad, self.server.log())

    def test_smtp_by_smtplib(self) -> None:
        context = ssl.create_default_context(cafile=str(self.server.ca))
        port = self.server.ports["submission"]
        with smtplib.SMTP("localhost", port) as smtp:
            smtp.starttls(context=context)
            smtp.ehlo()
            message = f"user={self.anna}\1auth=Bearer {token(self.anna)}\1\1"
            wire = b64encode(message.encode()).decode()
            self.assertEqual(smtp.docmd("AUTH", f"XOAUTH2 {wire}")[0], 235)


class ClientTests(TokenCase, SmtpClientCase):
    def test_msmtp(self) -> None:
        config = self.folder / "msmtprc"
        lines = (
            "account default",
            "host localhost",
            f"port {self.server.ports['submission']}",
            "tls on",
            f"tls_trust_file {self.server.ca}",
            "auth oauthbearer",
            f"user {self.anna}",
            f"passwordeval echo {token(self.anna)}",
            f"from {self.anna}",
        )
        config.write_text("\n".join(lines) + "\n")
        config.chmod(0o600)
        data = self.message("by token", self.anna, self.anna)
        self.run_client("msmtp", "-C", config, self.anna, stdin=data)
        self.assert_received("anna", "by token")

    def test_curl(self) -> None:
        self.run_client(
            *("curl", "-s", "--cacert", self.server.ca),
            f"imaps://localhost:{self.server.ports['imaps']}/",
            *("--user", f"{self.anna}:", "--oauth2-bearer", token(self.anna)),
        )
