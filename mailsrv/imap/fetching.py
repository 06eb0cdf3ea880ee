"""Makes FETCH responses of a batch of messages (RFC 3501 section 7.4.2).

Runs in a reader's thread, piece by piece: a piece is of bounded size and made in
some milliseconds, so that neither other readers nor memory feel a huge FETCH.
"""

from collections.abc import Callable, Container, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from mailsrv.imap import binary, format
from mailsrv.imap.fetch_items import Attribute, Binary, Fetch, Item, Section, Text
from mailsrv.imap.object_ids import email_id, thread_id
from mailsrv.mime.bodystructure import GLOBAL
from mailsrv.mime.header import MAX_HEADER, select
from mailsrv.mime.structure import Part, part_at
from mailsrv.store.content import header_key
from mailsrv.store.values import LockHeld, MessageGone

if TYPE_CHECKING:
    from mailsrv.store.account_reader import AccountReader
    from mailsrv.store.reading import MessageFile

PIECE = 256 * 1024  # octets, about

# Columns of the index, and how their values are written.
_COLUMNS: dict[Item, tuple[str, Callable[[Any], bytes]]] = {
    Attribute.INTERNALDATE: ("internal_date", format.date_time),
    Attribute.SIZE: ("size_octets", lambda octets: b"%d" % octets),
    Attribute.ENVELOPE: ("envelope", bytes),
    Attribute.BODY: ("body", bytes),
    Attribute.BODYSTRUCTURE: ("bodystructure", bytes),
    Attribute.PREVIEW: ("preview", bytes),
    Attribute.SAVEDATE: ("saved_at", format.date_time),
    Attribute.EMAILID: ("email_id", lambda stored: b"(%b)" % email_id(stored)),
    Attribute.THREADID: ("thread_root", lambda root: b"(%b)" % thread_id(root)),
}
_BODIES = (Attribute.BODY, Attribute.BODYSTRUCTURE)
_FIELD_SETS = (Text.FIELDS, Text.FIELDS_NOT)


class Shortened(Exception):
    """A response cannot be given to its end: only closing tells."""


class Message(NamedTuple):  # made for every message: cheaper than a dataclass
    """What the session knows of a message."""

    seq: int
    uid: int
    flags: bytes  # as FETCH shows them, in parentheses
    mod_seq: int
    also: tuple[Attribute, ...] = ()  # to tell though they were not asked for


