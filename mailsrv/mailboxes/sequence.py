"""Sequence numbers: what one session has been told of its mailbox.

RFC 3501 section 2.3.1.2 and 7.4.1; RFC 2180 section 4 on a mailbox shared by
several sessions. `Messages` holds the truth once for all sessions of a process;
a `Tracker` holds only how one session's picture differs from it: messages that
are gone and messages that are new, both not yet announced. No I/O.
"""

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress, count

MAX_FLAGS = 5_000  # in the news of one call, which takes some 10 ms then
STAR = 0  # the "*" of a sequence set: the largest number in use
SAVED = ((-1, -1),)  # the sequence set "$": what SEARCH saved (RFC 5182)


class OutOfRange(Exception):
    """A sequence number for which the session knows no message: answer BAD."""


@dataclass(frozen=True, slots=True)
class Keywords:
    """The mailbox's keywords were added to: send FLAGS and PERMANENTFLAGS."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expunge:
    """``* seq EXPUNGE``; the UID is for those who speak of VANISHED."""

    seq: int
    uid: int


@dataclass(frozen=True, slots=True)
class Exists:
    """``* count EXISTS``"""

    count: int


@dataclass(frozen=True, slots=True)
class Recent:
    """``* count RECENT``"""

    count: int


@dataclass(frozen=True, slots=True)
class Flags:
    """``* seq FETCH (FLAGS ...)``"""

    seq: int
    uid: int
    flags: int
    mod_seq: int


@dataclass(frozen=True, slots=True)
class ModSeq:
    """``* seq FETCH (MODSEQ ...)``: the session made the change itself, .SILENT."""

    seq: int
    uid: int
    mod_seq: int


@dataclass(frozen=True, slots=True)
class Gone:
    """The mailbox was deleted or got new UIDs: say BYE and close."""


News = Keywords | Expunge | Exists | Recent | Flags | ModSeq | Gone

Span = tuple[int, int]
"""First and last, both included."""


class Messages:
    """All messages of a mailbox by ascending UID, in three parallel arrays."""

    __slots__ = ("flags", "keywords", "mod_seqs", "recent_from", "uids")

    def __init__(
        self,
        uids: "array[int]",
        flags: "array[int]",
        mod_seqs: "array[int]",
        keywords: Sequence[str],
        recent_from: int,
    ) -> None:
        self.uids = uids
        self.flags = flags
        self.mod_seqs = mod_seqs
        self.keywords = tuple(keywords)
        # The first UID that no session was told of as recent.
        self.recent_from = recent_from

    def __len__(self) -> int:
        return len(self.uids)

    def index(self, uid: int) -> int | None:
        """Return the place of `uid`; None if there is no such message."""
        at = bisect_left(self.uids, uid)
        return at if at < len(self.uids) and self.uids[at] == uid else None

    def below(self, uid: int) -> int:
        """Return how many messages have a smaller UID."""
        return bisect_left(self.uids, uid)

    def add(self, uid: int, flags: int, mod_seq: int) -> None:
        """Append a message; the caller knows that its UID is the highest."""
        self.uids.append(uid)
        self.flags.append(flags)
        self.mod_seqs.append(mod_seq)

    def remove(self, uids: Collection[int]) -> None:
        """Take out `uids`, all of which are here."""
        places = sorted(bisect_left(self.uids, uid) for uid in uids)
        self.uids = _without(self.uids, places)
        self.flags = _without(self.flags, places)
        self.mod_seqs = _without(self.mod_seqs, places)


def _without(values: "array[int]", places: Sequence[int]) -> "array[int]":
    """Return `values` without those at `places`, ascending; copied by stretches."""
    left = array(values.typecode)
    start = 0
    for place in places:
        if place > start:
            left.extend(values[start:place])
        start = place + 1
    left.extend(values[start:])
    return left


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What one session knows at one moment, for a reader's thread.

    Three parallel arrays of the messages that are there. Some more may be gone and
    still be counted by the session.
    """

    uids: "array[int]"
    flags: "array[int]"
    mod_seqs: "array[int]"
    gone: Sequence[int]  # ascending UIDs
    recent: Sequence[Span]  # half-open, of UIDs

    def seqs(self) -> dict[int, int]:
        """Return the sequence numbers by UID."""
        if not self.gone:
            return dict(zip(self.uids, count(1), strict=False))
        return {
            uid: place + bisect_left(self.gone, uid)
            for place, uid in enumerate(self.uids, 1)
        }


