"""SEARCH: its grammar, and each key against a real Maildir."""

import calendar
from array import array
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.object_ids import email_id, thread_id
from mailsrv.imap.parser import Parser
from mailsrv.imap.search_arguments import Return, parse_search
from mailsrv.imap.search_keys import (
    And,
    Compare,
    Contains,
    HasFlag,
    Header,
    Identified,
    Identity,
    IsRecent,
    Key,
    ModSeq,
    Not,
    Numbers,
    Or,
    Order,
    Quantity,
    Within,
)
from mailsrv.imap.searching import Scope, Searcher, cost
from mailsrv.mailboxes.flags import flag_mask
from mailsrv.mailboxes.sequence import SAVED, Snapshot
from mailsrv.store.delivery import Letter
from mailsrv.store.values import Target
from tests.store.account_fixture import Office

T = TypeVar("T")

SEEN = HasFlag("\\Seen")

KEYS: list[tuple[bytes, Key]] = [
    (b"ALL", And(())),
    (b"seen", SEEN),
    (b"UNDELETED", Not(HasFlag("\\Deleted"))),
    (b"NEW", And((IsRecent(), Not(SEEN)))),
    (b"OLD", Not(IsRecent())),
    (b"KEYWORD $Label1", HasFlag("$Label1")),
    (b"UNKEYWORD x", Not(HasFlag("x"))),
    (b"1,3:*", Numbers(((1, 1), (3, 0)), by_uid=False)),
    (b"*", Numbers(((0, 0),), by_uid=False)),
    (b"UID 5", Numbers(((5, 5),), by_uid=True)),
    (b"LARGER 10", Compare(Quantity.SIZE, Order.MORE, 10)),
    (b"SMALLER 10", Compare(Quantity.SIZE, Order.LESS, 10)),
    (b"ON 2-Jan-1970", Compare(Quantity.INTERNAL_DAY, Order.EQUAL, 1)),
    (b'SENTSINCE "1-jan-1970"', Compare(Quantity.SENT_DAY, Order.NOT_LESS, 0)),
    (b"SENTBEFORE 1-Feb-1970", Compare(Quantity.SENT_DAY, Order.LESS, 31)),
    (b"SUBJECT Hello", Header(b"subject", "hello")),
    (b'HEADER X-Foo ""', Header(b"x-foo", "")),
    (b"BODY {3}\r\na b", Contains("a b", header=False)),
    (b'TEXT "Gr\xc3\xbc\xc3\x9fe"', Contains("gru\u0308sse", header=True)),
    (b"$", Numbers(SAVED, by_uid=False)),
    (b"UID $", Numbers(SAVED, by_uid=True)),
    (b"OLDER 60", Within(60, younger=False)),
    (b"younger 60", Within(60, younger=True)),
    (b"MODSEQ 0", ModSeq(0)),
    (b"SAVEDON 2-Jan-1970", Compare(Quantity.SAVED_DAY, Order.EQUAL, 1)),
    (b"SAVEDATESUPPORTED", And(())),
    (b"EMAILID M1", Identified(Identity.EMAIL, b"M1")),
    (b"ThreadID T1", Identified(Identity.THREAD, b"T1")),
    (rb'MODSEQ "/flags/\\draft" all 620162338', ModSeq(620162338)),
    (b"NOT NOT SEEN", Not(Not(SEEN))),
    (b"OR SEEN (RECENT FROM a)", Or(SEEN, And((IsRecent(), Header(b"from", "a"))))),
]

KEYS_GRUSSE = b'BODY "Gr\xc3\xbc\xc3\x9fe"'

WRONG = [
    b"",
    b"()",
    b"(SEEN",
    b"SEEN)",
    b"NOT",
    b"OR SEEN",
    b"NONSENSE",
    b"FROM",
    b"ON 31-Feb-2000",
    b"LARGER x",
    b"UID x",
    b"0",
    b"SEEN  ALL",
    b"CHARSET UTF-8",
    b"$,1",
    b"OLDER 0",
    b"MODSEQ 9223372036854775808",
    b'MODSEQ "/flags/x" some 1',
    b"RETURN ALL SEEN",
    b"RETURN (NONSENSE) SEEN",
    b"RETURN (ALL)",
    b"BODY \xff",
    b'BODY "\xff"',
    b"NOT " * 60 + b"SEEN",
    b"(" * 60 + b"SEEN" + b")" * 60,
    b" ".join([b"SEEN"] * 501),
]


def parse(wire: bytes) -> Key:
    parser = Parser(b" " + wire)
    key = parse_search(parser).known_key
    parser.end()
    return key


