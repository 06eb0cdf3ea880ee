"""The in-memory providers hold to the contracts of their doors."""

import os
from pathlib import Path

from twisted.cred.checkers import (
    AllowAnonymousAccess,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.internet.defer import Deferred

from mailsrv.doors import contracts
from mailsrv.doors.cred import CheckerUsers
from mailsrv.doors.message import FileContent, MemoryContent, Message, MessageClosed
from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import Quarantine, Recipient, Reject, Sender
from mailsrv.interfaces import IPluginMaker
from tests.doors.memory import (
    MemoryDeliverer,
    MemoryKeyUsers,
    MemoryListener,
    MemoryMaker,
    MemoryPolicy,
    MemoryResolver,
    MemoryService,
    MemoryTokens,
    MemoryUsers,
)
from tests.inline_threads import InlineThreads

NO = Reject("no")
SPAMMER = Sender("smtp", "192.0.2.7", "c", False, None, "spam@else.test", 0)


class PluginTests(contracts.PluginMakerContract):
    def provider(self) -> IPluginMaker:
        maker = MemoryMaker("memory", object())

        def build(options: object, services: object) -> object:
            """Make something."""
            return maker.build(options, services)  # type: ignore[arg-type]

        return Plugin("memory", build)


class MemoryMakerTests(contracts.PluginMakerContract):
    def provider(self) -> MemoryMaker:
        return MemoryMaker("memory", object())


class MemoryConnectionTests(contracts.ConnectionPolicyContract):
    refused = "203.0.113.1"

    def provider(self) -> MemoryPolicy:
        return MemoryPolicy({"203.0.113.1": NO})


class MemorySenderTests(contracts.SenderPolicyContract):
    refused = SPAMMER

    def provider(self) -> MemoryPolicy:
        return MemoryPolicy({"spam@else.test": NO})


class MemoryRecipientTests(contracts.RecipientPolicyContract):
    refused = Recipient(SPAMMER, "trap@example.test", ("anna@example.test",))

    def provider(self) -> MemoryPolicy:
        return MemoryPolicy({"trap@example.test": NO})


class MemoryMessageTests(contracts.MessagePolicyContract):
    def provider(self) -> MemoryPolicy:
        return MemoryPolicy({"spam": Quarantine("spam")})

    def unwanted(self) -> Message:
        return contracts.message(header=b"Subject: spam\r\n\r\n")


class MemoryResolverTests(contracts.RecipientResolverContract):
    known = "support@example.test"

    def provider(self) -> MemoryResolver:
        return MemoryResolver({self.known: ["anna@example.test"]})


class MemoryDelivererTests(contracts.DelivererContract):
    def provider(self) -> MemoryDeliverer:
        return MemoryDeliverer(self.takes)


class MemoryListenerTests(contracts.ChangeListenerContract):
    def provider(self) -> MemoryListener:
        return MemoryListener()


class MemoryUsersTests(contracts.UserDatabaseContract):
    def provider(self) -> MemoryUsers:
        return MemoryUsers({self.account: self.password})


class MemoryKeyUsersTests(contracts.ScramKeysContract):
    def provider(self) -> MemoryKeyUsers:
        return MemoryKeyUsers({self.account: self.password})


class MemoryTokensTests(contracts.TokenVerifierContract):
    token = "a-token"

    def provider(self) -> MemoryTokens:
        return MemoryTokens({self.token: self.account})


class CheckerUsersTests(contracts.UserDatabaseContract):
    def provider(self) -> CheckerUsers:
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(self.account.encode(), self.password.encode())
        return CheckerUsers(checker)

    def test_anonymous_is_nobody(self) -> None:
        self.assertRaises(ValueError, CheckerUsers, AllowAnonymousAccess())


class MemoryServiceTests(contracts.ListenerServiceContract):
    def provider(self) -> MemoryService:
        return MemoryService()


class MemoryContentTests(contracts.ContentContract):
    def provider(self) -> MemoryContent:
        return MemoryContent(self.OCTETS)

    async def test_nothing_can_be_read_afterwards(self) -> None:
        content = self.provider()
        content.close()
        with self.assertRaises(MessageClosed):
            await content.read(0, 1)


class FileContentTests(contracts.ContentContract):
    def provider(self) -> FileContent:
        path = Path(self.mktemp())
        path.write_bytes(self.OCTETS)
        self.threads = InlineThreads()
        fd = os.open(path, os.O_RDONLY)
        return FileContent(fd, len(self.OCTETS), self.threads.read)

    async def test_a_late_reader_reads_no_other_file(self) -> None:
        content = self.provider()
        content.close()
        content.close()
        with self.assertRaises(MessageClosed):
            content.read_blocking(0, 1)

    def test_reading_waits_for_a_thread(self) -> None:
        content = self.provider()
        self.addCleanup(content.close)
        self.threads.read_jobs.held = True
        reading: Deferred[bytes] = content.read(0, 3)
        self.assertFalse(reading.called)
        self.threads.read_jobs.release()
        self.assertEqual(reading.result, b"012")
