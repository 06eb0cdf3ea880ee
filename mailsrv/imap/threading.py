"""The threads of THREAD (RFC 5256 section 3): ORDEREDSUBJECT and REFERENCES.

Pure, without recursion, in time that grows with the messages and their references.
The algorithms are generators that stop now and then, so that others get to run.
"""

from array import array
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from heapq import merge
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from mailsrv.store.sorting import ThreadRow

STEP = 2000  # messages looked at between two stops
# Ancestors passed in all, for each link that could close a loop. Real threads take a
# few; of a maze, made to waste time, what is beyond stays unlinked.
MAX_PASSED = 200
WRITTEN = 2000  # messages in one piece of the response

NONE = -1

Algorithm: TypeAlias = Callable[
    [Sequence["ThreadRow"]], Generator[None, None, "Forest"]
]


class Forest:
    """Threads of messages, which go by their place in the rows.

    A dummy, a message that is missing, is a number beyond these; it can only be a
    root with several children.
    """

    def __init__(self, rows: "Sequence[ThreadRow]") -> None:
        self.rows = rows
        self.children: dict[int, list[int]] = {}
        self.roots: list[int] = []

    def is_dummy(self, node: int) -> bool:
        return node >= len(self.rows)

    def first(self, node: int) -> int:
        """Return the message that stands for a root: its first child's if a dummy."""
        return self.children[node][0] if self.is_dummy(node) else node

    def date(self, node: int) -> tuple[int, int]:
        """Return the sent date, ties told apart by the place in the mailbox."""
        return self.rows[node].sent_at, node

    def sort(self) -> Generator[None, None, None]:
        """Sort all siblings; then the threads, of which dummies go by a child."""
        for count, siblings in enumerate(self.children.values(), 1):
            if len(siblings) > STEP:
                siblings[:] = yield from _in_order(siblings, self.date)
            else:
                siblings.sort(key=self.date)
            if count % STEP == 0:
                yield
        self.roots = yield from _in_order(
            self.roots, lambda root: self.date(self.first(root))
        )


def _in_order(
    nodes: Sequence[int], key: Callable[[int], tuple[int, int]]
) -> Generator[None, None, list[int]]:
    """Sort in short steps: some at once, then these stretches into one."""
    stretches: list[list[int]] = []
    for start in range(0, len(nodes), STEP):
        stretches.append(sorted(nodes[start : start + STEP], key=key))
        yield
    if len(stretches) == 1:
        return stretches[0]
    ordered: list[int] = []
    for count, node in enumerate(merge(*stretches, key=key), 1):
        ordered.append(node)
        if count % STEP == 0:
            yield
    return ordered


def ordered_subject(rows: "Sequence[ThreadRow]") -> Generator[None, None, Forest]:
    """Group by base subject: the first message has the others as its children."""
    forest = Forest(rows)
    threads: dict[bytes, list[int]] = {}
    for place, row in enumerate(rows):
        threads.setdefault(row.subject, []).append(place)
        if place % STEP == 0:
            yield
    for count, members in enumerate(threads.values(), 1):
        if count % STEP == 0 or len(members) > STEP:
            yield
        first = min(members, key=forest.date)
        forest.roots.append(first)
        if members[1:]:
            members.remove(first)
            forest.children[first] = members
    yield from forest.sort()
    return forest


def references(rows: "Sequence[ThreadRow]") -> Generator[None, None, Forest]:
    """Thread by what messages refer to, then by base subject."""
    links = _Links(rows)
    yield from links.name()
    for start in range(0, len(rows), STEP):
        links.add(range(start, min(start + STEP, len(rows))))  # step 1
        yield
    forest = yield from links.pruned()  # steps 2 and 3
    yield from forest.sort()  # step 4
    yield from _gather_subjects(forest)  # step 5
    yield from forest.sort()  # step 6
    return forest


ALGORITHMS: dict[bytes, Algorithm] = {
    b"ORDEREDSUBJECT": ordered_subject,
    b"REFERENCES": references,
}


