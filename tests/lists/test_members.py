"""The file of members: who may be put on, who is left alone, who is suspended."""

import sqlite3
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.members import (
    _MIGRATIONS,
    DAY_S,
    MAX_QUESTIONS_PER_HOUR,
    Members,
    State,
)

LIST, ANNA, BEN = "staff@example.test", "anna@example.test", "ben@example.org"


class MembersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 20_000.0 * DAY_S
        self.path = Path(self.mktemp())
        self.members = self.opened()

    def opened(self) -> Members:
        members = Members(self.path, lambda: self.now)
        self.addCleanup(members.close)
        return members

    def state(self, address: str) -> State | None:
        found = self.members.find(LIST, address)
        return found.state if found else None

    def test_subscribe_and_again(self) -> None:
        self.assertEqual(self.members.subscribe(LIST, [BEN, ANNA]), ([BEN, ANNA], []))
        self.assertEqual(self.members.subscribe(LIST, [ANNA]), ([], []))
        self.assertEqual([m.address for m in self.members.of_list(LIST)], [ANNA, BEN])
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)

    def test_who_unsubscribed_is_not_put_back(self) -> None:
        self.members.subscribe(LIST, [BEN])
        self.assertTrue(self.members.unsubscribe(LIST, BEN))
        self.assertFalse(self.members.unsubscribe(LIST, BEN))
        self.assertEqual(self.members.subscribe(LIST, [BEN]), ([], [BEN]))
        self.assertEqual(self.state(BEN), State.UNSUBSCRIBED)
        self.assertEqual(self.members.subscribe(LIST, [BEN], again=True), ([BEN], []))

    def test_another_process_sees_it(self) -> None:
        other = self.opened()
        self.members.subscribe(LIST, [BEN])
        self.assertEqual(len(other.of_list(LIST, State.SUBSCRIBED)), 1)

    def test_numbers_are_not_used_again(self) -> None:
        self.members.subscribe(LIST, [BEN])
        before = self.members.find(LIST, BEN)
        self.members.forget(LIST)
        self.members.subscribe(LIST, [BEN])
        after = self.members.find(LIST, BEN)
        assert before and after
        self.assertNotEqual(before.id, after.id)

    def test_one_question_a_day(self) -> None:
        self.assertIsNotNone(self.members.ask(LIST, BEN))
        self.now += DAY_S - 1
        self.assertIsNone(self.members.ask(LIST, BEN))
        self.now += 1
        self.assertIsNotNone(self.members.ask(LIST, BEN))

    def test_questions_of_an_hour_are_limited(self) -> None:
        for number in range(MAX_QUESTIONS_PER_HOUR):
            self.assertIsNotNone(self.members.ask(LIST, f"{number}@example.org"))
        self.assertIsNone(self.members.ask(LIST, BEN))
        self.assertIsNotNone(self.members.ask("other@example.test", BEN))
        self.now += 3600
        self.assertIsNotNone(self.members.ask(LIST, BEN))

    def test_question_changes_no_subscription(self) -> None:
        self.members.subscribe(LIST, [BEN])
        asked = self.members.ask(LIST, BEN)
        self.assertEqual(asked and asked.state, State.SUBSCRIBED)

    def test_suspended_after_failures_on_three_days(self) -> None:
        self.members.subscribe(LIST, [BEN])
        member = self.members.find(LIST, BEN)
        assert member
        for _ in range(5):  # all on one day
            self.assertIsNone(self.members.bounced(member.id, 3, 30))
        self.now += DAY_S
        self.assertIsNone(self.members.bounced(member.id, 3, 30))
        self.now += 28 * DAY_S
        suspended = self.members.bounced(member.id, 3, 30)
        self.assertEqual(suspended and suspended.state, State.SUSPENDED)
        self.now += DAY_S  # told once
        self.assertIsNone(self.members.bounced(member.id, 3, 30))

    def test_old_failures_do_not_count(self) -> None:
        self.members.subscribe(LIST, [BEN])
        member = self.members.find(LIST, BEN)
        assert member
        for _ in range(5):
            self.assertIsNone(self.members.bounced(member.id, 3, 30))
            self.now += 15 * DAY_S
        self.assertEqual(self.state(BEN), State.SUBSCRIBED)

    def test_subscribing_anew_forgets_failures(self) -> None:
        [contact] = self.members.contacts(LIST, [BEN])
        self.members.bounced(contact.id, 1, 30)
        self.assertEqual(self.state(BEN), State.SUSPENDED)
        self.members.set_state(contact.id, State.SUBSCRIBED)
        self.assertIsNone(self.members.bounced(contact.id, 2, 30))

    def test_contacts_keep_what_they_are(self) -> None:
        self.members.subscribe(LIST, [BEN])
        self.members.unsubscribe(LIST, BEN)
        found = self.members.contacts(LIST, [ANNA, BEN, ANNA])
        self.assertEqual([m.address for m in found], [ANNA, BEN, ANNA])
        self.assertEqual(
            [m.state for m in found[:2]], [State.CONTACT, State.UNSUBSCRIBED]
        )

    def test_held_posts(self) -> None:
        held = self.members.hold(LIST, "m1", BEN, BEN, "Hello")
        self.assertEqual(self.members.hold(LIST, "m1", BEN, BEN, "Hello"), held)
        self.assertEqual(self.members.waiting(LIST), [held])
        self.assertTrue(self.members.decide(held.id, "approved"))
        self.assertTrue(self.members.decide(held.id, "approved"))
        self.assertFalse(self.members.decide(held.id, "rejected"))
        self.assertEqual(self.members.waiting(LIST), [])
        self.assertEqual(self.members.overdue(DAY_S), [])
        self.now += DAY_S
        self.assertEqual([h.id for h in self.members.overdue(DAY_S)], [held.id])
        self.members.drop_held(held.id)
        self.assertIsNone(self.members.held(held.id))

    def test_one_post_that_is_held_for_two_lists(self) -> None:
        held = self.members.hold(LIST, "m1", BEN, BEN, "Hello", require_tls=True)
        other = self.members.hold("b@example.test", "m1", BEN, BEN, "Hello")
        self.assertNotEqual(held.id, other.id)
        self.assertEqual(self.members.waiting(LIST), [held])
        self.assertEqual((held.require_tls, other.require_tls), (True, False))
        self.assertTrue(self.members.waits_elsewhere(held))
        self.members.drop_held(other.id)
        self.assertFalse(self.members.waits_elsewhere(held))

    def test_held_posts_of_an_earlier_version(self) -> None:
        path = Path(self.mktemp())
        old = sqlite3.connect(path)
        old.executescript(_MIGRATIONS[0])
        for message in ("m1", "m2", "m3"):
            old.execute(
                "INSERT INTO held (list, message, reverse_path, author, subject,"
                " at_utc) VALUES (?, ?, '', '', '', 1)",
                (LIST, message),
            )
        old.execute("DELETE FROM held WHERE message = 'm3'")
        old.execute("PRAGMA user_version = 1")
        old.commit()
        old.close()
        members = Members(path, lambda: 5.0)
        self.addCleanup(members.close)
        found = [(held.id, held.message) for held in members.waiting(LIST)]
        self.assertEqual(found, [(1, "m1"), (2, "m2")])
        # No number is used again: there may be a token for it.
        self.assertEqual(members.hold(LIST, "m4", "", "", "").id, 4)

    def test_newsletters_are_counted(self) -> None:
        run = self.members.begin_run("key", LIST, "News")
        self.assertEqual(self.members.runs("key"), [run])
        found = self.members.contacts(LIST, [f"{n}@example.org" for n in range(4)])
        numbers = [member.id for member in found]
        self.members.note_sent(run.id, numbers[:3])
        self.assertEqual(self.members.sent_to(run.id, numbers), set(numbers[:3]))
        self.now += 60
        self.members.bounced(numbers[0], 1, 30)
        self.members.bounced(numbers[3], 1, 30)  # got none
        self.members.unsubscribe(LIST, found[1].address)
        [counted] = self.members.counts(LIST)
        self.assertEqual(
            (counted.accepted, counted.bounced, counted.unsubscribed), (3, 1, 1)
        )
        self.assertEqual(self.members.counts("other@example.test"), [])