class GrammarTests(SynchronousTestCase):
    def test_keys(self) -> None:
        for wire, key in KEYS:
            self.assertEqual(parse(wire), And((key,)), wire)
        self.assertEqual(parse(b"SEEN ALL "), And((SEEN, And(()))))

    def test_wrong(self) -> None:
        for wire in WRONG:
            self.assertRaises(ProtocolViolation, parse, wire)

    def test_charset(self) -> None:
        for wire in (b"CHARSET UTF-8 SEEN", b'charset "us-ascii" SEEN'):
            self.assertEqual(parse(wire), And((SEEN,)))
        self.assertEqual(
            parse(b'CHARSET ISO-8859-1 BODY "gr\xfc\xdfe"'), parse(KEYS_GRUSSE)
        )
        refused = self.assertRaises(Refused, parse, b"CHARSET X-NONE BODY {1}\r\n\xff")
        self.assertEqual(refused.code, b"BADCHARSET (US-ASCII UTF-8)")

    def test_return(self) -> None:
        for wire, returns in (
            (b"", None),
            (b"RETURN () ", Return.ALL),
            (b"return (min Max) ", Return.MIN | Return.MAX),
            (b"RETURN (COUNT SAVE) CHARSET UTF-8 ", Return.COUNT | Return.SAVE),
        ):
            program = parse_search(Parser(b" " + wire + b"SEEN"))
            self.assertEqual((program.returns, program.key), (returns, And((SEEN,))))

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                b"NOT OR SEEN ( ) FROM a 1:* UID ON CHARSET {1}\r\n".split(b" ")
            )
            | st.sampled_from([b" ", b'"', b"\xff", b"2-Jan-1970"]),
            max_size=12,
        ).map(b"".join)
    )
    def test_any_octets_parse_or_are_refused(self, wire: bytes) -> None:
        try:
            parse(wire)
        except (ProtocolViolation, Refused):
            pass

    def test_cheap_keys_come_first(self) -> None:
        wires = [b"SEEN", b"LARGER 1", b"SUBJECT x", b"HEADER X-Y x", b"BODY x"]
        costs = [cost(parse(wire)) for wire in wires]
        self.assertEqual(costs, sorted(set(costs)))
        self.assertEqual(cost(parse(b"OR SEEN NOT (ALL TEXT x)")), costs[-1])


def run(generator: Generator[None, None, T]) -> T:
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what it returns


MESSAGES = [
    # 1
    b"From: Anna <anna@a.test>\nTo: Ben <ben@b.test>\nSubject: Plain words\n"
    b"Date: Wed, 1 Jul 2020 23:30:00 -0800\nMessage-ID: <one@a.test>\n\n"
    b"the body\nof one\n",
    # 2
    b"From: =?iso-8859-1?Q?J=F6rg?= <j@a.test>\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\n"
    b"Reply-To: elsewhere@c.test\nX-Foo: bar\nContent-Type: text/plain; charset=utf-8\n"
    b"Content-Transfer-Encoding: base64\n\n" + b"w5xiZXIgYWxsZW4gR2lwZmVsbg==\n",
    # 3
    b"Subject: mixed\nSubject: zweitens\nMessage-ID: <a@c>\nMessage-ID: <b@c>\n"
    b"Cc: carl@c.test\nBcc: b@c.test\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n"
    b"--b\nContent-Type: text/html; charset=iso-8859-1\n"
    b"Content-Transfer-Encoding: quoted-printable\n\n<p>Stra=DFe <b>nac</b>h S=FCden\n"
    b"--b\nContent-Type: application/octet-stream\n\nhidden\n--b--\n",
    # 4
    b"Subject: =?iso-2022-jp?B?GyRCRnxLXBsoQg==?=\nTo: <>\n"
    b"From: <@relay.test:d@a.test>\n"
    b"Content-Type: text/plain; charset=iso-2022-jp\n\n\x1b$BF|K\\\x1b(B\n"
    + b"filler\n"
    * 100,
]

FIRST = calendar.timegm((2020, 7, 2, 0, 0, 0))

