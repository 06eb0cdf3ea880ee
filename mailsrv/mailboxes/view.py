"""One open mailbox in this process, shared by all sessions that selected it.

It lives in the reactor thread and changes only by `apply`, with the changes that
the store has committed, in their order. No I/O.
"""

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.logger import Logger

from mailsrv.mailboxes.flags import flag_mask, flag_names
from mailsrv.mailboxes.sequence import Messages, Tracker
from mailsrv.store.values import UID, Changes, MailboxState

log = Logger()

_MAX_READY = 512  # flag masks whose octets are kept


@dataclass(frozen=True, slots=True)
class SilentStore:
    """A STORE whose outcome its own session does not want to hear (.SILENT)."""

    by: Tracker
    uids: frozenset[int]
    op: str  # "+", "-", "="
    flag_names: tuple[str, ...]
    tell_mod_seqs: bool = False  # these the session wants to hear

    def expects(self, uid: int, old: int, new: int, keywords: tuple[str, ...]) -> bool:
        """Tell whether `new` is what the session thinks it has made of `old`.

        If not, somebody else changed the message too, and the session is told.
        """
        if uid not in self.uids:
            return False
        mask = flag_mask(self.flag_names, keywords)
        match self.op:
            case "+":
                return new == old | mask
            case "-":
                return new == old & ~mask
            case _:
                return new == mask


@dataclass(slots=True, eq=False)
class MailboxView:
    """The messages of one mailbox, and the sessions that look at them."""

    name: str
    mailbox_id: str
    uid_validity: int
    uid_next: int
    highest_mod_seq: int
    messages: Messages
    claimed_recent: int  # as Messages.recent_from, but durable
    gone: bool = False  # deleted, or its UIDs are worth nothing any more
    stale: bool = False  # to be read again: changes do not fit it meanwhile
    # Each session's tracker, and what wakes the session when there is news.
    sessions: dict[Tracker, Callable[[], None]] = field(default_factory=dict)
    _ghosts: list[int] = field(default_factory=list)  # expunged, not told to all
    _octets: dict[int, bytes] = field(default_factory=dict)  # by flag mask

    @classmethod
    def of(cls, state: MailboxState) -> "MailboxView":
        """Make a view of what the store has read."""
        return cls(
            state.name,
            state.mailbox_id,
            state.uid_validity,
            state.uid_next,
            state.highest_mod_seq,
            Messages(
                array("I", state.uids),
                array("Q", state.flags),
                array("Q", state.mod_seqs),
                state.keywords,
                state.recent_uid,
            ),
            state.recent_uid,
        )

    @property
    def writable(self) -> bool:
        """Whether a session has it open by SELECT, not EXAMINE."""
        return any(tracker.claims_recent for tracker in self.sessions)

    def flag_octets(self, mask: int) -> bytes:
        """Return the names in a mask, joined as in a FLAGS response."""
        octets = self._octets.get(mask)
        if octets is None:
            if len(self._octets) > _MAX_READY:
                self._octets.clear()
            octets = " ".join(flag_names(mask, self.messages.keywords)).encode()
            self._octets[mask] = octets
        return octets

    def difference(self, state: MailboxState) -> Changes:
        """Return what leads from this view to `state`, read later by the store."""
        held = self.messages
        old = {
            uid: (flags, mod_seq)
            for uid, flags, mod_seq in zip(
                held.uids, held.flags, held.mod_seqs, strict=True
            )
        }
        rows = list(zip(state.uids, state.flags, state.mod_seqs, strict=True))
        there = set(state.uids)
        return Changes(
            state.name,
            state.uid_validity,
            state.uid_next,
            state.highest_mod_seq,
            added=[(UID(u), f, m) for u, f, m in rows if u not in old],
            flagged=[
                (UID(u), f, m) for u, f, m in rows if old.get(u, (f, m)) != (f, m)
            ],
            expunged=[UID(uid) for uid in old if uid not in there],
            keywords=state.keywords,
        )

    def take_told(self) -> list[UID]:
        """Return what was expunged and no session counts any more, each once."""
        if not self._ghosts or any(t.holds_expunges for t in self.sessions):
            return []
        told, self._ghosts = self._ghosts, []
        return [UID(uid) for uid in told]

    def apply(self, changes: Changes, silent: SilentStore | None = None) -> None:
        """Take in what was committed, then wake the sessions that have news."""
        if changes.uid_validity != self.uid_validity:
            self.end()
            return
        messages = self.messages
        if changes.keywords is not None:
            messages.keywords = tuple(changes.keywords)
            self._octets.clear()
        self._remove(changes)
        self._flag(changes, silent)
        for uid, flags, mod_seq in changes.added:
            if messages.uids and uid <= messages.uids[-1]:
                if messages.index(uid) is not None:
                    continue  # read with the state already
                # Sequence numbers that were given out would be wrong.
                log.error("UID {uid} is too low in {mailbox}", uid=uid, mailbox=self)
                self.end()
                return
            messages.add(uid, flags, mod_seq)
        self.uid_next = max(self.uid_next, changes.uid_next)
        self.highest_mod_seq = max(self.highest_mod_seq, changes.highest_mod_seq)
        self._wake()

    def end(self) -> None:
        """The mailbox is no more what the sessions were told of."""
        self.gone = True
        self._wake()

    def _remove(self, changes: Changes) -> None:
        leaving = [u for u in changes.expunged if self.messages.index(u) is not None]
        if leaving:
            for tracker in self.sessions:
                tracker.expunged(leaving)
            self.messages.remove(leaving)
            self._ghosts += leaving

    def _flag(self, changes: Changes, silent: SilentStore | None) -> None:
        messages = self.messages
        changed: list[int] = []
        heard: list[int] = []  # as `changed`, for the session of `silent`
        for uid, flags, mod_seq in changes.flagged:
            at = messages.index(uid)
            if at is None:
                continue
            old, messages.flags[at] = messages.flags[at], flags
            messages.mod_seqs[at] = mod_seq
            if old == flags:
                continue
            changed.append(uid)
            if silent and not silent.expects(uid, old, flags, messages.keywords):
                heard.append(uid)
        if not changed:
            return
        for tracker in self.sessions:
            own = silent is not None and silent.by is tracker
            tracker.changed(heard if own else changed)
        if silent and silent.tell_mod_seqs:
            silent.by.stamped(changed)

    def _wake(self) -> None:
        # A copy: a session may leave when it is woken.
        for tracker, wake in list(self.sessions.items()):
            if self.gone or tracker.has_news:
                try:
                    wake()
                except Exception:
                    # One session's trouble is not the others'.
                    log.failure("a session could not be told of news")
