"""The queue as a whole: what is taken is delivered, waits, or is reported."""

import os
import sqlite3
from dataclasses import replace

from twisted.internet.defer import Deferred

from mailsrv.accounts import edits
from mailsrv.queue import dispatch
from mailsrv.queue.admin import change
from mailsrv.queue.carrying import Outcome
from mailsrv.queue.database import Filter
from mailsrv.queue.queue import QueueInUse
from mailsrv.queue.values import Answer, Message, Priority, State
from mailsrv.store.values import DeliveryFailed, LockHeld
from tests.queue.office import ANNA, BERT, QueueCase
from tests.queue.values import message, recipient, rows


class TakingTests(QueueCase):
    def test_from_submit_to_delivered(self) -> None:
        self.send("carl@far.test")
        [(parcel, content)] = self.far.carried
        self.assertEqual(parcel.destination, "far.test")
        self.assertEqual(content, b"Subject: x\r\n\r\ntext\r\n")
        self.assertEqual(len(self.spool_files()), 1)
        self.far.answer(250)
        self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])
        self.assertEqual(self.spool_files(), [])

    def test_waits_and_is_tried_again(self) -> None:
        self.send("carl@far.test")
        self.far.answer(451)
        self.settle()
        [row] = rows(self.queue.database, Filter())
        self.assertEqual((row.attempts, row.state), (1, State.WAITING))
        self.clock.advance(45)
        self.settle()
        self.assertEqual(self.far.waiting, [])
        self.clock.advance(30)
        self.settle()
        self.assertEqual(len(self.far.carried), 2)
        self.far.answer(250)
        self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_recipients_of_one_domain_go_together(self) -> None:
        self.send("a@far.test", "b@far.test", "c@near.test")
        sizes = sorted(len(parcel.recipients) for parcel, _ in self.far.carried)
        self.assertEqual(sizes, [1, 2])
        self.far.answer(250, 451)
        self.settle()
        left = rows(self.queue.database, Filter(state=State.WAITING))
        found = sorted(r.forward_path for r in left)
        self.assertEqual(found, ["b@far.test", "c@near.test"])

    def test_recipients_who_get_something_of_their_own_go_alone(self) -> None:
        file = self.spooled(b"Return-Path: <x>\nA: b\n\ntext\n")
        sent = message(file=file, size_octets=14, skip_octets=17, prefix=b"P: q\r\n")
        self.take(
            sent,
            [
                recipient("a@far.test", prefix=b"R: 1\r\n"),
                recipient("b@far.test", reverse_path="v@example.test"),
                recipient("c@far.test"),
                recipient("d@far.test"),
            ],
        )
        got = [
            ([r.forward_path[0] for r in p.recipients], c) for p, c in self.far.carried
        ]
        plain = b"P: q\r\nA: b\r\n\r\ntext\r\n"
        self.assertEqual(
            got, [(["a"], b"R: 1\r\n" + plain), (["b"], plain), (["c", "d"], plain)]
        )
        self.assertEqual(self.far.carried[1][0].reverse_path, "v@example.test")

    def test_signed(self) -> None:
        self.signatures = b"DKIM-Signature: yes\r\n"
        self.send("carl@far.test")
        self.assertEqual(self.signed, b"Subject: x\r\n\r\ntext\r\n")
        self.assertEqual(
            self.far.carried[0][1],
            b"DKIM-Signature: yes\r\nSubject: x\r\n\r\ntext\r\n",
        )

    def test_signing_that_fails_does_not_keep_mail(self) -> None:
        def fail(header: bytes, body: object) -> bytes:
            raise ValueError("a bug")

        self.queue._sign = fail
        self.send("carl@far.test")
        self.assertEqual(len(self.far.carried), 1)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_once(self) -> None:
        def send() -> str:
            id: str = self.wait(
                self.queue.submit(
                    b"\n", reverse_path=ANNA, forward_paths=["c@far.test"], once="run:c"
                )
            )
            return id

        self.assertTrue(send())
        self.assertEqual(send(), "")
        self.assertEqual(len(self.far.carried), 1)
        self.assertEqual(len(self.spool_files()), 1)

    def test_rows_that_cannot_be_written(self) -> None:
        def full(*arguments: object) -> object:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        self.queue._writer._write = full  # type: ignore[assignment]
        file = self.spooled(b"\ntext\n")
        taking = Deferred.fromCoroutine(
            self.queue.take(message(file=file), [recipient()])
        )
        self.settle()
        failure = self.failureResultOf(taking, DeliveryFailed)
        self.assertEqual(failure.value.kind, "full")
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)
        self.queue._writer._write = self.queue.database.write

    def test_nothing_is_left_of_what_was_not_taken(self) -> None:
        """Else a disk that is full gets fuller with each attempt."""
        write = self.queue._writer._write

        def full(*arguments: object) -> object:
            raise sqlite3.OperationalError("database or disk is full")

        self.queue._writer._write = full  # type: ignore[assignment]
        submitting = self.queue.submit(
            b"Subject: x\n\ntext\n", reverse_path=ANNA, forward_paths=["c@far.test"]
        )
        failing = Deferred.fromCoroutine(submitting)
        self.settle()
        self.failureResultOf(failing, DeliveryFailed)
        self.queue._writer._write = write
        self.assertEqual(self.spool_files(), [])
        self.flushLoggedErrors(sqlite3.OperationalError)

    def test_results_are_written_when_the_disk_is_back(self) -> None:
        self.send("carl@far.test")
        write = self.queue._writer._write

        def broken(*arguments: object) -> object:
            raise sqlite3.OperationalError("disk I/O error")

        self.queue._writer._write = broken  # type: ignore[assignment]
        self.far.answer(250)
        self.settle()
        self.assertEqual(len(rows(self.queue.database, Filter())), 1)
        self.queue._writer._write = write
        self.clock.advance(5)
        self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])
        self.assertEqual(len(self.far.carried), 1)
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 1)


