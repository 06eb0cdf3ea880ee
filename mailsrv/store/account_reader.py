"""One account's store for readers: what may be called from any thread.

What is missing of an index that was deleted, and ready bytes, are made on the way;
nothing else is changed. Methods raise `StoreError`; of these `LockHeld` means that a
living process holds a lock: call again in `retry_s`.
"""

import sqlite3
from collections.abc import Generator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from mailsrv.store import content, folders, names, reading
from mailsrv.store.index import (
    Box,
    Clock,
    Connections,
    expunged_since,
    index_path,
    load_box,
    snapshot,
)
from mailsrv.store.pop3_uidl import Uidl
from mailsrv.store.reading import Located, MessageFile
from mailsrv.store.scanning import Folder
from mailsrv.store.sorting import ThreadRow, sorted_uids, thread_rows
from mailsrv.store.sync import sync
from mailsrv.store.texts import Matches, Text, TextIndex, can_index, text_of
from mailsrv.store.values import (
    UID,
    Criterion,
    MessageGone,
    NoSuchMailbox,
    Row,
)

_ROWS = 2000  # of the index, read in one step
_FILLED = 20  # messages read and made ready in one step
_TEXT_PAGE = 1000  # messages held against search.sqlite at once
_TEXT_MESSAGES = 32  # taken up at once: some 20 ms
_TEXT_OCTETS = 512 * 1024


