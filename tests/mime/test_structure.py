"""MIME structure: the RFC's examples, broken mail, and the email package's view."""

import email
import email.message
import email.policy
import re
from typing import Any, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.bodystructure import body_and_bodystructure
from mailsrv.mime.header import header_end
from mailsrv.mime.served import STEP, LineCounter, seek, to_crlf
from mailsrv.mime.structure import Part, parse, part_at

# RFC 2049 appendix A, shortened, with a message in a digest added.
COMPLEX = b"""\
MIME-Version: 1.0
From: Nathaniel Borenstein <nsb@nsb.fv.com>
Content-Type: multipart/mixed;
 boundary=unique-boundary-1

preamble
--unique-boundary-1

  ... Some text appears here ...

--unique-boundary-1
Content-type: text/plain; charset=US-ASCII

This could have been part of the previous part.

--unique-boundary-1
Content-Type: multipart/parallel; boundary=unique-boundary-2

--unique-boundary-2
Content-Type: audio/basic
Content-Transfer-Encoding: base64

AAAA

--unique-boundary-2
Content-Type: image/jpeg
Content-Transfer-Encoding: base64
Content-ID: <c@d>
Content-Disposition: attachment; filename="a b.jpg"

/9j/

--unique-boundary-2--

--unique-boundary-1
Content-type: text/enriched
Content-Language: de, en

This is <bold>enriched.</bold>

--unique-boundary-1
Content-Type: message/rfc822

From: a@b
Subject: inner
Content-Type: Text/plain; charset=ISO-8859-1
Content-Transfer-Encoding: Quoted-printable

  ... Additional text goes here ...

--unique-boundary-1
Content-Type: multipart/digest; boundary=d

--d

Subject: in a digest

x
--d
Content-Type: text/plain

y
--d--
--unique-boundary-1--
epilogue
"""

OUTLINE = [
    ((), b"multipart/mixed"),
    ((1,), b"text/plain"),
    ((2,), b"text/plain"),
    ((3,), b"multipart/parallel"),
    ((3, 1), b"audio/basic"),
    ((3, 2), b"image/jpeg"),
    ((4,), b"text/enriched"),
    ((5,), b"message/rfc822"),
    ((5, 1), b"text/plain"),
    ((6,), b"multipart/digest"),
    ((6, 1), b"message/rfc822"),
    ((6, 1, 1), b"text/plain"),
    ((6, 2), b"text/plain"),
]


def kind(part: Part) -> bytes:
    return part.type + b"/" + part.subtype


def outline(content: bytes) -> list[bytes]:
    return [kind(part) for part in parse(content).walk()]


def bodies(content: bytes) -> list[bytes]:
    """Return the bodies of the parts without parts, checking both spans."""
    served = to_crlf(content)
    found = []
    for part in parse(content).walk():
        body = content[part.body : part.end]
        octets = served[part.served_body : part.served_end]
        assert octets == to_crlf(body), part
        assert part.lines == body.count(b"\n"), part
        assert part.start <= part.body <= part.end <= len(content), part
        if not part.parts:
            found.append(body)
    return found


