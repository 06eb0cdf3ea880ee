"""The rows of the queue."""

import sqlite3
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.queue.database import Filter, QueueDatabase, QueueTooNew
from mailsrv.queue.schema import MIGRATIONS
from mailsrv.queue.values import (
    LOCAL,
    Answer,
    Lane,
    Message,
    Priority,
    Recipient,
    Result,
    State,
)
from tests.queue.values import NOW, SENDER, answer, entry, message, recipient, rows

FAR = Lane(Priority.LETTER, "far.test", SENDER)


class DatabaseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.database = QueueDatabase(self.path)
        self.addCleanup(lambda: self.database.close())

    def add(self, *entries: tuple[Message, tuple[Recipient, ...]]) -> list[Recipient]:
        taken, _ = self.database.write(entries, ())
        return [one for _, recipients in taken for one in recipients]

    def settle(self, *results: Result) -> list[str]:
        return self.database.write((), results)[1]

    def test_all_fields_come_back(self) -> None:
        sent = message(
            account=None,
            priority=Priority.BULK,
            skip_octets=7,
            prefix=b"A: b\r\n",
            eight_bit=True,
            smtputf8=True,
            require_tls=True,
            tls_optional=True,
            ret="FULL",
            envid="x+2B",
        )
        said = Answer(250, "2.0.0", "Ok", NOW, "mx [192.0.2.1]", "TLSv1.3", True)
        to = recipient(
            notify="NEVER",
            orcpt="rfc822;b",
            original="c@example.test",
            reverse_path="v@example.test",
            prefix=b"C: d\r\n",
            attempts=3,
            warned=True,
            answer=said,
        )
        [added] = self.add((sent, (to,)))
        self.assertEqual(added, replace(to, id=added.id))
        lane = Lane(Priority.BULK, "far.test", SENDER)
        self.assertEqual(self.database.waiting(lane, 9), [(sent, added)])
        self.assertEqual(self.database.message("m1"), sent)
        self.assertEqual(rows(self.database, Filter()), [added])

    def test_survives_a_restart(self) -> None:
        added = self.add(entry())
        self.database.close()
        self.database = QueueDatabase(self.path)
        self.assertEqual(rows(self.database, Filter()), added)

    def test_file_is_for_its_owner_alone(self) -> None:
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_file_of_a_later_version(self) -> None:
        with sqlite3.connect(self.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        self.assertRaises(QueueTooNew, QueueDatabase, self.path)

    def test_message_goes_with_its_last_recipient(self) -> None:
        one, two = self.add(entry("m1", "a@far.test", "b@far.test"))
        self.assertEqual(
            self.settle(Result(one, State.DELIVERED, None, answer(250))), []
        )
        self.assertEqual(len(rows(self.database, Filter())), 2)
        self.assertEqual(
            self.settle(Result(two, State.FAILED, None, answer(550))), ["m1.file"]
        )
        self.assertEqual(rows(self.database, Filter()), [])
        self.assertIsNone(self.database.message("m1"))
        self.assertEqual(self.database.files(), set())

    def test_file_stays_while_another_message_has_it(self) -> None:
        shared = replace(message("m2"), file="m1.file")
        [one] = self.add(entry())
        [two] = self.add((shared, (recipient(of="m2"),)))
        self.assertEqual(self.settle(Result(one, State.DELIVERED, None, None)), [])
        self.assertEqual(
            self.settle(Result(two, State.DELIVERED, None, None)), ["m1.file"]
        )

    def test_held_is_not_finished(self) -> None:
        [one] = self.add(entry())
        held = Result(one, State.HELD, None, None, attempted=False)
        self.assertEqual(self.settle(held), [])
        [found] = rows(self.database, Filter(state=State.HELD))
        self.assertEqual((found.state, found.attempts), (State.HELD, 0))
        self.assertEqual(self.database.lanes(), [])

    def test_new_attempt(self) -> None:
        [one] = self.add(entry())
        self.settle(Result(one, State.WAITING, NOW + 60, answer(451), warned=True))
        [found] = rows(self.database, Filter())
        expected = replace(
            one, next_at_utc=NOW + 60, answer=answer(451), attempts=1, warned=True
        )
        self.assertEqual(found, expected)
        self.settle(Result(found, State.WAITING, NOW + 90, None))
        [found] = rows(self.database, Filter())
        self.assertEqual((found.warned, found.answer), (True, answer(451)))

    def test_ids_are_not_used_again(self) -> None:
        [one] = self.add(entry())
        self.settle(Result(one, State.DELIVERED, None, None))
        [two] = self.add(entry())
        self.assertGreater(two.id, one.id)

    def test_words_are_forgotten_when_nobody_comes_again(self) -> None:
        self.add(*(entry(f"m{n}", once=f"run:{n}") for n in range(3)))
        self.add(entry("late", once="run:late", arrived_at_utc=NOW + 100))
        self.database.forget_words(NOW + 50)
        self.assertEqual(self.add(entry("again", once="run:late")), [])
        self.assertEqual(len(self.add(entry("new", once="run:0"))), 1)

    def test_words_of_an_earlier_version_are_kept(self) -> None:
        self.database.close()
        self.path.unlink()
        earlier = sqlite3.connect(self.path)
        earlier.executescript(MIGRATIONS[0])
        earlier.execute("INSERT INTO once VALUES ('run:bert')")
        earlier.execute("PRAGMA user_version = 1")
        earlier.commit()
        earlier.close()
        self.database = QueueDatabase(self.path)
        self.database.forget_words(1_700_000_000)  # the time of the change is later
        self.assertEqual(self.add(entry(once="run:bert")), [])

    def test_once(self) -> None:
        sent = message(once="run:bert")
        [one] = self.add((sent, (recipient(),)))
        self.settle(Result(one, State.DELIVERED, None, None))
        self.assertEqual(self.add((replace(sent, id="m2"), (recipient(),))), [])
        self.assertEqual(rows(self.database, Filter()), [])

    def test_all_or_nothing(self) -> None:
        [one] = self.add(entry())
        done = Result(one, State.DELIVERED, None, None)
        with self.assertRaises(sqlite3.IntegrityError):
            self.database.write([entry("m2"), entry("m1")], [done])
        self.assertEqual(rows(self.database, Filter()), [one])

    def test_lanes_and_what_waits_in_them(self) -> None:
        late = recipient("late@far.test", next_at_utc=NOW + 9)
        self.add(
            (message(), (late, recipient("a@far.test"), recipient("b@other.test"))),
            (message("m2", reverse_path="x@example.test"), (recipient(of="m2"),)),
        )
        lanes = dict(self.database.lanes())
        self.assertEqual(lanes[FAR], NOW)
        self.assertEqual(len(lanes), 3)
        found = [r.forward_path for _, r in self.database.waiting(FAR, 9)]
        self.assertEqual(found, ["a@far.test", "late@far.test"])
        self.assertEqual(len(self.database.waiting(FAR, 1)), 1)

    def test_filters(self) -> None:
        self.add(entry("m1", "a@far.test", "b@near.test"), entry("m2", "c@far.test"))
        local = recipient(SENDER, "m3", destination=LOCAL, original="info@example.test")
        [row] = self.add((message("m3", account=None, reverse_path=""), (local,)))
        self.settle(Result(row, State.WAITING, NOW, answer(451, "Mailbox FULL")))
        for wanted, addresses in (
            (Filter(message="m1"), ["a@far.test", "b@near.test"]),
            (Filter(sender="ANNA@"), ["a@far.test", "b@near.test", "c@far.test"]),
            (Filter(recipient="info@"), [SENDER]),
            (Filter(destination="far.test"), ["a@far.test", "c@far.test"]),
            (Filter(reason="full"), [SENDER]),
            (Filter(reason="451"), [SENDER]),
            (Filter(destination="far.test", message="m2"), ["c@far.test"]),
            (Filter(state=State.HELD), []),
        ):
            found = [r.forward_path for r in rows(self.database, wanted)]
            self.assertEqual(found, addresses, wanted)
        self.assertEqual(self.database.counts(), {State.WAITING: 4})


class ModelTests(SynchronousTestCase):
    """Against a dictionary: no file is named as done while a row waits for it."""

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3), st.integers(0, 5), st.sampled_from(list(State))
            ),
            max_size=25,
        )
    )
    def test_rows_and_files(self, steps: list[tuple[int, int, State]]) -> None:
        database = QueueDatabase(Path(self.mktemp()))
        self.addCleanup(database.close)
        known: dict[int, tuple[str, State, Recipient]] = {}
        number = 0
        for kind, which, state in steps:
            if kind == 0 or not known:
                number += 1
                sent = replace(message(f"m{number}"), file=f"file{number % 2}")
                to = (recipient(of=sent.id), recipient("b@near.test", sent.id))
                [(_, added)] = database.write([(sent, to)], ())[0]
                known |= {r.id: (sent.file, r.state, r) for r in added}
                continue
            id = sorted(known)[which % len(known)]
            file, _, row = known[id]
            at = NOW if state is State.WAITING else None
            _, files = database.write((), [Result(row, state, at, None)])
            known[id] = (file, state, row)
            open_ = {State.WAITING, State.HELD}
            done = {
                r.message
                for _, _, r in known.values()
                if not any(
                    s in open_ for _, s, o in known.values() if o.message == r.message
                )
            }
            gone = {f for f, _, r in known.values() if r.message in done}
            known = {i: v for i, v in known.items() if v[2].message not in done}
            left = {f for f, _, _ in known.values()}
            self.assertEqual(set(files), gone - left)
            self.assertEqual(database.files(), left)
            found = {r.id: r.state for r in rows(database, Filter())}
            self.assertEqual(found, {i: s for i, (_, s, _) in known.items()})
