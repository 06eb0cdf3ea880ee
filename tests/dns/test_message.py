"""Answers as octets: true ones, and all that a hostile server may send."""

import struct

import dns.message
import dns.rrset
from dns.rcode import Rcode
from dns.rdatatype import RdataType
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.message import (
    MAX_NEGATIVE_TTL_S,
    MAX_RECORDS,
    MAX_SCANNED,
    MAX_TTL_S,
    Answer,
    BadAnswer,
    NotOurs,
    Question,
    read,
)
from tests.dns.name_server import rrset

MX = Question("example.test", RdataType.MX, 0x1234)
TXT = Question("example.test", RdataType.TXT, 0x1234)
FLAGS = 0x8180  # an answer, recursion desired and available


def answer_to(question: Question, *sets: dns.rrset.RRset, ttl_s: int = 300) -> bytes:
    answer = dns.message.make_response(
        dns.message.from_wire(question.to_wire()), recursion_available=True
    )
    for one in sets:
        one.ttl = ttl_s
        (answer.authority if one.rdtype == RdataType.SOA else answer.answer).append(one)
    return answer.to_wire(max_size=65535)


def raw(*records: bytes, counts: tuple[int, int] | None = None) -> bytes:
    """An answer to MX with records written by hand."""
    answers, authorities = counts or (len(records), 0)
    header = struct.pack("!HHHHHH", MX.id, FLAGS, 1, answers, authorities, 0)
    question = MX.wire_name + struct.pack("!HH", RdataType.MX, 1)
    return header + question + b"".join(records)


def record(owner: bytes, type: int, data: bytes, ttl_s: int = 300) -> bytes:
    return owner + struct.pack("!HHIH", type, 1, ttl_s, len(data)) + data


class QuestionTests(SynchronousTestCase):
    def test_it_is_what_others_read(self) -> None:
        for question, flags, edns in (
            (MX, "RD", 0),
            (Question("a.test", RdataType.TLSA, 7, wants_proof=True), "RD AD", 0),
            (Question("a.test", RdataType.TLSA, 7, plain=True), "RD", -1),
        ):
            query = dns.message.from_wire(question.to_wire())
            self.assertEqual(dns.flags.to_text(query.flags), flags)
            self.assertEqual((query.id, query.edns), (question.id, edns))
            [asked] = query.question
            self.assertEqual(asked.name.to_text(), f"{question.name}.")
            self.assertEqual(asked.rdtype, question.type)