class StructureTests(SynchronousTestCase):
    def test_outline(self) -> None:
        for content in (COMPLEX, to_crlf(COMPLEX)):
            root = parse(content)
            for numbers, expected in OUTLINE:
                part = part_at(root, numbers)
                assert part is not None, numbers
                self.assertEqual(kind(part), expected, numbers)
            for numbers in ((0,), (7,), (1, 1), (3, 3), (3, 1, 1), (5, 2), (5, 1, 1)):
                self.assertIsNone(part_at(root, numbers), numbers)

    def test_bodies(self) -> None:
        self.assertEqual(
            bodies(COMPLEX),
            [
                b"  ... Some text appears here ...\n",
                b"This could have been part of the previous part.\n",
                b"AAAA\n",
                b"/9j/\n",
                b"This is <bold>enriched.</bold>\n",
                b"  ... Additional text goes here ...\n",
                b"x",
                b"y",
            ],
        )

    def test_wire(self) -> None:
        body, bodystructure = body_and_bodystructure(parse(COMPLEX))
        inner = (
            b'(NIL "inner" ((NIL NIL "a" "b")) ((NIL NIL "a" "b"))'
            b' ((NIL NIL "a" "b")) NIL NIL NIL NIL NIL)'
        )
        digested = b'(NIL "in a digest" NIL NIL NIL NIL NIL NIL NIL NIL)'
        ascii = b'("charset" "us-ascii") NIL NIL "7bit"'
        self.assertEqual(
            body,
            b'(("text" "plain" ' + ascii + b" 34 1)"
            b'("text" "plain" ("charset" "US-ASCII") NIL NIL "7bit" 49 1)'
            b'(("audio" "basic" NIL NIL NIL "base64" 6)'
            b'("image" "jpeg" NIL "<c@d>" NIL "base64" 6) "parallel")'
            b'("text" "enriched" ' + ascii + b" 32 1)"
            b'("message" "rfc822" NIL NIL NIL "7bit" 157 '
            + inner
            + b' ("text" "plain" ("charset" "ISO-8859-1") NIL NIL'
            b' "quoted-printable" 37 1) 6)'
            + b'(("message" "rfc822" NIL NIL NIL "7bit" 25 '
            + digested
            + b' ("text" "plain" '
            + ascii
            + b' 1 0) 2)("text" "plain" '
            + ascii
            + b' 1 0) "digest") "mixed")',
        )
        self.assertIn(
            b'("image" "jpeg" NIL "<c@d>" NIL "base64" 6'
            b' NIL ("attachment" ("filename" "a b.jpg")) NIL NIL)',
            bodystructure,
        )
        self.assertIn(b' 32 1 NIL NIL ("de" "en") NIL)', bodystructure)
        self.assertTrue(
            bodystructure.endswith(
                b' "digest" ("boundary" "d") NIL NIL NIL)'
                b' "mixed" ("boundary" "unique-boundary-1") NIL NIL NIL)'
            )
        )

    def test_single_part_numbers(self) -> None:
        root = parse(b"Subject: s\n\nbody\n")
        self.assertIs(part_at(root, (1,)), root)
        for numbers in ((2,), (1, 1)):
            self.assertIsNone(part_at(root, numbers))

    def test_message_as_the_only_part(self) -> None:
        root = parse(b"Content-Type: message/rfc822\n\nSubject: s\n\nbody\n")
        self.assertIs(part_at(root, (1,)), root)
        self.assertIs(part_at(root, (1, 1)), root.parts[0])

    def test_a_message_with_utf8_in_its_header(self) -> None:
        root = parse(b"Content-Type: message/GLOBAL\n\nSubject: s\n\nbody\n")
        self.assertIs(part_at(root, (1, 1)), root.parts[0])
        basic = b'("message" "global" NIL NIL NIL "7bit" 20'
        # RFC 3501 section 9: only RFC822 has an envelope.
        plain = basic + b")", basic + b" NIL NIL NIL NIL)"
        self.assertEqual(body_and_bodystructure(root), plain)
        body, bodystructure = body_and_bodystructure(root, nest_global=True)
        envelope = b'(NIL "s" NIL NIL NIL NIL NIL NIL NIL NIL)'
        text = b'("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 6 1'
        self.assertEqual(body, b"%b %b %b) 3)" % (basic, envelope, text))
        self.assertTrue(
            bodystructure.startswith(b"%b %b %b " % (basic, envelope, text))
        )
        self.assertTrue(bodystructure.endswith(b" 3 NIL NIL NIL NIL)"))


def multipart(body: bytes, boundary: bytes = b"b") -> bytes:
    return b"Content-Type: multipart/mixed; boundary=" + boundary + b"\n\n" + body


MIXED, PLAIN = b"multipart/mixed", b"text/plain"

