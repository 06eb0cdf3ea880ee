"""Sequence numbers: a client that believes every untagged response is right."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mailboxes.flags import flag_mask
from mailsrv.mailboxes.sequence import (
    MAX_FLAGS,
    STAR,
    Exists,
    Expunge,
    Flags,
    Gone,
    Keywords,
    Messages,
    News,
    OutOfRange,
    Recent,
    Tracker,
)
from mailsrv.mailboxes.view import MailboxView, SilentStore
from mailsrv.store.values import DELETED, FLAGGED, SEEN, UID, Changes


def view(uids: Sequence[int] = (), recent_from: int | None = None) -> MailboxView:
    uid_next = max(uids, default=0) + 1
    recent_from = uid_next if recent_from is None else recent_from
    zeros = array("Q", [0] * len(uids))
    messages = Messages(
        array("I", uids), array("Q", zeros), array("Q", zeros), (), recent_from
    )
    return MailboxView("INBOX", "id", 7, uid_next, 1, messages, recent_from)


def session(on: MailboxView, *, read_only: bool = False) -> Tracker:
    tracker = Tracker(on.messages, not read_only)
    on.sessions[tracker] = lambda: None
    return tracker


def change(
    on: MailboxView,
    *,
    added: Sequence[tuple[int, int]] = (),
    flagged: Sequence[tuple[int, int]] = (),
    expunged: Sequence[int] = (),
    keywords: Sequence[str] | None = None,
    silent: SilentStore | None = None,
    uid_validity: int = 7,
) -> None:
    mod_seq = on.highest_mod_seq + 1
    changes = Changes(
        "INBOX",
        uid_validity,
        max([on.uid_next, *(uid + 1 for uid, _ in added)]),
        mod_seq,
        [(UID(uid), flags, mod_seq) for uid, flags in added],
        [(UID(uid), flags, mod_seq) for uid, flags in flagged],
        [UID(uid) for uid in expunged],
        keywords,
    )
    on.apply(changes, silent)


class NewsTests(SynchronousTestCase):
    def test_expunges_come_from_the_highest_then_exists_then_flags(self) -> None:
        box = view([1, 2, 3, 4])
        told = session(box)
        change(box, expunged=[1, 3], added=[(5, 0)], flagged=[(4, SEEN)])
        self.assertEqual(
            told.news(expunges=True),
            [
                Expunge(3, 3),
                Expunge(1, 1),
                Exists(3),
                Recent(1),
                Flags(2, 4, SEEN, 2),
            ],
        )
        self.assertEqual(told.news(expunges=True), [])

    def test_held_back_expunge_keeps_the_numbers(self) -> None:
        box = view([1, 2, 3])
        told = session(box)
        change(box, expunged=[2], flagged=[(3, FLAGGED)], added=[(4, 0)])
        self.assertEqual(
            told.news(expunges=False),
            [Exists(4), Recent(1), Flags(3, 3, FLAGGED, 2)],
        )
        self.assertTrue(told.holds_expunges)
        self.assertEqual([told.uid(seq) for seq in (1, 2, 3, 4)], [1, 2, 3, 4])
        self.assertEqual(told.news(expunges=True), [Expunge(2, 2)])
        self.assertFalse(told.holds_expunges)
        self.assertEqual([told.uid(seq) for seq in (1, 2, 3)], [1, 3, 4])

    def test_gone_message_keeps_its_last_flags(self) -> None:
        box = view([1, 2])
        told = session(box)
        change(box, flagged=[(2, DELETED)])
        change(box, expunged=[2])
        self.assertEqual(told.flags(2), DELETED)
        self.assertEqual(list(told.walk([1, 2])), [(1, 1, 0, 0), (2, 2, DELETED, 2)])
        told.news(expunges=True)
        self.assertIsNone(told.flags(2))

    def test_message_that_came_and_went_unheard_is_never_told(self) -> None:
        box = view([1])
        told = session(box)
        change(box, added=[(2, 0)])
        change(box, expunged=[2])
        self.assertFalse(told.has_news)
        self.assertEqual(told.news(expunges=True), [])

    def test_new_message_has_no_number_until_told(self) -> None:
        box = view([1])
        told = session(box)
        change(box, added=[(2, SEEN)])
        self.assertIsNone(told.seq(2))
        self.assertIsNone(told.flags(2))
        self.assertRaises(OutOfRange, told.uid, 2)
        self.assertEqual(list(told.uids([(1, STAR)], by_uid=True)), [1])
        told.news(expunges=False)
        self.assertEqual(told.seq(2), 2)

    def test_new_keywords_come_before_flags_that_use_them(self) -> None:
        box = view([1])
        told = session(box)
        change(box, keywords=["$label1"], flagged=[(1, 32)])
        self.assertEqual(
            told.news(expunges=False), [Keywords(("$label1",)), Flags(1, 1, 32, 2)]
        )

    def test_highest_uid_is_never_given_back_by_a_late_one(self) -> None:
        """A UID below those told would shift numbers: the session must end."""
        box = view([1, 5])
        woken: list[str] = []
        box.sessions[Tracker(box.messages)] = lambda: woken.append("woken")
        change(box, added=[(3, 0)])
        self.assertTrue(box.gone)
        self.assertEqual(woken, ["woken"])
        self.flushLoggedErrors()

    def test_new_uid_validity_ends_the_view(self) -> None:
        box = view([1])
        change(box, uid_validity=8)
        self.assertTrue(box.gone)
        self.assertEqual(len(box.messages), 1)

    def test_very_many_flags_come_in_portions(self) -> None:
        uids = range(1, MAX_FLAGS + 11)
        box = view(uids)
        told = session(box)
        change(box, flagged=[(uid, SEEN) for uid in uids])
        first, second = told.news(expunges=True), told.news(expunges=True)
        self.assertEqual((len(first), len(second)), (MAX_FLAGS, 10))
        self.assertEqual(second[-1], Flags(uids[-1], uids[-1], SEEN, 2))
        self.assertFalse(told.has_news)

    def test_many_expunges_leave_the_others_in_place(self) -> None:
        box = view(range(1, 101))
        change(box, flagged=[(uid, uid % 32) for uid in range(1, 101)])
        change(box, expunged=[1, 2, *range(10, 60), 62, 100])
        left = [*range(3, 10), 60, 61, *range(63, 100)]
        self.assertEqual(list(box.messages.uids), left)
        self.assertEqual(list(box.messages.flags), [uid % 32 for uid in left])


class SilentTests(SynchronousTestCase):
    def store(self, box: MailboxView, by: Tracker, outcome: int, op: str = "+") -> None:
        own = SilentStore(by, frozenset([1]), op, ("\\Seen",))
        change(box, flagged=[(1, outcome)], silent=own)

    def test_own_store_is_not_echoed_but_others_hear(self) -> None:
        box = view([1, 2])
        own, other = session(box), session(box)
        self.store(box, own, SEEN)
        self.assertEqual(own.news(expunges=True), [])
        self.assertEqual(other.news(expunges=True), [Flags(1, 1, SEEN, 2)])

    def test_what_somebody_else_changed_at_once_is_told(self) -> None:
        box = view([1])
        own = session(box)
        self.store(box, own, SEEN | FLAGGED)
        self.assertEqual(own.news(expunges=True), [Flags(1, 1, SEEN | FLAGGED, 2)])

    def test_other_message_in_the_same_changes_is_told(self) -> None:
        box = view([1, 2])
        own = session(box)
        silent = SilentStore(own, frozenset([1]), "+", ("\\Seen",))
        change(box, flagged=[(1, SEEN), (2, FLAGGED)], silent=silent)
        self.assertEqual(own.news(expunges=True), [Flags(2, 2, FLAGGED, 2)])

    def test_earlier_change_by_another_is_still_told(self) -> None:
        box = view([1])
        own = session(box)
        change(box, flagged=[(1, FLAGGED)])
        self.store(box, own, SEEN | FLAGGED)
        self.assertEqual(own.news(expunges=True), [Flags(1, 1, SEEN | FLAGGED, 3)])


class RecentTests(SynchronousTestCase):
    def test_first_session_takes_recent_and_examine_leaves_it(self) -> None:
        box = view([1, 2, 3], recent_from=2)
        self.assertEqual(session(box, read_only=True).recent, 2)
        first, second = session(box), session(box)
        self.assertEqual((first.recent, second.recent), (2, 0))
        self.assertEqual(
            [first.is_recent(uid) for uid in (1, 2, 3)], [False, True, True]
        )

    def test_new_mail_is_recent_in_the_session_that_is_told_first(self) -> None:
        box = view([1])
        first, second = session(box), session(box)
        change(box, added=[(2, 0)])
        self.assertEqual(first.news(expunges=True), [Exists(2), Recent(1)])
        self.assertEqual(second.news(expunges=True), [Exists(2)])

    def test_expunge_of_a_recent_message_tells_the_new_count(self) -> None:
        box = view([1, 2], recent_from=1)
        told = session(box)
        change(box, expunged=[2])
        self.assertEqual(told.news(expunges=False), [])
        self.assertEqual(told.news(expunges=True), [Expunge(2, 2), Recent(1)])


class SetTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.box = view([10, 20, 30, 40])
        self.told = session(self.box)

    def by_seq(self, *ranges: tuple[int, int]) -> list[int]:
        return list(self.told.uids(ranges, by_uid=False))

    def by_uid(self, *ranges: tuple[int, int]) -> list[int]:
        return list(self.told.uids(ranges, by_uid=True))

    def test_ranges_are_turned_sorted_and_joined(self) -> None:
        self.assertEqual(self.by_seq((4, 3), (1, 1), (3, 4)), [10, 30, 40])
        self.assertEqual(self.by_uid((40, 25), (1, 15), (11, 30)), [10, 20, 30, 40])

    def test_star(self) -> None:
        self.assertEqual(self.by_seq((STAR, STAR)), [40])
        self.assertEqual(self.by_seq((STAR, 3)), [30, 40])
        # RFC 3501 section 6.4.8: always the last message.
        self.assertEqual(self.by_uid((500, STAR)), [40])

    def test_unknown_numbers(self) -> None:
        self.assertRaises(OutOfRange, self.by_seq, (4, 5))
        self.assertEqual(self.by_uid((11, 19), (41, 4294967295)), [])

    def test_all_of_an_empty_mailbox_is_nothing(self) -> None:
        told = session(view())
        self.assertEqual(list(told.uids([(1, STAR)], by_uid=False)), [])
        self.assertEqual(list(told.uids([(1, STAR)], by_uid=True)), [])
        with self.assertRaises(OutOfRange):
            told.uids([(1, 1)], by_uid=False)

    def test_gone_message_counts_by_number_but_not_by_uid(self) -> None:
        change(self.box, expunged=[20, 40])
        self.assertEqual(self.by_seq((1, STAR)), [10, 20, 30, 40])
        self.assertEqual(self.by_seq((2, 3)), [20, 30])
        self.assertEqual(self.by_uid((1, STAR)), [10, 30])

    def test_huge_range_costs_nothing(self) -> None:
        self.assertEqual(self.by_uid((1, 4294967295)), [10, 20, 30, 40])

    def test_walk_survives_changes_between_steps(self) -> None:
        steps = self.told.walk([10, 20, 30, 40])
        self.assertEqual(next(steps)[:2], (1, 10))
        change(self.box, expunged=[10, 30], added=[(50, 0)])
        self.assertEqual([row[:2] for row in steps], [(2, 20), (3, 30), (4, 40)])


@dataclass
class Client:
    """Knows nothing but what the session said to it."""

    tracker: Tracker
    uids: list[int] = field(default_factory=list)
    flags: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.fetch()

    def fetch(self) -> None:
        for seq, uid, flags, _ in self.tracker.walk(
            self.tracker.uids([(1, STAR)], by_uid=False)
        ):
            if seq > len(self.uids):
                assert seq == len(self.uids) + 1
                self.uids.append(uid)
                self.flags[uid] = flags

    def hear(self, news: Sequence[News]) -> None:
        grown: int | None = None
        for one in news:
            match one:
                case Expunge(seq, uid):
                    assert self.uids.pop(seq - 1) == uid, one
                    del self.flags[uid]
                case Exists(count):
                    assert count > len(self.uids), one
                    grown = count
                case Flags(seq, uid, flags, _):
                    assert self.uids[seq - 1] == uid, one
                    self.flags[uid] = flags
                case Recent() | Keywords():
                    pass
                case Gone():
                    raise AssertionError(one)
        if grown is not None:
            self.fetch()
            assert len(self.uids) == grown


_UIDS = st.sets(st.integers(1, 40), max_size=6)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, 12)),
        st.tuples(st.just("expunge"), st.sets(st.integers(1, 40), max_size=20)),
        st.tuples(
            st.just("store"),
            _UIDS,
            st.sampled_from("+-="),
            st.integers(0, 31),
            st.integers(-1, 2),  # the silent session, if any
        ),
        st.tuples(st.just("news"), st.integers(0, 2), st.booleans()),
    ),
    max_size=30,
)
_NAMES = ("\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft")


class ModelTests(SynchronousTestCase):
    """Clients that apply each response end with exactly what the store has."""

    @settings(max_examples=50, deadline=None)
    @given(_STEPS)
    def test_clients_end_with_the_truth(self, steps: list[tuple[object, ...]]) -> None:
        box = view([1, 2, 3])
        truth = {1: 0, 2: 0, 3: 0}
        clients = [Client(session(box, read_only=n == 2)) for n in range(3)]
        for step in steps:
            self.take(step, box, truth, clients)
            for client in clients:
                self.compare(client, truth)
        for client in clients:
            client.hear(client.tracker.news(expunges=True))
            self.assertEqual(client.uids, sorted(truth))
            self.assertEqual(client.flags, truth)
        self.assertEqual(list(box.messages.uids), sorted(truth))

    def take(
        self,
        step: tuple[object, ...],
        box: MailboxView,
        truth: dict[int, int],
        clients: list[Client],
    ) -> None:
        match step:
            case ("add", int(count)):
                added = [(box.uid_next + n, n % 32) for n in range(count)]
                truth.update(added)
                change(box, added=added)
            case ("expunge", set(uids)):
                leaving = sorted(uids & truth.keys())
                for uid in leaving:
                    del truth[uid]
                change(box, expunged=leaving)
            case ("store", set(uids), str(op), int(mask), int(silent)):
                names = tuple(n for k, n in enumerate(_NAMES) if mask & 1 << k)
                there = sorted(uids & truth.keys())
                own = clients[silent] if silent >= 0 else None
                flagged = []
                for uid in there:
                    truth[uid] = applied(truth[uid], op, mask)
                    flagged.append((uid, truth[uid]))
                    if own and uid in own.flags:
                        own.flags[uid] = applied(own.flags[uid], op, mask)
                store = own and SilentStore(own.tracker, frozenset(there), op, names)
                change(box, flagged=flagged, silent=store or None)
            case ("news", int(who), bool(expunges)):
                clients[who].hear(clients[who].tracker.news(expunges=expunges))

    def compare(self, client: Client, truth: dict[int, int]) -> None:
        told = client.tracker
        self.assertEqual(told.exists, len(client.uids))
        self.assertEqual(client.uids, sorted(client.uids))
        for seq, uid in enumerate(client.uids, 1):
            self.assertEqual(told.uid(seq), uid)
            self.assertEqual(told.seq(uid), seq)
        everything = list(told.uids([(1, STAR)], by_uid=False))
        self.assertEqual(everything, client.uids)
        still = [uid for uid in client.uids if uid in truth]
        self.assertEqual(list(told.uids([(1, STAR)], by_uid=True)), still)
        walked = [row[:2] for row in told.walk(client.uids)]
        self.assertEqual(walked, list(enumerate(client.uids, 1)))
        snapshot = told.snapshot()
        rows = zip(snapshot.uids, snapshot.flags, snapshot.mod_seqs, strict=True)
        seqs = snapshot.seqs()
        self.assertEqual([(seqs[row[0]], *row) for row in rows], list(told.walk(still)))
        self.assertEqual(
            [any(a <= uid < b for a, b in snapshot.recent) for uid in still],
            [told.is_recent(uid) for uid in still],
        )


def applied(old: int, op: str, mask: int) -> int:
    return {"+": old | mask, "-": old & ~mask, "=": mask}[op]


class FlagTests(SynchronousTestCase):
    def test_names_compare_without_case(self) -> None:
        self.assertEqual(flag_mask(["\\SEEN", "$LABEL1"], ["$Label1"]), SEEN | 32)
