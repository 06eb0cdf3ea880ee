"""Policies, deliverers and resolvers in SMTP: the built-in ones and plugins."""

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.accounts.database import MemoryAccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.live import LiveDirectory
from mailsrv.doors import contracts
from mailsrv.doors.guest import Guest
from mailsrv.doors.message import Message
from mailsrv.doors.values import (
    ACCEPT,
    Defer,
    Edit,
    Quarantine,
    Recipient,
    Reject,
    Sender,
    Verdict,
)
from mailsrv.interfaces import IMessagePolicy
from mailsrv.routing.router import MAX_RESOLVED, Router
from mailsrv.smtp.policies import OwnAddresses, Policies, RoomForMail
from tests.doors.memory import MemoryDeliverer, MemoryPolicy, MemoryResolver
from tests.inline_threads import InlineThreads
from tests.smtp.office import (
    ANNA,
    BERT,
    CARL,
    MAIL,
    MESSAGE,
    Connection,
    MemoryMailStore,
    OfficeCase,
    office,
    rcpt,
)

FROM_ANNA = Sender("submission", "192.0.2.7", "client", True, ANNA, ANNA, 100)


def router(test: contracts.Contract) -> Router:
    threads = InlineThreads()
    database = MemoryAccountDatabase()
    database.edit(office)
    live = LiveDirectory(database, threads=threads, reactor=threads.clock)
    live.start()
    test.addCleanup(live.stop)
    return Router(live)


class OwnAddressesInMailTests(contracts.SenderPolicyContract):
    accepted = FROM_ANNA
    refused = Sender("submission", "192.0.2.7", "client", True, ANNA, BERT, 100)

    def provider(self) -> OwnAddresses:
        return OwnAddresses(router(self))


class OwnAddressesInFromTests(contracts.MessagePolicyContract):
    def provider(self) -> OwnAddresses:
        return OwnAddresses(router(self))

    def wanted(self) -> Message:
        header = b"Return-Path: <>\r\nFrom: Anna <anna@example.test>\r\n\r\n"
        return contracts.message(header=header, sender=FROM_ANNA)

    def unwanted(self) -> Message:
        header = b"Return-Path: <>\r\nFrom: Bert <bert@example.test>\r\n\r\n"
        return contracts.message(header=header, sender=FROM_ANNA)


class RoomForMailTests(contracts.RecipientPolicyContract):
    accepted = Recipient(contracts.SENDER, ANNA, (ANNA,))
    refused = Recipient(contracts.SENDER, CARL, (CARL,))

    def provider(self) -> RoomForMail:
        store = MemoryMailStore()
        store.used[CARL] = 1000
        return RoomForMail(router(self), store, "reject")


class PluginCase(OfficeCase):
    def plugged(self, **doors: list[object]) -> Connection:
        """A client of an MX with plugins."""
        return Connection(self.factory(plugins=self.policies(**doors)))

    def policies(self, **doors: list[object]) -> Policies:
        guests = {
            door: [Guest("acme", one, 10.0, self.clock) for one in providers]
            for door, providers in doors.items()
        }
        return Policies(**guests)

    def deliver(self, client: Connection, *recipients: str) -> bytes:
        client.send(b"EHLO client.test\r\n" + MAIL + rcpt(*recipients or (ANNA,)))
        client.send(b"DATA\r\n")
        return client.send(MESSAGE + b".\r\n")


class SenderTests(PluginCase):
    def test_the_verdict_is_the_reply(self) -> None:
        policy = MemoryPolicy({"a@else.test": Reject("no such luck", 554, "5.7.9")})
        client = self.plugged(sender=[policy])
        client.send(b"EHLO client.test\r\n")
        self.assertEqual(client.send(MAIL), b"554 5.7.9 no such luck\r\n")
        self.assertEqual(client.codes(b"MAIL FROM:<b@else.test>\r\n"), [250])
        sender = policy.seen[0]
        assert isinstance(sender, Sender)
        self.assertEqual(
            (sender.service, sender.peer, sender.client_name, sender.account),
            ("mx", "192.0.2.7", "client.test", None),
        )

    def test_the_built_in_rule_comes_first(self) -> None:
        policy = MemoryPolicy({})
        factory = self.factory("submission", plugins=self.policies(sender=[policy]))
        client = Connection(factory, tls=True)
        client.send(
            b"EHLO client.test\r\nAUTH PLAIN AGFubmFAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n"
        )
        reply = client.send(b"MAIL FROM:<bert@example.test>\r\n")
        self.assertEqual(reply[:9], b"553 5.7.1")
        self.assertEqual(policy.seen, [])
        self.assertEqual(client.codes(b"MAIL FROM:<anna@example.test>\r\n"), [250])
        (sender,) = policy.seen
        assert isinstance(sender, Sender)
        self.assertEqual((sender.account, sender.tls), (ANNA, True))