BROKEN: list[tuple[str, bytes, list[bytes], list[bytes]]] = [
    ("empty", b"", [PLAIN], [b""]),
    ("only a blank line", b"\n", [PLAIN], [b""]),
    ("no header", b"\nx", [PLAIN], [b"x"]),
    ("no blank line", b"A: b\nC: d", [PLAIN], [b""]),
    ("header of junk", b"junk\n\nx\n", [PLAIN], [b"x\n"]),
    ("blank is not empty", b"A: b\n \nC: d\n\nx", [PLAIN], [b"x"]),
    ("mixed line ends", b"A: b\r\nC: d\n\r\nx\ny\r\n", [PLAIN], [b"x\ny\r\n"]),
    ("bare CR is no line end", b"A: b\r\rC: d\n\nx", [PLAIN], [b"x"]),
    ("bad type", b"Content-Type: text\n\nx", [PLAIN], [b"x"]),
    ("no boundary", b"Content-Type: multipart/mixed\n\n--\nx", [PLAIN], [b"--\nx"]),
    ("no close", multipart(b"--b\n\nx\n"), [MIXED, PLAIN], [b"x\n"]),
    ("no delimiter", multipart(b"x\n"), [MIXED], [b"x\n"]),
    ("closed at once", multipart(b"--b--\n"), [MIXED], [b"--b--\n"]),
    ("close at the end of file", multipart(b"--b\n\nx\n--b--"), [MIXED, PLAIN], [b"x"]),
    (
        "delimiter at the end of file",
        multipart(b"--b\n\nx\n--b"),
        [MIXED, PLAIN, PLAIN],
        [b"x", b""],
    ),
    ("empty parts", multipart(b"--b\n--b\n\n--b--"), [MIXED, PLAIN, PLAIN], [b"", b""]),
    (
        "part without blank line",
        multipart(b"--b\nContent-Type: a/b\n--b\n\nx\n--b--"),
        [MIXED, b"a/b", PLAIN],
        [b"", b"x"],
    ),
    (
        "blanks after boundary",
        multipart(b"--b \t\n\nx\n--b-- \n"),
        [MIXED, PLAIN],
        [b"x"],
    ),
    (
        "longer line is no delimiter",
        multipart(b"--b\n\n--bc\n--b--c\n--b--"),
        [MIXED, PLAIN],
        [b"--bc\n--b--c"],
    ),
    (
        "boundary that begins another",
        multipart(
            b"--b\nContent-Type: multipart/mixed; boundary=bb\n\n"
            b"--bb\n\nx\n--bb--\n--b\n\ny\n--b--\n"
        ),
        [MIXED, MIXED, PLAIN, PLAIN],
        [b"x", b"y"],
    ),
    (
        "inner multipart not closed",
        multipart(
            b"--b\nContent-Type: multipart/mixed; boundary=c\n\n"
            b"--c\n\nx\n--b\n\ny\n--b--\n"
        ),
        [MIXED, MIXED, PLAIN, PLAIN],
        [b"x", b"y"],
    ),
    (
        "the same boundary inside",
        multipart(
            b"--b\nContent-Type: multipart/mixed; boundary=b\n\n"
            b"--b\n\nx\n--b--\n--b\n\ny\n--b--\n"
        ),
        [MIXED, MIXED, PLAIN, PLAIN],
        [b"x", b"y"],
    ),
    (
        "parts after the close",
        multipart(b"--b\n\nx\n--b--\n--b\n\ny\n"),
        [MIXED, PLAIN],
        [b"x"],
    ),
    (
        "message cut by a boundary",
        multipart(b"--b\nContent-Type: message/rfc822\n\nSubject: s\n--b\n\nx\n"),
        [MIXED, b"message/rfc822", PLAIN, PLAIN],
        [b"", b"x\n"],
    ),
    ("NULs", b"A\0: b\n\n\0\n", [PLAIN], [b"\0\n"]),
    ("mbox line", b"From a@b Mon\nContent-Type: a/b\n\nx", [b"a/b"], [b"x"]),
    ("quoted boundary", multipart(b"--b c\n\nx\n", b'"b c"'), [MIXED, PLAIN], [b"x\n"]),
]


