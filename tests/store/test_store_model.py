"""The store against a simple model, with other programs at work between steps."""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store import maildir
from mailsrv.store.flags import Operation
from mailsrv.store.maildir import Entry
from mailsrv.store.uidlist import Uidlist
from mailsrv.store.values import DELETED, FLAGGED, SEEN, Changes, Delivered
from tests.store.account_fixture import Office

MAILBOXES = ("INBOX", "Trash")
LETTERS = {"": 0, "S": SEEN, "F": FLAGGED, "T": DELETED, "FS": FLAGGED | SEEN}
FLAG_NAMES = {"\\Seen": SEEN, "\\Flagged": FLAGGED, "\\Deleted": DELETED}
OPERATIONS: tuple[Operation, ...] = ("+", "-", "=")

mailboxes = st.sampled_from(MAILBOXES)
some = st.integers(0, 1000)


class View:
    """What a session would know: built from changes alone."""

    def __init__(self, office: Office, mailbox: str) -> None:
        self.office = office
        self.mailbox = mailbox
        self.flags: dict[int, int] = {}
        self.uid_validity = 0
        self.uid_next = 0
        self.reopen()

    def reopen(self) -> None:
        state = self.office.store.open(self.mailbox)
        assert list(state.uids) == sorted(set(state.uids))
        assert all(mod_seq <= state.highest_mod_seq for mod_seq in state.mod_seqs)
        assert self.uid_validity in (0, state.uid_validity)
        assert state.uid_next >= self.uid_next
        fresh = [uid for uid in state.uids if uid not in self.flags]
        assert all(uid >= self.uid_next for uid in fresh), "an old UID came back"
        self.uid_validity, self.uid_next = state.uid_validity, state.uid_next
        self.flags = dict(zip(state.uids, state.flags, strict=True))

    def apply(self, changes: Changes) -> None:
        assert changes.mailbox == self.mailbox
        assert changes.uid_validity == self.uid_validity
        if changes.rebuilt:
            self.reopen()
            return
        for uid, flags, mod_seq in changes.added:
            assert uid >= self.uid_next, "added out of order"
            assert mod_seq <= changes.highest_mod_seq
            self.flags[uid] = flags
        for uid, flags, _ in changes.flagged:
            assert uid in self.flags
            self.flags[uid] = flags
        for uid in changes.expunged:
            del self.flags[uid]
        self.uid_next = changes.uid_next


