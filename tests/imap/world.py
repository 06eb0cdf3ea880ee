"""Clients that keep copies, at two processes over one Maildir, and other programs.

What the copies must come to is read from the Maildir's files alone.
"""

import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.server import ImapFactory
from mailsrv.store import index
from tests.imap.mirror import MESSAGE, Kind, Mirror
from tests.imap.office import Client
from tests.mailboxes.office import Office
from tests.mailboxes.twin import TwinPool

MAILBOXES = (b"INBOX", b"Archive")
ITEMS = (
    b"+FLAGS (\\Seen)",
    b"-FLAGS (\\Seen)",
    b"+FLAGS.SILENT (\\Flagged $kw)",
    b"-FLAGS.SILENT (\\Flagged)",
    b"FLAGS (\\Answered \\Deleted)",
    b"FLAGS.SILENT ($kw)",
    b"+FLAGS.SILENT (\\Deleted)",
    b"FLAGS ()",
    b"+FLAGS.SILENT ($late)",
    b"+FLAGS ($later $last)",
)
_LETTERS = {
    "S": b"\\seen",
    "R": b"\\answered",
    "F": b"\\flagged",
    "T": b"\\deleted",
    "D": b"\\draft",
}

Step = tuple[str, int, int]
"""What happens, to which client, and a number that settles the rest."""