class BrokenTests(SynchronousTestCase):
    def test_broken_mail(self) -> None:
        for name, content, kinds, parts in BROKEN:
            self.assertEqual(outline(content), kinds, name)
            self.assertEqual(bodies(content), parts, name)
            crlf = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            self.assertEqual(outline(crlf), kinds, name)

    def test_multipart_without_parts_has_one_on_the_wire(self) -> None:
        body, _ = body_and_bodystructure(parse(multipart(b"")))
        self.assertEqual(
            body,
            b'(("text" "plain" ("charset" "us-ascii") NIL NIL "7bit" 0 0) "mixed")',
        )

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([b"\n", b"\r", b"a: b", b" ", b"x"]), max_size=12))
    def test_header_ends_where_the_structure_has_it(self, pieces: list[bytes]) -> None:
        content = b"".join(pieces)
        self.assertEqual(header_end(content), parse(content).body)


TEXT = st.from_regex(rb"[a-z.>-]{0,12}( [a-z]{1,5})?", fullmatch=True)
LINES = st.lists(TEXT, max_size=4).map(lambda lines: b"".join(x + b"\n" for x in lines))


def _leaf(kind: bytes, body: bytes) -> bytes:
    header = b"Content-Type: " + kind + b"\n" if kind else b""
    return header + b"\n" + body


def _multipart(drawn: tuple[list[bytes], int, bytes, bytes]) -> bytes:
    parts, number, preamble, epilogue = drawn
    boundary = b"=_%d" % number
    while re.search(rb"^--" + boundary + rb"(--)?[ \t]*$", b"".join(parts), re.M):
        number += 1000
        boundary = b"=_%d" % number
    delimiter = b"\n--" + boundary
    return (
        b'Content-Type: multipart/mixed;\n boundary="'
        + boundary
        + b'"\n\n'
        + preamble
        + b"".join(delimiter + b"\n" + part for part in parts)
        + delimiter
        + b"--\n"
        + epilogue
    )


MAILS = st.recursive(
    st.builds(_leaf, st.sampled_from([b"", b"text/html", b"Image/PNG; name=x"]), LINES),
    lambda inner: st.one_of(
        st.tuples(
            st.lists(inner, min_size=1, max_size=4), st.integers(0, 20), LINES, LINES
        ).map(_multipart),
        inner.map(lambda mail: b"Content-Type: message/rfc822\n\n" + mail),
    ),
    max_leaves=8,
)


def package_parts(message: email.message.Message) -> list[tuple[bytes, bytes | None]]:
    """Return what the email package makes of it: kinds, and bodies of leaves."""
    found: list[tuple[bytes, bytes | None]] = []
    for part in message.walk():
        payload = part.get_payload()
        text = payload.encode("latin-1") if isinstance(payload, str) else None
        found.append((part.get_content_type().encode(), text))
    return found


class PackageTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(MAILS)
    def test_well_formed_mail_as_the_email_package_reads_it(self, mail: bytes) -> None:
        got = [
            (kind(part), None if part.parts else mail[part.body : part.end])
            for part in parse(mail).walk()
        ]
        self.assertEqual(got, package_parts(email.message_from_bytes(mail)))
        bodies(mail)
        self.assertEqual(outline(to_crlf(mail)), [name for name, _ in got])

    @settings(max_examples=50, deadline=None)
    @given(MAILS)
    def test_wire_as_the_email_package_has_it(self, mail: bytes) -> None:
        message = email.message_from_bytes(mail)
        body, bodystructure = body_and_bodystructure(parse(mail))
        self.assertEqual(read_wire(body), package_structure(message, extended=False))
        self.assertEqual(
            read_wire(bodystructure), package_structure(message, extended=True)
        )


