"""One SMTP session's answers: what each event of the engine leads to.

Commands become decisions, log-ins and transactions, and lines of the log. Knows no
transport. An unexpected exception ends here: its command gets a temporary error.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.logger import Logger

from mailsrv.accounts.authenticator import Authenticator
from mailsrv.accounts.directory import Account
from mailsrv.accounts.exchange import (
    Attempt,
    BadCredentials,
    Exchange,
    LoginUnavailable,
)
from mailsrv.accounts.sasl import Challenge, SaslError, encode_challenge
from mailsrv.smtp.events import (
    Auth,
    AuthResponse,
    ChunkEnd,
    ContentEnd,
    Data,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    Settled,
    StartTls,
)
from mailsrv.smtp.reply import LOCAL_ERROR, OK, Refused, Replies, Reply
from mailsrv.smtp.transaction import Client, Site, Transaction

log = Logger()

_LOGGED_RECIPIENTS = 10
_LOGGED_BY_THEMSELVES = (Auth, AuthResponse)

START_TLS = Reply(220, "2.0.0", "Begin the handshake")
_GO_ON = Reply(354, "", "End the message with CR LF . CR LF")
_BYE = Reply(221, "2.0.0", "Bye")
_WELCOME = Reply(235, "2.7.0", "You are logged in")
_BAD_CREDENTIALS = Reply(535, "5.7.8", "Wrong login or password")
_NO_LOGIN_NOW = Reply(454, "4.7.0", "No log-in possible now, try again later")
_NO_MECHANISM = Reply(504, "5.5.4", "Mechanism not offered")
_BAD_EXCHANGE = Reply(501, "5.5.2", "That is no answer of this mechanism")


class Session:
    """Answers the events of one connection, in their order."""

    def __init__(
        self,
        site: Site,
        authenticator: Authenticator,
        client: Client,
        hello: Callable[[Hello], Reply],
    ) -> None:
        """`hello` answers EHLO, and notes in `client` what is known by then."""
        self.client = client
        self._site = site
        self._authenticator = authenticator
        self._hello = hello
        self._transaction: Transaction | None = None
        self._transactions = 0
        self._exchange: Exchange | None = None

    @property
    def idle(self) -> bool:
        """Whether no transaction runs."""
        return self._transaction is None

    async def decide(self, event: Event) -> Reply | Replies:
        """Return the reply to an event; the log has each refusal."""
        try:
            if isinstance(event, ContentEnd):
                return await self._finish(event)
            reply = await self._answer(event)
        except Refused as refused:
            reply = refused.reply
        except Exception:
            log.failure("{command} failed", command=_name(event), **self.who())
            reply = LOCAL_ERROR
        if not reply.positive and not isinstance(event, _LOGGED_BY_THEMSELVES):
            self.log_refusal(_name(event), reply, event)
        return reply

    async def _answer(self, event: Event) -> Reply:
        match event:
            case Mail():
                return await self._mail(event)
            case Rcpt():
                return await self._running().add_recipient(event)
            case Data():
                return _GO_ON
            case ChunkEnd(refusal):
                reply = refusal or self._running().refusal or OK
                if not reply.positive:
                    await self.give_up()
                return reply
            case Settled(reply):
                return reply
            case Hello():
                await self.give_up()
                return self._hello(event)
            case StartTls():
                self.client.name, self.client.account = "", None
                return START_TLS
            case Auth():
                return await self._auth(event)
            case AuthResponse(octets):
                return await self._log_in(octets)
            case Reset():
                await self.give_up()
                return OK
            case Quit():
                await self.give_up()
                return _BYE
        raise AssertionError(event)  # Content, ContentEnd and Close are not for here

    # The transaction

    def _running(self) -> Transaction:
        if self._transaction is None:
            raise AssertionError("the engine lets none of this come before MAIL")
        return self._transaction

    async def _mail(self, event: Mail) -> Reply:
        self._transactions += 1
        session, now = self.client.session, self._site.now()
        name = f"{int(now * 1000):x}.{session}.{self._transactions}"
        transaction = Transaction(self._site, self.client, event, name)
        reply = await transaction.check_sender()
        self._transaction = transaction
        return reply

    async def content(self, octets: bytes) -> None:
        """Take some of the message; what goes wrong is told at its end."""
        transaction = self._running()
        try:
            await transaction.feed(octets)
        except Refused as refused:
            await transaction.refuse(refused.reply)
        except Exception:
            log.failure("taking content failed", **self.who())
            await transaction.refuse(LOCAL_ERROR)

    async def _finish(self, event: ContentEnd) -> Reply | Replies:
        transaction, self._transaction = self._running(), None
        try:
            if event.refusal is not None:
                await transaction.refuse(event.refusal)
            reply = await transaction.finish()
        except Refused as refused:
            reply = refused.reply
        except Exception:
            log.failure("delivery failed", **self.who())
            reply = LOCAL_ERROR
        await transaction.abort()
        if self.client.role != "lmtp":
            self._log_message(transaction, event.size_octets, reply)
            return reply
        replies = transaction.replies(reply)
        taken = any(each.positive for each in replies.each)
        said = reply if taken or not replies.each else replies.each[0]
        if taken:
            self._log_copies(transaction, replies)
        self._log_message(transaction, event.size_octets, said)
        return replies

    async def give_up(self) -> None:
        """Take back a transaction that has not ended."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            await transaction.abort()
            if transaction.recipients:
                log.info("message abandoned", **self._story(transaction))

    # Log-in

    async def _auth(self, event: Auth) -> Reply:
        client = self.client
        attempt = Attempt(client.peer, client.session, self._site.service)
        exchange = self._authenticator.exchange(
            event.mechanism, attempt, client.binding
        )
        if exchange is None:
            return _NO_MECHANISM
        self._exchange = exchange
        return await self._auth_outcome(exchange.start(event.initial))

    async def _log_in(self, response: bytes) -> Reply:
        if self._exchange is None:
            raise AssertionError("the engine lets no response come before AUTH")
        return await self._auth_outcome(self._exchange.step(response))

    async def _auth_outcome(self, deciding: Awaitable[Challenge | Account]) -> Reply:
        try:
            outcome = await deciding
        except SaslError:
            return _BAD_EXCHANGE
        except BadCredentials:
            return _BAD_CREDENTIALS
        except LoginUnavailable:
            return _NO_LOGIN_NOW
        except Exception:
            log.failure("log-in failed", **self.who())
            return _NO_LOGIN_NOW
        if isinstance(outcome, Challenge):
            return Reply(334, "", encode_challenge(outcome).decode("ascii"))
        self._exchange = None
        self.client.account = outcome
        return _WELCOME

    # The log

    def who(self) -> dict[str, Any]:
        """Return the log fields that say whose line it is."""
        # Any: mypy takes str for log.failure's other arguments.
        client = self.client
        who: dict[str, Any] = {"session": client.session, "peer": client.peer}
        if client.account is not None:
            who["user"] = client.account.name
        elif client.devices is not None:
            who["trusted_network"] = client.devices.network
        return who

    def _log_message(self, transaction: Transaction, size: int, reply: Reply) -> None:
        why = {} if reply.positive else {"reason": reply.text}
        recipients = transaction.recipients
        for first in range(_LOGGED_RECIPIENTS, len(recipients), _LOGGED_RECIPIENTS):
            log.info(
                "further recipients",
                **self.who(),
                transaction=transaction.name,
                forward_paths=" ".join(recipients[first : first + _LOGGED_RECIPIENTS]),
            )
        log.info(
            "message accepted" if reply.positive else "message refused: {reason}",
            **self._story(transaction),
            size_octets=size,
            reply_code=reply.code,
            **why,
        )

    def _log_copies(self, transaction: Transaction, replies: Replies) -> None:
        """Say who of a message's recipients did not get it."""
        for forward_path, reply in zip(
            transaction.recipients, replies.each, strict=True
        ):
            if not reply.positive:
                log.info(
                    "copy refused: {reason}",
                    reason=reply.text,
                    reply_code=reply.code,
                    **self.who(),
                    transaction=transaction.name,
                    forward_path=forward_path,
                )

    def _story(self, transaction: Transaction) -> dict[str, Any]:
        """Return what is known of a transaction at its end."""
        recipients = transaction.recipients
        return {
            **self.who(),
            "transaction": transaction.name,
            "message_id": transaction.message_id,
            "reverse_path": transaction.mail.reverse_path,
            "forward_paths": " ".join(recipients[:_LOGGED_RECIPIENTS]),
            "recipients": len(recipients),
            "elapsed_s": round(self._site.now() - transaction.begun_at_utc, 4),
        }

    def log_refusal(
        self, command: str, reply: Reply, event: Event | None = None
    ) -> None:
        """Write the line of a command that was not done."""
        paths: dict[str, str] = {}
        if isinstance(event, Mail):
            paths["reverse_path"] = event.reverse_path
        elif isinstance(event, Rcpt):
            paths["forward_path"] = event.forward_path
            paths["reverse_path"] = self._running().mail.reverse_path
            paths["transaction"] = self._running().name
        log.info(
            "{command} refused: {reason}",
            command=command,
            reason=reply.text,
            reply_code=reply.code,
            **self.who(),
            **paths,
        )


def _name(event: Event) -> str:
    """Name an event for the log."""
    return "command" if isinstance(event, Settled) else type(event).__name__.upper()
