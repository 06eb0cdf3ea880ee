"""The arguments of commands, token by token (RFC 3501 section 9)."""

import datetime
import re
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap import format
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.parser import EARLIEST_S, LATEST_S, Parser


class TokensTests(SynchronousTestCase):
    def refused(self, read: Callable[[Parser], object], *texts: bytes) -> None:
        for text in texts:
            parser = Parser(text)

            def read_all(parser: Parser = parser) -> None:
                read(parser)
                parser.end()

            self.assertRaises(ProtocolViolation, read_all)

    def test_atoms(self) -> None:
        self.assertEqual(Parser(b"Foo-1 x").atom(), b"Foo-1")
        self.assertEqual(Parser(b"fetch[").keyword(), b"FETCH[")
        self.refused(Parser.atom, b"", b" a", b"a]", b"(", b"{", b'"a"', b"a\x7f", b"%")

    def test_strings(self) -> None:
        self.assertEqual(Parser(rb'"a \"b\" \\"').string(), rb'a "b" \\'[:-1])
        self.assertEqual(Parser(b"{3}\r\na\r\n").string(), b"a\r\n")
        self.assertEqual(Parser(b"{3+}\r\n{0}").string(), b"{0}")
        self.assertEqual(Parser(b'""').string(), b"")
        self.refused(
            Parser.string, b"abc", b'"abc', b'"a\r\n"', rb'"\a"', b'"a\x00"', b"{1}"
        )

    def test_astrings(self) -> None:
        self.assertEqual(Parser(b"a]b").astring(), b"a]b")
        self.assertEqual(Parser(b'"a b"').astring(), b"a b")
        self.assertEqual(Parser(b"nil").astring(), b"nil")
        self.assertIsNone(Parser(b"nil").nstring())
        self.refused(Parser.astring, b"", b"a*", b"\xc3\xa9")

    def test_numbers(self) -> None:
        self.assertEqual(Parser(b"4294967295").number(), 4294967295)
        self.refused(Parser.number, b"4294967296", b"-1", b"", b"9" * 40)

    def test_sequence_sets(self) -> None:
        self.assertEqual(
            Parser(b"2,4:7,9,12:*,*:1").sequence_set(),
            ((2, 2), (4, 7), (9, 9), (12, 0), (0, 1)),
        )
        self.refused(
            Parser.sequence_set,
            *(b"", b"0", b"1,", b",1", b"1:", b":1", b"1:2:3", b"4294967296", b"1 2"),
        )

    def test_a_long_sequence_set_takes_linear_time(self) -> None:
        text = b",".join(b"%d" % n for n in range(1, 200_000, 2))
        self.assertEqual(len(Parser(text).sequence_set()), 100_000)
        self.refused(Parser.sequence_set, text + b",")

    def test_flags(self) -> None:
        self.assertEqual(
            Parser(rb"(\seen $Label1 \DELETED)").flags(),
            [b"\\Seen", b"$Label1", b"\\Deleted"],
        )
        self.assertEqual(Parser(b"()").flags(), [])
        self.refused(
            Parser.flags, rb"(\Recent)", rb"(\*)", rb"(\Seen", rb"(\Seen )", rb"\Seen"
        )

    def test_mailboxes(self) -> None:
        for text, name in (
            (b"inbox", "INBOX"),
            (b'"InBox/"', "INBOX"),
            (b"INBOX/a", "INBOX/a"),
            (b'"Entw&APw-rfe/"', "Entwürfe"),
            (b'""', ""),
        ):
            self.assertEqual(Parser(text).mailbox(), name)
        for text in (b"&", b'"Entw\xc3\xbcrfe"', b"a&AGE-"):
            with self.assertRaises(Refused) as caught:
                Parser(text).mailbox()
            self.assertEqual(caught.exception.code, b"CANNOT")

    def test_dates(self) -> None:
        self.assertEqual(Parser(b"1-Feb-1994").date(), datetime.date(1994, 2, 1))
        self.assertEqual(Parser(b'"28-FEB-2024"').date(), datetime.date(2024, 2, 28))
        self.refused(Parser.date, b"30-Feb-1994", b"1-Foo-1994", b'"1-Feb-1994', b"")

    def test_date_times(self) -> None:
        self.assertEqual(Parser(b'"17-Jul-1996 02:44:25 -0700"').date_time(), 837596665)
        self.assertEqual(Parser(b'" 1-Jan-1970 00:00:00 +0000"').date_time(), 0)
        self.assertEqual(
            Parser(b'"01-Jan-0001 00:00:00 +0000"').date_time(), EARLIEST_S
        )
        self.assertEqual(Parser(b'"31-Dec-9999 23:59:59 -1200"').date_time(), LATEST_S)
        self.refused(
            Parser.date_time,
            b'"17-Jul-1996 25:44:25 -0700"',
            b'"31-Feb-1996 02:44:25 -0700"',
            b'"17-Jul-1996 02:44:25"',
            b"17-Jul-1996 02:44:25 -0700",
        )

    def test_lists(self) -> None:
        parser = Parser(b"(a (b c)) d")

        def item() -> object:
            return parser.items(item) if parser.peek() == b"(" else parser.atom()

        self.assertEqual(item(), [b"a", [b"b", b"c"]])
        self.assertFalse(parser.at_end())
        self.refused(
            lambda p: p.items(p.atom), b"()", b"( a)", b"(a  b)", b"(a", b"(a )"
        )


class RoundTripTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=40))
    def test_a_string_that_is_written_is_read_again(self, data: bytes) -> None:
        for written in (format.string(data), format.astring(data)):
            parser = Parser(written)
            self.assertEqual(parser.astring(), data)
            parser.end()

    @settings(max_examples=50, deadline=None)
    @given(st.integers(0, 4_000_000_000))
    def test_a_date_time_that_is_written_is_read_again(self, utc_s: int) -> None:
        self.assertEqual(Parser(format.date_time(utc_s)).date_time(), utc_s)

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
    def test_a_mailbox_name_that_is_written_is_read_again(self, name: str) -> None:
        name = name.rstrip("/")
        if name.upper() != "INBOX":
            self.assertEqual(Parser(format.mailbox(name)).mailbox(), name)
            if re.search(r"[\x00-\x1f]", name) is None:  # the store lets none in
                written = format.mailbox(name, utf8=True)
                self.assertEqual(Parser(written, utf8=True).mailbox(), name)

    def test_a_mailbox_name_in_the_wrong_code(self) -> None:
        literal = b"{1}\r\n\xc3"
        for wire, utf8 in ((b'"\xc3\xbc"', False), (literal, True), (b"&-&", False)):
            with self.assertRaises(Refused):
                Parser(wire, utf8=utf8).mailbox()
        with self.assertRaises(ProtocolViolation):  # RFC 9755 section 3
            Parser(b'"\xc3"', utf8=True).mailbox()
        self.assertEqual(Parser(b"&APw-", utf8=True).mailbox(), "&APw-")

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(1, 2**32 - 2), max_size=20, min_size=1))
    def test_a_uid_set_keeps_the_order(self, uids: list[int]) -> None:
        ranges = Parser(format.uid_set(uids)).sequence_set()
        self.assertEqual([u for a, b in ranges for u in range(a, b + 1)], uids)
