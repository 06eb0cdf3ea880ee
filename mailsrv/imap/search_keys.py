"""The arguments of SEARCH as a tree of keys (RFC 3501 section 6.4.4)."""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.grammar import MAX_DEPTH, SequenceSet
from mailsrv.imap.parser import Parser
from mailsrv.mime.charset import fold

MAX_KEYS = 500  # of one SEARCH: each may read every message
CHARSETS = {b"US-ASCII", b"UTF-8"}  # UTF-8 reads both

_EPOCH = datetime.date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class And:
    """All of these; without any, every message."""

    keys: "tuple[Key, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    one: "Key"
    other: "Key"


@dataclass(frozen=True, slots=True)
class Not:
    key: "Key"


@dataclass(frozen=True, slots=True)
class Numbers:
    """A sequence set, of UIDs or sequence numbers."""

    ranges: SequenceSet
    by_uid: bool


@dataclass(frozen=True, slots=True)
class HasFlag:
    """A system flag or a keyword."""

    name: str


@dataclass(frozen=True, slots=True)
class IsRecent:
    """\\Recent is a flag of the session, not of the message."""


class Order(Enum):
    """How a message's value compares with a key's."""

    LESS = "<"
    EQUAL = "="
    NOT_LESS = ">="
    MORE = ">"


class Quantity(Enum):
    """A number known of each message. Days are counted from 1970-01-01."""

    SIZE = "size_octets"
    INTERNAL_DAY = "internal_date"
    SENT_DAY = "sent_day"


@dataclass(frozen=True, slots=True)
class Compare:
    quantity: Quantity
    order: Order
    value: int


@dataclass(frozen=True, slots=True)
class Header:
    """A header field, lower-case, that holds folded text; "" asks if it exists."""

    field: bytes
    text: str


@dataclass(frozen=True, slots=True)
class Contains:
    """Folded text anywhere in the body; `header`: or in the header."""

    text: str
    header: bool


Key = And | Or | Not | Numbers | HasFlag | IsRecent | Compare | Header | Contains

_FLAGS = {
    name.upper().encode(): HasFlag("\\" + name)
    for name in ("Answered", "Deleted", "Draft", "Flagged", "Seen")
}
_RECENT = IsRecent()
_SIMPLE: dict[bytes, Key] = {
    b"ALL": And(()),
    b"RECENT": _RECENT,
    b"OLD": Not(_RECENT),
    b"NEW": And((_RECENT, Not(_FLAGS[b"SEEN"]))),
    **_FLAGS,
    **{b"UN" + name: Not(flag) for name, flag in _FLAGS.items()},
}
_HEADERS = (b"BCC", b"CC", b"FROM", b"SUBJECT", b"TO")
_DATES = {
    prefix + name: (quantity, order)
    for prefix, quantity in ((b"", Quantity.INTERNAL_DAY), (b"SENT", Quantity.SENT_DAY))
    for name, order in (
        (b"BEFORE", Order.LESS),
        (b"ON", Order.EQUAL),
        (b"SINCE", Order.NOT_LESS),
    )
}
_SIZES = {b"LARGER": Order.MORE, b"SMALLER": Order.LESS}


@dataclass(frozen=True, slots=True)
class Search:
    """A SEARCH or UID SEARCH command."""

    by_uid: bool
    key: Key


def parse_search(parser: Parser) -> Search:
    return Search(False, _Reader(parser).program())


def parse_uid_search(parser: Parser) -> Search:
    return Search(True, _Reader(parser).program())


class _Reader:
    """Reads keys, and counts them."""

    def __init__(self, parser: Parser) -> None:
        self._parser = parser
        self._count = 0

    def program(self) -> Key:
        """Take all that follows the command's name."""
        parser = self._parser
        parser.space()
        if parser.skip(b"CHARSET "):
            if parser.astring().upper() not in CHARSETS:
                known = b" ".join(sorted(CHARSETS))
                raise Refused("Unknown charset", b"BADCHARSET (%b)" % known)
            parser.space()
        keys = [self._key(0)]
        # Looser than RFC 3501 section 9: spaces at the end are no error.
        while parser.data[parser.at :].strip(b" "):
            parser.space()
            keys.append(self._key(0))
        return And(tuple(keys))

    def _key(self, depth: int) -> Key:
        self._count += 1
        if depth > MAX_DEPTH or self._count > MAX_KEYS:
            raise ProtocolViolation("Search too deep or too long")
        parser = self._parser
        if parser.peek() == b"(":
            return And(tuple(parser.items(lambda: self._key(depth + 1))))
        if parser.peek().isdigit() or parser.peek() == b"*":
            return Numbers(parser.sequence_set(), by_uid=False)
        name = parser.keyword()
        if name == b"NOT":
            parser.space()
            return Not(self._key(depth + 1))
        if name == b"OR":
            return Or(self._argument(depth), self._argument(depth))
        return _SIMPLE.get(name) or self._with_argument(name)

    def _argument(self, depth: int) -> Key:
        self._parser.space()
        return self._key(depth + 1)

    def _with_argument(self, name: bytes) -> Key:
        read = _ARGUMENTS.get(name)
        if read is None:
            raise ProtocolViolation("Unknown search key")
        self._parser.space()
        return read(self, name)

    def _uid(self, _: bytes) -> Key:
        return Numbers(self._parser.sequence_set(), by_uid=True)

    def _keyword(self, name: bytes) -> Key:
        flag = HasFlag(self._parser.atom().decode("ascii"))
        return flag if name == b"KEYWORD" else Not(flag)

    def _size(self, name: bytes) -> Key:
        return Compare(Quantity.SIZE, _SIZES[name], self._parser.number())

    def _date(self, name: bytes) -> Key:
        quantity, order = _DATES[name]
        return Compare(quantity, order, (self._parser.date() - _EPOCH).days)

    def _address(self, name: bytes) -> Key:
        return Header(name.lower(), self._text())

    def _header(self, _: bytes) -> Key:
        field = self._parser.astring().lower()
        self._parser.space()
        return Header(field, self._text())

    def _contains(self, name: bytes) -> Key:
        return Contains(self._text(), header=name == b"TEXT")

    def _text(self) -> str:
        """Take what is sought. Without CHARSET too it may be UTF-8, as clients do."""
        try:
            return fold(self._parser.astring().decode())
        except UnicodeDecodeError:
            raise ProtocolViolation("Search text is not UTF-8") from None


_ARGUMENTS: dict[bytes, Callable[[_Reader, bytes], Key]] = {
    b"UID": _Reader._uid,
    b"KEYWORD": _Reader._keyword,
    b"UNKEYWORD": _Reader._keyword,
    b"HEADER": _Reader._header,
    b"BODY": _Reader._contains,
    b"TEXT": _Reader._contains,
    **dict.fromkeys(_HEADERS, _Reader._address),
    **dict.fromkeys(_SIZES, _Reader._size),
    **dict.fromkeys(_DATES, _Reader._date),
}