class RecipientTests(PluginCase):
    def test_one_recipient_is_deferred_and_the_other_not(self) -> None:
        policy = MemoryPolicy({ANNA: Defer("greylisted")})
        client = self.plugged(recipient=[policy])
        client.send(b"EHLO client.test\r\n" + MAIL)
        self.assertEqual(client.send(rcpt(ANNA)), b"451 4.7.1 greylisted\r\n")
        self.assertEqual(client.codes(rcpt(BERT)), [250])

    def test_it_is_told_who_gets_it_and_not_asked_of_unknown_ones(self) -> None:
        policy = MemoryPolicy({})
        client = self.plugged(recipient=[policy])
        client.send(b"EHLO client.test\r\n" + MAIL)
        client.send(rcpt("sales@example.test", "nobody@example.test"))
        (recipient,) = policy.seen
        assert isinstance(recipient, Recipient)
        self.assertEqual(recipient.forward_path, "sales@example.test")
        self.assertEqual(recipient.accounts, (ANNA,))


def _same(verdict: Verdict, message: Message) -> Verdict:
    return verdict


@implementer(IMessagePolicy)
class Answering:
    """Answers what a function gives."""

    def __init__(self, answer: Callable[[Message], Any]) -> None:
        # Any: also what is no verdict.
        self._answer = answer

    def message(self, message: Message) -> Any:
        return self._answer(message)


class MessageTests(PluginCase):
    def judged(
        self, *verdicts: Verdict, recipients: tuple[str, ...] = (ANNA,)
    ) -> bytes:
        policies: list[object] = [Answering(lambda _, v=v: v) for v in verdicts]  # type: ignore[misc]
        return self.deliver(self.plugged(message=policies), *recipients)

    def test_refused(self) -> None:
        self.assertEqual(self.judged(Reject("virus")), b"550 5.7.1 virus\r\n")
        self.assertEqual(self.judged(Defer("busy")), b"451 4.7.1 busy\r\n")
        self.assertEqual(self.store.messages, [])
        self.assertEqual(len(self.store.aborted), 2)

    def test_accepted_as_it_came(self) -> None:
        self.assertEqual(self.judged(ACCEPT, ACCEPT)[:3], b"250")
        (message,) = self.store.messages
        self.assertTrue(message.octets.endswith(MESSAGE))

    def test_edits_of_all_are_made(self) -> None:
        first = Edit(add=(("X-Spam", "no"),), remove=("subject", "received"))
        reply = self.judged(first, ACCEPT, Edit(add=(("X-Virus", "none"),)))
        self.assertEqual(reply[:3], b"250")
        (message,) = self.store.messages
        self.assertRegex(
            message.octets,
            rb"(?s)^Return-Path: <a@else\.test>\r\nX-Spam: no\r\nX-Virus: none\r\n"
            rb"Received: from client.test.*\r\nFrom: <a@else\.test>\r\n\r\nbody\r\n$",
        )

    def test_quarantine(self) -> None:
        edit = Edit(add=(("X-Spam", "yes"),))
        reply = self.judged(Quarantine("spam", edit), recipients=(ANNA, BERT))
        self.assertEqual(reply[:3], b"250")
        (message,) = self.store.messages
        where = [(target.folder, target.mailbox) for target in message.targets]
        self.assertEqual(where, [(ANNA, "Junk"), (BERT, "Junk")])
        self.assertIn(b"X-Spam: yes\r\n", message.octets)
        (line,) = self.infos("{policy} quarantines")
        self.assertEqual((line["policy"], line["reason"]), ("acme", "spam"))

    def test_a_refusal_after_a_quarantine(self) -> None:
        reply = self.judged(Quarantine("spam"), Reject("virus"))
        self.assertEqual(reply[:3], b"550")
        self.assertEqual(self.store.messages, [])

    def test_what_it_sees(self) -> None:
        seen: list[Message] = []
        read: list[bytes] = []

        async def look(message: Message) -> Verdict:
            seen.append(message)
            read.append(await message.read(0, 10_000))
            return ACCEPT

        self.deliver(self.plugged(message=[Answering(look)]), ANNA, BERT)
        (message,) = seen
        self.assertEqual(message.recipients, (ANNA, BERT))
        self.assertEqual(message.sender.reverse_path, "a@else.test")
        self.assertTrue(message.header.startswith(b"Return-Path: <a@else.test>\r\nRec"))
        self.assertEqual(read, [message.header.replace(b"\r\n", b"\n") + b"body\n"])
        # Afterwards there is nothing to read.
        self.failureResultOf(Deferred.fromCoroutine(look(message)))

    def test_no_verdict_defers_and_keeps_nothing(self) -> None:
        def fail(message: Message) -> Verdict:
            raise ZeroDivisionError

        for answer in (fail, lambda _: None, lambda _: True, lambda _: "spam"):
            reply = self.deliver(self.plugged(message=[Answering(answer)]))
            self.assertEqual(reply[:9], b"451 4.3.0")
        self.assertEqual(self.store.messages, [])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_the_client_waits_for_a_slow_one_and_no_longer(self) -> None:
        verdict: Deferred[Verdict] = Deferred()
        client = self.plugged(message=[Answering(lambda _: verdict)])
        self.assertEqual(self.deliver(client), b"")
        verdict.callback(ACCEPT)
        self.assertEqual(client.wire.take()[:3], b"250")
        client = self.plugged(message=[Answering(lambda _: Deferred())])
        self.assertEqual(self.deliver(client), b"")
        self.clock.advance(10.0)
        self.assertEqual(client.wire.take()[:9], b"451 4.3.0")
        self.assertEqual(client.codes(b"NOOP\r\n"), [250])

    def test_a_client_that_leaves_meanwhile_has_delivered_nothing_twice(self) -> None:
        verdict: Deferred[Verdict] = Deferred()
        client = self.plugged(message=[Answering(lambda _: verdict)])
        self.deliver(client)
        client.lose()
        verdict.callback(Reject("no"))
        self.assertEqual(self.store.messages, [])
        self.assertEqual(len(self.store.aborted), 1)