class RestartTests(QueueCase):
    def restart(self) -> None:
        self.wait(self.queue.stop())
        self.queue = self.opened()
        self.start()
        self.settle()

    def test_what_waits_is_found_again(self) -> None:
        self.send("carl@far.test")
        self.far.answer(451)
        self.settle()
        self.restart()
        self.assertEqual(len(self.far.carried), 1)
        self.clock.advance(100)
        self.settle()
        self.assertEqual(len(self.far.carried), 2)

    def test_files_without_rows_go_and_others_stay(self) -> None:
        self.send("carl@far.test", content=b"\nkept\n")
        self.spooled(b"\nnever promised\n")
        self.far.answer(451)
        self.settle()
        self.restart()
        self.assertEqual(self.spool_files(), [b"\nkept\n"])

    def test_one_owner(self) -> None:
        self.assertRaises(QueueInUse, self.opened)

    def test_attempts_end_before_it_stops(self) -> None:
        self.send("carl@far.test")
        stopping = Deferred.fromCoroutine(self.queue.stop())
        self.settle()
        self.assertNoResult(stopping)
        self.far.answer(250)
        self.settle()
        self.successResultOf(stopping)
        self.queue = self.opened()
        self.start()
        self.assertEqual(rows(self.queue.database, Filter()), [])


class ClockTests(QueueCase):
    """The wall clock is set, or the machine sleeps; the reactor's goes on."""

    def tried(self) -> None:
        self.send("carl@far.test")
        self.far.answer(451)
        self.settle()
        self.clock.advance(100)
        self.settle()
        self.far.answer(451)
        self.settle()
        self.assertEqual(self.far.waiting, [])  # for ten minutes

    def test_forward(self) -> None:
        self.tried()
        self.wrong_s += 3600
        self.clock.advance(60)
        self.settle()
        self.assertEqual(len(self.far.waiting), 1)

    def test_back(self) -> None:
        """It was four years ahead: mail does not wait for so long."""
        self.wrong_s = 4 * 365 * 86400
        self.tried()
        self.wrong_s = 0
        for _ in range(65):
            self.clock.advance(60)
            self.settle()
        self.assertEqual(len(self.far.waiting), 1)

    def test_back_while_the_server_is_down(self) -> None:
        self.wrong_s = 4 * 365 * 86400
        self.tried()
        self.wait(self.queue.stop())
        self.wrong_s = 0
        self.queue = self.opened()
        self.start()
        for _ in range(65):
            self.clock.advance(60)
            self.settle()
        self.assertEqual(len(self.far.waiting), 1)


class SizeTests(QueueCase):
    def test_times_do_not_pile_up(self) -> None:
        self.patch(dispatch, "_SPARE_TIMES", 10)
        self.send("carl@far.test")
        dispatcher = self.queue.dispatcher
        assert dispatcher is not None
        for _ in range(40):
            self.far.answer(451)
            self.settle()
            wanted = Filter(recipient="carl@far.test")
            self.wait(change(self.queue, "retry", wanted, self.now))
        self.assertLess(len(dispatcher._times), 20)