class _Links:
    """Parents of messages and of dummies, as step 1 finds them."""

    def __init__(self, rows: "Sequence[ThreadRow]") -> None:
        self._rows = rows
        self._nodes: dict[int, int] = {}  # by digest
        self._parents = [NONE] * len(rows)
        self._counts = [0] * len(rows)  # of children
        self._may_pass = 0

    def name(self) -> Generator[None, None, None]:
        """Learn which id is whose, before all else."""
        for place, row in enumerate(self._rows):
            # Of several messages with one id the first has it.
            for digest in _digests(row.message_id):
                self._nodes.setdefault(digest, place)
            if place % STEP == 0:
                yield

    def add(self, places: Iterable[int]) -> None:
        """Link some messages with their references, steps 1.A and 1.B."""
        for place in places:
            parent = NONE
            for digest in _digests(self._rows[place].reference_ids):
                child = self._node(digest)
                if parent != NONE and self._parents[child] == NONE:
                    self._link(parent, child)
                parent = child
            if self._parents[place] != parent:
                self._unlink(place)
                if parent != NONE:
                    self._link(parent, place)

    def _node(self, digest: int) -> int:
        node = self._nodes.setdefault(digest, len(self._parents))
        if node == len(self._parents):
            self._parents.append(NONE)
            self._counts.append(0)
        return node

    def _link(self, parent: int, child: int) -> None:
        """Make a link, unless it would close a loop."""
        self._may_pass += MAX_PASSED
        if self._counts[child]:  # else nobody descends from it
            node = parent
            while node not in (NONE, child) and self._may_pass > 0:
                node = self._parents[node]
                self._may_pass -= 1
            if node != NONE:
                return
        elif parent == child:
            return
        self._parents[child] = parent
        self._counts[parent] += 1

    def _unlink(self, child: int) -> None:
        parent = self._parents[child]
        if parent != NONE:
            self._parents[child] = NONE
            self._counts[parent] -= 1

    def pruned(self) -> Generator[None, None, Forest]:
        """Return the messages under the nearest ancestors that are messages.

        A dummy stays where it holds several threads together.
        """
        forest = Forest(self._rows)
        above: dict[int, int] = {}  # of a dummy: the message, or the dummy on top
        for node in range(len(self._rows)):
            parent = self._above(node, above)
            if parent == NONE:
                forest.roots.append(node)
            else:
                forest.children.setdefault(parent, []).append(node)
            if node % STEP == 0:
                yield
        for node in range(len(self._rows), len(self._parents)):
            if node % STEP == 0:
                yield
            kept = forest.children.get(node, ())
            if len(kept) > 1:
                forest.roots.append(node)
            elif kept:
                forest.roots += forest.children.pop(node)
        return forest

    def _above(self, node: int, above: dict[int, int]) -> int:
        """Return a message's parent when all dummies but those on top are taken out."""
        parent = self._parents[node]
        passed: list[int] = []
        while parent >= len(self._rows) and parent not in above:
            passed.append(parent)
            if self._parents[parent] == NONE:
                break
            parent = self._parents[parent]
        parent = above.get(parent, parent)
        above.update(dict.fromkeys(passed, parent))
        return parent


def _digests(octets: bytes) -> "array[int]":
    """Return the digests that `mime.sort_keys` has put together."""
    digests = array("Q")
    digests.frombytes(octets)
    return digests


def _gather_subjects(forest: Forest) -> Generator[None, None, None]:
    """Join threads of one base subject (step 5)."""
    table: dict[bytes, int] = {}
    for count, root in enumerate(forest.roots, 1):
        if count % STEP == 0:
            yield
        row = forest.rows[forest.first(root)]
        held = table.setdefault(row.subject, root)
        # A dummy goes before a message, and a message before replies to it.
        if not forest.is_dummy(held) and (
            forest.is_dummy(root)
            or (forest.rows[held].is_reply and not forest.rows[root].is_reply)
        ):
            table[row.subject] = root
    table.pop(b"", None)
    roots, forest.roots = forest.roots, []
    dummy = _last_dummy(forest)
    joined: dict[int, int] = {}  # the dummy that a root now stands under
    for count, root in enumerate(roots, 1):
        if count % STEP == 0:
            yield
        subject = forest.rows[forest.first(root)].subject
        held = table.get(subject, root)
        if held == root:
            forest.roots.append(root)
        elif forest.is_dummy(held) and forest.is_dummy(root):
            forest.children[held] += forest.children.pop(root)
        elif forest.is_dummy(held) or (
            forest.rows[root].is_reply and not forest.rows[held].is_reply
        ):
            forest.children.setdefault(held, []).append(root)
        else:
            dummy += 1
            forest.children[dummy] = [held, root]
            joined[held] = table[subject] = dummy
    forest.roots = [joined.get(root, root) for root in forest.roots]


def _last_dummy(forest: Forest) -> int:
    return max((*forest.children, len(forest.rows)))


def written(forest: Forest, numbers: Sequence[int]) -> Iterator[bytes]:
    """Yield the threads as the response has them, in pieces; by `numbers` of rows."""
    out: list[bytes] = []
    # What is still to be written: a node begins a list, NONE ends one.
    waiting = list(reversed(forest.roots))
    while waiting:
        node = waiting.pop()
        if node == NONE:
            out.append(b")")
            continue
        out.append(b"(")
        children = [node]
        while len(children) == 1:
            (node,) = children
            children = forest.children.get(node, [])
            if not forest.is_dummy(node):
                out.append(
                    b"%d " % numbers[node] if children else b"%d" % numbers[node]
                )
        waiting.append(NONE)
        waiting.extend(reversed(children))
        if len(out) > WRITTEN:
            yield b"".join(out)
            out.clear()
    yield b"".join(out)