class AnswerTests(SynchronousTestCase):
    def test_ttls(self) -> None:
        mx = ["10 mx.test."]
        for ttl_s, kept_s in ((7, 7), (10**8, MAX_TTL_S), (2**31, 0)):
            octets = struct.pack("!I", ttl_s)
            answer = answer_to(MX, rrset("example.test", "MX", mx), ttl_s=0x01020304)
            answer = answer.replace(b"\x01\x02\x03\x04", octets)
            self.assertEqual(read(answer, MX).ttl_s, kept_s, ttl_s)

    def test_ttls_of_denials(self) -> None:
        for minimum, ttl_s, kept_s in (
            (60, 300, 60),
            (300, 60, 60),
            (10**6, 10**6, MAX_NEGATIVE_TTL_S),
        ):
            soa = rrset("test", "SOA", [f"ns.test. admin.test. 1 2 3 4 {minimum}"])
            answer = read(answer_to(MX, soa, ttl_s=ttl_s), MX)
            self.assertEqual((answer.records, answer.ttl_s), ((), kept_s))

    def test_others_records_do_not_count(self) -> None:
        others = rrset("other.test", "MX", ["0 evil.test."])
        another = rrset("example.test", "A", ["198.51.100.1"])
        alias = rrset("other.test", "CNAME", ["example.test."])
        self.assertEqual(read(answer_to(MX, others, another, alias), MX).records, ())

    def test_names_compare_without_case(self) -> None:
        answer = answer_to(MX, rrset("EXAMPLE.test", "MX", ["10 MX.test."]))
        answer = answer.replace(b"\x07example", b"\x07eXaMpLe")
        self.assertEqual(len(read(answer, MX).records), 1)

    def test_not_ours(self) -> None:
        good = answer_to(MX, rrset("example.test", "MX", ["10 mx.test."]))
        for bad in (
            b"",
            good[:11],
            MX.to_wire(),
            b"\0\0" + good[2:],
            answer_to(Question("other.test", RdataType.MX, MX.id)),
            answer_to(TXT),
            good[:4] + b"\0\0" + good[6:],
            good[:2] + b"\x89" + good[3:],  # another opcode
        ):
            self.assertRaises(NotOurs, read, bad, MX)

    def test_hostile_names(self) -> None:
        mx = struct.pack("!H", 10)
        itself = struct.pack("!H", 0xC000 | len(raw()))
        for owner in (
            itself,  # a pointer to itself
            b"\xff\xff",  # behind the end
            b"\x40a",  # a kind of label that there is not
            b"\x3f" + b"a" * 63,  # cut off
            b"\xc0",
            (b"\x3f" + b"a" * 63) * 5 + b"\0",  # more than 255 octets
            b"\x01a" + itself,  # grows with each turn
        ):
            wire = raw(record(owner, RdataType.MX, mx + b"\xc0\x0c"))
            self.assertRaises(BadAnswer, read, wire, MX)

    def test_hostile_records(self) -> None:
        for data in (b"", b"\0", b"\0\x0a\xff\xff", b"\0\x0a\x01a\0more"):
            wire = raw(record(b"\xc0\x0c", RdataType.MX, data))
            self.assertRaises(BadAnswer, read, wire, MX)
        for wire in (
            raw(counts=(1, 0)),
            raw(counts=(65535, 0)),
            raw(record(b"\xc0\x0c", RdataType.MX, b"\0\x0a\xc0\x0c"))[:-1],
            raw(record(b"\xc0\x0c", RdataType.SOA, b"")[:-2], counts=(0, 1)),
            raw(*[record(b"\0", RdataType.A, b"")] * (MAX_SCANNED + 1)),
        ):
            self.assertRaises(BadAnswer, read, wire, MX)

    def test_many_records(self) -> None:
        """Names of 120 labels, by pointers: a reader without bounds takes 14 s."""
        name = b"\x01a" * 120 + b"\0"
        question = Question(".".join("a" * 120), RdataType.MX, 1)
        header = struct.pack("!HHHHHH", 1, FLAGS, 1, MAX_SCANNED, 0, 0)
        one = record(b"\xc0\x0c", RdataType.MX, b"\0\x0a\xc0\x0c")
        wire = header + name + struct.pack("!HH", RdataType.MX, 1) + one * MAX_SCANNED
        self.assertEqual(len(read(wire, question).records), MAX_RECORDS)

    def test_failures(self) -> None:
        for code in (Rcode.SERVFAIL, Rcode.REFUSED, Rcode.FORMERR):
            wire = bytearray(answer_to(MX))
            wire[3] |= code
            self.assertEqual(read(bytes(wire), MX).rcode, code)
        bare = struct.pack("!HHHHHH", MX.id, 0x8181, 0, 0, 0, 0)
        self.assertEqual(read(bare, MX).rcode, Rcode.FORMERR)
        self.assertRaises(NotOurs, read, bare[:3] + b"\x80" + bare[4:], MX)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"\xc0\x0c", b"\xc0\x14", b"\x01x\xc0\x0c", b"\0"]),
                st.sampled_from([1, 5, 6, 15, 16, 46, 65]),
                st.binary(max_size=40),
            ),
            max_size=6,
        ),
        st.integers(0, 8),
        st.binary(max_size=4),
        st.integers(0, 400),
    )
    def test_whatever_comes(
        self, parts: list[tuple[bytes, int, bytes]], count: int, end: bytes, cut: int
    ) -> None:
        records = [record(owner, type, data) for owner, type, data in parts]
        wire = raw(*records, counts=(count, 8 - count)) + end
        for octets in (wire, wire[:-cut] if cut else wire):
            try:
                self.assertIsInstance(read(octets, MX), Answer)
            except (NotOurs, BadAnswer):
                pass

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=8))
    def test_spoiled_octets(self, changes: list[tuple[int, int]]) -> None:
        sets = [
            rrset("example.test", "CNAME", ["a.test."]),
            rrset("a.test", "MX", ["10 mx.a.test.", "20 mx2.a.test."]),
            rrset("test", "SOA", ["ns.test. admin.test. 1 2 3 4 5"]),
        ]
        wire = bytearray(answer_to(MX, *sets))
        for at, octet in changes:
            wire[at % len(wire)] = octet
        try:
            self.assertIsInstance(read(bytes(wire), MX), Answer)
        except (NotOurs, BadAnswer):
            pass
