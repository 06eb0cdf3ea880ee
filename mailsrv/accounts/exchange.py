"""One AUTH of a protocol: joins a mechanism, which is pure, with the accounts.

A protocol asks `Authenticator.exchange` for one, and sends challenges and takes
responses until it has an `Account` or one of the exceptions of `sasl` and of here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from twisted.logger import Logger

from mailsrv.accounts.directory import Account
from mailsrv.accounts.sasl import (
    Challenge,
    Credentials,
    Finished,
    KeysWanted,
    Mechanism,
    Outcome,
    Proof,
    SaslError,
    Token,
)
from mailsrv.doors.values import TokenRefused

if TYPE_CHECKING:
    from mailsrv.accounts.authenticator import Authenticator

log = Logger()


class BadCredentials(Exception):
    """Wrong name, wrong password or a disabled account: the peer is not told which."""


class BadToken(BadCredentials):
    """A bearer token that is not good; the client is told how to get another one."""

    def __init__(self, refused: TokenRefused) -> None:
        super().__init__()
        self.refused = refused


class LoginUnavailable(Exception):
    """No decision now, since too many log in at once: a temporary error."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """Where somebody logs in: `peer` is the client's address, the rest for the log."""

    peer: str
    session: str = "-"
    service: str = "-"


class Exchange:
    """`start` it once, then `step` with each response."""

    def __init__(
        self, authenticator: "Authenticator", mechanism: Mechanism, attempt: Attempt
    ) -> None:
        self._authenticator = authenticator
        self._mechanism = mechanism
        self._attempt = attempt
        self._proved: Account | None = None
        self._refused: BadToken | None = None

    async def start(self, initial: bytes | None) -> Challenge | Account:
        """Begin; `initial` is the initial response, None if there was none."""
        return await self._go_on(lambda: self._mechanism.start(initial))

    async def step(self, response: bytes) -> Challenge | Account:
        """Go on with the response to the last challenge."""
        if self._refused is not None:  # the client has read why
            raise self._refused
        return await self._go_on(lambda: self._mechanism.step(response))

    async def _go_on(self, go_on: Callable[[], Outcome]) -> Challenge | Account:
        authenticator, attempt = self._authenticator, self._attempt
        try:
            outcome = go_on()
        except SaslError as error:
            log.info(
                "log-in broken off: {reason}",
                reason=str(error),
                session=attempt.session,
                peer=attempt.peer,
                service=attempt.service,
            )
            raise
        match outcome:
            case Challenge():
                return outcome
            case Credentials(login, password, authzid):
                return await authenticator.login(
                    login, password, attempt, authzid=authzid
                )
            case KeysWanted(login, answer):
                return answer(await authenticator.scram_keys(login))
            case Proof():
                self._proved = await authenticator.prove(outcome, attempt)
                return outcome.challenge
            case Token(refusal=refusal):
                try:
                    return await authenticator.bearer(outcome, attempt)
                except BadToken as bad:
                    self._refused = bad
                    return refusal(bad.refused)
            case Finished():
                if self._proved is None:
                    raise SaslError("nothing was proved")
                return self._proved
