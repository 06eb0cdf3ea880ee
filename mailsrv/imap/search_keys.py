"""What SEARCH, SORT and THREAD look for, as a tree of keys.

RFC 3501 section 6.4.4; also the keys of RFC 5032 (OLDER, YOUNGER) and RFC 7162
section 3.1.5 (MODSEQ), RFC 8474 section 6 (EMAILID, THREADID) and RFC 8514
section 4.3 (SAVEDBEFORE and its kind).
"""

import datetime
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.grammar import MAX_DEPTH, SequenceSet
from mailsrv.imap.parser import Parser
from mailsrv.mime.charset import decode, fold

MAX_KEYS = 500  # of one SEARCH: each may read every message
_EPOCH = datetime.date(1970, 1, 1)
_NUMBERS = tuple(bytes([octet]) for octet in b"123456789*$")  # begin a sequence set


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
    SAVED_DAY = "saved_at"


@dataclass(frozen=True, slots=True)
class Compare:
    quantity: Quantity
    order: Order
    value: int


@dataclass(frozen=True, slots=True)
class Within:
    """Whether a message came at most (or at least) so many seconds ago."""

    seconds: int
    younger: bool


@dataclass(frozen=True, slots=True)
class ModSeq:
    """A mod-sequence of at least this value."""

    at_least: int


class Identity(Enum):
    """What an identifier is of."""

    EMAIL = "email_id"
    THREAD = "thread_root"


@dataclass(frozen=True, slots=True)
class Identified:
    """Messages with this EMAILID or THREADID."""

    of: Identity
    identifier: bytes


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


Key = (
    And
    | Or
    | Not
    | Numbers
    | HasFlag
    | IsRecent
    | Compare
    | Within
    | ModSeq
    | Identified
    | Header
    | Contains
)

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
    b"SAVEDATESUPPORTED": And(()),
}
_HEADERS = (b"BCC", b"CC", b"FROM", b"SUBJECT", b"TO")
_DATES = {
    prefix + name: (quantity, order)
    for prefix, quantity in (
        (b"", Quantity.INTERNAL_DAY),
        (b"SENT", Quantity.SENT_DAY),
        (b"SAVED", Quantity.SAVED_DAY),
    )
    for name, order in (
        (b"BEFORE", Order.LESS),
        (b"ON", Order.EQUAL),
        (b"SINCE", Order.NOT_LESS),
    )
}
_SIZES = {b"LARGER": Order.MORE, b"SMALLER": Order.LESS}


_EXTENSIONS = {
    b"MODSEQ": b"CONDSTORE",
    b"OLDER": b"WITHIN",
    b"YOUNGER": b"WITHIN",
    b"EMAILID": b"OBJECTID",
    b"THREADID": b"OBJECTID",
    **dict.fromkeys((b"SAVEDBEFORE", b"SAVEDON", b"SAVEDSINCE"), b"SAVEDATE"),
    b"SAVEDATESUPPORTED": b"SAVEDATE",
}


def read_keys(parser: Parser, charset: str) -> Key:
    """Take one or more keys, to the end. Their texts are in `charset`."""
    return _Reader(parser, charset).all()


class _Reader:
    """Reads keys, and counts them."""

    def __init__(self, parser: Parser, charset: str) -> None:
        self._parser = parser
        self._charset = charset
        self._count = 0

    def all(self) -> Key:
        parser = self._parser
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
        if parser.peek() in _NUMBERS:
            return Numbers(parser.sequence_set(), by_uid=False)
        name = parser.keyword()
        if name in _EXTENSIONS:
            parser.uses(_EXTENSIONS[name])
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

    def _within(self, name: bytes) -> Key:
        seconds = self._parser.number()
        if not seconds:
            raise ProtocolViolation("An interval of no seconds")
        return Within(seconds, younger=name == b"YOUNGER")

    def _mod_seq(self, _: bytes) -> Key:
        parser = self._parser
        if parser.peek() == b'"':
            # RFC 7162 section 3.1.5: there is one mod-sequence for all flags here,
            # so which is meant is passed over.
            parser.string()
            parser.space()
            if parser.keyword() not in (b"PRIV", b"SHARED", b"ALL"):
                raise ProtocolViolation("Expected PRIV, SHARED or ALL")
            parser.space()
        return ModSeq(parser.number64())

    def _uid(self, _: bytes) -> Key:
        return Numbers(self._parser.sequence_set(), by_uid=True)

    def _keyword(self, name: bytes) -> Key:
        flag = HasFlag(self._parser.atom().decode("ascii"))
        return flag if name == b"KEYWORD" else Not(flag)

    def _identified(self, name: bytes) -> Key:
        of = Identity.EMAIL if name == b"EMAILID" else Identity.THREAD
        return Identified(of, self._parser.astring())

    def _size(self, name: bytes) -> Key:
        return Compare(Quantity.SIZE, _SIZES[name], self._parser.number64())

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
        """Take what is sought. In US-ASCII too it may be UTF-8, as clients do."""
        octets = self._parser.astring()
        if self._charset.upper() not in ("US-ASCII", "UTF-8"):
            return fold(decode(octets, self._charset))
        try:
            return fold(octets.decode())
        except UnicodeDecodeError:
            raise ProtocolViolation("Search text is not UTF-8") from None


_ARGUMENTS: dict[bytes, Callable[[_Reader, bytes], Key]] = {
    b"UID": _Reader._uid,
    b"OLDER": _Reader._within,
    b"YOUNGER": _Reader._within,
    b"MODSEQ": _Reader._mod_seq,
    b"EMAILID": _Reader._identified,
    b"THREADID": _Reader._identified,
    b"KEYWORD": _Reader._keyword,
    b"UNKEYWORD": _Reader._keyword,
    b"HEADER": _Reader._header,
    b"BODY": _Reader._contains,
    b"TEXT": _Reader._contains,
    **dict.fromkeys(_HEADERS, _Reader._address),
    **dict.fromkeys(_SIZES, _Reader._size),
    **dict.fromkeys(_DATES, _Reader._date),
}
