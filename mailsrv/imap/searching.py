"""Finds which messages match a search key; cheap questions come first.

Flags and numbers are answered from what the session knows, then rows of the index
are read, then files. Runs in a reader's thread as a generator of short steps.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from operator import eq, ge, gt, le, lt
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

from mailsrv.imap.grammar import SequenceSet
from mailsrv.imap.object_ids import email_id, thread_id
from mailsrv.imap.search_keys import (
    And,
    Compare,
    Contains,
    HasFlag,
    Header,
    Identified,
    Identity,
    IsRecent,
    Key,
    ModSeq,
    Not,
    Numbers,
    Or,
    Order,
    Quantity,
    Within,
)
from mailsrv.mailboxes.sequence import SAVED, Snapshot
from mailsrv.mime import envelope
from mailsrv.mime.charset import fold
from mailsrv.mime.header import MAX_HEADER, decode, fields, unfold
from mailsrv.mime.text import texts
from mailsrv.store.values import UID, MessageGone

if TYPE_CHECKING:
    from mailsrv.store.account_reader import AccountReader
    from mailsrv.store.reading import MessageFile

CHUNK = 20_000  # messages that all keys are asked about before the next ones
ROWS = 2000  # of the index, read in one step
ENVELOPES = 100  # decoded and compared in one step
FILES = 10  # opened, read and compared in one step
LONG = 16 * 1024  # characters that are a step of their own

_COMPARE = {Order.LESS: lt, Order.EQUAL: eq, Order.NOT_LESS: ge, Order.MORE: gt}
# Not Sender and Reply-To: an ENVELOPE names From there if a message has none.
_IN_ENVELOPE = envelope.FIELDS - {b"sender", b"reply-to"}
_WORD = re.compile(r"[a-z0-9]++")
_DAY_S = 86400
_IN_SECONDS = (Quantity.INTERNAL_DAY, Quantity.SAVED_DAY)  # as the index has them
_IDENTIFIERS = {Identity.EMAIL: email_id, Identity.THREAD: thread_id}

Found: TypeAlias = Generator[None, None, set[UID]]


class Match(NamedTuple):  # perhaps one for every message: cheaper than a dataclass
    """A message that was found."""

    seq: int
    uid: UID
    mod_seq: int


@dataclass(frozen=True, slots=True)
class Scope:
    """What keys mean in one session, when its command began."""

    mailbox: str
    mask_of: Callable[[str], int]  # of a flag or keyword; 0 if there is none
    last_seq: int  # what "*" stands for
    last_uid: int
    saved: SequenceSet  # what "$" stands for, UIDs
    now_s: int


@dataclass(slots=True)
class Searcher:
    """Answers keys for some messages of a mailbox."""

    store: "AccountReader"
    scope: Scope
    messages: Snapshot
    # Of all messages: what the session knows of them; and columns of the index.
    _seqs: dict[int, int] = field(init=False)
    _flags: dict[int, int] = field(init=False)
    _mod_seqs: dict[int, int] = field(init=False)
    _values: dict[str, dict[UID, int | None]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = self.messages
        self._seqs = known.seqs()
        self._flags = dict(zip(known.uids, known.flags, strict=True))
        self._mod_seqs = dict(zip(known.uids, known.mod_seqs, strict=True))

    def find(self, key: Key) -> Generator[None, None, list[Match]]:
        """Return the messages that match, ascending."""
        found: list[Match] = []
        for start in range(0, len(self.messages.uids), CHUNK):
            uids = self.messages.uids[start : start + CHUNK]
            hits = yield from self._find(key, set(cast("Sequence[UID]", uids)))
            found += (
                Match(self._seqs[uid], uid, self._mod_seqs[uid]) for uid in sorted(hits)
            )
            yield
        return found

    def _find(self, key: Key, among: set[UID]) -> Found:
        """Return which of `among` match. Recursion ends at the parser's depth."""
        match key:
            case And(keys):
                for part in sorted(keys, key=cost):
                    among = yield from self._find(part, among)
                return among
            case Or(one, other):
                first, second = sorted((one, other), key=cost)
                found = yield from self._find(first, among)
                return found | (yield from self._find(second, among - found))
            case Not(inner):
                return among - (yield from self._find(inner, among))
            case Numbers(ranges, by_uid):
                return self._numbered(ranges, by_uid, among)
            case HasFlag(name):
                mask = self.scope.mask_of(name)
                return {uid for uid in among if self._flags[uid] & mask}
            case IsRecent():
                return self._recent(among)
            case ModSeq(least):
                return {uid for uid in among if self._mod_seqs[uid] >= least}
            case Within(seconds, younger):
                dates = yield from self._column("internal_date", among)
                then = self.scope.now_s - seconds
                compare = ge if younger else le
                return {uid for uid, date in dates.items() if compare(date, then)}
            case Compare():
                return (yield from self._compared(key, among))
            case Identified():
                return (yield from self._identified(key, among))
            case Header() if _is_in_envelope(key):
                return (yield from self._in_envelopes(key, among))
            case Header():
                return (yield from self._in_headers(key, among))
            case Contains():
                return (yield from self._in_texts(key, among))

    def _numbered(self, ranges: SequenceSet, by_uid: bool, among: set[UID]) -> set[UID]:
        if ranges == SAVED:
            ranges, by_uid = self.scope.saved, True
        last = self.scope.last_uid if by_uid else self.scope.last_seq
        spans = _joined(ranges, last)
        starts = [start for start, _ in spans]

        def is_in(number: int) -> bool:
            at = bisect_right(starts, number)
            return at > 0 and number <= spans[at - 1][1]

        if by_uid:
            return {uid for uid in among if is_in(uid)}
        return {uid for uid in among if is_in(self._seqs[uid])}

    def _recent(self, among: set[UID]) -> set[UID]:
        spans = self.messages.recent
        return {uid for uid in among if any(start <= uid < end for start, end in spans)}

    def _compared(self, key: Compare, among: set[UID]) -> Found:
        values = yield from self._column(key.quantity.value, among)
        compare = _COMPARE[key.order]
        unit = _DAY_S if key.quantity in _IN_SECONDS else 1
        return {
            uid for uid, value in values.items() if compare(value // unit, key.value)
        }

    def _column(
        self, column: str, among: set[UID]
    ) -> Generator[None, None, dict[UID, int]]:
        """Return a column of the index, of those of `among` that have a value."""
        values = self._values.setdefault(column, {})
        for uids in _slices(among - values.keys(), ROWS):
            rows = self.store.rows(self.scope.mailbox, uids, [column])
            values.update((UID(uid), value) for uid, (value,) in rows.items())
            yield
        # None: it has no such date (or, no longer there, no row).
        return {uid: value for uid in among if (value := values.get(uid)) is not None}

    def _identified(self, key: Identified, among: set[UID]) -> Found:
        identifier, column = _IDENTIFIERS[key.of], key.of.value
        found: set[UID] = set()
        for uids in _slices(among, ROWS):
            rows = self.store.rows(self.scope.mailbox, uids, [column])
            found.update(
                UID(uid)
                for uid, (value,) in rows.items()
                if identifier(value) == key.identifier
            )
            yield
        return found

    def _in_envelopes(self, key: Header, among: set[UID]) -> Found:
        found: set[UID] = set()
        if key.field == b"subject" and len(key.text) > 2:
            among = yield from self._perhaps(key, among)
        word = _longest_word(key.text)
        again: set[UID] = set()  # where another field of that name may hold it
        for uids in _slices(among, ENVELOPES):
            rows = self.store.rows(self.scope.mailbox, uids, ["envelope", "repeats"])
            again.update(UID(uid) for uid, (_, repeats) in rows.items() if repeats)
            for uid, (written, _) in rows.items():
                # Most can be told apart without taking the ENVELOPE to pieces.
                plain = written.isascii() and b"=?" not in written
                if plain and word not in written.lower():
                    continue
                value = envelope.read(written).get(key.field)
                if value is not None and key.text in fold(decode(value)):
                    found.add(UID(uid))
            yield
        if key.field in envelope.ADDRESS_FIELDS:  # all of them are in it
            return found
        return found | (yield from self._in_headers(key, again - found))

    def _in_headers(self, key: Header, among: set[UID]) -> Found:
        among = yield from self._perhaps(key, among)

        def matches(file: "MessageFile") -> Generator[None, None, bool]:
            header = file.read(0, min(file.structure().served_body, MAX_HEADER))
            if len(header) > LONG:
                yield
            return any(
                name.lower() == key.field and key.text in fold(decode(unfold(raw)))
                for name, raw in fields(header)
            )

        return (yield from self._in_files(among, matches))

    def _perhaps(self, key: Header, among: set[UID]) -> Found:
        """Return which of `among` may have such a field, as the texts tell."""
        # A header is kept as "name: value" for each field.
        text = key.text if len(key.text) > 2 else fold(key.field.decode("latin-1"))
        search = self.store.search_text
        matches = yield from search(self.scope.mailbox, among, text, header=True)
        return matches.found | matches.unknown

    def _in_texts(self, key: Contains, among: set[UID]) -> Found:
        def matches(file: "MessageFile") -> Generator[None, None, bool]:
            for text in texts(file.structure(), file.read, header=key.header):
                if key.text in fold(text):
                    return True
                if len(text) > LONG:
                    yield
            return False

        search = self.store.search_text
        known = yield from search(
            self.scope.mailbox, among, key.text, header=key.header
        )
        return known.found | (yield from self._in_files(known.unknown, matches))

    def _in_files(
        self,
        among: set[UID],
        matches: "Callable[[MessageFile], Generator[None, None, bool]]",
    ) -> Found:
        found: set[UID] = set()
        for uids in _slices(among, FILES):
            for uid, place in self.store.locate(self.scope.mailbox, uids).items():
                with suppress(MessageGone), place.open() as file:
                    if (yield from matches(file)):
                        found.add(UID(uid))
            yield
        return found


def cost(key: Key) -> int:
    """Rank keys by what they read: nothing, rows, headers, files."""
    match key:
        case And(keys):
            return max(map(cost, keys), default=0)
        case Or(one, other):
            return max(cost(one), cost(other))
        case Not(inner):
            return cost(inner)
        case Compare() | Within() | Identified():
            return 1
        case Header():
            return 2 if _is_in_envelope(key) else 3
        case Contains():
            return 4
        case _:
            return 0


def _is_in_envelope(key: Header) -> bool:
    """Tell whether an ENVELOPE answers: not whether a list without addresses exists."""
    return key.field in _IN_ENVELOPE and bool(
        key.text or key.field not in envelope.ADDRESS_FIELDS
    )


def _longest_word(text: str) -> bytes:
    """Return what stands as it is in any plain ENVELOPE that holds folded `text`."""
    words = _WORD.findall(text) if text.isascii() else ()
    return max(words, key=len, default="").encode()


def _joined(ranges: SequenceSet, last: int) -> list[tuple[int, int]]:
    """Return ranges turned upwards, sorted and joined; "*" is `last`."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(
        (min(pair), max(pair)) for pair in ((a or last, b or last) for a, b in ranges)
    ):
        if joined and start <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


def _slices(uids: Iterable[UID], size: int) -> Iterable[Sequence[UID]]:
    ordered = sorted(uids)
    return (ordered[at : at + size] for at in range(0, len(ordered), size))