class FairnessTests(QueueCase):
    def test_more_rows_than_are_kept_in_memory(self) -> None:
        file = self.spooled(b"\ntext\n")
        to = [recipient(f"r{n}@far.test") for n in range(350)]
        self.take(message(file=file, size_octets=8), to)
        seen: list[str] = []
        while self.far.waiting:
            parcel = self.far.answer(250)
            seen += [r.forward_path for r in parcel.recipients]
            self.settle()
        self.assertEqual(sorted(seen), sorted(r.forward_path for r in to))
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_letter_does_not_wait_for_a_newsletter(self) -> None:
        file = self.spooled(b"\nnews\n")
        for number in range(50):
            news = message(
                f"n{number}", file=file, size_octets=8, priority=Priority.BULK
            )
            self.take(news, [recipient(f"r@far{number}.test", news.id)])
        self.assertEqual(len(self.far.waiting), 6)  # three quarters of 8
        self.send("carl@far1.test")
        self.assertEqual(self.far.waiting[-1][0].destination, "far1.test")

    def test_one_slow_destination_does_not_hold_others(self) -> None:
        file = self.spooled(b"\ntext\n")
        for number in range(20):
            sent = message(f"s{number}", file=file, size_octets=8)
            self.take(sent, [recipient("r@slow.test", sent.id)])
        self.assertEqual(len(self.far.waiting), 5)
        self.send("carl@far.test")
        self.assertEqual(self.far.waiting[-1][0].destination, "far.test")

    def test_destination_that_cannot_be_reached_gets_one_attempt_at_a_time(
        self,
    ) -> None:
        file = self.spooled(b"\ntext\n")
        for number in range(20):
            sent = message(f"s{number}", file=file, size_octets=8)
            self.take(sent, [recipient("r@down.test", sent.id)])
        for _ in range(8):
            self.far.answer(451, peer="")
            self.settle()
        self.assertEqual(len(self.far.waiting), 1)


class RouteTests(QueueCase):
    """What goes one way goes together, as long as it is one way."""

    def test_domains_behind_a_smarthost_go_together(self) -> None:
        self.far.way = lambda destination: "smarthost"
        self.send("a@far.test", "b@near.test")
        [(parcel, _)] = self.far.carried
        self.assertEqual(len(parcel.recipients), 2)

    def test_settings_change_while_recipients_wait_for_a_slot(self) -> None:
        """Nobody's mail goes to the servers of another one's domain."""
        self.far.way = lambda destination: "smarthost"
        for number in range(5):
            self.send(f"busy{number}@far.test")
        self.send("a@far.test", "b@near.test", "c@near.test")
        self.assertEqual(len(self.far.waiting), 5)
        self.far.way = lambda destination: destination
        sent: list[tuple[str, str]] = []
        while self.far.waiting:
            parcel = self.far.answer(250)
            sent += [(parcel.destination, r.forward_path) for r in parcel.recipients]
            self.settle()
        self.assertEqual(len(sent), 8)
        for destination, address in sent:
            self.assertEqual(destination, address.partition("@")[2])
        self.assertEqual(rows(self.queue.database, Filter()), [])


class LocalTests(QueueCase):
    def test_account(self) -> None:
        self.send(BERT)
        [octets] = self.mails(BERT)
        self.assertEqual(
            octets,
            b"Return-Path: <anna@example.test>\nDelivered-To: bert@example.test\n"
            b"Subject: x\n\ntext\n",
        )
        self.assertEqual(self.spool_files(), [])

    def test_account_that_is_full_waits(self) -> None:
        self.accounts.edit(lambda d: edits.set_quota(d, BERT, 1))
        self.clock.advance(2)  # until that is known
        self.send(BERT)
        [row] = rows(self.queue.database, Filter())
        assert row.answer is not None
        self.assertEqual(row.answer.enhanced_code, "4.2.2")
        self.accounts.edit(lambda d: edits.set_quota(d, BERT, None))
        self.clock.advance(100)
        self.settle()
        self.assertEqual(len(self.mails(BERT)), 1)

    def test_copy_that_is_there_already_is_not_made_again(self) -> None:
        """The server was killed between the file and the commit."""
        write = self.queue._writer._write
        held: list[object] = []

        def killed(new: object, results: object) -> object:
            if results:
                held.append(results)
                raise sqlite3.OperationalError("killed")
            return write(new, results)  # type: ignore[arg-type]

        self.queue._writer._write = killed  # type: ignore[assignment]
        self.send(BERT)
        self.assertEqual(len(self.mails(BERT)), 1)
        [row] = rows(self.queue.database, Filter())
        self.assertEqual(row.state, State.WAITING)
        self.flushLoggedErrors(sqlite3.OperationalError)
        # A second queue over the same folder, as after a kill.
        dispatcher = self.queue.dispatcher
        assert dispatcher is not None
        dispatcher._running = False
        old, self.queue = self.queue, None  # type: ignore[assignment]
        os.close(old._lock_fd)
        self.clock.rightNow += 1
        self.queue = self.opened()
        self.start()
        self.settle()
        self.assertEqual(len(self.mails(BERT)), 1)
        self.assertEqual(rows(self.queue.database, Filter()), [])

    def test_one_mailbox_that_is_broken_keeps_no_other_waiting(self) -> None:
        self.accounts.edit(lambda d: edits.set_quota(d, ANNA, 1_000_000))
        self.clock.advance(2)  # until that is known
        database = self.data / "mail" / ANNA
        database.mkdir(parents=True, exist_ok=True)
        account = self.router.account(ANNA)
        assert account is not None

        async def broken(octets: int) -> bool:
            raise LockHeld(1.0)

        self.mail_store.account(account).has_room = broken  # type: ignore[method-assign]
        self.send(ANNA, BERT)
        self.assertEqual(len(self.mails(BERT)), 1)
        [row] = rows(self.queue.database, Filter(state=State.WAITING))
        assert row.answer is not None
        self.assertEqual((row.forward_path, row.answer.code), (ANNA, 451))

    def test_copy_of_a_message_from_before_a_restored_backup(self) -> None:
        """The rows' ids begin anew: a message is not taken for an older one."""
        self.send(BERT)
        self.assertEqual(len(self.mails(BERT)), 1)
        self.wait(self.queue.stop())
        for file in self.data.glob("queue.sqlite*"):
            file.unlink()
        self.clock.rightNow += 10
        self.queue = self.opened()
        self.start()
        self.accounts.edit(lambda d: edits.set_quota(d, BERT, 1))
        self.clock.advance(2)
        self.send(BERT)
        [row] = rows(self.queue.database, Filter())
        self.assertEqual((row.id, row.attempts), (1, 1))
        self.accounts.edit(lambda d: edits.set_quota(d, BERT, None))
        self.clock.advance(100)
        self.settle()
        self.assertEqual(len(self.mails(BERT)), 2)

    def test_account_that_is_gone_is_reported(self) -> None:
        file = self.spooled(b"Subject: x\n\ntext\n")
        lost = recipient("lost@example.test", destination="local")
        self.take(message(file=file, size_octets=20), [lost])
        [octets] = self.mails()
        self.assertIn(b"multipart/report", octets)
        self.assertIn(b"lost@example.test", octets)


