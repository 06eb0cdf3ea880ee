"""Messages of 8 bits, made into 7."""

from email import message_from_bytes
from email.message import Message

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.downgrade import NotConvertible, seven_bit

BOTH = """\
From: anna@office.example
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b
Content-Transfer-Encoding: 8bit

--b
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße, größer = besser \n.
--b
Content-Type: application/x-data

dätä
--b
Content-Type: text/html; charset=us-ascii

<p>plain</p>
--b
Content-Type: message/rfc822
Content-Transfer-Encoding: 8bit

Subject: inner

naïve
--b--
"""


def converted(text: str | bytes) -> bytes:
    octets = text.encode() if isinstance(text, str) else text
    return b"".join(seven_bit(octets))


def decoded(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload


def leaves(octets: bytes) -> list[Message]:
    return [p for p in message_from_bytes(octets).walk() if not p.is_multipart()]


class SevenBitTests(SynchronousTestCase):
    def refused(self, text: str | bytes, why: str) -> None:
        error = self.assertRaises(NotConvertible, converted, text)
        self.assertIn(why, str(error))

    def test_plain_text(self) -> None:
        text = "Content-Type: text/plain; charset=utf-8\n\nGrüße aus dem Büro, ja\n"
        result = converted(text)
        self.assertTrue(result.isascii())
        self.assertIn(b"Content-Transfer-Encoding: quoted-printable\n", result)
        self.assertIn(b"MIME-Version: 1.0\n", result)
        self.assertIn(b"\nGr=C3=BC=C3=9Fe aus dem B=C3=BCro, ja\n", result)

    def test_each_part_that_needs_it(self) -> None:
        result = converted(BOTH)
        self.assertTrue(result.isascii())
        text, data, html, inner = leaves(result)
        self.assertEqual(decoded(text).decode(), "Grüße, größer = besser \n.")
        self.assertEqual(text["Content-Transfer-Encoding"], "quoted-printable")
        self.assertEqual(data["Content-Transfer-Encoding"], "base64")
        self.assertEqual(decoded(data).decode(), "dätä")
        self.assertIsNone(html["Content-Transfer-Encoding"])
        self.assertEqual(html.get_payload(), "<p>plain</p>")
        self.assertEqual(inner["Subject"], "inner")
        self.assertEqual(decoded(inner).decode(), "naïve")
        self.assertNotIn(b"8bit", result)  # no part says more than it has

    def test_both_line_ends(self) -> None:
        result = converted(BOTH.replace("\n", "\r\n"))
        text, data, _, inner = leaves(result.replace(b"\r\n", b"\n"))
        self.assertEqual(decoded(text).decode(), "Grüße, größer = besser \n.")
        self.assertEqual(decoded(data).decode(), "dätä")
        self.assertEqual(decoded(inner).decode(), "naïve")

    def test_ascii_stays_as_it_is(self) -> None:
        text = "From: a@b.example\nSubject: x\n\nplain\n"
        self.assertEqual(converted(text), text.encode())

    def test_other_scripts_are_shorter_in_base64(self) -> None:
        text = "Content-Type: text/plain; charset=utf-8\n\n" + "Добрый день\n" * 3
        result = converted(text)
        self.assertIn(b"base64", result)
        (part,) = leaves(result)
        # As it would have been sent: with CRLF.
        self.assertEqual(decoded(part).decode(), "Добрый день\r\n" * 3)

    def test_text_that_does_not_say_what_it_is(self) -> None:
        self.assertIn(b"charset=utf-8", converted("Subject: x\n\nGrüße aus Köln\n"))
        latin = "Subject: x\n\nGrüße aus Köln\n".encode("latin-1")
        self.assertIn(b"charset=unknown-8bit", converted(latin))

    def test_what_is_signed_is_not_touched(self) -> None:
        signed = (
            "Content-Type: multipart/signed; boundary=s\n\n--s\n"
            "Content-Transfer-Encoding: 8bit\n\n{}\n--s\n\nsig\n--s--\n"
        )
        ascii_only = signed.format("plain").encode()
        self.assertEqual(converted(ascii_only), ascii_only)
        self.refused(signed.format("Grüße"), "signed")
        within = "Content-Type: multipart/mixed; boundary=m\n\n--m\n{}\n--m--\n"
        self.refused(within.format(signed.format("Grüße")), "signed")

    def test_what_cannot_be_encoded(self) -> None:
        part = "Content-Type: {}\n\nGrüße, die länger sind\n"
        for kind in ("message/partial", "message/delivery-status", "multipart/mixed"):
            self.refused(part.format(kind), "broken")
        self.refused("Subject: Grüße\n\nplain\n", "header")
        self.refused(
            "Content-Type: multipart/mixed; boundary=b\n\nprä\n--b\n\nx\n--b--\n",
            "outside",
        )
        self.refused("Content-Transfer-Encoding: base64\n\nGrüße\n", "what is encoded")

    def test_reports_on_addresses_of_more_than_ascii(self) -> None:
        header = "Content-Type: message/global-delivery-status\n\n"
        text = header + "Final-Recipient: utf-8; ü@x\n"
        self.assertIn(b"utf-8; =C3=BC@x", converted(text))

    def test_long_lines(self) -> None:
        text = "Content-Type: text/plain\n\n" + "ü" + "a" * 300_000 + "\n"
        result = converted(text)
        self.assertLessEqual(max(map(len, result.split(b"\n"))), 76)
        (part,) = leaves(result)
        self.assertEqual(decoded(part), ("ü" + "a" * 300_000 + "\n").encode())

    def test_fields_before_and_after_the_encoding_stay(self) -> None:
        text = (
            "A: 1\ncontent-transfer-encoding:\n 8bit\nB: 2\n 3\n"
            "Content-Type: text/plain\n\nGrüße aus dem Büro, ja\n"
        )
        header = converted(text).partition(b"\n\n")[0]
        self.assertTrue(header.startswith(b"A: 1\nB: 2\n 3\nContent-Type"))
        self.assertEqual(header.lower().count(b"content-transfer-encoding"), 1)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"--b\n",
                    b"--b--\n",
                    b"\n",
                    b"\r\n",
                    "ü".encode(),
                    b"\xff",
                    b"text = x \n",
                    b"Content-Type: multipart/mixed; boundary=b\n",
                    b"Content-Type: message/rfc822\n",
                    b"Content-Type: text/plain\n",
                    b"Content-Transfer-Encoding: 8bit\n",
                ]
            ),
            max_size=20,
        ).map(b"".join)
    )
    def test_any_octets_become_ascii_or_are_refused(self, octets: bytes) -> None:
        try:
            result = converted(octets)
        except NotConvertible:
            return
        self.assertTrue(result.isascii())
        # Once more changes nothing.
        self.assertEqual(converted(result), result)