@dataclass(slots=True, eq=False)
class Tracker:
    """One session's numbering of `messages`. Small: an idle one keeps no lists.

    Whoever changes `messages` calls `expunged` before, `changed` after, for each
    tracker; additions need no call.
    """

    messages: Messages
    claims_recent: bool = True  # False for EXAMINE (RFC 3501 section 6.3.2)
    _told_below: int = field(init=False)  # all UIDs below were announced
    # Gone, but not for this session yet: ascending UIDs, last flags and MODSEQs.
    _gone: list[int] = field(init=False, default_factory=list)
    _last: dict[int, tuple[int, int]] = field(init=False, default_factory=dict)
    _changed: set[int] = field(init=False, default_factory=set)
    _stamped: set[int] = field(init=False, default_factory=set)
    _keywords: tuple[str, ...] = field(init=False)
    # Half-open spans of UIDs that are \Recent in this session.
    _recent: list[tuple[int, int]] = field(init=False, default_factory=list)
    _told_recent: int = field(init=False)

    def __post_init__(self) -> None:
        uids = self.messages.uids
        self._told_below = uids[-1] + 1 if uids else 1
        self._keywords = self.messages.keywords
        self._take_recent()
        self._told_recent = self.recent

    @property
    def exists(self) -> int:
        """The number of messages that the session knows of."""
        return self.messages.below(self._told_below) + len(self._gone)

    @property
    def recent(self) -> int:
        """How many of them are \\Recent."""
        return sum(self._rank(end) - self._rank(start) for start, end in self._recent)

    @property
    def holds_expunges(self) -> bool:
        """Whether a message is gone that the session still counts.

        No HIGHESTMODSEQ may be sent meanwhile: the client would never ask for
        what has vanished below it.
        """
        return bool(self._gone)

    def is_recent(self, uid: int) -> bool:
        """Tell whether the message has \\Recent in this session."""
        return any(start <= uid < end for start, end in self._recent)

    def recent_spans(self, uids: Sequence[int]) -> Iterator[Span]:
        """Yield from where to before where in `uids` messages have \\Recent."""
        for start, end in self._recent:
            first = bisect_left(uids, start)
            if (behind := bisect_left(uids, end, first)) > first:
                yield first, behind

    def flags(self, uid: int) -> int | None:
        """Return the flags of a message, also of one gone; None if unknown."""
        at = self.messages.index(uid)
        if at is None:
            return self._last[uid][0] if uid in self._last else None
        return self.messages.flags[at] if uid < self._told_below else None

    def seq(self, uid: int) -> int | None:
        """Return the sequence number of `uid`; None if the session has none."""
        if uid >= self._told_below:
            return None
        if self.messages.index(uid) is None and uid not in self._last:
            return None
        return self._rank(uid) + 1

    def uid(self, seq: int) -> int:
        """Return the UID of a sequence number. Raises `OutOfRange`."""
        if not 1 <= seq <= self.exists:
            raise OutOfRange(seq)
        return next(self._from(seq, seq))

    def uids(
        self, ranges: Collection[tuple[int, int]], *, by_uid: bool
    ) -> "array[int]":
        """Return the UIDs of a sequence set, ascending, each once.

        `ranges` are inclusive, in any order, `STAR` for "*". By sequence number
        an unknown number raises `OutOfRange`, and a message that is gone but not
        announced is still there; by UID what is unknown or gone is left out (RFC
        3501 section 6.4.8).
        """
        if by_uid:
            return self._by_uid(ranges)
        exists = self.exists
        found = array("I")
        if not exists and any(STAR in pair for pair in ranges):
            # Thunderbird empties an empty Trash by STORE 1:*.
            return found
        for first, last in joined(ranges, exists):
            if first < 1 or last > exists:
                raise OutOfRange(last)
            found.extend(self._from(first, last))
        return found

    def walk(self, uids: Iterable[int]) -> Iterator[tuple[int, int, int, int]]:
        """Yield (seq, uid, flags, mod_seq) for those `uids` that are known.

        Fast for ascending `uids`, most of all for an array of neighbours. The
        mailbox may change between two steps; the numbering does not, as long as
        `news` is not called.
        """
        messages = self.messages
        if isinstance(uids, array) and uids and not self._gone:
            at = bisect_left(messages.uids, uids[0])
            end = at + len(uids)
            if messages.uids[at:end] == uids and uids[-1] < self._told_below:
                flags, mod_seqs = messages.flags[at:end], messages.mod_seqs[at:end]
                return zip(range(at + 1, end + 1), uids, flags, mod_seqs, strict=True)
        return self._walk(uids)

    def _walk(self, uids: Iterable[int]) -> Iterator[tuple[int, int, int, int]]:
        messages = self.messages
        at = 0
        for uid in uids:
            held = messages.uids
            if not (at < len(held) and held[at] == uid):
                at = bisect_left(held, uid)
            gone_below = bisect_left(self._gone, uid) if self._gone else 0
            if uid >= self._told_below:
                continue
            if at < len(held) and held[at] == uid:
                yield (
                    at + gone_below + 1,
                    uid,
                    messages.flags[at],
                    messages.mod_seqs[at],
                )
                at += 1
            elif uid in self._last:
                yield at + gone_below + 1, uid, *self._last[uid]

    def snapshot(self) -> Snapshot:
        """Copy what is known, at the cost of some memory and hardly any time."""
        messages = self.messages
        known = messages.below(self._told_below)
        return Snapshot(
            messages.uids[:known],
            messages.flags[:known],
            messages.mod_seqs[:known],
            tuple(self._gone),
            tuple(self._recent),
        )

    def newer(self, uids: Iterable[int], mod_seq: int) -> "array[int]":
        """Return those `uids` that are known and were changed after `mod_seq`.

        Fast where few were: some ms for 50,000 messages.
        """
        messages = self.messages
        changed = set(compress(messages.uids, map(mod_seq.__lt__, messages.mod_seqs)))
        changed.update(uid for uid, (_, last) in self._last.items() if last > mod_seq)
        return array("I", filter(changed.__contains__, uids) if changed else ())

    def absent(self, ranges: Iterable[Span], last: int) -> list[Span]:
        """Return where in `ranges` there is no message, for the session too.

        `last` is the highest UID there ever was, and "*".
        """
        held: Sequence[int] = self.messages.uids
        if self._gone:
            held = sorted((*held, *self._gone))
        spans = []
        for first, end in joined(ranges, last):
            end = min(end, last)
            for uid in held[bisect_left(held, first) : bisect_left(held, end + 1)]:
                if uid > first:
                    spans.append((first, uid - 1))
                first = uid + 1
            if first <= end:
                spans.append((first, end))
        return spans

    def matched(self, seqs: Iterable[Span], uids: Iterable[Span]) -> int:
        """Return up to which UID a client knows of all that has gone (else 0).

        RFC 7162 section 3.2.5.2: `seqs` and `uids` ascend in step. As no message
        comes between others, one pair that is right speaks for all below it. Only
        while nothing is held back: at SELECT.
        """
        held = self.messages.uids
        matched = 0
        for seq, uid in zip(_each(seqs), _each(uids), strict=False):
            if seq > len(held):
                break
            if held[seq - 1] == uid:
                matched = uid
        return matched

    def expunged(self, uids: Iterable[int]) -> None:
        """Note messages that are about to leave `messages`."""
        leaving = array("I", sorted(uids))
        for _, uid, flags, mod_seq in self.walk(leaving):
            self._last.setdefault(uid, (flags, mod_seq))
        self._gone = sorted(self._last)
        self._changed.difference_update(leaving)
        self._stamped.difference_update(leaving)

    def changed(self, uids: Iterable[int]) -> None:
        """Note messages whose flags the session must be told."""
        self._changed.update(uid for uid in uids if uid < self._told_below)

    def stamped(self, uids: Iterable[int]) -> None:
        """Note messages whose MODSEQ the session must be told, their flags not."""
        self._stamped.update(uid for uid in uids if uid < self._told_below)

    @property
    def has_news(self) -> bool:
        """Whether `news` with expunges would return anything."""
        uids = self.messages.uids
        return bool(
            self._gone
            or self._changed
            or self._stamped
            or (uids and uids[-1] >= self._told_below)
            or self._keywords != self.messages.keywords
        )

    def takes_keywords(self) -> bool:
        """Whether there are keywords that the session was not told of; it is now."""
        if self._keywords == self.messages.keywords:
            return False
        self._keywords = self.messages.keywords
        return True

    def news(self, *, expunges: bool) -> list[News]:
        """Return the untagged responses to send now, in order; each only once.

        `expunges` is False during FETCH, STORE, SEARCH (RFC 3501 section 7.4.1)
        and UID FETCH: then gone messages keep their numbers. Keywords come
        before flags that use them, EXPUNGE before EXISTS, so that the count is
        that after it. Of very many changed flags the rest comes by the next call.
        """
        news: list[News] = []
        if self.takes_keywords():
            news.append(Keywords(self._keywords))
        if expunges and self._gone:
            # From the highest down: no number changes one that follows.
            gone = reversed(list(enumerate(self._gone, 1)))
            news += [Expunge(self.messages.below(uid) + n, uid) for n, uid in gone]
            self._gone, self._last = [], {}
        uids = self.messages.uids
        if uids and uids[-1] >= self._told_below:
            self._told_below = uids[-1] + 1
            self._take_recent()
            news.append(Exists(self.exists))
        if (recent := self.recent) != self._told_recent:
            self._told_recent = recent
            news.append(Recent(recent))
        changed: list[int] = []
        if self._changed:
            changed = sorted(self._changed)
            self._changed = set(changed[MAX_FLAGS:])
            news += [Flags(*row) for row in self.walk(changed[:MAX_FLAGS])]
        if self._stamped:
            stamped = self.walk(sorted(self._stamped.difference(changed)))
            self._stamped = set()
            news += [ModSeq(seq, uid, mod_seq) for seq, uid, _, mod_seq in stamped]
        return news

    def _rank(self, uid: int) -> int:
        """Return how many known messages have a smaller UID."""
        below = self.messages.below(min(uid, self._told_below))
        return below + bisect_left(self._gone, uid)

    def _from(self, first: int, last: int) -> Iterator[int]:
        """Yield the UIDs of the known sequence numbers `first` to `last`."""
        if not self._gone:
            yield from self.messages.uids[first - 1 : last]
            return
        # The gone message number g, counting from 0, has the place below + g.
        places = [self.messages.below(uid) + g for g, uid in enumerate(self._gone)]
        g = bisect_left(places, first - 1)
        for place in range(first - 1, last):
            if g < len(places) and places[g] == place:
                yield self._gone[g]
                g += 1
            else:
                yield self.messages.uids[place - g]

    def _by_uid(self, ranges: Iterable[tuple[int, int]]) -> "array[int]":
        uids = self.messages.uids
        known = self.messages.below(self._told_below)
        # RFC 3501 section 6.4.8: "*" is the last message even if N:* lies above.
        return within(uids, ranges, uids[known - 1] if known else 0, known)

    def _take_recent(self) -> None:
        """Take what no session was told of; EXAMINE leaves it for the next."""
        start = self.messages.recent_from
        if start >= self._told_below:
            return
        if self._recent and self._recent[-1][1] >= start:
            start = self._recent.pop()[0]
        self._recent.append((start, self._told_below))
        if self.claims_recent:
            self.messages.recent_from = self._told_below


def joined(ranges: Iterable[Span], star: int) -> list[Span]:
    """Return `ranges` with "*" replaced, turned upwards, sorted and joined."""
    spans = sorted(
        (min(a, b), max(a, b)) for a, b in ((a or star, b or star) for a, b in ranges)
    )
    joined: list[tuple[int, int]] = []
    for first, last in spans:
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(last, joined[-1][1])
        else:
            joined.append((first, last))
    return joined


def within(
    uids: Sequence[int], ranges: Iterable[Span], star: int, count: int | None = None
) -> "array[int]":
    """Return which of `uids`, ascending, are in `ranges`; only the first `count`."""
    count = len(uids) if count is None else count
    found = array("I")
    for first, last in joined(ranges, star):
        start = bisect_left(uids, first, 0, count)
        found.extend(uids[start : bisect_left(uids, last + 1, start, count)])
    return found


def _each(spans: Iterable[Span]) -> Iterator[int]:
    for first, last in spans:
        yield from range(first, last + 1)