Wire: TypeAlias = "list[Wire] | bytes | int | None"


def read_wire(written: bytes) -> Wire:
    """Read what IMAP wrote: lists, strings, numbers, NIL."""
    stack: list[list[Wire]] = [[]]
    tokens = re.finditer(rb'"((?:[^"\\]|\\.)*)"|\d+|NIL|[()]| ', written)
    place = 0
    for token in tokens:
        assert token.start() == place, written[place:]
        place = token.end()
        match token[0]:
            case b"(":
                stack.append([])
            case b")":
                stack[-2].append(stack.pop())
            case b"NIL":
                stack[-1].append(None)
            case text if text.isdigit():
                stack[-1].append(int(text))
            case text if text != b" ":
                stack[-1].append(token[1])
    ((whole,),) = stack
    return whole


# Any: get_payload gives what the message has.
def package_structure(part: Any, *, extended: bool) -> Wire:
    """Return what BODYSTRUCTURE, or BODY, must be by the email package."""
    main, sub = (
        part.get_content_maintype().encode(),
        part.get_content_subtype().encode(),
    )
    parameters: Wire = [
        x.encode() for pair in part.get_params([])[1:] for x in pair
    ] or None
    tail: list[Wire] = [None] * 3 if extended else []
    if main == b"multipart":
        inner = [package_structure(p, extended=extended) for p in part.get_payload()]
        return [*inner, sub, *([parameters] if extended else []), *tail]
    if main == b"text":
        parameters = [b"charset", b"us-ascii"]
    if main == b"message":
        (message,) = part.get_payload()
        octets = to_crlf(message.as_bytes(policy=email.policy.compat32))
        structure = package_structure(message, extended=extended)
        more: list[Wire] = [[None] * 10, structure, octets.count(b"\n")]
    else:
        octets = to_crlf(part.get_payload().encode())
        more = [octets.count(b"\n")] if main == b"text" else []
    size = len(octets)
    md5: list[Wire] = [None] if extended else []
    return [main, sub, parameters, None, None, b"7bit", size, *more, *md5, *tail]


class ServedTests(SynchronousTestCase):
    CONTENT = (b"a\r\n\n\r" * 7 + b"b" * 13) * 6000

    def test_to_crlf_at_any_cut(self) -> None:
        octets = b"a\r\n\r\r\nb\n\n\r"
        whole = to_crlf(octets)
        self.assertEqual(whole, b"a\r\n\r\r\nb\r\n\r\n\r")
        for cut in range(len(octets) + 1):
            first, second = octets[:cut], octets[cut:]
            after_cr = first.endswith(b"\r")
            self.assertEqual(to_crlf(first) + to_crlf(second, after_cr=after_cr), whole)

    def test_counts_do_not_depend_on_steps(self) -> None:
        for places in ([len(self.CONTENT)], range(0, len(self.CONTENT) + 1, 997)):
            counter = LineCounter(self.CONTENT)
            for place in (*places, len(self.CONTENT)):
                served = counter.advance(place)
                # (a place between CR and LF has no served offset of its own)
            self.assertEqual(served, len(to_crlf(self.CONTENT)))
            self.assertEqual(counter.lines, self.CONTENT.count(b"\n"))

    def test_seek_finds_a_place_before(self) -> None:
        counter = LineCounter(self.CONTENT)
        size = counter.advance(len(self.CONTENT))
        for offset in range(0, size, 9973):
            place, served = seek(counter.checkpoints(), offset)
            self.assertLessEqual(served, offset)
            self.assertLess(offset - served, 2 * STEP)
            after_cr = place > 0 and self.CONTENT[place - 1 : place] == b"\r"
            rest = to_crlf(self.CONTENT[place:], after_cr=after_cr)
            self.assertEqual(rest[offset - served :], to_crlf(self.CONTENT)[offset:])
