"""THREAD's algorithms: the RFC's rules, against a plain model, and large mailboxes."""

import time
from collections.abc import Generator, Sequence
from itertools import pairwise
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap import threading
from mailsrv.imap.threading import Forest, ordered_subject, references, written
from mailsrv.mime.sort_keys import sort_keys
from mailsrv.store.sorting import ThreadRow
from mailsrv.store.values import UID

T = TypeVar("T")

# A message: its id, its references, its subject, its date.
Mail = tuple[str, str, str, int]


def rows(mails: Sequence[Mail]) -> list[ThreadRow]:
    found = []
    for number, (message_id, refs, subject, date) in enumerate(mails, 1):
        keys = sort_keys(
            {
                b"message-id": b"<%b@x>" % message_id.encode() if message_id else b"",
                b"references": b" ".join(b"<%b@x>" % r.encode() for r in refs.split()),
                b"subject": subject.encode(),
            }
        )
        found.append(
            ThreadRow(
                UID(number),
                date,
                keys.subject,
                keys.is_reply,
                keys.message_id,
                keys.reference_ids,
            )
        )
    return found


def run(generator: Generator[None, None, T]) -> T:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what it returns


def answer(forest: Forest) -> str:
    return b"".join(written(forest, [row.uid for row in forest.rows])).decode()


def thread(*mails: Mail) -> str:
    return answer(run(references(rows(mails))))


class ReferencesTests(SynchronousTestCase):
    def test_replies_stand_under_what_they_reply_to(self) -> None:
        self.assertEqual(
            thread(
                ("a", "", "", 1),
                ("b", "a", "", 2),
                ("c", "a b", "", 4),
                ("d", "a b", "", 3),
                ("e", "", "", 0),
            ),
            "(5)(1 2 (4)(3))",
        )

    def test_a_missing_message_holds_its_replies_together(self) -> None:
        self.assertEqual(thread(("b", "a", "", 1), ("c", "a", "", 2)), "((1)(2))")
        self.assertEqual(thread(("b", "a", "", 1)), "(1)")
        # In the middle it is left out.
        self.assertEqual(thread(("a", "", "", 1), ("c", "a b", "", 2)), "(1 2)")
        self.assertEqual(
            thread(("c", "a b", "", 1), ("d", "a b", "", 2), ("e", "a", "", 0)),
            "((3)(1)(2))",
        )

    def test_the_last_reference_is_the_parent(self) -> None:
        self.assertEqual(
            thread(
                ("a", "", "", 1),
                ("c", "a c0 d", "", 2),
                ("d", "a", "", 3),
                ("c0", "", "", 4),
            ),
            "(1 3 2)(4)",
        )

    def test_one_id_twice(self) -> None:
        self.assertEqual(
            thread(("a", "", "", 1), ("a", "", "", 2), ("b", "a", "", 3)), "(1 3)(2)"
        )
        self.assertEqual(thread(("", "", "", 1), ("", "", "", 2)), "(1)(2)")

    def test_loops(self) -> None:
        self.assertEqual(thread(("a", "a", "", 1)), "(1)")
        self.assertEqual(thread(("a", "b", "", 1), ("b", "a", "", 2)), "(2 1)")
        self.assertEqual(
            thread(("a", "c", "", 1), ("b", "a", "", 2), ("c", "b", "", 3)), "(3 1 2)"
        )

    def test_replies_without_references_find_the_subject(self) -> None:
        self.assertEqual(
            thread(("a", "", "Lunch", 1), ("b", "", "Re: lunch", 2)), "(1 2)"
        )
        # The reply came first.
        self.assertEqual(
            thread(("b", "", "Re: lunch", 1), ("a", "", "Lunch", 2)), "(2 1)"
        )
        # Neither is a reply, or both are.
        self.assertEqual(thread(("a", "", "x", 1), ("b", "", "x", 2)), "((1)(2))")
        self.assertEqual(
            thread(("a", "", "re: x", 2), ("b", "", "fwd: x", 1)), "((2)(1))"
        )
        self.assertEqual(
            thread(("a", "", "x", 1), ("b", "", "x", 2), ("c", "", "re: x", 3)),
            "((1)(2)(3))",
        )

    def test_subjects_join_threads_with_missing_roots(self) -> None:
        two = (("b", "a", "re: x", 1), ("c", "a", "re: x", 2))
        self.assertEqual(thread(*two, ("d", "", "x", 0)), "((3)(1)(2))")
        self.assertEqual(
            thread(*two, ("e", "z", "re: x", 4), ("f", "z", "re: y", 5)),
            "((1)(2)(3)(4))",
        )

    def test_empty_subjects_join_nothing(self) -> None:
        self.assertEqual(thread(("a", "", "", 1), ("b", "", "Re: ", 2)), "(1)(2)")

    def test_dates_order_siblings_and_threads(self) -> None:
        self.assertEqual(
            thread(("a", "", "", 5), ("b", "z", "", 9), ("c", "z", "", 4)),
            "((3)(2))(1)",
        )
        self.assertEqual(thread(("a", "", "", 1), ("b", "", "", 1)), "(1)(2)")

    def test_nothing(self) -> None:
        self.assertEqual(thread(), "")


class OrderedSubjectTests(SynchronousTestCase):
    def test_threads(self) -> None:
        mails = [
            ("", "", "b", 5),
            ("", "", "re: a", 4),
            ("", "", "A", 3),
            ("", "", "[x] a", 9),
            ("", "", "", 1),
            ("", "", "", 2),
        ]
        self.assertEqual(
            answer(run(ordered_subject(rows(mails)))), "(5 6)(3 (2)(4))(1)"
        )