class StoreMachine(RuleBasedStateMachine):
    """Two mailboxes. The model: base name -> what the message says, its flags."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="store-model-")
        self.office = Office(Path(self.folder) / "mail")
        self.model: dict[str, dict[bytes, tuple[int, int]]] = {m: {} for m in MAILBOXES}
        self.views = {m: View(self.office, m) for m in MAILBOXES}
        self.waiting: list[Delivered] = []
        self.aside: list[tuple[str, bytes, tuple[int, int]]] = []
        self.number = 0
        # UID -> number of the message: for ever.
        self.seen: dict[str, dict[int, int]] = {m: {} for m in MAILBOXES}

    def teardown(self) -> None:
        if hasattr(self, "office"):
            self.office.connections.close()
            shutil.rmtree(self.folder)

    # Our own server.

    @rule(mailbox=mailboxes, taken_in=st.booleans(), letters=st.sampled_from(["", "S"]))
    def deliver(self, mailbox: str, taken_in: bool, letters: str) -> None:
        flags = LETTERS[letters]
        done = self.office.deliver(self.content(), mailbox, flags)
        self.model[mailbox][done.base] = (self.number, flags)
        if taken_in:
            self.ingest(mailbox, [done])
        elif mailbox == "INBOX":
            self.waiting.append(done)

    @rule()
    def deliver_what_waits(self) -> None:
        self.ingest("INBOX", self.waiting)
        self.waiting = []

    def ingest(self, mailbox: str, delivered: list[Delivered]) -> None:
        self.views[mailbox].apply(self.office.store.ingest(mailbox, delivered))

    @rule(mailbox=mailboxes, force=st.booleans())
    def noop(self, mailbox: str, force: bool) -> None:
        self.views[mailbox].apply(self.office.store.sync(mailbox, force))

    @rule(
        mailbox=mailboxes,
        which=some,
        operation=st.sampled_from(OPERATIONS),
        name=st.sampled_from([*FLAG_NAMES, "Keyword"]),
    )
    def store_flag(
        self, mailbox: str, which: int, operation: Operation, name: str
    ) -> None:
        bit = FLAG_NAMES.get(name, 32)
        if chosen := self.choose(mailbox, which):
            uid, base = chosen
            number, old = self.model[mailbox][base]
            new = {"+": old | bit, "-": old & ~bit, "=": bit}[operation]
            self.model[mailbox][base] = (number, new)
            changes = self.office.store.store_flags(
                mailbox, [uid], operation, [name]
            ).changes
            self.views[mailbox].apply(changes)

    @rule(mailbox=mailboxes)
    def expunge(self, mailbox: str) -> None:
        self.settle(mailbox)
        uids = sorted(self.views[mailbox].flags)
        self.views[mailbox].apply(self.office.store.expunge(mailbox, uids))
        model = self.model[mailbox]
        for base in [b for b, (_, flags) in model.items() if flags & DELETED]:
            del model[base]

    @rule(which=some, moves=st.booleans())
    def transfer(self, which: int, moves: bool) -> None:
        if not (chosen := self.choose("INBOX", which)):
            return
        uid, base = chosen
        before = self.bases("Trash")
        if moves:
            moved = self.office.store.move("INBOX", [uid], "Trash")
            self.views["INBOX"].apply(moved.source)
            self.views["Trash"].apply(moved.target)
            uids = moved.target_uids
        else:
            copied = self.office.store.copy("INBOX", [uid], "Trash")
            self.views["Trash"].apply(copied.target)
            uids = copied.target_uids
        (new_base,) = self.bases("Trash") - before
        assert self.office.store.uids_of("Trash", [new_base]) == list(uids)
        self.model["Trash"][new_base] = self.model["INBOX"][base]
        if moves:
            del self.model["INBOX"][base]

    # Other programs.

    @rule(letters=st.sampled_from(list(LETTERS)), sub=st.sampled_from(["new", "cur"]))
    def another_adds(self, letters: str, sub: str) -> None:
        if sub == "new":
            letters = ""
        base = self.office.names.next()
        name = base + b":2," + letters.encode() if sub == "cur" else base
        self.office.drop(self.content(), name=name, sub=sub)
        self.model["INBOX"][base] = (self.number, LETTERS[letters])

    @rule(mailbox=mailboxes, which=some, letters=st.sampled_from(list(LETTERS)))
    def another_flags(self, mailbox: str, which: int, letters: str) -> None:
        if (path := self.file(mailbox, which)) is not None:
            base = os.path.basename(path).partition(b":")[0]
            cur = os.path.dirname(os.path.dirname(path)) + b"/cur/"
            os.rename(path, cur + base + b":2," + letters.encode())
            number, _ = self.model[mailbox][base]
            self.model[mailbox][base] = (number, LETTERS[letters])

    @rule(mailbox=mailboxes, which=some)
    def another_removes(self, mailbox: str, which: int) -> None:
        if (path := self.file(mailbox, which)) is not None:
            name = os.path.basename(path)
            os.rename(path, os.fsencode(self.folder) + b"/" + name)
            model = self.model[mailbox].pop(name.partition(b":")[0])
            self.aside.append((mailbox, name, model))

    @precondition(lambda self: self.aside)
    @rule(which=some, told=st.booleans())
    def another_puts_back(self, which: int, told: bool) -> None:
        """A file comes back, as from a backup."""
        mailbox, name, model = self.aside.pop(which % len(self.aside))
        if told:
            self.settle(mailbox)
        cur = os.fsencode(self.directory(mailbox) / "cur")
        base = name.partition(b":")[0]
        os.rename(os.fsencode(self.folder) + b"/" + name, cur + b"/" + name)
        self.model[mailbox][base] = model

    @rule()
    def another_gives_uids(self) -> None:
        """Dovecot looks at the INBOX, and lists what it finds."""
        uidlist = Uidlist(self.office.maildir, self.office.maildir)
        with uidlist.lock:
            listed = {record.base for record in uidlist.refresh().records}
            new = self.bases("INBOX") - listed
            uidlist.append([(base, b"") for base in sorted(new)])

    @rule(mailbox=mailboxes)
    def another_writes_the_uidlist_anew(self, mailbox: str) -> None:
        """With the lines of expunged messages, as Dovecot keeps them a while."""
        uidlist = Uidlist(self.directory(mailbox), self.office.maildir)
        with uidlist.lock:
            uidlist.refresh()
            uidlist.drop(())

    @rule()
    def somebody_deletes_the_index(self) -> None:
        # A file that has come back gets a new UID while the index knows the old one.
        # Without it the line in the uidlist counts: the same message and UID again.
        for mailbox in MAILBOXES:
            self.settle(mailbox)
        self.aside.clear()  # what is put back later would be such a file
        for suffix in ("", "-wal", "-shm"):
            path = f"{self.office.root}/index.sqlite{suffix}"
            if os.path.exists(path):
                os.unlink(path)

    @rule()
    def another_process_begins(self) -> None:
        self.office.store = self.office.another()
        for view in self.views.values():
            view.reopen()

    @rule(mailbox=mailboxes)
    def another_process_works(self, mailbox: str) -> None:
        """Its changes reach our views with our own next one."""
        self.office.another().sync(mailbox)

    # What must hold.

    @rule(mailbox=mailboxes)
    def settled(self, mailbox: str) -> None:
        self.settle(mailbox)
        model, view = self.model[mailbox], self.views[mailbox]
        assert self.bases(mailbox) == set(model)
        seen = self.seen[mailbox]
        found: Counter[tuple[int, int]] = Counter()
        for uid, flags in view.flags.items():
            with self.office.store.open_message(mailbox, uid) as file:
                number = int(file.read(0, 1000).rpartition(b" ")[2])
                assert file.size_octets == len(file.read(0, 1000))
            assert seen.setdefault(uid, number) == number, "a UID was reused"
            found[number, flags] += 1
        assert found == Counter(model.values())
        assert list(self.office.store.open(mailbox).uids) == sorted(view.flags)
        sizes = self.office.store.rows(mailbox, sorted(view.flags), ["size_octets"])
        octets = [size for (size,) in sizes.values()]
        status = self.office.store.status(mailbox)
        assert status.messages == len(model)
        assert status.unseen == sum(not flags & SEEN for _, flags in model.values())
        assert status.uid_next > max(seen, default=0)
        assert status.size_octets == sum(map(int, octets))

    @invariant()
    def uids_ascend_in_the_list(self) -> None:
        if not hasattr(self, "office"):
            return
        for mailbox in MAILBOXES:
            lines = (self.directory(mailbox) / "dovecot-uidlist").read_bytes()
            uids = [int(line.split()[0]) for line in lines.splitlines()[1:]]
            assert uids == sorted(set(uids))

    # Means.

    def content(self) -> bytes:
        self.number += 1
        return b"Subject: number\n\nThis is number %d" % self.number

    def directory(self, mailbox: str) -> Path:
        root = self.office.maildir
        return root if mailbox == "INBOX" else root / f".{mailbox}"

    def paths(self, mailbox: str) -> list[bytes]:
        return [
            maildir.path_of(self.directory(mailbox), Entry(name, in_new))
            for sub, in_new in (("new", True), ("cur", False))
            for name in sorted(os.listdir(os.fsencode(self.directory(mailbox) / sub)))
        ]

    def bases(self, mailbox: str) -> set[bytes]:
        paths = self.paths(mailbox)
        return {os.path.basename(path).partition(b":")[0] for path in paths}

    def file(self, mailbox: str, which: int) -> bytes | None:
        paths = self.paths(mailbox)
        return paths[which % len(paths)] if paths else None

    def choose(self, mailbox: str, which: int) -> tuple[int, bytes] | None:
        """Pick a message that the index knows and that is still there."""
        self.views[mailbox].apply(self.office.store.sync(mailbox))
        known = []
        for base in sorted(self.model[mailbox]):
            for uid in self.office.store.uids_of(mailbox, [base]):
                known.append((uid, base))
        return known[which % len(known)] if known else None

    def settle(self, mailbox: str) -> None:
        self.views[mailbox].apply(self.office.settle(mailbox))


class StoreModelTests(SynchronousTestCase):
    def test_store_and_model_agree(self) -> None:
        run_state_machine_as_test(
            StoreMachine,
            settings=settings(
                max_examples=int(os.environ.get("STORE_MODEL_EXAMPLES", "12")),
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
