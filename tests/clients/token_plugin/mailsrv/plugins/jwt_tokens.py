"""An example: tokens of an own sign-on server, JSON web tokens with a shared key."""

import hmac
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import TokenRefused
from mailsrv.interfaces import IPluginServices, ITokenVerifier


@implementer(ITokenVerifier)
class JwtTokens:
    """Takes tokens with ``email``, ``aud`` and ``exp``, signed by HS256."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        # Any: values of TOML.
        if not isinstance(options.get("key"), str) or len(options["key"]) < 32:
            raise ValueError("key: at least 32 characters")
        if not isinstance(options.get("audience"), str):
            raise ValueError("audience: the name that tokens for this server have")
        self._key = options["key"].encode()
        self._audience = options["audience"]

    def verify(self, token: str, login: str) -> str | TokenRefused:
        try:
            header, claims, signature = token.split(".")
            signed = hmac.digest(self._key, f"{header}.{claims}".encode(), "sha256")
            # The kind of signature is ours to say, never the token's.
            if not hmac.compare_digest(signed, _decoded(signature)):
                return TokenRefused()
            values = json.loads(_decoded(claims))
            if values["aud"] != self._audience or values["exp"] < time.time():
                return TokenRefused()
            return str(values["email"])
        except (ValueError, KeyError, TypeError):
            return TokenRefused()


def _decoded(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


jwt_tokens = Plugin("jwt-tokens", JwtTokens)
