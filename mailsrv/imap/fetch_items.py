"""The arguments of FETCH: which items of which messages (RFC 3501 section 6.4.5).

Also the modifiers of RFC 7162 section 3.1.4.1 and 3.2.6, and the items of RFC 3516.
"""

import re
from dataclasses import dataclass
from enum import Enum

from mailsrv.imap import format
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.grammar import MAX_NUMBER64, SequenceSet
from mailsrv.imap.parser import Parser

MAX_ITEMS = 100  # of one FETCH: each can be the whole message
MAX_PART_DEPTH = 100  # numbers of one section

_NAME = re.compile(rb"[A-Za-z0-9.]++")
_FIELD_NAME = re.compile(rb"[#-9;-~]++")
_PART_NUMBERS = re.compile(rb"[1-9][0-9]{0,9}+(?:\.[1-9][0-9]{0,9}+)*+")
_PARTIAL = re.compile(rb"<([0-9]{1,20}+)\.([0-9]{1,20}+)>")


class Attribute(Enum):
    """What is known of a message without reading its content."""

    UID = b"UID"
    FLAGS = b"FLAGS"
    INTERNALDATE = b"INTERNALDATE"
    SIZE = b"RFC822.SIZE"
    ENVELOPE = b"ENVELOPE"
    BODY = b"BODY"
    BODYSTRUCTURE = b"BODYSTRUCTURE"
    MODSEQ = b"MODSEQ"
    PREVIEW = b"PREVIEW"
    SAVEDATE = b"SAVEDATE"
    EMAILID = b"EMAILID"
    THREADID = b"THREADID"


class Text(Enum):
    """What of a message, or of a part, a section takes."""

    ALL = b""
    HEADER = b"HEADER"
    FIELDS = b"HEADER.FIELDS"
    FIELDS_NOT = b"HEADER.FIELDS.NOT"
    TEXT = b"TEXT"
    MIME = b"MIME"


@dataclass(frozen=True, slots=True)
class Section:
    """``BODY[section]<partial>`` and its older spellings."""

    label: bytes  # how the response names it
    numbers: tuple[int, ...] = ()
    text: Text = Text.ALL
    names: frozenset[bytes] = frozenset()  # of header fields, lower-case
    partial: tuple[int, int] | None = None  # first octet, how many
    peek: bool = False


@dataclass(frozen=True, slots=True)
class Binary:
    """``BINARY[part]<partial>`` or ``BINARY.SIZE[part]`` (RFC 3516 section 4.2)."""

    label: bytes
    numbers: tuple[int, ...] = ()
    partial: tuple[int, int] | None = None
    peek: bool = False
    only_size: bool = False


Item = Attribute | Section | Binary

_FAST = (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.SIZE)
_MACROS: dict[bytes, tuple[Item, ...]] = {
    b"FAST": _FAST,
    b"ALL": (*_FAST, Attribute.ENVELOPE),
    b"FULL": (*_FAST, Attribute.ENVELOPE, Attribute.BODY),
}
_BINARIES = (b"BINARY", b"BINARY.PEEK", b"BINARY.SIZE")
_OLD_SECTIONS = {
    section.label: section
    for section in (
        Section(b"RFC822"),
        Section(b"RFC822.HEADER", text=Text.HEADER, peek=True),
        Section(b"RFC822.TEXT", text=Text.TEXT),
    )
}
_EXTENSIONS = {
    b"PREVIEW": b"PREVIEW",
    b"SAVEDATE": b"SAVEDATE",
    b"EMAILID": b"OBJECTID",
    b"THREADID": b"OBJECTID",
    **dict.fromkeys(_BINARIES, b"BINARY"),
}
_ATTRIBUTES = {attribute.value: attribute for attribute in Attribute}
_TEXTS = {text.value: text for text in Text if text is not Text.ALL}


@dataclass(frozen=True, slots=True)
class Fetch:
    """A FETCH or UID FETCH command."""

    messages: SequenceSet
    by_uid: bool
    items: tuple[Item, ...]  # each once, in the client's order
    changed_since: int | None = None  # only messages of a higher MODSEQ
    vanished: bool = False  # tell, too, which of `messages` were expunged since

    @property
    def sections(self) -> tuple[Section, ...]:
        return tuple(item for item in self.items if isinstance(item, Section))

    @property
    def binaries(self) -> tuple[Binary, ...]:
        return tuple(item for item in self.items if isinstance(item, Binary))

    @property
    def sets_seen(self) -> bool:
        return any(not section.peek for section in self.sections) or any(
            not binary.peek for binary in self.binaries
        )


def parse_fetch(parser: Parser) -> Fetch:
    return _parse(parser, by_uid=False)


def parse_uid_fetch(parser: Parser) -> Fetch:
    return _parse(parser, by_uid=True)


