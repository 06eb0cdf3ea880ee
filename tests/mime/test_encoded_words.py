"""What is written is read again, and no line is too long (RFC 2047)."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime import encoded_words
from mailsrv.mime.address import addresses
from mailsrv.mime.header import decode, unfold

LINE = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=200
).map(str.strip)


class EncodedWordsTests(SynchronousTestCase):
    def test_ascii_stays(self) -> None:
        self.assertEqual(encoded_words.text("Hello, you"), "Hello, you")
        self.assertEqual(encoded_words.phrase("Anna B"), "Anna B")
        self.assertEqual(encoded_words.phrase('A, "B" \\'), '"A, \\"B\\" \\\\"')

    def test_what_looks_encoded_is_encoded(self) -> None:
        self.assertEqual(
            decode(encoded_words.text("=?utf-8?q?x?=").encode()), "=?utf-8?q?x?="
        )

    @given(LINE)
    @settings(max_examples=50, deadline=None)
    def test_text_round_trip(self, text: str) -> None:
        written = encoded_words.text(text)
        self.assertEqual(decode(unfold(written.encode())), text)
        self.assertTrue(written.isascii())
        if not text.isascii():
            self.assertLessEqual(max(map(len, written.split("\r\n"))), 76)

    @given(LINE.filter(bool))
    @settings(max_examples=50, deadline=None)
    def test_phrase_round_trip(self, name: str) -> None:
        value = f"{encoded_words.phrase(name)} <a@example.test>".encode()
        [found] = addresses(unfold(value))
        self.assertEqual(decode(found.name or b"").split(), name.split())