class DelivererTests(PluginCase):
    def test_it_takes_one_account_s_mail(self) -> None:
        deliverer = MemoryDeliverer(ANNA)
        client = self.plugged(deliverers=[deliverer])
        self.assertEqual(self.deliver(client, ANNA, BERT)[:3], b"250")
        (octets,) = deliverer.delivered
        self.assertTrue(octets.endswith(b"\n\nbody\n"))
        (message,) = self.store.messages
        self.assertEqual([target.folder for target in message.targets], [BERT])

    def test_the_only_copy(self) -> None:
        deliverer = MemoryDeliverer(ANNA)
        client = self.plugged(deliverers=[deliverer])
        self.assertEqual(self.deliver(client)[:3], b"250")
        self.assertEqual(len(deliverer.delivered), 1)
        self.assertEqual(self.store.messages, [])
        self.assertEqual(len(self.store.aborted), 1)

    def test_it_gets_the_edited_message_and_none_from_quarantine(self) -> None:
        deliverer = MemoryDeliverer(ANNA)
        verdicts: list[Verdict] = [
            Edit(add=(("X-Spam", "no"),)),
            Quarantine("spam"),
        ]
        for verdict in verdicts:
            policy = Answering(partial(_same, verdict))
            client = self.plugged(deliverers=[deliverer], message=[policy])
            self.assertEqual(self.deliver(client)[:3], b"250")
        (octets,) = deliverer.delivered
        self.assertIn(b"X-Spam: no\n", octets)
        self.assertEqual(self.store.messages[0].targets[0].mailbox, "Junk")

    def test_one_that_fails_defers_all(self) -> None:
        client = self.plugged(deliverers=[object()])
        self.assertEqual(self.deliver(client, ANNA, BERT)[:9], b"451 4.3.0")
        self.assertEqual(self.store.messages, [])
        self.flushLoggedErrors(AttributeError)

    def test_over_lmtp_it_defers_its_own_copy(self) -> None:
        policies = self.policies(deliverers=[FailingFor(ANNA)])
        client = Connection(self.factory("lmtp", plugins=policies))
        client.send(b"LHLO client.test\r\n" + MAIL + rcpt(ANNA, BERT) + b"DATA\r\n")
        self.assertEqual(client.codes(MESSAGE + b".\r\n"), [451, 250])
        (message,) = self.store.messages
        self.assertEqual([target.folder for target in message.targets], [BERT])
        self.flushLoggedErrors(ZeroDivisionError)

    def test_over_lmtp_the_rest_of_a_group_waits(self) -> None:
        policies = self.policies(deliverers=[FailingFor(ANNA), MemoryDeliverer(BERT)])
        client = Connection(self.factory("lmtp", plugins=policies))
        client.send(b"LHLO client.test\r\n" + MAIL + rcpt("team@example.test"))
        client.send(b"DATA\r\n")
        self.assertEqual(client.codes(MESSAGE + b".\r\n"), [250])
        [(_, [row], _)] = self.queue.taken
        self.assertEqual(row.forward_path, ANNA)
        self.flushLoggedErrors(ZeroDivisionError)