@dataclass(slots=True)
class Batch:
    """The responses to `fetch` for some messages."""

    mailbox: str
    fetch: Fetch
    messages: Sequence[Message]
    is_rev2: bool = False
    gone: list[int] = field(default_factory=list)  # got no response: expunged
    undecodable: bool = False  # some got no response: BINARY of an unknown encoding
    ended: bool = False  # there is nothing after what `next_piece` has returned
    _pieces: Generator[bytes, None, None] | None = None
    _begun: bool = False

    def next_piece(self, store: "AccountReader") -> bytes:
        """Return the next octets to send, perhaps none; see `ended`.

        Raises `Shortened`, and before the first octets `LockHeld`. Call `close`
        whether or not the end was reached.
        """
        if self._pieces is None:
            self._pieces = self._joined(self._responses(store))
        try:
            piece = next(self._pieces, b"")
        except LockHeld:
            if self._begun:
                raise Shortened from None
            self._pieces = None  # to be called again
            self.gone.clear()
            raise
        except binary.Changed as error:
            raise Shortened from error
        self._begun = True
        return piece

    def close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()

    def _responses(self, store: "AccountReader") -> Generator[bytes, None, None]:
        kept = self._kept(store)
        binaries = self.fetch.binaries
        reads_files = bool(binaries) or any(
            section not in kept for section in self.fetch.sections
        )
        if not reads_files and not any(message.also for message in self.messages):
            yield from self._lines(kept)
            return
        uids = [message.uid for message in self.messages]
        located = {}
        if reads_files:
            # Whole messages need nothing that is made ready; nor would it cost less
            # to count through a large one again for each of its pieces.
            fill = bool(binaries) or any(
                _is_part(section) or section.partial for section in self.fetch.sections
            )
            located = store.locate(self.mailbox, uids, fill=fill)
        needed: list[Container[int]] = [*kept.values()]
        if reads_files:
            needed.append(located)
        kept[Attribute.UID] = {m.uid: b"%d" % m.uid for m in self.messages}
        kept[Attribute.FLAGS] = {m.uid: m.flags for m in self.messages}
        kept[Attribute.MODSEQ] = {m.uid: b"(%d)" % m.mod_seq for m in self.messages}
        asked = [_Asked.of(item, kept) for item in self.fetch.items]
        for message in self.messages:
            if any(message.uid not in there for there in needed):
                self.gone.append(message.uid)
                continue
            told = asked
            if message.also:
                also = (each for each in message.also if each not in self.fetch.items)
                told = [*asked, *(_Asked.of(item, kept) for item in also)]
            if not reads_files:
                yield from _response(message, told, None)
                continue
            try:
                opened = located[message.uid].open()
            except MessageGone:
                self.gone.append(message.uid)
                continue
            with closing(opened) as file:
                try:
                    for item in binaries:
                        binary.check(file, item)
                except binary.UnknownEncoding:
                    self.undecodable = True
                    continue
                yield from _response(message, told, file)

    def _lines(self, kept: dict[Item, dict[int, bytes]]) -> Iterator[bytes]:
        """Return responses of what the index has, column by column.

        This costs a third of the way by `_response`, message by message.
        """
        messages = self.messages
        for values in kept.values():
            if len(values) < len(messages):
                self.gone += [m.uid for m in messages if m.uid not in values]
                messages = [m for m in messages if m.uid in values]
        if not messages:
            return iter(())
        seqs, uids, flags, mod_seqs, _ = zip(*messages, strict=True)
        known = {
            Attribute.UID: (b"%d", uids),
            Attribute.FLAGS: (b"%b", flags),
            Attribute.MODSEQ: (b"(%d)", mod_seqs),
            **{
                item: (b"%b", map(values.__getitem__, uids))
                for item, values in kept.items()
            },
        }
        labels = [_label(item).replace(b"%", b"%%") for item in self.fetch.items]
        forms, columns = zip(*(known[item] for item in self.fetch.items), strict=True)
        parts = map(b"%b %b".__mod__, zip(labels, forms, strict=True))
        template = b"* %%d FETCH (%b)\r\n" % b" ".join(parts)
        return map(template.__mod__, zip(seqs, *columns, strict=True))

    def _kept(self, store: "AccountReader") -> dict[Item, dict[int, bytes]]:
        """Return what the index has, by item and UID, ready for the wire."""
        uids = [message.uid for message in self.messages]
        kept: dict[Item, dict[int, bytes]] = {}
        for section in self.fetch.sections:
            if section.text in _FIELD_SETS and not section.numbers:
                key = header_key(section.names, exclude=section.text is Text.FIELDS_NOT)
                found = store.header_fields(self.mailbox, uids, key)
                if section.partial is not None:
                    found = {u: _cut(f, section.partial) for u, f in found.items()}
                kept[section] = {u: format.literal(f) for u, f in found.items()}
        # Behind these, which settle sizes too.
        asked = [item for item in self.fetch.items if item in _COLUMNS]
        if asked:
            rows = store.rows(self.mailbox, uids, [_COLUMNS[item][0] for item in asked])
            columns = zip(*rows.values(), strict=True) if rows else repeat(())
            for item, column in zip(asked, columns, strict=False):
                written = map(_COLUMNS[item][1], column)
                kept[item] = dict(zip(rows, written, strict=True))
        if self.is_rev2:
            self._nest_global(store, kept)
        return kept

    def _nest_global(
        self, store: "AccountReader", kept: dict[Item, dict[int, bytes]]
    ) -> None:
        """Write BODY and BODYSTRUCTURE anew where IMAP4rev2 has them otherwise."""
        items = [item for item in _BODIES if item in kept]
        uids = {u for item in items for u, body in kept[item].items() if GLOBAL in body}
        located = store.locate(self.mailbox, sorted(uids), fill=False) if uids else {}
        for uid, message in located.items():
            try:
                with closing(message.open()) as file:
                    bodies = dict(zip(_BODIES, file.nested_global(), strict=True))
            except MessageGone:
                continue  # what comes next of it will find that, too
            for item in items:
                kept[item][uid] = bodies[item]

    def _joined(self, pieces: Iterator[bytes]) -> Generator[bytes, None, None]:
        """Join small pieces to at least `PIECE` octets, but for the last.

        `binary.WORKED` counts as octets of which there was nothing to send.
        """
        waiting: list[bytes] = []
        size = 0
        for piece in pieces:
            waiting.append(piece)
            size += len(piece) or binary.STEP // 4
            if size >= PIECE:
                yield b"".join(waiting)
                waiting.clear()
                size = 0
        self.ended = True
        yield b"".join(waiting)


