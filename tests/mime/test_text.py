"""Decoded text: encoded words, charsets, transfer encodings, HTML, bounds."""

import base64
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime import charset, header
from mailsrv.mime.structure import parse
from mailsrv.mime.text import MAX_PART, WINDOW, part_text, texts

# RFC 2047 section 8, and what mailers make of it.
WORDS = [
    (
        b"=?US-ASCII?Q?Keith_Moore?= <moore@cs.utk.edu>",
        "Keith Moore <moore@cs.utk.edu>",
    ),
    (b"=?ISO-8859-1?Q?Keld_J=F8rn_Simonsen?=", "Keld J\xf8rn Simonsen"),
    (
        b"=?ISO-8859-1?B?SWYgeW91IGNhbiByZWFkIHRoaXMgeW8=?= "
        b"=?ISO-8859-2?B?dSB1bmRlcnN0YW5kIHRoZSBleGFtcGxlLg==?=",
        "If you can read this you understand the example.",
    ),
    (b"(=?ISO-8859-1?Q?a?= b)", "(a b)"),
    (b"=?ISO-8859-1?Q?a?=   =?ISO-8859-1?Q?b?=", "ab"),
    (b"=?ISO-8859-1?Q?a_b?=", "a b"),
    (b"=?utf-8?B?w7w=?=", "\xfc"),
    (b"=?utf-8?B?w7?=", "\ufffd"),
    (b"=?utf-8?Q?=C3?= =?utf-8?Q?=BC?=", "\xfc"),  # a character in two words
    (b"=?utf-8*de?Q?=C3=BC?=", "\xfc"),  # RFC 2231 section 5
    (b"=?nonsense?Q?=C3=BC?=", "\xfc"),
    (b"=?utf-8?Q?open", "=?utf-8?Q?open"),
    (b"raw \xc3\xbc", "raw \xfc"),
    (b"raw \xfc", "raw \xfc"),
]

CHARSETS = [
    ("iso-8859-1", "Gr\xfc\xdfe"),
    ("windows-1252", "\u201eGr\xfc\xdfe\u201c"),
    ("ISO_8859-15", "\u20ac 5"),
    ("windows-1251", "\u041f\u0440\u0438\u0432\u0435\u0442"),
    ("koi8-r", "\u041f\u0440\u0438\u0432\u0435\u0442"),
    ("iso-2022-jp", "\u65e5\u672c\u8a9e"),
    ("shift_jis", "\u65e5\u672c\u8a9e"),
    ("euc-jp", "\u65e5\u672c\u8a9e"),
    ("gb2312", "\u4e2d\u6587"),
    ("gb18030", "\u4e2d\u6587"),
    ("big5", "\u4e2d\u6587"),
    ("euc-kr", "\ud55c\uad6d\uc5b4"),
]


def all_texts(content: bytes, *, header: bool = False) -> list[str]:
    def read(offset: int, count: int) -> bytes:
        return content[offset : offset + count]

    return list(texts(parse(content), read, header=header))


class WordTests(SynchronousTestCase):
    def test_encoded_words(self) -> None:
        for wire, text in WORDS:
            self.assertEqual(header.decode(wire), text, wire)

    def test_charsets_of_bodies(self) -> None:
        for name, text in CHARSETS:
            head = f"Content-Type: text/plain; charset={name}\r\n\r\n".encode()
            self.assertEqual(part_text(head, text.encode(name)), text, name)

    def test_codecs_that_are_no_charsets_are_not_used(self) -> None:
        for name in ("idna", "punycode", "unicode_escape", "zip", "os", "../x"):
            self.assertEqual(charset.decode(b"a\\n", name), "a\\n")

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=60), st.sampled_from([n for n, _ in CHARSETS]))
    def test_any_octets_decode(self, octets: bytes, name: str) -> None:
        charset.fold(charset.decode(octets, name))
        header.decode(b"=?" + name.encode() + b"?q?" + octets + b"?= " + octets)
        header.from_base64(octets)

    def test_fold(self) -> None:
        same = ["Gr\xfc\xdfe  aus\nK\xf6ln", "GRU\u0308SSE AUS KO\u0308LN"]
        self.assertEqual(charset.fold(same[0]), charset.fold(same[1]))

    def test_blanks_at_the_ends_are_kept(self) -> None:
        # " x" is no substring of "ax".
        for text, folded in (
            (" x", " x"),
            ("\t\r\n x\xa0", " x "),
            ("x\n", "x "),
            (" ", " "),
            ("\r\n\t", " "),
            ("", ""),
            (" \xc4", " a\u0308"),
        ):
            self.assertEqual(charset.fold(text), folded, ascii(text))

    def test_what_a_casemap_takes_for_equal_is_equal(self) -> None:
        """RFC 5051; some compatibility characters stand for capitals."""
        equal: dict[str, set[str]] = {}
        for number in (*range(0xD800), *range(0xE000, 0x20000)):
            character = chr(number)
            mapped = charset.casemap(character)
            equal.setdefault(mapped, set()).add(charset.fold(character))
        different = [same for same in equal.values() if len(same) > 1]
        self.assertEqual(different, [])
        self.assertEqual(charset.fold("Acme\u2122"), "acmetm")


class TextTests(SynchronousTestCase):
    def test_encodings(self) -> None:
        for encoding, body in (
            (b"base64", base64.encodebytes("Gr\xfc\xdfe".encode())),
            (b"Quoted-Printable", b"Gr=C3=BC=\r\n=C3=9Fe"),
            (b"8bit", "Gr\xfc\xdfe".encode()),
        ):
            head = b"Content-Type: text/plain; charset=utf-8\r\n"
            head += b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n"
            self.assertEqual(part_text(head, body), "Gr\xfc\xdfe")

    def test_html_is_what_is_shown(self) -> None:
        html = (
            b"<style>p {seen}</style><p>T<b>om</b> &amp; J&eacute;r&#246;me<br>x"
            b"<!-- seen --><script>seen()</script>"
        )
        text = charset.fold(part_text(b"Content-Type: text/html\r\n\r\n", html))
        self.assertEqual(text.strip(), charset.fold("Tom & J\xe9r\xf6me x"))

    def test_attachments_are_not_read(self) -> None:
        content = (
            b"Subject: top\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n"
            b"--x\r\n\r\nbody\r\n"
            b"--x\r\nContent-Type: application/pdf\r\n\r\nhidden\r\n"
            b"--x\r\nContent-Type: message/rfc822\r\n\r\n"
            b"Subject: inner\r\n\r\nletter\r\n"
            b"--x--\r\n"
        )
        self.assertEqual(all_texts(content), ["body", "Subject: inner", "letter"])
        first = all_texts(content, header=True)[0]
        self.assertTrue(first.startswith("Subject: top\n"), first)

    def test_long_texts_come_in_windows(self) -> None:
        needle = b"needle"
        at = WINDOW - 3
        body = b"x" * at + needle + b"y" * 1000
        self.assertTrue(any("needle" in text for text in all_texts(b"\n" + body)))
        self.assertLess(len(all_texts(b"\n" + b"x" * 4 * MAX_PART)), 12)

    def test_hostile_html_is_linear(self) -> None:
        for piece in (
            b"<script",
            b"<script>",
            b"<!--",
            b"<p",
            b"</",
            b"&",
            b"&#",
            b"-",
        ):
            costs = []
            for n in (3000, 12_000):
                start = time.thread_time()
                part_text(b"Content-Type: text/html\r\n\r\n", piece * n)
                costs.append(time.thread_time() - start)
            self.assertLess(costs[1], costs[0] * 10 + 0.01, piece)
