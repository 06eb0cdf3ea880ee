"""The full text of an account's mail: which messages hold a piece of it.

Texts are kept decoded and folded, as SEARCH compares them, with an index of their
trigrams. The index names candidates, their texts tell: what is found is what a look
into each file would find. What is not kept (mail that came just now, the end of a
very long text) is left to the caller, who looks into the files.

One file beside the index, `search.sqlite`, so that its writer never holds the lock
of the flags. It is filled in the background and may be deleted at any time.
"""

import re
import sqlite3
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import lru_cache
from json import dumps
from pathlib import Path

from mailsrv.mime.charset import fold
from mailsrv.mime.structure import Part
from mailsrv.mime.text import WINDOW, Read, body_texts, header_texts
from mailsrv.store.index import Connections, discard, transaction
from mailsrv.store.schema import TEXTS
from mailsrv.store.values import UID

MAX_CHARACTERS = 256 * 1024  # of a message; what is beyond is sought in its file
MAX_TRIGRAMS = 32  # of what is sought: more hardly leave fewer candidates
TRIGRAMS_CHECK = "INSERT INTO trigram (trigram) VALUES ('integrity-check')"
COMPARED = 200  # texts looked at in one step of a search

# No folded text that can be sought holds these; SQLite's text may not.
_UNKEPT = re.compile("[\0\ud800-\udfff]")
# FTS5 reads these as one character: a trigram with one is not exactly that trigram.
_INEXACT = re.compile("[\ufffd-\uffff]")


@dataclass(frozen=True, slots=True)
class Text:
    """A message's text as it is kept: header, a newline, body; in UTF-8."""

    octets: bytes
    body_at: int
    whole: bool


def text_of(root: Part, read: Read) -> Text:
    """Read what is to be kept of a message."""
    header, left = _folded(header_texts(root, read), MAX_CHARACTERS)
    body, left = _folded(body_texts(root, read), left)
    before = header.encode() + b"\n"
    # In so long a header a field may be cut where two windows meet.
    whole = left >= 0 and len(header) < WINDOW
    return Text(before + body.encode(), len(before), whole)