class _Asked(NamedTuple):
    """An item of the responses of a batch."""

    label: bytes  # with the space behind it
    kept: dict[int, bytes] | None  # its values, if not from files
    item: Item

    @classmethod
    def of(cls, item: Item, kept: dict[Item, dict[int, bytes]]) -> "_Asked":
        return cls(_label(item) + b" ", kept.get(item), item)


def _response(
    message: Message, told: Sequence[_Asked], file: "MessageFile | None"
) -> Iterator[bytes]:
    yield b"* %d FETCH (" % message.seq
    before = b""
    for label, kept, item in told:
        if kept is not None:
            yield b"%b%b%b" % (before, label, kept[message.uid])
        else:
            yield before + label
            if isinstance(item, Section) and file is not None:
                yield from _read(file, item)
            elif isinstance(item, Binary) and file is not None:
                yield from binary.read(file, item)
        before = b" "
    yield b")\r\n"


def _label(item: Item) -> bytes:
    return item.value if isinstance(item, Attribute) else item.label


def _is_part(section: Section) -> bool:
    """Return whether a section is not the whole message, or octets of that."""
    return section.text is not Text.ALL or bool(section.numbers)


def locate(section: Section, root: Part) -> tuple[int, int] | None:
    """Return where a section begins and ends in served octets; None: no such part."""
    part = part_at(root, section.numbers)
    if part is None:
        return None
    if section.text is Text.MIME:
        return part.served_start, part.served_body
    if section.text is Text.ALL:
        start = part.served_body if section.numbers else part.served_start
        return start, part.served_end
    # RFC 3501 section 6.4.5: HEADER and TEXT are of messages only.
    if section.numbers:
        if not part.is_message or not part.parts:
            return None
        part = part.parts[0]
    if section.text is Text.TEXT:
        return part.served_body, part.served_end
    return part.served_start, part.served_body


def _read(file: "MessageFile", section: Section) -> Iterator[bytes]:
    """Read a section as a string of the wire, long ones in several pieces."""
    place: tuple[int, int] | None = (0, file.size_octets)
    if _is_part(section):
        place = locate(section, file.structure())
    if place is None:
        yield b'""'  # as Dovecot answers
        return
    start, end = place
    if section.text in _FIELD_SETS:
        header = file.read(start, min(end - start, MAX_HEADER))
        exclude = section.text is Text.FIELDS_NOT
        fields = select(header, section.names, exclude=exclude)
        yield _literal(_cut(fields, section.partial))
        return
    if section.partial is not None:
        first, count = section.partial
        start = min(start + first, end)
        end = min(start + count, end)
    yield b"{%d}\r\n" % (end - start)
    while start < end:
        try:
            octets = file.read(start, min(PIECE, end - start))
        except OSError as error:
            raise Shortened from error
        if not octets:
            raise Shortened
        start += len(octets)
        yield _without_nul(octets)


def _cut(octets: bytes, partial: tuple[int, int] | None) -> bytes:
    return octets if partial is None else octets[partial[0] : sum(partial)]


def _literal(octets: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(octets), _without_nul(octets))


def _without_nul(octets: bytes) -> bytes:
    """RFC 3501 section 4.3: no literal holds NUL; 0x80 stands for it."""
    return octets.replace(b"\0", b"\x80") if b"\0" in octets else octets
