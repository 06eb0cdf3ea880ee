"""The arguments of SEARCH, SORT and THREAD.

RFC 3501 section 6.4.4, RFC 5256 section 3; RFC 4731 and RFC 5267 for RETURN, RFC
5957 for the criteria DISPLAYFROM and DISPLAYTO.
"""

from dataclasses import dataclass
from enum import Flag, auto

from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.parser import Parser
from mailsrv.imap.search_keys import Key, read_keys
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
    # Whether mod-sequences are asked for, and so told (RFC 7162 section 3.1.5).
    has_mod_seq: bool = False

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
    returns = _returns(parser, b"ESEARCH")
    charset = "US-ASCII"
    if parser.skip(b"CHARSET "):
        charset = _charset(parser)
    return _program(parser, charset, returns)


def parse_sort(parser: Parser) -> Sort:
    parser.space()
    returns = _returns(parser, b"ESORT")
    criteria = parser.items(lambda: _criterion(parser))
    if len(criteria) > MAX_CRITERIA:
        raise ProtocolViolation("Too many sort criteria")
    parser.space()
    return Sort(tuple(criteria), _program(parser, _charset(parser), returns))


def _criterion(parser: Parser) -> Criterion:
    name = parser.keyword()
    descending = name == b"REVERSE"
    if descending:
        parser.space()
        name = parser.keyword()
    if name not in _COLUMNS:
        raise ProtocolViolation("Unknown sort criterion")
    if name.startswith(b"DISPLAY"):
        parser.uses(b"SORT=DISPLAY")
    return Criterion(_COLUMNS[name], descending)


def parse_thread(parser: Parser) -> Thread:
    parser.space()
    algorithm = parser.keyword()
    parser.space()
    return Thread(algorithm, _program(parser, _charset(parser)))


def _returns(parser: Parser, extension: bytes) -> Return | None:
    """Take RETURN, which is of `extension`, and its list, if that comes next."""
    if not parser.skip(b"RETURN "):
        return None
    parser.uses(extension)
    asked = Return(0)
    for name in parser.items(parser.keyword, may_be_empty=True):
        try:
            asked |= Return[name.decode("ascii")]
        except KeyError:
            raise ProtocolViolation("Unknown result option") from None
    parser.space()
    if Return.SAVE in asked:
        parser.uses(b"SEARCHRES")
    return asked or Return.ALL


def _charset(parser: Parser) -> str:
    charset = parser.astring()
    parser.space()
    return charset.decode("ascii", "replace")


def _program(parser: Parser, charset: str, returns: Return | None = None) -> Program:
    if not is_known(charset):
        parser.at = len(parser.data)  # nobody can tell what is meant
        return Program(None, returns)
    key = read_keys(parser, charset)
    return Program(key, returns, b"CONDSTORE" in parser.extensions)