def _folded(texts: Iterator[str], left: int) -> tuple[str, int]:
    """Return up to `left` characters, and how many are left; under 0: not all."""
    kept: list[str] = []
    for text in texts:
        if left < 0:
            break
        folded = _UNKEPT.sub("\n", fold(text))
        kept.append(folded[: max(0, left)])
        left -= len(folded)
    return "\n".join(kept), left


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search knows without a look into files."""

    found: set[UID]
    unknown: set[UID]  # their text is not kept, or not all of it


@lru_cache(1)
def can_index() -> bool:
    """Return whether this SQLite has what `search.sqlite` is made of."""
    with closing(sqlite3.connect(":memory:")) as connection:
        try:
            connection.executescript(TEXTS.statements)
        except sqlite3.OperationalError:
            return False
    return True


def texts_path(root: Path) -> str:
    """Return where the texts of the account in `root` are kept."""
    return str(root / "search.sqlite")


class TextIndex:
    """The texts of one account, by content number. Of use from all threads."""

    def __init__(self, root: Path, connections: Connections) -> None:
        self._path = texts_path(root)
        self._connections = connections
        self._file: int | None = None  # which one was filled the last time

    def close(self) -> None:
        self._connections.close(self._path)

    # Searching.

    def search(
        self, contents: Mapping[UID, int], text: str, *, header: bool
    ) -> Generator[None, None, Matches]:
        """Tell which of the messages hold folded `text`; `header`: there as well.

        A generator of short steps. `contents` are their content numbers.
        """
        if not text:
            return Matches(set(contents), set())
        if not _UNKEPT.search(text) and can_index():
            # With a full disk, say, it is sought in the files.
            with suppress(sqlite3.DatabaseError, OSError):
                return (yield from self._search(contents, text, header=header))
        return Matches(set(), set(contents))

    def _search(
        self, contents: Mapping[UID, int], text: str, *, header: bool
    ) -> Generator[None, None, Matches]:
        wanted = set(contents.values())
        with self._connections.use(self._path, "read", TEXTS) as connection:
            kept = _kept(connection, wanted)
            parts = _parts(connection, kept)
            candidates = _candidates(connection, text, kept)
        yield
        if header and len(text) == 3 and not _INEXACT.search(text):
            ids = candidates
        else:
            ids = yield from self._compared(sorted(candidates), text, header=header)
        hits = {kept[id_] for id_ in ids}
        found = {uid for uid, content in contents.items() if content in hits}
        known = {content for id_, content in kept.items() if id_ not in parts} | hits
        if len(known) == len(wanted):
            return Matches(found, set())
        unknown = {uid for uid, content in contents.items() if content not in known}
        return Matches(found, unknown)

    def _compared(
        self, ids: Sequence[int], text: str, *, header: bool
    ) -> Generator[None, None, set[int]]:
        """Return which of the kept texts hold `text`."""
        wanted = text.encode()
        hits: set[int] = set()
        for at in range(0, len(ids), COMPARED):
            with self._connections.use(self._path, "read", TEXTS) as connection:
                hits.update(
                    id_
                    for id_, body_at, kept in connection.execute(
                        "SELECT id, body_at, text FROM document"
                        " WHERE id IN (SELECT value FROM json_each(?))",
                        (dumps(ids[at : at + COMPARED]),),
                    )
                    if kept.find(wanted, 0 if header else body_at) >= 0
                )
            yield
        return hits

    # Filling.

    def begin(self, first: int | None) -> None:
        """Remove the file if all its texts are of an index that was lost.

        `first` is the lowest content number there is, None: there is none. A new
        index begins above all the old one gave out, and to take out text by text
        would leave the file twice as large.
        """
        with self._connections.use(self._path, "read", TEXTS) as connection:
            (last,) = connection.execute("SELECT max(content) FROM document").fetchone()
        if last is not None and (first is None or last < first):
            self.close()
            discard(self._path)
            self._file = None

    def is_another(self) -> bool:
        """Return whether the file was deleted, or of no use, since the last call."""
        with self._connections.use(self._path, "read", TEXTS) as connection:
            (file,) = connection.execute("PRAGMA application_id").fetchone()
        before, self._file = self._file, file
        return before is not None and before != file

    def compare(
        self, contents: Collection[int], after: int, last: int | None
    ) -> tuple[list[int], list[int]]:
        """Return which of `contents` are missing here, and what is here besides.

        Of the numbers above `after` and up to `last`; None: all above.
        """
        with self._connections.use(self._path, "read", TEXTS) as connection:
            here = {
                content
                for (content,) in connection.execute(
                    "SELECT content FROM document WHERE content > ? AND content <= ?",
                    (after, _MOST if last is None else last),
                )
            }
        there = set(contents)
        return sorted(there - here), sorted(here - there)

    def put(self, texts: Iterable[tuple[int, Text]]) -> None:
        """Keep texts; what is kept already, by another process, stays."""
        with (
            self._connections.use(self._path, "write", TEXTS) as connection,
            transaction(connection),
        ):
            for content, text in texts:
                row = connection.execute(
                    "INSERT OR IGNORE INTO document (content, whole, body_at, text)"
                    " VALUES (?, ?, ?, ?) RETURNING id",
                    (content, text.whole, text.body_at, text.octets),
                ).fetchone()
                if row is not None:
                    connection.execute(
                        "INSERT INTO trigram (rowid, text) VALUES (?, ?)",
                        (row[0], text.octets.decode()),
                    )

    def drop(self, contents: Sequence[int]) -> None:
        """Let go of texts of messages that are no longer there."""
        with (
            self._connections.use(self._path, "write", TEXTS) as connection,
            transaction(connection),
        ):
            for content in contents:
                row = connection.execute(
                    "DELETE FROM document WHERE content = ? RETURNING id, text",
                    (content,),
                ).fetchone()
                if row is not None:
                    # An index without texts has to be told what it forgets.
                    connection.execute(
                        "INSERT INTO trigram (trigram, rowid, text)"
                        " VALUES ('delete', ?, ?)",
                        (row[0], row[1].decode()),
                    )


_MOST = 2**63 - 1


def _kept(connection: sqlite3.Connection, contents: Iterable[int]) -> dict[int, int]:
    """Return content numbers of the texts that are kept, by their own number."""
    return dict(
        connection.execute(
            "SELECT id, content FROM document INDEXED BY document_content"
            " WHERE content IN (SELECT value FROM json_each(?))",
            (dumps(list(contents)),),
        )
    )


def _parts(connection: sqlite3.Connection, ids: Collection[int]) -> set[int]:
    """Return those of which the end is not kept."""
    rows = connection.execute(
        "SELECT id FROM document INDEXED BY document_part WHERE NOT whole"
    )
    return {id_ for (id_,) in rows if id_ in ids}


def _candidates(
    connection: sqlite3.Connection, text: str, ids: Collection[int]
) -> set[int]:
    """Return which of `ids` have all trigrams of `text`; under three, all."""
    if len(text) < 3 or not ids:
        return set(ids)
    trigrams = dict.fromkeys(text[at : at + 3] for at in range(len(text) - 2))
    wanted = " ".join(
        '"{}"'.format(trigram.replace('"', '""'))
        for trigram in list(trigrams)[:MAX_TRIGRAMS]
    )
    rows = connection.execute(
        "SELECT rowid FROM trigram WHERE trigram MATCH ? AND rowid BETWEEN ? AND ?",
        (wanted, min(ids), max(ids)),
    )
    return {id_ for (id_,) in rows if id_ in ids}