class CarrierTests(QueueCase):
    def test_exception_is_a_temporary_failure(self) -> None:
        self.send("a@far.test")
        self.far.waiting.pop()[1].errback(ValueError("a bug"))
        self.settle()
        [row] = rows(self.queue.database, Filter())
        assert row.answer is not None
        self.assertEqual((row.state, row.answer.code), (State.WAITING, 451))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_result_that_is_not_kept_leaves_nobody_behind(self) -> None:
        self.send("a@far.test")
        write = self.queue._writer.write

        def broken(*arguments: object) -> object:
            raise ValueError("a bug")

        self.queue._writer.write = broken  # type: ignore[method-assign,assignment]
        self.far.answer(451)
        self.settle()
        self.queue._writer.write = write  # type: ignore[method-assign]
        self.clock.advance(61)
        self.settle()
        self.far.answer(250)
        self.settle()
        self.assertEqual(rows(self.queue.database, Filter()), [])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_rows_that_contradict_others(self) -> None:
        """A carrier's bug costs its own message time, and nobody else's."""
        file = self.spooled(b"A: b\n\ntext\n")
        to = recipient("staff@example.test", destination="list")
        self.take(message(file=file, size_octets=14), [to])
        [(parcel, done)] = self.lists.waiting
        self.lists.waiting.clear()
        said = Answer(250, "2.0.0", "expanded", self.clock.seconds())
        twice = (parcel.message, [recipient()])  # an id that is there already
        done.callback(Outcome((said,), (twice,)))
        self.settle()
        [row] = rows(self.queue.database, Filter())
        self.assertEqual(row.state, State.WAITING)
        self.send("carl@far.test")
        self.far.answer(250)
        self.settle()
        self.assertEqual(len(rows(self.queue.database, Filter())), 1)
        errors = self.flushLoggedErrors(sqlite3.IntegrityError)
        self.assertEqual(len(errors), 1)

    def test_what_a_carrier_writes_is_committed_with_its_answer(self) -> None:
        """A list: one message becomes another, with the same file."""
        file = self.spooled(b"Old: 1\n\ntext\n")
        to = recipient("staff@example.test", destination="list")
        self.take(message(file=file, size_octets=16), [to])
        [(parcel, done)] = self.lists.waiting
        self.lists.waiting.clear()
        new: Message = replace(
            parcel.message, id="m2", prefix=b"New: 1\r\n", skip_octets=7, size_octets=8
        )
        said = Answer(250, "2.0.0", "expanded", self.clock.seconds())
        done.callback(Outcome((said,), ((new, [recipient(of="m2")]),)))
        self.settle()
        [(_, content)] = self.far.carried
        self.assertEqual(content, b"New: 1\r\n\r\ntext\r\n")
        self.assertEqual(len(self.spool_files()), 1)
        self.far.answer(250)
        self.settle()
        self.assertEqual(self.spool_files(), [])