class World:
    """`run` takes steps; `check` compares each copy with the files."""

    def __init__(
        self,
        test: SynchronousTestCase,
        root: Path,
        clock: Clock,
        factory: Callable[[Office], ImapFactory],
    ) -> None:
        self.test = test
        self.root = root
        self.clock = clock
        self.factory = factory
        self.offices = [Office(test, root, clock), Office(test, root, clock)]
        self.factories = [factory(office) for office in self.offices]
        kinds = (Kind.SELECT, Kind.SELECT, Kind.VANISHED, Kind.CONDSTORE)
        self.mirrors = [
            Mirror(kind, partial(self.connect, n % 2)) for n, kind in enumerate(kinds)
        ]
        self.dropped = 0
        self.mirrors[0].open(b"INBOX")
        for _ in range(5):
            self.append(self.mirrors[0], 0)

    def connect(self, process: int) -> Client:
        client = Client(self.factories[process])
        answer = client.send(b"0 LOGIN anna secret\r\n")
        assert b"0 OK" in answer, answer
        return client

    @property
    def maildir(self) -> Path:
        return self.root / "anna@example.test" / "Maildir"

    def directory(self, mailbox: bytes) -> Path:
        return self.maildir if mailbox == b"INBOX" else self.maildir / ".Archive"

    def run(self, steps: Sequence[Step]) -> None:
        for name, who, value in steps:
            mirror = self.mirrors[who % len(self.mirrors)]
            mirror.log.append(f"-- {name} {value}")
            if name in _ALONE:
                _ALONE[name](self, value)
            elif name in _ALWAYS:
                _ALWAYS[name](mirror, value)
            else:
                mirror.done()
                if not mirror.busy and not mirror.mailbox:
                    mirror.open(MAILBOXES[value % 2], value // 2)
                if not mirror.busy and mirror.mailbox:
                    _COMMANDS[name](self, mirror, value)
            for other in self.mirrors:
                other.listen()

    def end(self) -> None:
        for mirror in self.mirrors:
            mirror.lose()
        for office in self.offices:
            office.stop()

    def check(self) -> None:
        """Let all come to rest, then compare."""
        for mirror in self.mirrors:
            mirror.cut(None)
        self.settle()
        for mailbox in MAILBOXES:
            for mirror in self.mirrors:
                mirror.done()
                if mirror.mailbox != mailbox:
                    mirror.open(mailbox, 3)
            for _ in range(2):  # what one process finds, the other hears of next
                for office in self.offices:
                    office.ahead_s += 3
                self.each(
                    mailbox, lambda mirror: mirror.begin(mirror.commands(b"NOOP"))
                )
            self.each(mailbox, lambda mirror: mirror.begin(mirror.fetch_new()))
            truth = self.truth(mailbox)
            for n, mirror in enumerate(self.mirrors):
                self.test.assertEqual(
                    mirror.copy.flags, truth, f"{mirror.kind} {n} {mailbox!r}"
                )
                self.test.assertEqual(len(mirror.numbers), len(truth))
                self.test.assertEqual(mirror.copy.unstamped & truth.keys(), set())

    def each(self, mailbox: bytes, do: Callable[[Mirror], None]) -> None:
        for mirror in self.mirrors:
            if mirror.client is None:  # its index was lost, and the server said BYE
                mirror.open(mailbox)
            do(mirror)
            assert not mirror.busy, mirror.log[-5:]

    def truth(self, mailbox: bytes) -> dict[int, frozenset[bytes]]:
        """Read a folder as another program would."""
        folder = self.directory(mailbox)
        uids = self.uids(folder)
        names = {}
        if (folder / "dovecot-keywords").exists():
            for line in (folder / "dovecot-keywords").read_text().splitlines():
                place, _, name = line.partition(" ")
                names[chr(ord("a") + int(place))] = name.lower().encode()
        letters = _LETTERS | names
        return {
            uids[base]: frozenset(letters[letter] for letter in info)
            for sub in ("cur", "new")
            for base, _, info in (
                name.partition(":2,") for name in os.listdir(folder / sub)
            )
        }

    def uids(self, folder: Path) -> dict[str, int]:
        """Read the UIDs by base name."""
        uids: dict[str, int] = {}
        for line in (folder / "dovecot-uidlist").read_text().splitlines()[1:]:
            uids[line.partition(" :")[2]] = int(line.split(" ")[0])
        return uids

    def settle(self) -> None:
        """Let all jobs run to their end."""
        pools = [pool for office in self.offices for pool in pools_of(office)]
        for _ in range(1000):
            for pool in pools:
                # Held, so that a job's result is heard of before the next one's.
                pool.held = True
            while any([pool.release() for pool in pools]):
                pass
            for pool in pools:
                pool.held = False
            self.clock.advance(0.05)
            for mirror in self.mirrors:
                mirror.listen()
            if not any(m.busy and not m.idles for m in self.mirrors):
                return
        raise AssertionError("a command does not end")

    # What clients do

    def append(self, mirror: Mirror, value: int) -> None:
        mailbox = MAILBOXES[value % 3 == 2]
        flags = b" (\\Seen $kw)" * (value % 2)
        command = b"APPEND %b%b {%d+}\r\n%b" % (mailbox, flags, len(MESSAGE), MESSAGE)
        mirror.begin(mirror.commands(command))

    def store(self, mirror: Mirror, value: int) -> None:
        if uids := sorted(mirror.copy.flags):
            uid = uids[value % len(uids)]
            item = ITEMS[value // 7 % len(ITEMS)]
            condition = value % 3 == 0
            mirror.begin(mirror.store(uid, item, unchanged_since=condition))

    def race(self, mirror: Mirror, value: int) -> None:
        """Store silently what another program has just flagged as well."""
        folder = self.directory(mirror.mailbox)
        uids = self.uids(folder)
        for name in sorted(os.listdir(folder / "cur"))[value % 3 :: 3]:
            base, _, letters = name.partition(":2,")
            if uids.get(base) in mirror.copy.flags:
                letters = "".join(sorted(set(letters) ^ {"R"}))
                os.rename(folder / "cur" / name, folder / "cur" / f"{base}:2,{letters}")
                item = (b"+FLAGS.SILENT", b"-FLAGS.SILENT")[value % 2] + b" (\\Seen)"
                mirror.begin(mirror.store(uids[base], item, unchanged_since=False))
                return

    def look_back(self, mirror: Mirror, value: int) -> None:
        if mirror.synchronised and mirror.copy.uid_next > 1:
            since = (mirror.copy.mod_seq, mirror.copy.mod_seq - 5, 1)[value % 3]
            mirror.begin(mirror.look_back(since))

    def store_many(self, mirror: Mirror, value: int) -> None:
        if mirror.numbers:
            some = b"1:%d" % (value % len(mirror.numbers) + 1)
            item = (b"+FLAGS", b"-FLAGS")[value % 2] + b" (\\Flagged)"
            mirror.begin(mirror.commands(b"STORE %b %b" % (some, item)))

    def expunge(self, mirror: Mirror, value: int) -> None:
        uids = sorted(mirror.copy.flags)
        some = b",".join(b"%d" % uid for uid in uids[value % 3 :: 3]) or b"1"
        delete = b"UID STORE %b +FLAGS (\\Deleted)" % some
        if value % 2:
            mirror.begin(mirror.commands(delete, b"EXPUNGE"))
        else:
            mirror.begin(mirror.commands(delete, b"UID EXPUNGE %b" % some))

    def transfer(self, mirror: Mirror, value: int) -> None:
        uids = sorted(mirror.copy.flags)[value % 2 :: 2][:3]
        if uids:
            other = MAILBOXES[mirror.mailbox == b"INBOX"]
            name = (b"COPY", b"MOVE")[value // 2 % 2]
            some = b",".join(b"%d" % uid for uid in uids)
            mirror.begin(mirror.commands(b"UID %b %b %b" % (name, some, other)))

    def read(self, mirror: Mirror, value: int) -> None:
        if uids := sorted(mirror.copy.flags):
            uid = uids[value % len(uids)]
            mirror.begin(mirror.commands(b"UID FETCH %d BODY[TEXT]" % uid))

    def look(self, mirror: Mirror, value: int) -> None:
        command = (b"NOOP", b"STATUS Archive (HIGHESTMODSEQ MESSAGES)", b"CHECK")
        mirror.begin(mirror.commands(command[value % 3]))

    def fetch_new(self, mirror: Mirror, _: int) -> None:
        mirror.begin(mirror.fetch_new())

    def fetch_all(self, mirror: Mirror, value: int) -> None:
        if mirror.numbers:
            item = (b"(UID FLAGS)", b"(UID FLAGS MODSEQ)")[value % 2]
            mirror.begin(mirror.commands(b"FETCH 1:* %b" % item))

    def idle(self, mirror: Mirror, _: int) -> None:
        mirror.begin(mirror.idle())

    def close(self, mirror: Mirror, _: int) -> None:
        mirror.begin(mirror.close())

    def switch(self, mirror: Mirror, value: int) -> None:
        mirror.open(MAILBOXES[value % 2], value // 2)

    # What happens around them

    def meet(self, value: int) -> None:
        """All who have nothing else to do look at one mailbox."""
        for mirror in self.mirrors:
            mirror.done()
            if not mirror.busy and mirror.mailbox != MAILBOXES[value % 2]:
                mirror.open(MAILBOXES[value % 2], value // 2)

    def hold(self, value: int) -> None:
        """Let jobs wait, until `release` or `settle`."""
        writers, readers = pools_of(self.offices[value % 2])
        writers.held |= value % 3 != 1
        readers.held |= value % 3 != 2

    def release(self, value: int) -> None:
        pools_of(self.offices[value % 2])[value % 3 == 1].release()
        self.clock.advance(0.05 * (value % 5 == 0))

    def restart(self, value: int) -> None:
        """A process ends and begins again; perhaps its index is thrown away."""
        self.settle()
        process = value % 2
        for mirror in self.mirrors[process::2]:
            mirror.lose()
        self.offices[process].stop()
        ahead_s = self.offices[process].ahead_s
        self.offices[process] = Office(self.test, self.root, self.clock)
        self.offices[process].ahead_s = ahead_s
        self.factories[process] = self.factory(self.offices[process])
        if value % 5 == 0:
            self.lose_index(value)

    def lose_index(self, _: int) -> None:
        index.discard(str(self.root / "anna@example.test" / "index.sqlite"))

    def outsider(self, value: int) -> None:
        """Another program drops, flags or removes a message."""
        folder = self.directory(MAILBOXES[value % 3 == 2])
        found = sorted(os.listdir(folder / "cur")) if folder.exists() else []
        if value % 4 == 0 or not found:
            self.dropped += 1
            name = f"{int(time.time())}.M{self.dropped}P1.outside"
            (self.maildir / "tmp" / name).write_bytes(b"Subject: y\n\nx\n")
            os.rename(self.maildir / "tmp" / name, self.maildir / "new" / name)
            return
        name = found[value % len(found)]
        if value % 4 == 1:
            os.unlink(folder / "cur" / name)
            return
        base, _, letters = name.partition(":2,")
        letters = "".join(sorted(set(letters) ^ {"F" if value % 4 == 2 else "S"}))
        os.rename(folder / "cur" / name, folder / "cur" / f"{base}:2,{letters}")
        for office in self.offices:
            office.ahead_s += 3


def pools_of(office: Office) -> tuple[TwinPool, TwinPool]:
    """Return the pools of writers and of readers."""
    readers = office.threads.read
    assert isinstance(readers, TwinPool)
    return office.threads.writers, readers


_COMMANDS: dict[str, Callable[[World, Mirror, int], None]] = {
    "append": World.append,
    "store": World.store,
    "store_many": World.store_many,
    "race": World.race,
    "look_back": World.look_back,
    "expunge": World.expunge,
    "transfer": World.transfer,
    "read": World.read,
    "look": World.look,
    "fetch_new": World.fetch_new,
    "fetch_all": World.fetch_all,
    "idle": World.idle,
    "close": World.close,
    "switch": World.switch,
}


def go_astray(mirror: Mirror) -> None:
    mirror.lose()
    for copy in mirror.copies.values():
        if copy.mod_seq:
            copy.go_astray()


_ALWAYS: dict[str, Callable[[Mirror, int], None]] = {
    "astray": lambda mirror, _: go_astray(mirror),
    "lose": lambda mirror, _: mirror.lose(),
    "cut": lambda mirror, value: mirror.cut(value % 700) if mirror.client else None,
}
_ALONE: dict[str, Callable[[World, int], None]] = {
    "meet": World.meet,
    "hold": World.hold,
    "release": World.release,
    "restart": World.restart,
    "lose_index": World.lose_index,
    "outsider": World.outsider,
    "check": lambda world, _: world.check(),
}
# Those that tell most about resynchronising come most often.
STEPS = (
    *_COMMANDS,
    *("append", "store", "store", "expunge", "expunge", "transfer", "look"),
    *("lose", "cut", "cut", "cut", "hold", "release", "release"),
    *("restart", "lose_index", "outsider", "astray", "look_back", "race"),
    *("meet", "meet", "meet"),
)
