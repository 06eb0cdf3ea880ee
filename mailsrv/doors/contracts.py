"""What a provider of each door must hold to, as tests that any provider can inherit.

Import the module, not its classes, or they would run by themselves::

    from mailsrv.doors import contracts

    class MyResolverTests(contracts.RecipientResolverContract):
        known = "support@example.test"

        def provider(self) -> object:
            return MyResolver({"file": ...}, self.services())
"""

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from mailsrv.doors.message import MAX_READ_OCTETS, MemoryContent, Message
from mailsrv.doors.plugin import Services
from mailsrv.doors.values import (
    Accept,
    Change,
    Connection,
    Defer,
    Edit,
    Quarantine,
    Recipient,
    Reject,
    Sender,
    TokenRefused,
)
from mailsrv.interfaces import (
    IChangeListener,
    IConnectionPolicy,
    IContent,
    IDeliverer,
    IListenerService,
    IMessagePolicy,
    IPluginMaker,
    IRecipientPolicy,
    IRecipientResolver,
    IScramKeys,
    ISenderPolicy,
    ITokenVerifier,
    IUserDatabase,
)

DECISIONS = (Accept, Reject, Defer)
SENDER = Sender("mx", "192.0.2.7", "client.test", False, None, "someone@else.test", 100)
HEADER = (
    b"Return-Path: <someone@else.test>\r\nReceived: from client.test\r\n"
    b"From: someone@else.test\r\nSubject: one\r\n\r\n"
)


def message(
    body: bytes = b"body\n", header: bytes = HEADER, sender: Sender = SENDER
) -> Message:
    """Make a message from outside to anna, as a policy gets it."""
    content = MemoryContent(header.replace(b"\r\n", b"\n") + body)
    return Message("1.test.1", sender, ("anna@example.test",), header, content)


class Contract(TestCase):
    """What holds for all doors. Any: providers and answers of all kinds."""

    door: type[Interface]

    def provider(self) -> Any:
        """Return the provider to be tested."""
        raise NotImplementedError

    def services(self) -> Services:
        """Return what a plugin is given, with a clock that stands and a new folder."""
        state = Path(self.mktemp()).absolute()
        state.mkdir(parents=True)
        return Services(Clock(), Logger("contract"), state)

    async def ask(self, call: Callable[..., Any], *values: object) -> Any:
        """Await an answer, whichever of the three ways it comes."""
        return await maybeDeferred(call, *values)

    def test_provides_the_door(self) -> None:
        self.assertTrue(verifyObject(self.door, self.provider()))


class PluginMakerContract(Contract):
    """`options` are good ones; `bad_options` must be refused by ValueError."""

    door = IPluginMaker
    options: dict[str, Any] = {}
    bad_options: Sequence[dict[str, Any]] = ({"no-such-option": 1},)

    def test_good_options(self) -> None:
        self.assertIsNotNone(self.provider().build(self.options, self.services()))

    def test_bad_options_are_refused(self) -> None:
        for options in self.bad_options:
            error = self.assertRaises(
                ValueError, self.provider().build, options, self.services()
            )
            self.assertTrue(str(error))

    def test_it_has_a_name_and_a_summary(self) -> None:
        self.assertRegex(self.provider().name, r"^[a-z0-9-]+$")
        self.assertTrue(self.provider().summary)


class ConnectionPolicyContract(Contract):
    """`refused` is a peer that must not get in, if there is one."""

    door = IConnectionPolicy
    accepted = "192.0.2.7"
    refused: str | None = None

    async def decision(self, peer: str) -> object:
        asking = self.provider().connection
        return await self.ask(asking, Connection("smtp", peer))

    async def test_every_kind_of_peer_gets_a_decision(self) -> None:
        for peer in ("", "192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1", "fe80::1%lo"):
            self.assertIsInstance(await self.decision(peer), DECISIONS, peer)

    async def test_who_may_and_who_may_not(self) -> None:
        self.assertIsInstance(await self.decision(self.accepted), Accept)
        if self.refused is not None:
            self.assertIsInstance(await self.decision(self.refused), (Reject, Defer))


