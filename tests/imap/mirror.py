"""A mail client that keeps a copy of mailboxes, as RFC 7162 section 6 has it.

It believes what the server says and nothing else, and checks all that it can: that
numbers and UIDs fit each other, that VANISHED speaks of messages which it knows,
that EXPUNGE comes only when it may. The connection may be cut at any octet.
"""

import re
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from enum import Enum

from mailsrv.imap import format
from tests.imap.office import Client

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"

Steps = Generator[bytes, bytes, None]
"""Commands, each without its tag; its tagged reply comes back."""


class Kind(Enum):
    """How a client resynchronises."""

    SELECT = "SELECT (QRESYNC)"
    VANISHED = "UID FETCH (CHANGEDSINCE VANISHED)"
    CONDSTORE = "UID FETCH (CHANGEDSINCE), FETCH (UID)"


@dataclass(slots=True)
class Copy:
    """What a client keeps of a mailbox while it is away."""

    uid_validity: int = 0
    mod_seq: int = 0  # 0: never synchronised
    uid_next: int = 1  # all messages below are known
    flags: dict[int, frozenset[bytes]] = field(default_factory=dict)
    mod_seqs: dict[int, int] = field(default_factory=dict)
    unstamped: set[int] = field(default_factory=set)  # MODSEQ was due, and not told

    def drop(self, uids: Iterable[int]) -> None:
        for uid in uids:
            self.flags.pop(uid, None)
            self.mod_seqs.pop(uid, None)
            self.unstamped.discard(uid)

    def go_astray(self) -> None:
        """Become the copy of an index that was lost, and wrong in all that can be."""
        self.mod_seq += 10**15
        uids = range(1, self.uid_next)
        self.flags = dict.fromkeys(uids, frozenset([b"\\draft"]))
        self.mod_seqs.clear()