class Node:
    """A message or a dummy in the plain model."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.parent: Node | None = None

    def descends_from(self, other: "Node") -> bool:
        node: Node | None = self
        while node is not None:
            if node is other:
                return True
            node = node.parent
        return False


def model(mails: Sequence[Mail]) -> str:
    """Steps 1 to 4 and 6, as they are written; subjects are passed over."""
    messages = [Node(place) for place in range(len(mails))]
    nodes = list(messages)  # and dummies
    by_id: dict[str, Node] = {}
    for node, mail in zip(messages, mails, strict=True):
        if mail[0]:
            by_id.setdefault(mail[0], node)
    for node, mail in zip(messages, mails, strict=True):
        chain: list[Node] = []
        for ref in mail[1].split():
            if ref not in by_id:
                by_id[ref] = Node(-1)
                nodes.append(by_id[ref])
            chain.append(by_id[ref])
        for parent, child in pairwise(chain):
            if child.parent is None and not parent.descends_from(child):
                child.parent = parent
        node.parent = None
        if chain and not chain[-1].descends_from(node):
            node.parent = chain[-1]

    def key(node: Node) -> tuple[int, int]:
        if node.place < 0:
            return min(key(child) for child in pruned(node))
        return mails[node.place][3], node.place

    def pruned(node: Node | None) -> list[Node]:
        kept: list[Node] = []
        for child in nodes:
            if child.parent is not node:
                continue
            below = pruned(child)
            if child.place >= 0 or (node is None and len(below) > 1):
                kept.append(child)
            else:
                kept += below
        return sorted(kept, key=key)

    def shown(node: Node) -> str:
        below = pruned(node)
        words = [str(node.place + 1)] if node.place >= 0 else []
        if len(below) == 1:
            words.append(shown(below[0])[1:-1])
        elif below:
            words.append("".join(map(shown, below)))
        return f"({' '.join(words)})"

    return "".join(map(shown, pruned(None)))


MAILS = st.lists(
    st.tuples(
        st.sampled_from("abcdef") | st.just(""),
        st.lists(st.sampled_from("abcdefgh"), max_size=4).map(" ".join),
        st.just(""),
        st.integers(0, 3),
    ),
    max_size=8,
)


class ModelTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(MAILS)
    def test_any_references(self, mails: list[Mail]) -> None:
        self.assertEqual(thread(*mails), model(mails))

    @settings(max_examples=50, deadline=None)
    @given(MAILS, st.lists(st.sampled_from(["x", "re: x", "y", "fwd: y", ""])))
    def test_each_message_is_there_once(
        self, mails: list[Mail], subjects: list[str]
    ) -> None:
        mails = [
            (m[0], m[1], subject, m[3])
            for m, subject in zip(mails, subjects, strict=False)
        ]
        for algorithm in (references, ordered_subject):
            found = answer(run(algorithm(rows(mails))))
            numbers = found.replace("(", " ").replace(")", " ").split()
            self.assertEqual(
                sorted(map(int, numbers)), list(range(1, len(mails) + 1)), found
            )
            self.assertNotIn("()", found)


class LargeTests(SynchronousTestCase):
    def test_long_chains_of_any_order(self) -> None:
        digests = [number.to_bytes(8, "little") for number in range(100_001)]
        for order in (1, -1):
            chain = [
                ThreadRow(UID(n), n, b"", False, digests[n], digests[n - 1])
                for n in range(1, 100_001)
            ][::order]
            start = time.process_time()
            forest = run(references(chain))
            found = b"".join(written(forest, [row.uid for row in chain]))
            self.assertLess(time.process_time() - start, 10.0)
            self.assertTrue(found.startswith(b"(1 2 3 4"), found[:20])
            self.assertEqual(found.count(b"("), 1)

    def test_others_get_to_run(self) -> None:
        """However messages hang together, a step looks at few of them."""
        self.patch(threading, "STEP", 20)
        date, looks = Forest.date, 0

        def counting(forest: Forest, node: int) -> tuple[int, int]:
            nonlocal looks
            looks += 1
            return date(forest, node)

        self.patch(Forest, "date", counting)
        digests = [number.to_bytes(8, "little") for number in range(2001)]
        ids = digests[1:]
        for algorithm in (references, ordered_subject):
            for subjects, parent in ((2000, b""), (1, b""), (2000, ids[0])):
                flat = [
                    ThreadRow(UID(n), -n, b"%d" % (n % subjects), False, me, parent)
                    for n, me in enumerate(ids, 1)
                ]
                most = 0
                steps = algorithm(flat)
                try:
                    while True:
                        looks = 0
                        next(steps)
                        most = max(most, looks)
                except StopIteration as stop:
                    found = answer(stop.value)
                self.assertEqual(found.count("2000"), 1)
                # All at once for the first of them; else those that are sorted.
                self.assertLessEqual(most, 2020 if subjects == 1 else 140, algorithm)

    def test_a_maze_takes_no_long_time(self) -> None:
        """Deep ancestors are looked at again and again to find no loop."""
        deep = b"".join(n.to_bytes(8, "little") for n in range(1, 30_001))
        tip = deep[-8:]
        maze = [ThreadRow(UID(1), 0, b"", False, b"", deep)]
        for n in range(2, 10_002):
            above, below = (10**6 * k + n for k in (1, 2))
            pair = above.to_bytes(8, "little") + below.to_bytes(8, "little")
            maze.append(ThreadRow(UID(2 * n), 0, b"", False, b"", pair))
            maze.append(ThreadRow(UID(2 * n + 1), 0, b"", False, b"", tip + pair[:8]))
        start = time.process_time()
        forest = run(references(maze))
        self.assertLess(time.process_time() - start, 10.0)
        self.assertTrue(b"".join(written(forest, [row.uid for row in maze])))
