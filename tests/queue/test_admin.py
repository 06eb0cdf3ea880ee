"""An admin's changes, when attempts and other admins change the same rows."""

from collections.abc import Callable

from twisted.internet.defer import Deferred

from mailsrv.queue import admin
from mailsrv.queue.admin import ACTIONS, Action, Changed, change
from mailsrv.queue.database import Filter
from mailsrv.queue.values import Message, Recipient, State
from tests.queue.office import QueueCase
from tests.queue.values import message, recipient, rows

Found = list[tuple[Message, Recipient]]


class RaceTests(QueueCase):
    def waiting(self, *addresses: str) -> None:
        """Have mail that was tried once."""
        self.send(*addresses)
        while self.far.waiting:
            self.far.answer(451)
            self.settle()

    def change(self, action: Action, destination: str) -> Deferred[Changed]:
        wanted = Filter(destination=destination)
        work = change(self.queue, action, wanted, self.clock.seconds)
        done = Deferred.fromCoroutine(work)
        self.settle()
        return done

    def meanwhile(self, happens: Callable[[], None]) -> None:
        """Let something happen between the look at the rows and their change."""
        find = self.queue.find

        async def late(wanted: Filter, limit: int, after: int = 0) -> Found:
            found = await find(wanted, limit, after)
            if not after:
                happens()
            return found

        self.queue.find = late  # type: ignore[method-assign]
        self.addCleanup(setattr, self.queue, "find", find)

    def states(self) -> dict[str, State]:
        found = rows(self.queue.database, Filter())
        return {r.forward_path: r.state for r in found}

    def try_again(self, code: int) -> None:
        """Make the attempt at far.test that is due; near.test goes on waiting."""
        self.clock.advance(100)
        self.settle()
        while self.far.waiting:
            to = self.far.waiting[0][0].destination
            self.far.answer(code if to == "far.test" else 451)
            self.settle()

    def test_what_has_arrived_meanwhile_stays_delivered(self) -> None:
        for action in ACTIONS:
            if action == "release":  # only of what is held, which nobody sends
                continue
            self.waiting("a@far.test", "b@near.test")
            self.meanwhile(lambda: self.try_again(250))
            self.successResultOf(self.change(action, "far.test"))
            self.assertEqual(self.states()["a@far.test"], State.DELIVERED, action)
            self.assertEqual((self.far.waiting, self.mails()), ([], []), action)
            self.meanwhile(lambda: None)
            self.successResultOf(self.change("drop", "near.test"))
            self.assertEqual(self.states(), {})

    def test_what_has_failed_for_now_meanwhile_is_changed(self) -> None:
        self.waiting("a@far.test", "b@near.test")
        self.meanwhile(lambda: self.try_again(452))
        self.successResultOf(self.change("hold", "far.test"))
        [row] = rows(self.queue.database, Filter(destination="far.test"))
        self.assertEqual((row.state, row.attempts), (State.HELD, 2))
        assert row.answer is not None
        self.assertEqual(row.answer.code, 452)

    def test_two_admins_send_one_report(self) -> None:
        self.waiting("a@far.test")
        self.threads.sync.held = True  # type: ignore[attr-defined]
        first = self.change("bounce", "far.test")
        second = self.change("bounce", "far.test")
        self.assertEqual(self.successResultOf(second), Changed(0, 1))
        self.assertNoResult(first)
        self.threads.sync.release()  # type: ignore[attr-defined]
        self.settle()
        self.assertEqual(self.successResultOf(first), Changed(1, 0))
        self.assertEqual(len(self.mails()), 1)

    def test_reports_of_what_is_sent_back_are_not_sent_back(self) -> None:
        self.patch(admin, "_AT_A_TIME", 1)
        file = self.spooled(b"Subject: x\n\ntext\n")
        for number in range(3):
            sent = message(
                f"m{number}", file=file, size_octets=20, reverse_path="dora@else.test"
            )
            self.take(sent, [recipient(f"r{number}@far.test", sent.id)])
        while self.far.waiting:
            self.far.answer(451)
            self.settle()
        work = change(self.queue, "bounce", Filter(), self.clock.seconds)
        done = Deferred.fromCoroutine(work)
        self.settle()
        while self.far.waiting:
            self.far.answer(451)  # for now
            self.settle()
        self.assertEqual(self.successResultOf(done), Changed(3, 0))
        self.assertEqual(self.states(), {"dora@else.test": State.WAITING})
        self.assertEqual(len(rows(self.queue.database, Filter())), 3)

    def test_found_before_the_dispatcher_knows_of_it(self) -> None:
        """Rows can be read a moment before the commit is told."""
        added = self.queue._added
        told: list[object] = []
        self.queue._added = told.append  # type: ignore[assignment,method-assign]
        self.send("a@far.test", "b@near.test")
        self.queue._added = added  # type: ignore[method-assign]
        self.threads.sync.held = True  # type: ignore[attr-defined]
        bouncing = self.change("bounce", "far.test")
        for entries in told:
            added(entries)  # type: ignore[arg-type]
        self.settle()
        self.assertEqual([p.destination for p, _ in self.far.waiting], ["near.test"])
        self.threads.sync.release()  # type: ignore[attr-defined]
        self.settle()
        self.assertEqual(self.successResultOf(bouncing), Changed(1, 0))
        self.far.answer(250)
        self.settle()
        self.assertEqual((self.far.waiting, self.states()), ([], {}))

    def test_what_was_left_alone_is_sent_as_before(self) -> None:
        self.waiting("a@far.test")
        self.meanwhile(lambda: self.try_again(451))
        self.successResultOf(self.change("release", "far.test"))
        self.clock.advance(1000)
        self.settle()
        self.assertEqual(len(self.far.waiting), 1)
