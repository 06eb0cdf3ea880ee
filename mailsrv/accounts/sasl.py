"""SASL: what mechanisms have in common, and PLAIN (RFC 4616) and LOGIN.

Pure: octets in, octets out; the protocols add base64 lines and codes. LOGIN has no
RFC: an expired draft and the habits of clients define it. See `scram` and `bearer`
for mechanisms that send no password, and `exchange` for what asks the accounts.
"""

import binascii
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from mailsrv.accounts.scram import Keys
    from mailsrv.doors.values import TokenRefused

# A response in base64, without CRLF: RFC 4954 section 4. Tokens are that long.
MAX_LINE_OCTETS = 12288


class SaslError(Exception):
    """The exchange has failed: the peer gets the protocol's syntax error."""


class SaslCancelled(SaslError):
    """The client has given up the exchange with ``*``."""


class SaslTooLong(SaslError):
    """The line of a response is longer than any may be."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """To be sent; the client's response goes to `step`."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the client claims: for `Authenticator.login`."""

    login: str
    password: str = field(repr=False)
    authzid: str = ""


@dataclass(frozen=True, slots=True)
class KeysWanted:
    """SCRAM: `answer` makes the challenge of the keys that `login` has."""

    login: str
    answer: "Callable[[Keys], Challenge]"


@dataclass(frozen=True, slots=True)
class Proof:
    """SCRAM: what the client claims and has proved or not; `challenge` is ours."""

    login: str
    authzid: str
    is_good: bool
    keys: "Keys"  # of which it was asked
    challenge: Challenge = field(repr=False)


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token; `login` may be empty. `refusal` tells why it is not good."""

    login: str
    token: str = field(repr=False)
    refusal: "Callable[[TokenRefused], Challenge]"


@dataclass(frozen=True, slots=True)
class Finished:
    """The client takes our proof: what it claimed before is now so."""


Outcome = Challenge | Credentials | KeysWanted | Proof | Token | Finished


class Mechanism(Protocol):
    """One exchange."""

    def start(self, initial: bytes | None) -> Outcome:
        """Begin; `initial` is the initial response, None if there was none."""

    def step(self, response: bytes) -> Outcome:
        """Go on with the client's response to the last challenge."""


class Plain:
    """RFC 4616: one message with everything."""

    def start(self, initial: bytes | None) -> Challenge | Credentials:
        return Challenge(b"") if initial is None else self.step(initial)

    def step(self, response: bytes) -> Credentials:
        parts = response.split(b"\0")
        if len(parts) != 3 or not parts[1] or not parts[2]:
            raise SaslError("not authzid NUL login NUL password")
        authzid, login, password = map(text, parts)
        return Credentials(login, password, authzid)


class Login:
    """Two questions. The answer to the first may come as initial response.

    The draft forbids that, Microsoft's mail service does it nevertheless. Outlook
    wants exactly these questions.
    """

    def __init__(self) -> None:
        self._login: str | None = None

    def start(self, initial: bytes | None) -> Challenge | Credentials:
        return Challenge(b"Username:") if initial is None else self.step(initial)

    def step(self, response: bytes) -> Challenge | Credentials:
        answer = text(response)
        if not answer or "\0" in answer:
            raise SaslError("an empty answer, or one with NUL")
        if self._login is None:
            self._login = answer
            return Challenge(b"Password:")
        return Credentials(self._login, answer)


def decode_response(line: bytes) -> bytes:
    """Decode the line of a response (RFC 4954, 5034, 3501): base64 or ``*``."""
    if line == b"*":
        raise SaslCancelled("cancelled")
    if len(line) > MAX_LINE_OCTETS:
        raise SaslTooLong("the response is too long")
    try:
        return binascii.a2b_base64(line, strict_mode=True)
    except binascii.Error as error:
        raise SaslError("the response is no base64") from error


def decode_initial(argument: bytes | None) -> bytes | None:
    """Decode an initial response; ``=`` is the empty one (RFC 4954 section 4)."""
    if argument is None:
        return None
    return b"" if argument == b"=" else decode_response(argument)


def encode_challenge(challenge: Challenge) -> bytes:
    """The challenge in base64, without the protocol's prefix."""
    return binascii.b2a_base64(challenge.data, newline=False)


def text(data: bytes) -> str:
    """Decode UTF-8 of a response."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise SaslError("the response is not UTF-8") from error