class FailingFor:
    def __init__(self, account: str) -> None:
        self._account = account

    def deliver(self, message: Message, account: str) -> bool:
        if account == self._account:
            raise ZeroDivisionError
        return False


class ResolverTests(PluginCase):
    def setUp(self) -> None:
        super().setUp()
        self.resolver = MemoryResolver(
            {
                "support@example.test": [ANNA, "team@example.test"],
                "sales@example.test": [BERT],
                "old@else.test": [ANNA],
                "anna@example.test": [],
                "away@example.test": ["x@outside.test", ANNA],
                "typo@example.test": ["nobody@example.test"],
                "half@example.test": ["nobody@example.test", BERT],
                "broken@example.test": ["a b"],
                "empty@example.test": [""],
                "odd@example.test": [3],  # type: ignore[list-item]
                "sets@example.test": [{}],  # type: ignore[list-item]
                "many@example.test": [BERT] * MAX_RESOLVED,
                "endless@example.test": [BERT] * (MAX_RESOLVED + 1),
            }
        )
        guest = Guest("acme", self.resolver, 10.0, self.clock)
        self.router = Router(self.router._live, [guest])
        self.client = Connection(self.factory())
        self.client.send(b"EHLO client.test\r\n" + MAIL)

    def test_who_gets_it(self) -> None:
        for address, code in (
            ("Support@Example.Test", 250),
            ("sales@example.test", 250),  # an alias of anna in the directory
            ("old@else.test", 250),  # of a domain that is not in the directory
            ("bert@example.test", 250),  # not known to the resolver
            ("postmaster", 250),
            ("anna@example.test", 550),  # it says nobody
            ("away@example.test", 250),  # forwarded as well
            ("typo@example.test", 550),
            ("half@example.test", 250),
            ("broken@example.test", 451),
            ("empty@example.test", 451),
            ("odd@example.test", 451),
            ("sets@example.test", 451),
            ("many@example.test", 250),
            ("endless@example.test", 451),
        ):
            self.assertEqual(self.client.codes(rcpt(address)), [code], address)

    def test_the_directory_is_read_again_once(self) -> None:
        # Not for each of the addresses that it lacks.
        strangers = [f"x{number}@outside.test" for number in range(100)]
        self.resolver._addresses["all@example.test"] = strangers  # type: ignore[index]
        read: list[object] = []
        refresh = self.router._live.refresh

        async def counted() -> Directory:
            read.append(1)
            return await refresh()

        self.patch(self.router._live, "refresh", counted)
        self.assertEqual(self.client.codes(rcpt("all@example.test")), [250])
        self.assertEqual(len(read), 1)

    def test_each_account_once(self) -> None:
        self.client.send(rcpt("support@example.test") + b"DATA\r\n")
        self.client.send(MESSAGE + b".\r\n")
        (message,) = self.store.messages
        self.assertEqual([target.folder for target in message.targets], [ANNA, BERT])

    def test_one_that_fails_is_temporary(self) -> None:
        self.router = Router(
            self.router._live, [Guest("acme", object(), 10.0, self.clock)]
        )
        client = Connection(self.factory())
        client.send(b"EHLO client.test\r\n" + MAIL)
        self.assertEqual(client.send(rcpt(ANNA))[:9], b"451 4.3.0")
        self.flushLoggedErrors(AttributeError)
