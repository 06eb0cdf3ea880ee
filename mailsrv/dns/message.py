"""Queries and answers of the DNS as octets (RFC 1035 section 4). Pure.

Only what a stub resolver wants is read: the chain of CNAMEs, the records of one type,
the SOA of a denial. Answers are hostile: dnspython's own reader of whole messages
takes 14 s for some of 48 KiB, so its names and records alone are used, few of them.
"""

import struct
from dataclasses import dataclass, field
from typing import Self

import dns.exception
import dns.rdata
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdataclass import RdataClass
from dns.rdatatype import RdataType

from mailsrv.dns.resolver import dns_name

# What arrives without fragments nearly everywhere (RFC 9715 section 3.2 has 1400).
UDP_OCTETS = 1232
MAX_SCANNED = 500  # records of an answer, signatures and all
MAX_RECORDS = 200  # of the type that was asked for
MAX_CNAMES = 8
MAX_NAME = 255  # octets, RFC 1035 section 2.3.4
MAX_NEGATIVE_TTL_S = 3 * 3600  # RFC 2308 section 5
MAX_TTL_S = 24 * 3600

_HEADER = struct.Struct("!HHHHHH")
_QUESTION = struct.Struct("!HH")
_RECORD = struct.Struct("!HHIH")
_OPT = struct.Struct("!BHHIH")
_QR, _OPCODE, _TC, _RD, _RA, _AD = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x0020
_DO = 0x8000  # of the OPT record's flags, RFC 3225 section 3
_POINTER = 0xC0

_Labels = tuple[bytes, ...]
"""A name in lower case, by which names compare."""


class NotOurs(Exception):
    """These octets do not answer the question: somebody else's, or a forgery."""


