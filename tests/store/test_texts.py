"""Text search: what the index of texts answers is what a look into each file finds."""

import os
import sqlite3
import tempfile
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.charset import fold
from mailsrv.mime.structure import parse
from mailsrv.mime.text import texts
from mailsrv.store import texts as module
from mailsrv.store.account import AccountStore
from mailsrv.store.texts import MAX_CHARACTERS, Matches, can_index, text_of
from mailsrv.store.values import UID
from tests.store.account_fixture import Office

T = TypeVar("T")

UTF8 = b"Content-Type: text/plain; charset=utf-8\n\n"
MIXED = (
    b"Subject: outer\nContent-Type: multipart/mixed; boundary=b\n\n"
    b"--b\n\nfirst\n--b\nContent-Type: message/rfc822\n\n"
    b"Subject: inner\n\nlast\n--b--\n"
)


def run(generator: Generator[None, None, T]) -> T:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            # Any: the value of a StopIteration.
            value: T = stop.value
            return value


def index(store: AccountStore) -> None:
    after, more = 0, True
    while more:
        after, more = run(store.index_texts(after))


class Search:
    """One mailbox, asked through the index and by reading every file."""

    def __init__(self, store: AccountStore, mailbox: str = "INBOX") -> None:
        self._store = store
        self._mailbox = mailbox

    def uids(self) -> set[UID]:
        return {UID(uid) for uid in self._store.open(self._mailbox).uids}

    def ask(self, text: str, *, header: bool = True) -> Matches:
        return run(
            self._store.search_text(
                self._mailbox, self.uids(), fold(text), header=header
            )
        )

    def known(self, text: str, *, header: bool = True) -> set[UID] | None:
        """Return what holds `text` if no file has to be read for it, else None."""
        matches = self.ask(text, header=header)
        return None if matches.unknown else matches.found

    def in_files(self, text: str, *, header: bool = True) -> set[UID]:
        found = set()
        for uid in self.uids():
            with self._store.open_message(self._mailbox, uid) as file:
                windows = texts(file.structure(), file.read, header=header)
                if any(fold(text) in fold(window) for window in windows):
                    found.add(uid)
        return found

    def agrees(self, text: str, *, header: bool) -> bool:
        matches = self.ask(text, header=header)
        truth = self.in_files(text, header=header)
        return matches.found == truth - matches.unknown


class TextTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = Office(Path(self.mktemp()))
        self.store = self.office.store
        self.search = Search(self.store)
        self.file = self.office.root / "search.sqlite"

    def kept(self) -> int:
        """Return how many texts the file has, after a check of all of it."""
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute(
                "INSERT INTO trigram (trigram) VALUES ('integrity-check')"
            )
            rows = connection.execute("SELECT count(*) FROM document").fetchone()
        return int(rows[0])

    def test_what_is_not_taken_up_is_unknown(self) -> None:
        self.office.receive(b"Subject: a\n\nneedle\n")
        self.assertEqual(self.search.ask("needle"), Matches(set(), {UID(1)}))
        index(self.store)
        self.office.receive(b"Subject: b\n\nneedle\n")
        self.assertEqual(self.search.ask("needle"), Matches({UID(1)}, {UID(2)}))

    def test_terms(self) -> None:
        self.office.receive("Subject: Grüße\n\nthe e\u0301\n".encode())
        self.office.receive(UTF8 + "Straße ﬁne \U0001f600yz 日本語 İ\n".encode())
        self.office.receive(MIXED)
        index(self.store)
        for term, header, found in (
            ("GRÜSSE", True, {1}),
            ("grüße", False, set()),
            ("STRASSE", True, {2}),
            ("fine", True, {2}),
            ("\U0001f600yz", True, {2}),
            ("yz", False, {2}),
            ("日本語", True, {2}),
            ("語", True, {2}),
            ("日本", False, {2}),
            ("first last", True, set()),
            ("first", False, {3}),
            ("subject: inner", False, {3}),
            ("outer first", True, set()),
            ("r", False, {2, 3}),
            ('"', True, set()),
            ('" OR a*', True, set()),
            ("", False, {1, 2, 3}),
        ):
            for uid in found:
                self.assertIn(uid, self.search.in_files(term, header=header), term)
            self.assertEqual(self.search.known(term, header=header), found, term)

    def test_copies_and_moves_cost_nothing(self) -> None:
        self.office.receive(b"\nneedle\n")
        index(self.store)
        self.store.copy("INBOX", [1], "Archive")
        self.store.move("INBOX", [1], "Trash")
        for mailbox, found in (("INBOX", set()), ("Archive", {1}), ("Trash", {1})):
            self.assertEqual(Search(self.store, mailbox).known("needle"), found)
        self.assertEqual(self.kept(), 1)

    def test_expunged_messages_are_not_found_and_dropped_later(self) -> None:
        for word in (b"one", b"two", b"needle"):
            self.office.receive(b"\n" + word + b"\n")
        index(self.store)
        self.store.expunge("INBOX", [3], only_deleted=False)
        self.assertEqual(self.search.known("needle"), set())
        self.assertEqual(self.kept(), 3)
        index(self.store)
        self.assertEqual(self.kept(), 2)
        self.assertEqual(self.search.known("two"), {2})

    def test_a_lost_or_damaged_file_is_made_anew(self) -> None:
        self.office.receive(b"\nneedle\n")
        index(self.store)
        octets = self.file.read_bytes()
        pieces = (b"", b"x" * 4096, octets[:20_000] + b"\xff" * (len(octets) - 20_000))
        for damage in pieces:
            self.store.close()
            for suffix in ("-wal", "-shm"):
                Path(f"{self.file}{suffix}").unlink(missing_ok=True)
            self.file.write_bytes(damage)
            try:
                self.assertTrue(self.search.agrees("needle", header=True))
            except Exception:  # found damaged at work: asked again
                self.assertTrue(self.search.agrees("needle", header=True))
            index(self.store)
            self.assertEqual(self.search.known("needle"), {1})
            self.assertEqual(self.kept(), 1)

    def test_a_file_of_another_version_is_made_anew(self) -> None:
        self.office.receive(b"\nneedle\n")
        index(self.store)
        self.store.close()
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("PRAGMA user_version=1")
        self.assertEqual(self.search.ask("needle").unknown, {1})
        index(self.store)
        self.assertEqual(self.search.known("needle"), {1})

    def test_a_lost_index_makes_nothing_wrong(self) -> None:
        for word in (b"one", b"two", b"three"):
            self.office.receive(b"\n" + word + b"\n")
        index(self.store)
        old = self.office.root / "index.sqlite"
        kept = old.read_bytes()
        old.unlink()
        self.office.receive(b"\nfour\n")
        inode = self.file.stat().st_ino
        with open(self.file, "rb"):  # or its inode could be that of the new one
            index(self.store)
            self.assertNotEqual(self.file.stat().st_ino, inode)
        self.assertEqual(self.search.known("four"), {4})
        self.assertEqual(self.kept(), 4)
        # An older one that is put back gives out no number a second time.
        self.store.close()
        old.unlink()
        old.write_bytes(kept)
        self.office.receive(b"\nfive\n")
        for term in ("one", "four", "five"):
            self.assertTrue(self.search.agrees(term, header=False), term)

    def test_a_full_disk_leaves_the_files(self) -> None:
        self.office.receive(b"\nneedle\n")
        self.file.mkdir()
        self.assertEqual(self.search.ask("needle"), Matches(set(), {UID(1)}))

    def test_long_texts_are_kept_in_part(self) -> None:
        body = b"first\n" + b"xyz " * (MAX_CHARACTERS // 4) + b"\nlast\n"
        self.office.receive(b"Subject: long\n\n" + body)
        self.office.receive(b"Subject: short\n\nlast\n")
        index(self.store)
        self.assertEqual(self.search.ask("first"), Matches({UID(1)}, set()))
        self.assertEqual(self.search.ask("last"), Matches({UID(2)}, {UID(1)}))
        self.assertLess(len(self.file.read_bytes()), 10 * MAX_CHARACTERS)

    def test_a_message_that_cannot_be_read_is_passed_over(self) -> None:
        self.office.receive(b"\none\n")
        self.office.receive(b"\ntwo\n")
        (path, _) = self.office.files("new")
        os.unlink(os.fsencode(self.office.maildir / "new") + b"/" + path)
        index(self.store)
        self.assertEqual(self.kept(), 1)

    def test_many_messages_in_steps(self) -> None:
        for number in range(module.COMPARED // 100 + 70):
            self.office.receive(b"\nneedle %d\n" % number)
        after, more, steps = 0, True, 0
        while more:
            before = after
            after, more = run(self.store.index_texts(after))
            self.assertGreater(after, before)
            steps += 1
        self.assertEqual(steps, 3)
        self.assertEqual(run(self.store.index_texts(after)), (after, False))
        self.assertEqual(self.search.known("needle"), self.search.uids())
        self.store.expunge("INBOX", list(self.search.uids()), only_deleted=False)
        index(self.store)
        self.assertEqual(self.kept(), 0)

    def test_a_file_that_was_deleted_is_filled_again(self) -> None:
        # Not only with what comes from now on.
        for number in range(3):
            self.office.receive(b"\nneedle %d\n" % number)
        after, _ = run(self.store.index_texts(0))
        for content in (None, b"no SQLite" * 1000):
            self.file.unlink()
            if content is not None:
                self.file.write_bytes(content)
            self.assertIsNone(self.search.known("needle"))
            self.assertEqual(run(self.store.index_texts(after)), (after, False))
            self.assertEqual(self.kept(), 3)
            self.assertEqual(self.search.known("needle"), self.search.uids())

    def test_without_fts5_the_files_are_read(self) -> None:
        self.office.receive(b"\nneedle\n")
        self.patch(can_index, "__wrapped__", None)
        self.assertTrue(can_index())
        self.patch(module, "can_index", lambda: False)
        self.assertEqual(self.search.ask("needle"), Matches(set(), {UID(1)}))

    def test_what_utf8_cannot_hold(self) -> None:
        head = b"Content-Type: text/plain; charset=utf-7\n\n"
        self.office.receive(head + b"ab+2AA-cd x\0y\n")
        index(self.store)
        for term in ("cd", "ab?", "ab\ufffd", "x y", "xy", "bcd"):
            self.assertTrue(self.search.agrees(term, header=True), term)
        self.assertEqual(self.search.ask("x\0y").unknown, {1})


PIECES = [
    "Straße",
    "STRASSE",
    "ﬁ",
    "İi",
    "\U0001d4b3y",
    "\U0001f600",
    "日本語",
    "e\u0301",
    "\u1e9e",
    " ",
    "\n",
    "\u00a0",
    "ab",
    "aab",
    "c",
    '"',
    "\0",
    "\ufffd",
    "\uffff",
    "\u0345",
]
words = st.lists(st.sampled_from(PIECES), max_size=8).map("".join)


def message(subject: str, one: str, two: str) -> bytes:
    return (
        f"Subject: {subject}\nContent-Type: multipart/mixed; boundary=b\n\n"
        f"--b\nContent-Type: text/plain; charset=utf-8\n\n{one}\n"
        f"--b\nContent-Type: text/html; charset=utf-8\n\n<p>{two}\n--b--\n"
    ).encode()


events = st.lists(
    st.tuples(st.just("receive"), st.builds(message, words, words, words))
    | st.tuples(
        st.sampled_from(["index", "step", "expunge", "copy", "move", "delete"]),
        st.just(b""),
    ),
    min_size=3,
    max_size=12,
)


class ModelTests(SynchronousTestCase):
    @settings(max_examples=25, deadline=None)
    @given(events, st.lists(words, min_size=1, max_size=4))
    def test_index_and_files_agree(
        self, happenings: list[tuple[str, bytes]], terms: list[str]
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            office = Office(Path(folder))
            store = office.store
            inbox, archive = Search(store), Search(store, "Archive")
            for what, content in happenings:
                uids = sorted(inbox.uids())[:1]
                if what == "receive":
                    office.receive(content)
                elif what == "index":
                    index(store)
                elif what == "step":
                    run(store.index_texts(0))
                elif what == "expunge":
                    store.expunge("INBOX", uids, only_deleted=False)
                elif what == "delete":
                    (office.root / "search.sqlite").unlink(missing_ok=True)
                elif what == "copy":
                    store.copy("INBOX", uids, "Archive")
                else:
                    store.move("INBOX", uids, "Archive")
            for search in (inbox, archive):
                for term in [*terms, "ab", "c", "sse", "strasse", "i\u0307", "日本語"]:
                    for header in (True, False):
                        if fold(term):
                            self.assertTrue(
                                search.agrees(term, header=header), (term, header)
                            )
            store.close()

    @settings(max_examples=50, deadline=None)
    @given(words, words, words)
    def test_kept_text_is_utf8_without_nul(self, a: str, b: str, c: str) -> None:
        content = message(a, b, c)
        text = text_of(parse(content), lambda start, n: content[start : start + n])
        self.assertTrue(text.whole)
        self.assertNotIn("\0", text.octets.decode())
        self.assertEqual(text.octets[text.body_at - 1 : text.body_at], b"\n")