def _parse(parser: Parser, *, by_uid: bool) -> Fetch:
    parser.space()
    messages = parser.sequence_set()
    parser.space()
    if parser.peek() == b"(":
        found: list[Item] = parser.items(lambda: _item(parser))
    else:
        start = parser.at
        macro = _MACROS.get(parser.take(_NAME, "a fetch item").group().upper())
        if macro is None:
            parser.at = start
            macro = (_item(parser),)
        found = list(macro)
    # RFC 3501 section 6.4.8: UID FETCH tells the UID, asked for or not.
    if by_uid and Attribute.UID not in found:
        found.insert(0, Attribute.UID)
    changed_since, vanished = (
        _modifiers(parser) if parser.skip(b" (") else (None, False)
    )
    if vanished and (changed_since is None or not by_uid):
        raise ProtocolViolation("VANISHED goes with UID FETCH and CHANGEDSINCE")
    if changed_since is not None:
        found.append(Attribute.MODSEQ)
    items = tuple(dict.fromkeys(found))
    if len(items) > MAX_ITEMS:
        raise ProtocolViolation("Too many fetch items")
    return Fetch(messages, by_uid, items, changed_since, vanished)


def _modifiers(parser: Parser) -> tuple[int | None, bool]:
    """Take what follows ``(``: CHANGEDSINCE and VANISHED."""
    changed_since: int | None = None
    vanished = False
    while True:
        match parser.keyword():
            case b"CHANGEDSINCE" if changed_since is None:
                parser.space()
                # Looser than RFC 7162 section 7: 0 is taken, all are changed since.
                changed_since = parser.number64()
            case b"VANISHED" if not vanished:
                vanished = True
            case _:
                raise ProtocolViolation("Unknown fetch modifier")
        if parser.skip(b")"):
            return changed_since, vanished
        parser.space()


def _item(parser: Parser) -> Item:
    name = parser.take(_NAME, "a fetch item").group().upper()
    if name in _EXTENSIONS:
        parser.uses(_EXTENSIONS[name])
    if name in (b"BODY", b"BODY.PEEK") and parser.skip(b"["):
        return _section(parser, peek=name == b"BODY.PEEK")
    if name in _BINARIES:
        parser.expect(b"[")
        return _binary(parser, name)
    if name == b"PREVIEW" and parser.skip(b" ("):
        # RFC 8970 section 4: LAZY asks only for what is there. It is: previews are
        # made when a message comes in.
        if parser.keyword() != b"LAZY":
            raise ProtocolViolation("Unknown modifier of PREVIEW")
        parser.expect(b")")
    if name in _ATTRIBUTES:
        return _ATTRIBUTES[name]
    if name in _OLD_SECTIONS:
        return _OLD_SECTIONS[name]
    raise ProtocolViolation("Unknown fetch item")


def _section(parser: Parser, *, peek: bool) -> Section:
    """Take what follows ``BODY[``."""
    text = Text.ALL
    label, numbers = _numbers(parser)
    if not numbers or parser.skip(b"."):
        text, label = _text(parser, label)
    names: list[bytes] = []
    if text in (Text.FIELDS, Text.FIELDS_NOT):
        parser.space()
        names = parser.items(parser.astring)
        shown = b" ".join(format.astring(name.upper()) for name in names)
        label += b" (%b)" % shown
    parser.expect(b"]")
    label = b"BODY[%b]" % label
    partial = _partial(parser)
    if partial is not None:
        label += b"<%d>" % partial[0]
    # What cannot be a field's name selects nothing.
    fields = frozenset(name.lower() for name in names if _FIELD_NAME.fullmatch(name))
    return Section(label, numbers, text, fields, partial, peek)


def _binary(parser: Parser, name: bytes) -> Binary:
    """Take what follows ``BINARY[``."""
    label, numbers = _numbers(parser)
    parser.expect(b"]")
    label = b"%b[%b]" % (name.removesuffix(b".PEEK"), label)
    if name == b"BINARY.SIZE":
        return Binary(label, numbers, peek=True, only_size=True)
    partial = _partial(parser)
    if partial is not None:
        label += b"<%d>" % partial[0]
    return Binary(label, numbers, partial, name == b"BINARY.PEEK")


def _numbers(parser: Parser) -> tuple[bytes, tuple[int, ...]]:
    """Take part numbers, if there are any; return them as written and as numbers."""
    if not parser.peek().isdigit():
        return b"", ()
    label = parser.take(_PART_NUMBERS, "part numbers").group()
    numbers = tuple(map(int, label.split(b".")))
    if len(numbers) > MAX_PART_DEPTH:
        raise ProtocolViolation("Too many part numbers")
    return label, numbers


def _partial(parser: Parser) -> tuple[int, int] | None:
    if parser.peek() != b"<":
        return None
    # Looser than RFC 3501 section 9: a count of 0 gives nothing, no error.
    first, count = map(int, parser.take(_PARTIAL, "<first.count>").groups())
    if max(first, count) > MAX_NUMBER64:
        raise ProtocolViolation("Number over 63 bits")
    return first, count


def _text(parser: Parser, numbers: bytes) -> tuple[Text, bytes]:
    if not numbers and parser.peek() == b"]":
        return Text.ALL, b""
    name = parser.take(_NAME, "a section").group().upper()
    text = _TEXTS.get(name)
    if text is None or (text is Text.MIME and not numbers):
        raise ProtocolViolation("Unknown section")
    return text, numbers + b"." + name if numbers else name
