"""A provider of each door in memory: what tests stand behind one."""

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from mailsrv.accounts.scram import make_keys
from mailsrv.doors.message import Message
from mailsrv.doors.values import (
    ACCEPT,
    Change,
    Connection,
    Decision,
    Recipient,
    Sender,
    TokenRefused,
    Verdict,
)
from mailsrv.interfaces import (
    IChangeListener,
    IConnectionPolicy,
    IDeliverer,
    IListenerService,
    IMessagePolicy,
    IPluginMaker,
    IPluginServices,
    IRecipientPolicy,
    IRecipientResolver,
    IScramKeys,
    ISenderPolicy,
    ITokenVerifier,
    IUserDatabase,
)


@implementer(IConnectionPolicy, ISenderPolicy, IRecipientPolicy, IMessagePolicy)
class MemoryPolicy:
    """Answers what its table says of a peer, a path or a Subject."""

    def __init__(self, answers: Mapping[str, Verdict]) -> None:
        self.answers = answers
        self.seen: list[object] = []

    def connection(self, connection: Connection) -> Decision:
        return self._answer(connection, connection.peer)  # type: ignore[return-value]

    def sender(self, sender: Sender) -> Decision:
        return self._answer(sender, sender.reverse_path)  # type: ignore[return-value]

    def recipient(self, recipient: Recipient) -> Decision:
        path = recipient.forward_path
        return self._answer(recipient, path)  # type: ignore[return-value]

    async def message(self, message: Message) -> Verdict:
        octets = await message.read(0, 1024)
        for text, verdict in self.answers.items():
            if f"Subject: {text}\n".encode() in octets:
                return verdict
        return self._answer(message, "")

    def _answer(self, about: object, text: str) -> Verdict:
        self.seen.append(about)
        return self.answers.get(text, ACCEPT)


@implementer(IRecipientResolver)
class MemoryResolver:
    def __init__(self, addresses: Mapping[str, Sequence[str]]) -> None:
        self._addresses = addresses

    def resolve(self, address: str) -> Sequence[str] | None:
        return self._addresses.get(address)


@implementer(IDeliverer)
class MemoryDeliverer:
    """Takes the mail of one account."""

    def __init__(self, account: str) -> None:
        self._account = account
        self.delivered: list[bytes] = []

    async def deliver(self, message: Message, account: str) -> bool:
        if account != self._account:
            return False
        pieces: list[bytes] = []
        while octets := await message.read(sum(map(len, pieces)), 1 << 20):
            pieces.append(octets)
        self.delivered.append(b"".join(pieces))
        return True


@implementer(IChangeListener)
class MemoryListener:
    def __init__(self) -> None:
        self.changes: list[Change] = []

    def changed(self, change: Change) -> None:
        self.changes.append(change)


@implementer(IUserDatabase)
class MemoryUsers:
    def __init__(self, passwords: Mapping[str, str]) -> None:
        self._passwords = dict(passwords)

    async def check_password(self, account: str, password: str) -> bool:
        return self._passwords.get(account) == password


@implementer(IScramKeys)
class MemoryKeyUsers(MemoryUsers):
    async def scram_keys(self, account: str) -> str | None:
        password = self._passwords.get(account)
        return None if password is None else str(make_keys(password))


@implementer(ITokenVerifier)
class MemoryTokens:
    """Tokens of accounts."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        self._tokens = dict(tokens)

    async def verify(self, token: str, login: str) -> str | TokenRefused:
        refused = TokenRefused("mail", "https://auth.example.test/.well-known/x")
        return self._tokens.get(token, refused)


class Echo(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@implementer(IListenerService)
class MemoryService(Factory):
    """Sends back what it gets."""

    protocol = Echo
    noisy = False
    drained = False

    def drain(self) -> None:
        self.drained = True


@implementer(IPluginMaker)
class MemoryMaker:
    """Makes what it was given; takes the one option ``good``."""

    def __init__(self, name: str, provider: object) -> None:
        self.name = name
        self.summary = "in memory"
        self._provider = provider

    def build(self, options: Mapping[str, Any], services: IPluginServices) -> object:
        # Any: values of TOML.
        if options.keys() - {"good"}:
            raise ValueError("only good is known")
        return self._provider