class AccountReader:
    """The mail of one account, and the full text of it.

    `root` is the account's folder: `Maildir`, `index.sqlite` and `search.sqlite`
    are in it.
    """

    def __init__(
        self,
        root: Path,
        *,
        connections: Connections,
        now: Clock,
    ) -> None:
        self._root = root / "Maildir"
        self._index = index_path(root)
        self._connections = connections
        self._texts = TextIndex(root, connections)
        self._now = now
        self._recovered = False
        self._used: dict[bytes, int] = {}  # sets of header fields: day last noted

    # Messages.

    def fill(self, name: str, uids: Sequence[int], *, only_sizes: bool = False) -> None:
        """Compute the ready bytes of those `uids` that lack them, or a tenth: sizes."""
        make = content.measure if only_sizes else content.fill
        with self._connections.use(self._index, "write") as connection:
            box = load_box(connection, names.canonical(name))
            if box is not None:
                make(
                    connection,
                    names.directory(self._root, name),
                    content.unfilled(connection, box.id, uids),
                )

    def rows(
        self, name: str, uids: Sequence[int], columns: Sequence[str]
    ) -> dict[int, Row]:
        """Return columns of messages by ascending UID; see `reading.COLUMNS`.

        What is missing, ready bytes or sizes, is computed first. A message that is
        expunged and forgotten, or whose file has vanished, is left out.
        """
        with self._read(name) as (connection, box):
            rows = reading.live_rows(connection, box.id, uids, columns)
            if len(rows) < len(uids):
                missing = [uid for uid in uids if uid not in rows]
                only_sizes = not reading.are_ready_bytes(columns)
                self.fill(name, missing, only_sizes=only_sizes)
                for read in (reading.live_rows, reading.expunged_rows):
                    rows |= read(connection, box.id, missing, columns)
                rows = dict(sorted(rows.items()))
        return rows

    def expunged_since(self, name: str, mod_seq: int) -> list[UID] | None:
        """Return what was expunged after `mod_seq`, ascending; None: not known.

        The history reaches back `index.MAX_TOMBSTONES` messages.
        """
        with self._read(name) as (connection, box), snapshot(connection):
            box = load_box(connection, box.name) or box
            if not box.history_floor <= mod_seq <= box.mod_seq:
                return None
            return expunged_since(connection, box, mod_seq)

    def sorted_uids(
        self, name: str, uids: Sequence[int], criteria: Sequence[Criterion]
    ) -> Generator[None, None, list[UID]]:
        """Return `uids` in order, ties by UID; what is gone is left out.

        A generator of short steps, but for the last one: 0.03 s for 10,000
        messages, in which other threads run.
        """
        for again in (False, True):
            if again:
                yield from self._made_ready(name, uids)
            with self._read(name) as (connection, box):
                found = sorted_uids(connection, box.id, uids, criteria)
            if len(found) == len(uids):
                break
        return found

    def thread_rows(
        self, name: str, uids: Sequence[int]
    ) -> Generator[None, None, list[ThreadRow]]:
        """Return what threads are made of, by UID; in short steps."""
        rows: list[ThreadRow] = []
        for start in range(0, len(uids), _ROWS):
            some = uids[start : start + _ROWS]
            for again in (False, True):
                if again:
                    yield from self._made_ready(name, some)
                with self._read(name) as (connection, box):
                    found = thread_rows(connection, box.id, some)
                if len(found) == len(some):
                    break
            rows += found
            yield
        return rows

    def _made_ready(
        self, name: str, uids: Sequence[int]
    ) -> Generator[None, None, None]:
        """Compute what ready bytes are missing, in short steps."""
        directory = names.directory(self._root, name)
        for start in range(0, len(uids), _ROWS):
            with self._read(name) as (connection, box):
                some = uids[start : start + _ROWS]
                missing = content.unfilled(connection, box.id, some)
            yield
            for first in range(0, len(missing), _FILLED):
                with self._connections.use(self._index, "write") as connection:
                    few = missing[first : first + _FILLED]
                    content.fill(connection, directory, few)
                yield

    def header_fields(
        self, name: str, uids: Sequence[int], key: bytes
    ) -> dict[int, bytes]:
        """Return a set of header fields, ready for the wire, by UID.

        `key` is of `content.header_key`. What is absent, see `rows`.
        """
        with self._read(name) as (connection, box):
            found = content.kept_fields(connection, box.id, uids, key)
        missing = [uid for uid in uids if uid not in found]
        day = int(self._now() // 86400)
        if not missing and self._used.get(key) != day:
            with (
                suppress(sqlite3.OperationalError),  # a full disk: it can be read
                self._connections.use(self._index, "write") as connection,
            ):
                content.mark_used(connection, key, day)
            if len(self._used) > content.MAX_HEADER_KEYS:
                self._used.clear()
            self._used[key] = day
        if missing:
            directory = names.directory(self._root, name)
            with self._connections.use(self._index, "write") as connection:
                found |= content.make_fields(
                    connection, directory, box.id, missing, key, day
                )
        return found

    def locate(
        self, name: str, uids: Sequence[int], *, fill: bool = True
    ) -> dict[int, Located]:
        """Look up messages that are to be opened soon; what is absent, see `rows`.

        Many at once: a look-up costs more than it costs to open a file. Not `fill`:
        only octets are wanted, which need no ready bytes.
        """
        directory = names.directory(self._root, name)
        with self._read(name) as (connection, box):
            found = reading.locate(connection, box.id, directory, uids, structures=fill)
            unready = [uid for uid in found if found[uid].structure is None]
            if fill and unready:
                self.fill(name, unready)
                found |= reading.locate(connection, box.id, directory, unready)
        return found

    def open_message(self, name: str, uid: int) -> MessageFile:
        """Open a message's octets. Raises MessageGone."""
        located = self.locate(name, [uid])
        if uid not in located:
            raise MessageGone("the message is gone")
        return located[uid].open()

    def uidls(self, name: str, make: Uidl) -> list[tuple[UID, bytes, int]]:
        """Return UID, UIDL and RFC822.SIZE of all messages in their POP3 order."""
        with self._read(name) as (connection, box):
            if guessed := content.guessed(connection, box.id):
                directory = names.directory(self._root, name)
                with self._connections.use(self._index, "write") as writing:
                    content.measure(writing, directory, guessed)
            return reading.uidls(connection, box, make)

    def settle_sizes(self, name: str) -> Generator[None, None, bool]:
        """Make RFC822.SIZE of all messages exact; return whether any was not."""
        with self._read(name) as (connection, box):
            guessed = content.guessed(connection, box.id)
        directory = names.directory(self._root, name)
        for first in range(0, len(guessed), content.MEASURED_MESSAGES):
            some = guessed[first : first + content.MEASURED_MESSAGES]
            with self._connections.use(self._index, "write") as writing:
                content.measure(writing, directory, some)
            yield
        return bool(guessed)

    # Searching text.

    def search_text(
        self, name: str, uids: AbstractSet[UID], text: str, *, header: bool
    ) -> Generator[None, None, Matches]:
        """Tell which of `uids` hold folded `text`; `header`: there as well.

        A generator of short steps. What is in neither set does not hold it.
        """
        with self._read(name) as (connection, box):
            contents = reading.contents(connection, box.id, uids)
        yield
        return (yield from self._texts.search(contents, text, header=header))

    def index_texts(self, after: int) -> Generator[None, None, tuple[int, bool]]:
        """Take up some texts that search lacks, and drop some of messages gone.

        A generator of short steps: at most one message is read in each.

        Of messages with a content number above `after`, 0 at first. Returns the
        number to go on after, and whether there was more.
        """
        if not can_index():
            return after, False
        if self._texts.is_another():
            after = 0
        with self._connections.use(self._index, "read") as connection:
            there = reading.contents_after(connection, after, _TEXT_PAGE)
        places = {content: (name, uid) for content, name, uid in there}
        if after == 0:
            self._texts.begin(there[0][0] if there else None)
        last = there[-1][0] if len(there) == _TEXT_PAGE else None
        missing, stale = self._texts.compare(places, after, last)
        self._texts.drop(stale[:_TEXT_MESSAGES])
        yield
        texts, reached = yield from self._read_texts(places, missing)
        self._texts.put(texts)
        if len(stale) > _TEXT_MESSAGES:
            return after, True
        if reached is not None:
            return reached, True
        if last is not None:
            return last, True
        return (there[-1][0] if there else after), False

    def _read_texts(
        self, places: Mapping[int, tuple[str, int]], contents: Sequence[int]
    ) -> Generator[None, None, tuple[list[tuple[int, Text]], int | None]]:
        """Read the texts of the first of `contents`.

        Also return the last one that was looked at, unless that was all. A message
        that cannot be read is passed over: searches look into its file.
        """
        first = contents[:_TEXT_MESSAGES]
        uids: dict[str, list[int]] = {}
        for name, uid in map(places.__getitem__, first):
            uids.setdefault(name, []).append(uid)
        located: dict[tuple[str, int], Located] = {}
        for name, some in uids.items():
            with suppress(NoSuchMailbox):
                found = self.locate(name, some)
                located.update(((name, uid), place) for uid, place in found.items())
        texts: list[tuple[int, Text]] = []
        octets = 0
        for number in first:
            if octets >= _TEXT_OCTETS:
                return texts, texts[-1][0]
            if (place := located.get(places[number])) is not None:
                with suppress(MessageGone, OSError), place.open() as file:
                    texts.append((number, text_of(file.structure(), file.read)))
                    octets += len(texts[-1][1].octets)
                yield
        return texts, first[-1] if len(first) < len(contents) else None

    # Inside.

    def close(self) -> None:
        """Close idle connections to this account's index and texts."""
        self._connections.close(self._index)
        self._texts.close()

    @contextmanager
    def _open(self, name: str) -> Iterator[Folder]:
        name = names.canonical(name)
        directory = names.directory(self._root, name)
        with self._connections.use(self._index, "write") as connection:
            folder = Folder(name, directory, self._root, connection, self._now)
            if not self._recovered:
                self._recover(folder)
            yield folder

    @contextmanager
    def _read(self, name: str) -> Iterator[tuple[sqlite3.Connection, Box]]:
        name = names.canonical(name)
        with self._connections.use(self._index, "read") as connection:
            box = load_box(connection, name)
            if box is None:  # the index was deleted since the mailbox was opened
                with self._open(name) as folder:
                    box = sync(folder, move_new=False)
            yield connection, box

    def _also(self, folder: Folder, name: str) -> Folder:
        """Return another mailbox on the same connection."""
        name = names.canonical(name)
        directory = names.directory(self._root, name)
        return replace(folder, name=name, directory=directory)

    def _recover(self, folder: Folder) -> None:
        """Finish what an earlier process left; once for this object.

        A MOVE that was interrupted: both mailboxes learn where the files are.
        """
        folders.empty_trash(self._root)
        for pair in folder.connection.execute(
            "SELECT DISTINCT target, source FROM intent"
        ).fetchall():
            for name in pair:  # the target first: the intent tells it of the ids
                with suppress(NoSuchMailbox):
                    sync(self._also(folder, name), force=True, move_new=False)
        self._recovered = True