class Mirror:
    """One client. `connect` gives a session that has logged in."""

    def __init__(self, kind: Kind, connect: Callable[[], Client]) -> None:
        self.kind = kind
        self.connect = connect
        self.copies: dict[bytes, Copy] = {}
        self.log: list[str] = []
        self.client: Client | None = None
        self._forget_session()

    def _forget_session(self) -> None:
        self.client = None
        self.mailbox = b""
        self.synchronised = False
        # By sequence number; None: the UID is not known. Valid once `_numbered`.
        self.numbers: list[int | None] = []
        self.idles = False
        self._enabled = False
        self._numbered = False
        self._exists = 0
        self._steps: Steps | None = None
        self._command = b""
        self._heard = b""
        self._highest = 0  # the last HIGHESTMODSEQ of this command
        self._seen = 0  # the highest MODSEQ of this command
        self._goal = 0  # the HIGHESTMODSEQ that holds once all is synchronised
        self._told: set[int] = set()  # whose FLAGS came in this command
        self._stamped: set[int] = set()  # the same of MODSEQ
        self._keywords: set[bytes] = set()  # of the mailbox
        self._grown = False  # EXISTS came in this command
        self._cut_after: int | None = None

    @property
    def busy(self) -> bool:
        return self._steps is not None

    @property
    def copy(self) -> Copy:
        return self.copies[self.mailbox]

    # The connection

    def cut(self, after: int | None) -> None:
        """Lose the connection after so many more octets of the server; None: not."""
        self._cut_after = after

    def lose(self) -> None:
        if self.client is not None:
            self.log.append("lost")
            self.client.lose()
        self._forget_session()

    def open(self, mailbox: bytes, known: int = 0) -> None:
        """Connect if need be, select and resynchronise.

        `known`: how the parameter QRESYNC tells what the client has.
        """
        assert not self.busy
        if self.client is None:
            self.client = self.connect()
        self.begin(self._open(mailbox, known))

    def begin(self, steps: Steps) -> None:
        assert not self.busy
        self._steps = steps
        self._go_on(b"")

    def _go_on(self, reply: bytes) -> None:
        assert self._steps is not None
        try:
            command = self._steps.send(reply) if reply else next(self._steps)
        except StopIteration:
            self._steps = None
            return
        self._command = command
        self._highest = self._seen = 0
        self._grown = False
        self._told, self._stamped = set(), set()
        self.log.append(f"C: {command!r}")
        self._send(b"T " + command + b"\r\n")

    def _send(self, octets: bytes) -> None:
        assert self.client is not None
        self.hear(self.client.send(octets))

    def done(self) -> None:
        """End IDLE."""
        if self.client is not None and self.idles:
            self.idles = False
            self._send(b"DONE\r\n")

    def listen(self) -> None:
        """Hear what the server has said meanwhile."""
        if self.client is not None:
            self.hear(self.client.heard())

    def hear(self, octets: bytes) -> None:
        if self._cut_after is not None:
            octets = octets[: self._cut_after]
            self._cut_after -= len(octets)
        cut = self._cut_after == 0
        self._heard += octets
        client = self.client
        while self.client is client and (line := self._line()) is not None:
            self.log.append(f"S: {line!r}")
            if line.startswith(b"T "):
                self._tagged(line)
            else:
                self._untagged(line)
        if self.client is client and (cut or (client is not None and client.ended)):
            self.lose()

    def _line(self) -> bytes | None:
        """Take a line of the server with its literals."""
        end = 0
        while True:
            end = self._heard.find(b"\r\n", end)
            if end < 0:
                return None
            literal = re.search(rb"\{(\d+)\}\Z", self._heard[:end])
            if literal is None:
                break
            end += 2 + int(literal[1])
        line, self._heard = self._heard[:end], self._heard[end + 2 :]
        return line

    # What the server says

    def _tagged(self, line: bytes) -> None:
        assert not line.startswith(b"T BAD"), (self._command, line)
        if line.startswith(b"T OK [HIGHESTMODSEQ "):
            self._highest = int(line.split(b" ")[3].rstrip(b"]"))
        if self.synchronised:
            # RFC 7162 section 6: HIGHESTMODSEQ holds, else the highest MODSEQ.
            self.copy.mod_seq = self._highest or max(self.copy.mod_seq, self._seen)
        elif self._highest:
            self._goal = self._highest
        self._go_on(line)

    def _untagged(self, line: bytes) -> None:
        if found := re.match(rb"\* (\d+) (EXISTS|EXPUNGE|FETCH)\b", line):
            number, kind = int(found[1]), found[2]
            if kind == b"EXISTS":
                self._hear_exists(number)
            elif kind == b"EXPUNGE":
                self._hear_expunge(number)
            else:
                self._hear_fetch(number, line)
        elif found := re.match(rb"\* VANISHED (\(EARLIER\) )?([\d:,]+)\Z", line):
            self._hear_vanished(_uids(found[2]), earlier=bool(found[1]))
        elif found := re.match(rb"\* OK \[HIGHESTMODSEQ (\d+)\]", line):
            self._highest = int(found[1])
        elif found := re.match(rb"\* FLAGS \((.*)\)\Z", line):
            self._keywords = set(found[1].lower().split())
        elif found := re.match(rb"\* OK \[UIDVALIDITY (\d+)\]", line):
            if self.copy.uid_validity != int(found[1]):
                self.copies[self.mailbox] = Copy(int(found[1]))

    @property
    def _holds(self) -> bool:
        """Whether neither EXPUNGE nor VANISHED may come now (RFC 3501 7.4.1)."""
        name = self._command.split(b" ")[0]
        return not self.busy or name in (b"FETCH", b"STORE", b"SEARCH")

    def _number(self) -> None:
        """All that has vanished earlier was told: now numbers are known."""
        if self._numbered:
            return
        self._numbered = True
        known: list[int | None] = []
        if self.kind is Kind.SELECT and self.copy.mod_seq:
            known = [*sorted(self.copy.flags)]
        assert len(known) <= self._exists, ("not told of an expunge", known)
        self.numbers = known + [None] * (self._exists - len(known))

    def _hear_exists(self, count: int) -> None:
        if self._command.startswith(b"SELECT") and self._exists < 0:
            self._exists = count
            return
        self._number()
        assert count >= len(self.numbers), (count, self.numbers)
        self.numbers += [None] * (count - len(self.numbers))
        self._grown = True

    def _hear_expunge(self, seq: int) -> None:
        assert self.kind is Kind.CONDSTORE and not self._holds
        self._number()
        if (uid := self.numbers.pop(seq - 1)) is not None:
            self.copy.drop([uid])

    def _hear_vanished(self, uids: list[int], *, earlier: bool) -> None:
        assert self.kind is not Kind.CONDSTORE
        if not earlier:
            assert not self._holds
            self._number()  # with those that vanish now
        self.copy.drop(uids)
        if earlier:
            assert self._command.startswith((b"SELECT", b"UID FETCH"))
            assert not set(uids) & set(self.numbers), "it is still numbered"
            return
        for uid in uids:
            del self.numbers[self._place(uid)]

    def _place(self, uid: int) -> int:
        """Return where a message is that the client must know of."""
        if uid in self.numbers:
            return self.numbers.index(uid)
        below = [n for n, known in enumerate(self.numbers) if known and known < uid]
        at = below[-1] + 1 if below else 0
        assert at < len(self.numbers) and self.numbers[at] is None, (uid, self.numbers)
        return at

    def _hear_fetch(self, seq: int, line: bytes) -> None:
        self._number()
        uid = _number_of(rb"\bUID (\d+)", line)
        mod_seq = _number_of(rb"\bMODSEQ \((\d+)\)", line)
        assert uid is not None, line
        assert 1 <= seq <= len(self.numbers), (seq, self.numbers)
        assert self.numbers[seq - 1] in (None, uid), (seq, uid, self.numbers)
        self.numbers[seq - 1] = uid
        known = [n for n in self.numbers if n is not None]
        assert known == sorted(set(known)), known
        self._seen = max(self._seen, mod_seq or 0)
        copy = self.copy
        asks_for_new = self._command.startswith(b"UID FETCH %d:*" % copy.uid_next)
        if uid >= copy.uid_next and (self._grown or not asks_for_new):
            return  # of a message that it will ask for
        if found := re.search(rb"\bFLAGS \(([^)]*)\)", line):
            self._told.add(uid)
            flags = frozenset(found[1].lower().split()) - {b"\\recent"}
            assert flags <= self._keywords, (flags, self._keywords)
            copy.flags[uid] = flags
            if copy.uid_next <= uid:
                self._command = self._command.replace(
                    b"%d:*" % copy.uid_next, b"%d:*" % (uid + 1)
                )
                copy.uid_next = uid + 1
        if mod_seq is not None:
            assert mod_seq > 0
            self._stamped.add(uid)
            copy.unstamped.discard(uid)  # late, as after the loss of the index
            copy.mod_seqs[uid] = mod_seq

    # What the client does

    def _open(self, mailbox: bytes, known: int) -> Steps:
        self.mailbox = mailbox
        copy = self.copies.get(mailbox)
        if copy is None or not copy.mod_seq:  # cut off before it knew all
            copy = self.copies[mailbox] = Copy()
        self.synchronised = self._numbered = False
        self._exists = -1
        self.numbers = []
        if self.kind is not Kind.CONDSTORE and not self._enabled:
            yield b"ENABLE QRESYNC"
            self._enabled = True
        parameter = b"CONDSTORE"
        if self.kind is Kind.SELECT and copy.mod_seq:
            parameter = b"QRESYNC (%d %d%b)" % (
                copy.uid_validity,
                copy.mod_seq,
                self._known(copy, known),
            )
        reply = yield b"SELECT %b (%b)" % (mailbox, parameter)
        if not reply.startswith(b"T OK"):
            self.mailbox = b""
            return
        self._number()
        copy = self.copy  # perhaps another one, with a new UIDVALIDITY
        if self.kind is not Kind.SELECT and copy.mod_seq and copy.uid_next > 1:
            vanished = b" VANISHED" * (self.kind is Kind.VANISHED)
            yield b"UID FETCH 1:%d (FLAGS) (CHANGEDSINCE %d%b)" % (
                copy.uid_next - 1,
                copy.mod_seq,
                vanished,
            )
            if self.kind is Kind.CONDSTORE:
                yield from self._drop_what_is_gone()
        yield from self.fetch_new()
        self.synchronised = True
        self.copy.mod_seq = self._goal

    def _known(self, copy: Copy, known: int) -> bytes:
        uids = sorted(copy.flags)
        match known % 4:
            case 1 if copy.uid_next > 1:
                return b" 1:%d" % (copy.uid_next - 1)
            case 2 if uids:
                return b" %b" % format.uid_set(uids)
            case 3 if uids:
                some = range(0, len(uids), 2)
                return b" 1:%d (%b %b)" % (
                    copy.uid_next - 1,
                    b",".join(b"%d" % (n + 1) for n in some),
                    b",".join(b"%d" % uids[n] for n in some),
                )
        return b""

    def _drop_what_is_gone(self) -> Steps:
        before = {uid for uid in self.copy.flags if uid < self.copy.uid_next}
        yield b"FETCH 1:* (UID)"
        self.copy.drop(before.difference(self.numbers))

    def fetch_new(self) -> Steps:
        """Ask for the messages that came since."""
        while True:
            yield b"UID FETCH %d:* (FLAGS)" % self.copy.uid_next
            if not self._grown:
                return

    def store(self, uid: int, item: bytes, *, unchanged_since: bool) -> Steps:
        """STORE; of an UNCHANGEDSINCE that fails nothing is known but the reply."""
        condition = b""
        if unchanged_since and uid in self.copy.mod_seqs:
            since = self.copy.mod_seqs[uid] - (uid % 2)  # or too low
            condition = b" (UNCHANGEDSINCE %d)" % since
        before = self.copy.flags.get(uid)
        reply = yield b"UID STORE %d%b %b" % (uid, condition, item)
        told, stamped = self._told, self._stamped
        if b"[MODIFIED " in reply:
            assert uid in told
            return
        if b".SILENT" not in item or not reply.startswith(b"T OK"):
            return
        if before is None or uid not in self.copy.flags:
            return
        after = applied(before, item)
        # RFC 7162 section 3.1.3; but not of a message that is gone.
        if (condition or after != before) and uid not in stamped:
            self.copy.unstamped.add(uid)
        # RFC 3501 section 6.4.6: the client works it out, unless it was told.
        if uid not in told:
            self.copy.flags[uid] = after

    def look_back(self, since: int) -> Steps:
        """Ask what has changed, while the session is told of it anyway."""
        vanished = b" VANISHED" * (self.kind is not Kind.CONDSTORE)
        yield b"UID FETCH 1:%d (FLAGS) (CHANGEDSINCE %d%b)" % (
            self.copy.uid_next - 1,
            since,
            vanished,
        )

    def commands(self, *commands: bytes) -> Steps:
        for command in commands:
            if not (yield command).startswith(b"T OK"):
                return

    def idle(self) -> Steps:
        self.idles = True
        yield b"IDLE"

    def close(self) -> Steps:
        """CLOSE expunges unheard, so the copy is of the state before."""
        mailbox = self.mailbox
        self.synchronised = False
        yield b"CLOSE"
        self.mailbox = b""
        yield from self._open(mailbox, 0)


def applied(flags: frozenset[bytes], item: bytes) -> frozenset[bytes]:
    name, _, value = item.partition(b" ")
    given = frozenset(value.lower().strip(b"()").split())
    if name.startswith(b"+"):
        return flags | given
    if name.startswith(b"-"):
        return flags - given
    return given


def _uids(text: bytes) -> list[int]:
    uids: list[int] = []
    for part in text.split(b","):
        first, _, last = part.partition(b":")
        uids += range(int(first), int(last or first) + 1)
    return uids


def _number_of(pattern: bytes, line: bytes) -> int | None:
    found = re.search(pattern, line)
    return int(found[1]) if found else None
