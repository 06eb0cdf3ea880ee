"""What senders are told, and when, by the queue as a whole."""

from dataclasses import replace

from mailsrv.queue.admin import change
from mailsrv.queue.carrying import Outcome
from mailsrv.queue.database import Filter
from mailsrv.queue.values import ALIAS, Answer, State
from mailsrv.store.values import DeliveryFailed
from tests.queue.office import BERT, QueueCase
from tests.queue.values import message, recipient, rows


class ReportTests(QueueCase):
    def test_failure(self) -> None:
        self.send("a@far.test", "b@far.test", "c@far.test")
        self.far.answer(550, 250, 550)
        self.settle()
        [octets] = self.mails()
        self.assertTrue(octets.startswith(b"Return-Path: <>\n"), octets)
        self.assertIn(b"a@far.test", octets)
        self.assertIn(b"c@far.test", octets)
        self.assertNotIn(b"b@far.test", octets)
        self.assertIn(b"Subject: x", octets)
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_report_is_protected_as_the_message_was(self) -> None:
        """RFC 8689 section 5: REQUIRETLS for the report as well."""
        for require_tls in (True, False):
            file = self.spooled(b"Subject: x\n\ntext\n")
            sent = message(
                file=file,
                reverse_path="x@near.test",
                size_octets=20,
                require_tls=require_tls,
            )
            self.take(sent, [recipient("a@far.test")])
            self.far.answer(550)
            self.settle()
            [(reported, _)] = self.wait(self.queue.find(Filter(), 10))
            self.assertEqual(reported.reverse_path, "")
            self.assertIs(reported.require_tls, require_tls)
            self.far.answer(250)
            self.settle()

    def test_report_of_a_report_is_never_made(self) -> None:
        file = self.spooled(b"Subject: x\n\ntext\n")
        sent = message(file=file, reverse_path="", size_octets=20)
        self.take(sent, [recipient()])
        self.far.answer(550)
        self.settle()
        self.assertEqual(self.mails(), [])
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_delay_is_told_once_and_then_the_end(self) -> None:
        self.send("a@far.test")
        for _ in range(30):
            if self.far.waiting:
                self.far.answer(451)
            self.settle()
            self.clock.advance(300)
            self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])
        mails = self.mails()
        actions = sorted(
            line
            for octets in mails
            for line in octets.split(b"\n")
            if b"Action:" in line
        )
        self.assertEqual(actions, [b"Action: delayed", b"Action: failed"])

    def test_alias_of_several(self) -> None:
        """Its sender hears that it went on to the members, once."""
        file = self.spooled(b"Subject: x\n\ntext\n")
        alias = recipient(
            "all@example.test", destination=ALIAS, notify="SUCCESS", orcpt="rfc822;a@x"
        )
        self.take(message(file=file, size_octets=20), [alias, recipient("a@far.test")])
        [octets] = self.mails()
        for field in (
            b"\nAction: expanded\n",
            b"\nStatus: 2.0.0\n",
            b"\nFinal-Recipient: rfc822; all@example.test\n",
            b"\nOriginal-Recipient: rfc822; a@x\n",
        ):
            self.assertIn(field, octets)
        self.assertNotIn(b"a@far.test", octets)
        self.far.answer(250)
        self.settle()
        self.assertEqual(len(self.mails()), 1)
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_verp_address_is_told(self) -> None:
        file = self.spooled(b"Subject: x\n\ntext\n")
        own = recipient(reverse_path="bert@example.test")
        self.take(message(file=file, size_octets=20), [own])
        self.far.answer(550)
        self.settle()
        self.assertEqual(self.mails(), [])
        self.assertEqual(len(self.mails(BERT)), 1)

    def test_sender_without_an_account_is_the_postmaster_s(self) -> None:
        file = self.spooled(b"Subject: x\n\ntext\n")
        sent = message(file=file, reverse_path="cron@example.test", size_octets=20)
        self.take(sent, [recipient()])
        self.far.answer(550)
        self.settle()
        [octets] = self.mails()  # Anna's is the oldest account
        self.assertIn(b"\nTo: <cron@example.test>\n", octets)

    def test_report_that_cannot_be_written(self) -> None:
        """Nobody fails for good without the sender's hearing of it."""
        self.send("a@far.test")
        deliver = self.mail_store.deliver

        async def full(*arguments: object) -> object:
            raise DeliveryFailed("full")

        self.mail_store.deliver = full  # type: ignore[assignment,method-assign]
        self.far.answer(550)
        self.settle()
        [row] = rows(self.queue.database, Filter())
        self.assertEqual(row.state, State.WAITING)
        self.mail_store.deliver = deliver  # type: ignore[method-assign]
        self.clock.advance(301)
        self.settle()
        self.far.answer(550)
        self.settle()
        self.assertEqual(len(self.mails()), 1)
        self.assertEqual(len(self.flushLoggedErrors(DeliveryFailed)), 1)

    def test_nothing_is_left_of_reports_that_cannot_all_be_written(self) -> None:
        file = self.spooled(b"Subject: x\n\ntext\n")
        to = [
            recipient(f"r{n}@far.test", reverse_path=f"b+{n}@example.test")
            for n in range(2)
        ]
        self.take(message(file=file, size_octets=20), to)
        [(first, _), (second, _)] = self.far.waiting
        merged = replace(first, recipients=first.recipients + second.recipients)
        deliver, written = self.mail_store.deliver, 0

        async def full(*arguments: object) -> object:
            nonlocal written
            written += 1
            if written == 2:
                raise DeliveryFailed("full")
            return await deliver(*arguments)  # type: ignore[arg-type]

        self.mail_store.deliver = full  # type: ignore[assignment,method-assign]
        said = Answer(550, "5.0.0", "no", self.clock.seconds(), "mx")
        self.wait(self.queue._settle(merged, Outcome((said, said))))
        self.mail_store.deliver = deliver  # type: ignore[method-assign]
        self.assertEqual(written, 2)
        self.assertEqual(len(self.spool_files()), 1)
        self.assertEqual(len(self.flushLoggedErrors(DeliveryFailed)), 1)

    def test_by_hand_is_what_the_report_says(self) -> None:
        self.send("a@far.test")
        self.far.answer(451)
        self.settle()
        wanted = Filter(recipient="a@far.test")
        self.wait(change(self.queue, "bounce", wanted, self.clock.seconds))
        [octets] = self.mails()
        self.assertIn(b"\nStatus: 5.0.0\n", octets)
        text = b" ".join(octets.split())
        self.assertIn(b"Sent back by the administrator of this server", text)
        self.assertIn(b"451 4.0.0 so it is", text)
        self.assertNotIn(b"time for this message is over", text)
