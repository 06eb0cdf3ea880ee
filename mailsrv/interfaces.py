"""Every interface that a plugin may provide or use, with its contract.

A plugin is made by an `IPluginMaker` and provides one or more of the doors below.
For all of them holds: a method may return its answer, a coroutine or a Deferred; it
is called in the reactor thread and must not block there, unless the object provides
`IBlocking` as well. An exception, an answer of another kind or none in time is
logged with the plugin's name and counts as "not now": 451 4.3.0 in SMTP, a temporary
error of a log-in. Nothing is lost by it, and the next one asks again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocolFactory, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import Attribute, Interface

if TYPE_CHECKING:  # the values that are passed; their modules import this one
    from mailsrv.accounts.directory import Directory
    from mailsrv.doors.message import Message
    from mailsrv.doors.values import (
        Change,
        Connection,
        Decision,
        Recipient,
        Sender,
        TokenRefused,
        Verdict,
    )

# How plugins are made


class IPluginMaker(IPlugin):
    """Makes a plugin. `mailsrv.doors.plugin.Plugin` is one; a module-level object."""

    name: str = Attribute("what ``[[plugin]] name`` says: small letters, digits, -")
    summary: str = Attribute("one line for ``mailsrv plugins``")

    def build(options: Mapping[str, Any], services: IPluginServices) -> object:
        """Return the object that provides the doors.

        `options` is the table ``[plugin.options]`` as TOML gives it. Raise
        `ValueError`, with a text that names the option, for what is wrong in it.
        ``mailsrv check-config`` and a reload build the object too, to look whether
        that can be done, perhaps as root and in any thread: read no file and open no
        connection here, but at the first question.
        """


class IPluginServices(Interface):
    """What a plugin is given of the server."""

    clock: IReactorTime = Attribute("time, and calls at a later one")
    log: Logger = Attribute("a log of its own; log no content and no password")
    state: Path = Attribute("its folder; there, and its own, when the server runs")


class IBlocking(Interface):
    """Marks a plugin whose methods wait (for files, a database, the network).

    They are called in threads of the plugin's own, four at a time, and return their
    answers as values. A call that has no thread yet when its time is over is dropped.
    """


# Doors: policies. They are asked in the order of the settings until one rejects or
# defers; the built-in rules come first.


class IConnectionPolicy(Interface):
    """Says who may connect, on every service."""

    def connection(connection: Connection) -> Decision | Awaitable[Decision]:
        """Decide before the greeting. The peer waits for it: be quick."""


class ISenderPolicy(Interface):
    """Decides on MAIL (RFC 5321 section 4.1.1.2)."""

    def sender(sender: Sender) -> Decision | Awaitable[Decision]:
        """Decide on a sender; the recipients are not known yet."""


class IRecipientPolicy(Interface):
    """Decides on RCPT (RFC 5321 section 4.1.1.3)."""

    def recipient(recipient: Recipient) -> Decision | Awaitable[Decision]:
        """Decide on one recipient; unknown ones have been refused before."""


class IMessagePolicy(Interface):
    """Decides on a message when all of it is there, before anything is delivered."""

    def message(message: Message) -> Verdict | Awaitable[Verdict]:
        """Decide on a message. Every policy sees it as it came; the edits of all are
        made together. The message cannot be read after the answer.
        """


# Doors: the way of a message


class IContent(Interface):
    """The octets of a message that is on its way in, with LF line ends."""

    size_octets: int = Attribute("all of it")

    def read(start: int, octets: int) -> Deferred[bytes]:
        """Read from `start`; fewer than `octets` come at the end only.

        At most `mailsrv.doors.message.MAX_READ_OCTETS`, else `ValueError`.
        """

    def read_blocking(start: int, octets: int) -> bytes:
        """As `read`, in a thread."""

    def close() -> None:
        """Let go of it; nothing of it can be read from now on."""


class IRecipientResolver(Interface):
    """Says who gets the mail of an address, as an alias does."""

    def resolve(
        address: str,
    ) -> Sequence[str] | Awaitable[Sequence[str] | None] | None:
        """Return addresses known to the server that get it instead of `address`.

        None: not known here, the next resolver is asked and at last the directory.
        An empty sequence: nobody has this address, and the client is told so.
        At most 1000 addresses: for more make a group or a list.
        `address` is canonical; what is returned is not resolved by plugins again.
        """


class IDeliverer(Interface):
    """Takes messages of an account, instead of its mailbox."""

    def deliver(message: Message, account: str) -> bool | Awaitable[bool]:
        """Return whether the message was taken; False: the next one is asked, and at
        last the mailbox.

        True is a promise: the message is durable at its new place. It may come a
        second time, since another recipient's copy may fail after this one.
        """


class IChangeListener(Interface):
    """Hears of each change of a mailbox, once it is durable and announced."""

    def changed(change: Change) -> Awaitable[None] | None:
        """Take notice. Calls come one at a time, in the order of the changes of an
        account. A listener far behind misses some (the log says so): for what must
        be exact, read the mailbox.
        """


class IListenerService(IProtocolFactory):
    """Serves the ports of ``[[listen]]`` tables whose service is its name.

    A protocol factory, such as a `twisted.internet.protocol.Factory`; built-in ones
    serve SMTP, IMAP and POP3. Ports are bound and closed by the server.
    """

    def drain() -> Awaitable[None] | None:
        """End idle sessions, and each other one once it is done; then return.

        Called when the server stops, after the ports were closed.
        """


# Doors: who may log in


class IUserDatabase(Interface):
    """Knows passwords of accounts. The accounts themselves are the server's."""

    def check_password(account: str, password: str) -> bool | Awaitable[bool]:
        """Return whether `password` is that of the account of this address.

        False also if the account is not known here: another database is asked.
        Guessers are slowed down and good log-ins are remembered by the caller.
        """


class IScramKeys(IUserDatabase):
    """Knows keys of SCRAM-SHA-256 as well (RFC 5802): nobody need send a password.

    SCRAM is offered by itself only if all user databases provide this.
    """

    def scram_keys(account: str) -> str | Awaitable[str | None] | None:
        """Return the keys of an account as RFC 5803 writes them, None if not known.

        ``SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey``, in base64.
        """


class ITokenVerifier(Interface):
    """Knows whom the bearer tokens of an OAuth server stand for (RFC 6750).

    With one of these OAUTHBEARER and XOAUTH2 are offered.
    """

    def verify(
        token: str, login: str
    ) -> str | TokenRefused | Awaitable[str | TokenRefused]:
        """Return the address of the account that `token` was given to.

        `login` is what the client claims to be, or empty: do not trust it, the server
        compares it with the answer. Check that the token is genuine, has not expired
        and was made for this server; with a wrong or unknown one, return
        `TokenRefused`, and the next verifier is asked. The empty one is a client's
        question what token it needs: always `TokenRefused`. Never log a token.
        """


class IAccountDatabase(Interface):
    """Keeps the directory of domains, accounts, aliases and groups.

    Methods block and may be called from any thread. Not a plugin's door yet.
    """

    def snapshot() -> Directory:
        """Read the whole directory, as of one moment."""

    def version() -> object:
        """Return a value that differs after every change, by whomever; cheap."""

    def mark() -> object | None:
        """Return a value that is the same only while nothing has changed; at once.

        For the reactor thread, unlike the others. None: it cannot be told without
        waiting. Take it before the `version` that it stands for.
        """

    def edit(change: Callable[[Directory], Directory]) -> Directory:
        """Replace the directory by what `change` makes of it and return that.

        One durable transaction: no other edit comes between, and when `change`
        raises nothing has happened. See `mailsrv.accounts.edits`.
        """
