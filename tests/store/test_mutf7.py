"""Modified UTF-7."""

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.mutf7 import decode, encode

EXAMPLES = [
    ("INBOX", b"INBOX"),
    ("", b""),
    ("Tom & Jerry", b"Tom &- Jerry"),
    ("&&", b"&-&-"),
    # RFC 3501 section 5.1.3
    ("~peter/mail/台北/日本語", b"~peter/mail/&U,BTFw-/&ZeVnLIqe-"),
    ("Entwürfe", b"Entw&APw-rfe"),
    ("ü&ö", b"&APw-&-&APY-"),
    ("\U0001f4e7", b"&2D3c5w-"),
]


class MutfSevenTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for text, octets in EXAMPLES:
            self.assertEqual(encode(text), octets)
            self.assertEqual(decode(octets), text)

    def test_other_spellings_are_refused(self) -> None:
        for octets in (
            b"&",
            b"a&b",
            b"&Jjo!",  # RFC 3501 section 5.1.3: not ended
            b"&U,BTFw-&ZeVnLIqe-",  # superfluous shift
            b"&AGE-",  # "a" needs no shift
            b"&APx-",  # bits left over
            b"&AP-",  # half a character
            b"&2D0-",  # half a surrogate pair
            b"\xc3\xbc",
            b"a\tb",
            b"a\n",
        ):
            with self.assertRaises(ValueError, msg=repr(octets)):
                decode(octets)

    def test_half_a_surrogate_pair_is_refused(self) -> None:
        with self.assertRaises(ValueError):
            encode("\ud83d")

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_round_trip(self, text: str) -> None:
        self.assertEqual(decode(encode(text)), text)

    @settings(max_examples=50, deadline=None)
    @given(st.text("&-,AZaz09ü+ ", max_size=12))
    def test_what_is_decoded_has_one_spelling(self, text: str) -> None:
        octets = text.encode()
        try:
            decoded = decode(octets)
        except ValueError:
            return
        self.assertEqual(encode(decoded), octets)
