"""The arguments of SEARCH, SORT and THREAD.

RFC 3501 section 6.4.4, RFC 5256 section 3; RFC 4731 and RFC 5267 for RETURN, RFC
5957 for the criteria DISPLAYFROM and DISPLAYTO.
"""

from dataclasses import dataclass
from enum import Flag, auto

from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.parser import Parser
from mailsrv.imap.search_keys import Key, has_mod_seq, read_keys
from mailsrv.mime.charset import is_known
from mailsrv.store.values import Criterion

MAX_CRITERIA = 20  # of one SORT; clients send one to three

_COLUMNS = {
    b"ARRIVAL": "internal_date",
    b"CC": "cc_mailbox",
    b"DATE": "sent_at",
    b"DISPLAYFROM": "from_name",
    b"DISPLAYTO": "to_name",
    b"FROM": "from_mailbox",
    b"SIZE": "size_octets",
    b"SUBJECT": "subject",
    b"TO": "to_mailbox",
}


class Return(Flag):
    """What an extended SEARCH is to return (RFC 4731, RFC 5182 for SAVE)."""

    MIN = auto()
    MAX = auto()
    ALL = auto()
    COUNT = auto()
    SAVE = auto()


@dataclass(frozen=True, slots=True)
class Program:
    """What is sought, and how the numbers of what is found are returned."""

    key: Key | None  # None: written in a charset that is not known
    returns: Return | None = None  # None: by a response of the command's own name

    @property
    def known_key(self) -> Key:
        """The key. Raises `Refused`: only when the command runs.

        RFC 5182 section 2.1: NO to this command empties what was saved.
        """
        if self.key is None:
            # Others are known too; these two a client can write.
            raise Refused("Unknown charset", b"BADCHARSET (US-ASCII UTF-8)")
        return self.key

    @property
    def has_mod_seq(self) -> bool:
        """Whether mod-sequences are asked for, and so told (RFC 7162 3.1.5)."""
        return self.key is not None and has_mod_seq(self.key)

    @property
    def saves(self) -> bool:
        return self.returns is not None and Return.SAVE in self.returns


@dataclass(frozen=True, slots=True)
class Sort:
    criteria: tuple[Criterion, ...]
    program: Program


@dataclass(frozen=True, slots=True)
class Thread:
    algorithm: bytes  # a name in capitals, perhaps unknown
    program: Program


def parse_search(parser: Parser) -> Program:
    parser.space()
    returns = _returns(parser)
    charset = "US-ASCII"
    if parser.skip(b"CHARSET "):
        charset = _charset(parser)
    return Program(_keys(parser, charset), returns)


def parse_sort(parser: Parser) -> Sort:
    parser.space()
    returns = _returns(parser)
    criteria = parser.items(lambda: _criterion(parser))
    if len(criteria) > MAX_CRITERIA:
        raise ProtocolViolation("Too many sort criteria")
    parser.space()
    keys = _keys(parser, _charset(parser))
    return Sort(tuple(criteria), Program(keys, returns))


def _criterion(parser: Parser) -> Criterion:
    name = parser.keyword()
    descending = name == b"REVERSE"
    if descending:
        parser.space()
        name = parser.keyword()
    if name not in _COLUMNS:
        raise ProtocolViolation("Unknown sort criterion")
    return Criterion(_COLUMNS[name], descending)


def parse_thread(parser: Parser) -> Thread:
    parser.space()
    algorithm = parser.keyword()
    parser.space()
    return Thread(algorithm, Program(_keys(parser, _charset(parser))))


def _returns(parser: Parser) -> Return | None:
    """Take RETURN and its list, if that comes next."""
    if not parser.skip(b"RETURN "):
        return None
    asked = Return(0)
    for name in parser.items(parser.keyword, may_be_empty=True):
        try:
            asked |= Return[name.decode("ascii")]
        except KeyError:
            raise ProtocolViolation("Unknown result option") from None
    parser.space()
    return asked or Return.ALL


def _charset(parser: Parser) -> str:
    charset = parser.astring()
    parser.space()
    return charset.decode("ascii", "replace")


def _keys(parser: Parser, charset: str) -> Key | None:
    if is_known(charset):
        return read_keys(parser, charset)
    parser.at = len(parser.data)  # nobody can tell what is meant
    return None