class SenderPolicyContract(Contract):
    """`accepted` and `refused` are senders of which both must be known."""

    door = ISenderPolicy
    accepted = SENDER
    refused: Sender | None = None

    async def test_every_kind_of_sender_gets_a_decision(self) -> None:
        for sender in _senders():
            answer = await self.ask(self.provider().sender, sender)
            self.assertIsInstance(answer, DECISIONS, sender)

    async def test_who_may_and_who_may_not(self) -> None:
        policy = self.provider()
        self.assertIsInstance(await self.ask(policy.sender, self.accepted), Accept)
        if self.refused is not None:
            answer = await self.ask(policy.sender, self.refused)
            self.assertIsInstance(answer, (Reject, Defer))


class RecipientPolicyContract(Contract):
    """As for senders."""

    door = IRecipientPolicy
    accepted = Recipient(SENDER, "anna@example.test", ("anna@example.test",))
    refused: Recipient | None = None

    async def test_every_kind_of_recipient_gets_a_decision(self) -> None:
        account = self.accepted.accounts
        for sender in _senders():
            for path in ("postmaster", "jörg@bücher.test", '"a b"@example.test'):
                recipient = Recipient(sender, path, account)
                answer = await self.ask(self.provider().recipient, recipient)
                self.assertIsInstance(answer, DECISIONS, recipient)

    async def test_who_may_and_who_may_not(self) -> None:
        policy = self.provider()
        self.assertIsInstance(await self.ask(policy.recipient, self.accepted), Accept)
        if self.refused is not None:
            answer = await self.ask(policy.recipient, self.refused)
            self.assertIsInstance(answer, (Reject, Defer))


class MessagePolicyContract(Contract):
    """`unwanted` makes a message that must not pass as it is."""

    door = IMessagePolicy

    def wanted(self) -> Message:
        return message()

    def unwanted(self) -> Message | None:
        return None

    async def verdict(self, message: Message) -> object:
        return await self.ask(self.provider().message, message)

    async def test_every_message_gets_a_verdict(self) -> None:
        for one in _messages():
            verdict = await self.verdict(one)
            self.assertIsInstance(verdict, (*DECISIONS, Edit, Quarantine))

    async def test_what_passes_and_what_does_not(self) -> None:
        self.assertIsInstance(await self.verdict(self.wanted()), (Accept, Edit))
        if (unwanted := self.unwanted()) is not None:
            self.assertNotIsInstance(await self.verdict(unwanted), Accept)


class RecipientResolverContract(Contract):
    """`known` is an address that it knows."""

    door = IRecipientResolver
    known: str

    async def test_known_and_unknown_addresses(self) -> None:
        resolver = self.provider()
        found = await self.ask(resolver.resolve, self.known)
        self.assertIsInstance(found, (list, tuple))
        for address in found:
            self.assertRegex(address, "^[^@]+@[^@]+$")
        for unknown in ("nobody-at-all@else.test", "jörg@bücher.test"):
            self.assertFalse(await self.ask(resolver.resolve, unknown))


class DelivererContract(Contract):
    """It takes the mail of the account `takes`, and not that of `leaves`."""

    door = IDeliverer
    takes = "anna@example.test"
    leaves = "bert@example.test"

    async def test_it_takes_what_is_its_own(self) -> None:
        deliverer = self.provider()
        for one in _messages():
            taken = await self.ask(deliverer.deliver, one, self.takes)
            self.assertIs(taken, True)
        self.assertIs(await self.ask(deliverer.deliver, message(), self.leaves), False)

    async def test_a_message_may_come_again(self) -> None:
        deliverer = self.provider()
        for _ in range(2):
            taken = await self.ask(deliverer.deliver, message(), self.takes)
            self.assertIs(taken, True)


class ChangeListenerContract(Contract):
    """It takes every change without a word."""

    door = IChangeListener

    async def test_it_takes_changes(self) -> None:
        listener = self.provider()
        for change in (
            Change("anna@example.test", "INBOX", (1, 2), (), ()),
            Change("anna@example.test", "Jürgen/1", (), (2,), (1,)),
        ):
            self.assertIsNone(await self.ask(listener.changed, change))


class UserDatabaseContract(Contract):
    """`account` has `password`; no other account has."""

    door = IUserDatabase
    account = "anna@example.test"
    password = "secret"  # noqa: S105  # of a test

    async def test_right_and_wrong_passwords(self) -> None:
        check = self.provider().check_password
        self.assertIs(await self.ask(check, self.account, self.password), True)
        for account, password in (
            (self.account, ""),
            (self.account, "\0" + self.password),
            (self.account, self.password.swapcase()),
            (self.account, "pässwörd \U0001f600"),
            (self.account, "x" * 10_000),
            ("nobody-at-all@else.test", self.password),
            ("jörg@bücher.test", self.password),
        ):
            good = await self.ask(check, account, password)
            self.assertIs(good, False, (account, password[:20]))


