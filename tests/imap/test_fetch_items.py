"""The grammar of FETCH's arguments."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.fetch_items import (
    Attribute,
    Fetch,
    Item,
    Section,
    Text,
    parse_fetch,
    parse_uid_fetch,
)
from mailsrv.imap.parser import Parser

FAST = (Attribute.FLAGS, Attribute.INTERNALDATE, Attribute.SIZE)

ITEMS: list[tuple[bytes, tuple[Item, ...]]] = [
    (b"FAST", FAST),
    (b"all", (*FAST, Attribute.ENVELOPE)),
    (b"FULL", (*FAST, Attribute.ENVELOPE, Attribute.BODY)),
    (b"(UID FLAGS uid)", (Attribute.UID, Attribute.FLAGS)),
    (b"BODYSTRUCTURE", (Attribute.BODYSTRUCTURE,)),
    (b"RFC822", (Section(b"RFC822"),)),
    (b"RFC822.HEADER", (Section(b"RFC822.HEADER", text=Text.HEADER, peek=True),)),
    (b"RFC822.TEXT", (Section(b"RFC822.TEXT", text=Text.TEXT),)),
    (b"BODY[]", (Section(b"BODY[]"),)),
    (
        b"body.peek[]<65536.65536>",
        (Section(b"BODY[]<65536>", partial=(65536, 65536), peek=True),),
    ),
    (b"BODY[1.2]", (Section(b"BODY[1.2]", (1, 2)),)),
    (b"BODY[1.mime]", (Section(b"BODY[1.MIME]", (1,), Text.MIME),)),
    (b"BODY[4.1.HEADER]", (Section(b"BODY[4.1.HEADER]", (4, 1), Text.HEADER),)),
    (
        b"BODY[TEXT]<0.2048>",
        (Section(b"BODY[TEXT]<0>", (), Text.TEXT, partial=(0, 2048)),),
    ),
    (
        b'(BODY.PEEK[HEADER.FIELDS (From "To" {2}\r\ncc)])',
        (
            Section(
                b"BODY[HEADER.FIELDS (FROM TO CC)]",
                text=Text.FIELDS,
                names=frozenset((b"from", b"to", b"cc")),
                peek=True,
            ),
        ),
    ),
    (
        b"BODY[2.HEADER.FIELDS.NOT (Received)]",
        (
            Section(
                b"BODY[2.HEADER.FIELDS.NOT (RECEIVED)]",
                (2,),
                Text.FIELDS_NOT,
                frozenset((b"received",)),
            ),
        ),
    ),
]

WRONG = [
    b"",
    b"()",
    b"(UID",
    b"(UID  FLAGS)",
    b"(ALL)",
    b"NONSENSE",
    b"BODY[",
    b"BODY[0]",
    b"BODY[1.]",
    b"BODY[MIME]",
    b"BODY[1.0]",
    b"BODY[HEADER.FIELDS]",
    b"BODY[HEADER.FIELDS ()]",
    b"BODY[]<0>",
    b"BODY[]<.1>",
    b"BODY.PEEK",
    b"BODY[" + b"1." * 101 + b"1]",
    b"(" + b" ".join(b"BODY[%d]" % n for n in range(1, 102)) + b")",
]


def parse(items: bytes) -> Fetch:
    parser = Parser(b" 1:* " + items)
    fetch = parse_fetch(parser)
    parser.end()
    return fetch


class FetchItemsTests(SynchronousTestCase):
    def test_items(self) -> None:
        for wire, items in ITEMS:
            self.assertEqual(parse(wire), Fetch(((1, 0),), False, items), wire)

    def test_wrong(self) -> None:
        for wire in WRONG:
            self.assertRaises(ProtocolViolation, parse, wire)

    def test_uid_fetch_tells_the_uid(self) -> None:
        fetch = parse_uid_fetch(Parser(b" 2,4:* (FLAGS)"))
        self.assertEqual(
            fetch, Fetch(((2, 2), (4, 0)), True, (Attribute.UID, Attribute.FLAGS))
        )

    def test_what_sets_seen(self) -> None:
        for wire, sets in (
            (b"BODY[]", True),
            (b"RFC822", True),
            (b"RFC822.TEXT", True),
            (b"(BODY.PEEK[] BODY[1])", True),
            (b"RFC822.HEADER", False),
            (b"BODY.PEEK[]", False),
            (b"FULL", False),
        ):
            self.assertEqual(parse(wire).sets_seen, sets, wire)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                b'BODY .PEEK [ ] 1 . HEADER FIELDS ( ) < 0 > NOT {1}\r\n " \xff'.split(
                    b" "
                )
            )
            | st.just(b" "),
            max_size=14,
        ).map(b"".join)
    )
    def test_any_octets_parse_or_are_refused(self, wire: bytes) -> None:
        try:
            parse(wire)
        except ProtocolViolation:
            pass