class BadAnswer(Exception):
    """The answer is for us and cannot be read."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query. `id` is random; `wants_proof` asks for DNSSEC's judgement."""

    name: str
    type: RdataType
    id: int
    wants_proof: bool = False
    plain: bool = False  # without EDNS
    wire_name: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        wire = dns_name(self.name).to_wire()
        assert wire is not None  # noqa: S101  it is written to no stream
        object.__setattr__(self, "wire_name", wire)  # frozen, so the long way

    def to_wire(self) -> bytes:
        """Return the octets of the query."""
        # RFC 6840 section 5.7: AD in a query asks for AD in the answer.
        flags = _RD | (_AD if self.wants_proof else 0)
        wire = _HEADER.pack(self.id, flags, 1, 0, 0, 0 if self.plain else 1)
        wire += self.wire_name + _QUESTION.pack(self.type, RdataClass.IN)
        if self.plain:
            return wire
        do = _DO if self.wants_proof else 0
        return wire + _OPT.pack(0, RdataType.OPT, UDP_OCTETS, do, 0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server says. The TTL is 0 for a denial that may not be kept."""

    rcode: Rcode
    truncated: bool
    authenticated: bool  # the AD bit
    records: tuple[Rdata, ...]
    canonical: str
    ttl_s: int
    size_octets: int
    # Nothing was found, and nothing denied: the rest of the chain is to be asked for.
    incomplete: bool


def read(wire: bytes, question: Question) -> Answer:
    """Read an answer. Raises `NotOurs` and `BadAnswer`."""
    if len(wire) < _HEADER.size:
        raise NotOurs
    id, flags, questions, answers, authorities, _ = _HEADER.unpack_from(wire)
    if id != question.id or not flags & _QR or flags & _OPCODE:
        raise NotOurs
    try:
        rcode = Rcode(flags & 0xF)
        if questions == 0 and rcode in (Rcode.FORMERR, Rcode.NOTIMP):
            return _failure(rcode, question)  # some repeat nothing
        reader = _Reader(wire, _HEADER.size)
        if questions != 1 or not reader.asks(question):
            raise NotOurs
        if flags & _TC:
            return _failure(rcode, question, truncated=True)
        if rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
            return _failure(rcode, question)
        found = _Section.read(reader, answers, question.type)
        return _answer(question, rcode, flags, found, reader, authorities)
    except (struct.error, IndexError, ValueError, dns.exception.DNSException) as error:
        raise BadAnswer("the answer cannot be read") from error


def _failure(rcode: Rcode, question: Question, *, truncated: bool = False) -> Answer:
    return Answer(rcode, truncated, False, (), question.name, 0, 0, False)


def _answer(
    question: Question,
    rcode: Rcode,
    flags: int,
    found: "_Section",
    reader: "_Reader",
    authorities: int,
) -> Answer:
    name, ttl_s = found.follow(_labels(question.wire_name), question.type)
    records = found.records.get(name, []) if rcode is Rcode.NOERROR else []
    incomplete = False
    if not records:
        if not flags & _RA:
            # A server that does not ask others knows nothing of what it does not have.
            raise BadAnswer("the server does not resolve for us")
        denial_s = reader.soa_ttl(authorities)
        ttl_s = 0 if denial_s is None else min(ttl_s, denial_s)
        incomplete = denial_s is None and bool(found.aliases)
    return Answer(
        rcode,
        False,
        bool(flags & _AD),
        tuple(records),
        Name((*name, b"")).to_text(omit_final_dot=True),
        ttl_s,
        len(reader.wire),
        incomplete and rcode is Rcode.NOERROR,
    )


@dataclass(slots=True)
class _Section:
    """The answer's records that matter, by the name that owns them."""

    aliases: dict[_Labels, tuple[_Labels, int]] = field(default_factory=dict)
    records: dict[_Labels, list[Rdata]] = field(default_factory=dict)
    ttls_s: dict[_Labels, int] = field(default_factory=dict)

    @classmethod
    def read(cls, reader: "_Reader", count: int, wanted: RdataType) -> Self:
        section, left = cls(), MAX_RECORDS
        if count > MAX_SCANNED:
            raise BadAnswer("the answer has too many records")
        for _ in range(count):
            owner, type, ttl_s, start, length = reader.record()
            if type == wanted and left:
                left -= 1
                rdata = dns.rdata.from_wire(
                    RdataClass.IN, wanted, reader.wire, start, length
                )
                section.records.setdefault(owner, []).append(rdata)
                kept_s = section.ttls_s.get(owner, MAX_TTL_S)
                section.ttls_s[owner] = min(kept_s, ttl_s)
            elif type == RdataType.CNAME and len(section.aliases) <= MAX_CNAMES:
                target = _Reader(reader.wire, start).name()
                section.aliases.setdefault(owner, (target, ttl_s))
        return section

    def follow(self, name: _Labels, wanted: RdataType) -> tuple[_Labels, int]:
        """Return where the chain ends, and for how long it may be kept."""
        ttl_s = MAX_TTL_S
        for _ in range(MAX_CNAMES + 1):
            if name in self.records or name not in self.aliases:
                return name, min(ttl_s, self.ttls_s.get(name, MAX_TTL_S))
            name, alias_ttl_s = self.aliases[name]
            ttl_s = min(ttl_s, alias_ttl_s)
        raise BadAnswer("the chain of CNAMEs is too long, or a circle")


class _Reader:
    """Reads names and records in their order."""

    def __init__(self, wire: bytes, at: int) -> None:
        self.wire = wire
        self._at = at

    def asks(self, question: Question) -> bool:
        """Whether the one question is the one that was asked."""
        same = self.name() == _labels(question.wire_name)
        type, kind = _QUESTION.unpack_from(self.wire, self._at)
        self._at += _QUESTION.size
        return same and type == question.type and kind == RdataClass.IN

    def record(self) -> tuple[_Labels, int, int, int, int]:
        """Return owner, type, TTL, and where the data are; type 0: another class."""
        owner = self.name()
        type, kind, ttl_s, length = _RECORD.unpack_from(self.wire, self._at)
        start = self._at + _RECORD.size
        self._at = start + length
        if self._at > len(self.wire):
            raise BadAnswer("a record is cut off")
        # RFC 2181 section 8: with the highest bit set a TTL is 0.
        ttl_s = 0 if ttl_s >> 31 else min(ttl_s, MAX_TTL_S)
        return owner, type if kind == RdataClass.IN else 0, ttl_s, start, length

    def soa_ttl(self, count: int) -> int | None:
        """Return how long a denial counts (RFC 2308 section 5); None: no SOA."""
        for _ in range(min(count, MAX_SCANNED)):
            _, type, ttl_s, start, length = self.record()
            if type == RdataType.SOA:
                (minimum,) = struct.unpack_from("!I", self.wire, start + length - 4)
                return int(min(ttl_s, minimum, MAX_NEGATIVE_TTL_S))
        return None

    def name(self) -> _Labels:
        """Read a name; pointers lead back only (RFC 1035 section 4.1.4)."""
        wire, at, end = self.wire, self._at, 0
        labels: list[bytes] = []
        octets, before = 1, at
        while length := wire[at]:
            if length >= _POINTER:
                end = end or at + 2
                at = (length & ~_POINTER) << 8 | wire[at + 1]
                if at >= before:
                    raise BadAnswer("a name points forward")
                before = at
                continue
            if length > 63 or at + 1 + length >= len(wire):
                raise BadAnswer("a label is too long")
            octets += length + 1
            if octets > MAX_NAME:
                raise BadAnswer("a name is too long")
            labels.append(wire[at + 1 : at + 1 + length].lower())
            at += 1 + length
        self._at = end or at + 1
        return tuple(labels)


def _labels(wire_name: bytes) -> _Labels:
    return _Reader(wire_name, 0).name()