class TokenVerifierContract(Contract):
    """`token` was given to `account`."""

    door = ITokenVerifier
    account = "anna@example.test"
    token: str

    async def test_good_and_bad_tokens(self) -> None:
        verify = self.provider().verify
        for login in (self.account, "", "somebody@else.test"):
            found = await self.ask(verify, self.token, login)
            self.assertEqual(found, self.account, login)
        for token in ("", self.token + "x", self.token[:-1], "x" * 10_000, "a.b.c"):
            found = await self.ask(verify, token, self.account)
            self.assertIsInstance(found, TokenRefused, token[:20])


class ScramKeysContract(UserDatabaseContract):
    """Besides, it has keys that are those of the password."""

    door = IScramKeys

    async def test_keys_are_of_the_password(self) -> None:
        found = await self.ask(self.provider().scram_keys, self.account)
        iterations, salt, stored, _ = re.fullmatch(
            r"SCRAM-SHA-256\$(\d+):([^$]+)\$([^:]+):(.+)", found
        ).groups()  # type: ignore[union-attr]
        salted = hashlib.pbkdf2_hmac(
            "sha256", self.password.encode(), b64decode(salt), int(iterations)
        )
        client_key = hmac.digest(salted, b"Client Key", "sha256")
        self.assertEqual(hashlib.sha256(client_key).digest(), b64decode(stored))
        unknown = await self.ask(self.provider().scram_keys, "nobody-at-all@else.test")
        self.assertIsNone(unknown)


class ListenerServiceContract(Contract):
    """Its sessions live through whatever a client sends."""

    door = IListenerService

    def let_time_pass(self) -> None:
        """Advance the clock, if the provider has one that stands."""

    async def test_sessions_live_through_anything(self) -> None:
        service = self.provider()
        service.doStart()
        for address in (
            IPv4Address("TCP", "192.0.2.7", 1),
            IPv6Address("TCP", "2001:db8::7", 1),
            UNIXAddress(None),
        ):
            for octets in (b"", b"\0\xff\r\n", b"x" * 100_000, b"\x16\x03\x01\0\r\n"):
                protocol = service.buildProtocol(address)
                if protocol is None:
                    continue
                transport = StringTransport(peerAddress=address)
                protocol.makeConnection(transport)
                if not transport.disconnecting:
                    protocol.dataReceived(octets)
                self.let_time_pass()
                protocol.connectionLost(Failure(ConnectionDone()))
        drained = maybeDeferred(service.drain)
        self.let_time_pass()
        await drained
        service.doStop()


class ContentContract(Contract):
    """`provider` holds OCTETS."""

    door = IContent
    OCTETS = b"0123456789" * 10

    async def test_reading(self) -> None:
        content = self.provider()
        self.addCleanup(content.close)
        self.assertEqual(content.size_octets, 100)
        for start, octets in ((0, 100), (95, 100), (100, 1), (5, 0), (200, 1)):
            expected = self.OCTETS[start : start + octets]
            self.assertEqual(await content.read(start, octets), expected)
            self.assertEqual(content.read_blocking(start, octets), expected)

    async def test_reading_is_bounded(self) -> None:
        content = self.provider()
        self.addCleanup(content.close)
        for start, octets in ((-1, 1), (0, -1), (0, MAX_READ_OCTETS + 1)):
            with self.assertRaises(ValueError):
                await content.read(start, octets)


def _senders() -> Iterable[Sender]:
    return (
        SENDER,
        replace(SENDER, reverse_path=""),
        replace(SENDER, reverse_path="jörg@bücher.test", size_octets=0),
        replace(SENDER, service="submission", account="anna@example.test", tls=True),
        replace(SENDER, peer="", client_name=""),
    )


def _messages() -> Iterable[Message]:
    broken = b"Return-Path: <>\r\n\xff\xfe: \0\r\nSubject:\r\n =?x?q?=\r\n\r\n"
    return (
        message(),
        message(body=b""),
        message(header=b"Return-Path: <>\r\n\r\n"),
        message(header=broken, body=b"\xff\0" * 1000),
        message(body=b"line\n" * 300_000),
        message(sender=replace(SENDER, reverse_path="")),
    )