FOUND: list[tuple[bytes, list[int]]] = [
    (b"ALL", [1, 2, 3, 4]),
    (b"SEEN", [2]),
    (b"UNSEEN FLAGGED", [3]),
    (b"KEYWORD $label1", [4]),
    (b"UNKEYWORD $Label1", [1, 2, 3]),
    (b"KEYWORD nobody-has-this", []),
    (b"RECENT", [4]),
    (b"NEW", [4]),
    (b"2:3", [2, 3]),
    (b"*", [4]),
    (b"9:*", [4]),
    (b"UID 4:6", [2]),
    (b"UID 99:*", [4]),
    (b"UID 5", []),
    (b"LARGER 500", [4]),
    (b"SMALLER 500", [1, 2, 3]),
    (b"ON 2-Jul-2020", [1]),
    (b"BEFORE 2-Jul-2020", []),
    (b"SINCE 3-Jul-2020", [2, 3, 4]),
    (b"SENTON 1-Jul-2020", [1]),
    (b"SENTSINCE 2-Jul-2020", []),
    (b"SENTBEFORE 2-Jul-2020", [1]),
    (b"FROM anna@A.test", [1]),
    (b'FROM "J\xc3\xb6rg <j@a"', [2]),
    (b"TO ben", [1]),
    (b"CC carl", [3]),
    (b"BCC b@c", [3]),
    (b'SUBJECT "gr\xc3\xbc\xc3\x9fe"', [2]),
    (b"SUBJECT {6}\r\n\xe6\x97\xa5\xe6\x9c\xac", [4]),
    (b"HEADER Message-ID <one@a.test>", [1]),
    (b"SUBJECT zweitens", [3]),
    (b"SUBJECT zw", [3]),
    (b"HEADER Subject mixed", [3]),
    (b"HEADER Message-ID <b@c>", [3]),
    (b"HEADER Message-ID zweitens", []),
    (b'HEADER Reply-To ""', [2]),
    (b"HEADER x-foo BAR", [2]),
    (b'HEADER X-None ""', []),
    (b'HEADER To ""', [1, 4]),
    (b'TO ""', [1, 4]),
    (b"FROM relay.test", [4]),
    (b'BODY "body of"', [1]),
    (b"BODY anna", []),
    (b"TEXT anna", [1]),
    (b"BODY {6}\r\n\xc3\xbcber", [2]),
    (b'BODY "strasse nach s\xc3\xbcden"', [3]),
    (b"TEXT hidden", []),
    (b"BODY {6}\r\n\xe6\x97\xa5\xe6\x9c\xac", [4]),
    (b"$", [1, 3]),
    (b"UID $ NOT 1", [3]),
    (b"OLDER 100000", [1]),
    (b"OLDER 100001", []),
    (b"YOUNGER 1", [2, 3, 4]),
    (b"MODSEQ 103", [3, 4]),
    (b"SAVEDBEFORE 1-Jan-2021", []),
    (b"SAVEDSINCE 1-Jan-2021", [1, 2, 3, 4]),
    (b"THREADID " + thread_id(b"one@a.test"), [1]),
    (b"THREADID T0", []),
    (b"NOT SEEN NOT FLAGGED", [1, 4]),
    (b"OR SEEN TEXT anna", [1, 2]),
    (b"OR (BODY body SEEN) NOT (OR 1 LARGER 500)", [2, 3]),
]


class SearchingTests(SynchronousTestCase):
    def setUp(self) -> None:
        office = Office(Path(self.mktemp()))
        self.store = office.store
        for n, content in enumerate(MESSAGES):
            target = Target("anna", internal_date=FIRST + n * 100_000)
            letter = Letter([content], [target])
            copies = office.delivery.deliver([letter] * 3)  # UID 3 has number 1, ...
            delivered = [copy[0] for copy in copies if isinstance(copy, list)]
            self.store.ingest("INBOX", delivered)
            uid = 3 * n + 3
            self.store.expunge("INBOX", [uid - 1, uid - 2], only_deleted=False)
            names = [[], ["\\Seen"], ["\\Flagged"], ["$Label1"]][n]
            self.store.store_flags("INBOX", [uid], "+", names)
        state = self.store.open("INBOX")
        self.keywords = state.keywords
        uids = array("I", state.uids)
        mod_seqs = array("Q", range(101, 101 + len(uids)))
        flags = array("Q", state.flags)
        self.messages = Snapshot(uids, flags, mod_seqs, (), [(uids[-1], uids[-1] + 1)])

    def search(self, wire: bytes) -> list[int]:
        """Return the sequence numbers of what matches."""
        scope = Scope(
            "INBOX",
            lambda name: flag_mask([name], self.keywords),
            len(self.messages.uids),
            self.messages.uids[-1],
            saved=((3, 3), (7, 9)),
            now_s=FIRST + 100_000,
        )
        searcher = Searcher(self.store, scope, self.messages)
        return [match.seq for match in run(searcher.find(parse(wire)))]

    def test_keys(self) -> None:
        self.assertEqual(list(self.messages.uids), [3, 6, 9, 12])
        for wire, numbers in FOUND:
            self.assertEqual(self.search(wire), numbers, wire)

    def test_email_id(self) -> None:
        ((stored,),) = self.store.rows("INBOX", [6], ["email_id"]).values()
        wire = b"EMAILID " + email_id(stored)
        self.assertEqual(self.search(wire), [2])

    def test_keys_through_the_texts(self) -> None:
        run(self.store.index_texts(0))
        for wire, numbers in FOUND:
            self.assertEqual(self.search(wire), numbers, wire)
        # Nothing that is sought in texts alone opens a file.
        self.patch(type(self.store), "locate", None)
        for wire, numbers in FOUND:
            if wire.startswith((b"BODY", b"TEXT")):
                self.assertEqual(self.search(wire), numbers, wire)

    def test_gone_messages_do_not_match(self) -> None:
        self.store.expunge("INBOX", [3], only_deleted=False)
        self.store.forget("INBOX", [3])
        for wire in (b"SMALLER 999999", b"SUBJECT plain", b"TEXT body"):
            self.assertNotIn(1, self.search(wire), wire)
