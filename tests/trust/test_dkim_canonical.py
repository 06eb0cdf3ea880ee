"""The relaxed canonical forms, beside those of dkimpy."""

import base64
import hashlib
from itertools import pairwise

from dkim.canonicalization import Relaxed
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.trust.dkim_canonical import BodyHash, fields

TOKENS = st.sampled_from(
    [b"a", b"Bc", b" ", b"  ", b"\t", b"\r\n", b"\r\n\r\n", b" \r\n", b"\r", b"\xe4"]
)
BODIES = st.lists(TOKENS, max_size=30).map(b"".join)


def digest(*pieces: bytes) -> str:
    body_hash = BodyHash()
    for piece in pieces:
        body_hash.feed(piece)
    return body_hash.end()


def sha(octets: bytes) -> str:
    return base64.b64encode(hashlib.sha256(octets).digest()).decode()


class BodyHashTests(SynchronousTestCase):
    def test_examples(self) -> None:
        # RFC 6376 sections 3.4.5 and 3.4.4
        self.assertEqual(digest(b" C \r\nD \t E\r\n\r\n\r\n"), sha(b" C\r\nD E\r\n"))
        empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
        for body in (b"", b"\r\n", b"\n\n\n", b" \t \r\n"):
            self.assertEqual(digest(body), empty)
        self.assertEqual(digest(b"no end"), sha(b"no end\r\n"))

    def test_many_empty_lines(self) -> None:
        lines = b"a" + b"\r\n" * 5000
        self.assertEqual(digest(lines, b"b\r\n"), sha(lines + b"b\r\n"))
        self.assertEqual(digest(lines), sha(b"a\r\n"))

    @settings(max_examples=50, deadline=None)
    @given(BODIES, st.lists(st.integers(0, 40), max_size=5))
    def test_as_dkimpy_however_it_comes(self, body: bytes, cuts: list[int]) -> None:
        # A message always ends with a line end when it is sent.
        whole = body if body.endswith(b"\r\n") else body + b"\r\n"
        expected = sha(Relaxed.canonicalize_body(whole))
        edges = [0, *sorted(cuts), len(body) + 40]
        self.assertEqual(digest(*(body[a:b] for a, b in pairwise(edges))), expected)
        # A file of the spool has LF line ends.
        lines = body.replace(b"\r\n", b"\n")
        if b"\r" not in lines:
            self.assertEqual(
                digest(*(lines[a:b] for a, b in pairwise(edges))), expected
            )


class FieldsTests(SynchronousTestCase):
    def test_example(self) -> None:
        # RFC 6376 section 3.4.5
        block = b"A: X\r\nB : Y\t\r\n\tZ  \r\n"
        self.assertEqual(fields(block), [(b"a", b"X"), (b"b", b"Y Z")])

    def test_an_empty_field_counts(self) -> None:
        for block in (b"Subject:\r\nTo: x\r\n", b"Subject:\nTo: x\n"):
            self.assertEqual(fields(block), [(b"subject", b""), (b"to", b"x")])

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"From", b"X-y", b"SUBJECT"]),
                st.lists(
                    st.sampled_from([b"a", b" ", b"\t", b"\r\n ", b":", b"\xff"])
                ).map(b"".join),
            ),
            max_size=5,
        )
    )
    def test_as_dkimpy(self, written: list[tuple[bytes, bytes]]) -> None:
        block = b"".join(b"%b:%b\r\n" % field for field in written)
        found = [(name, value + b"\r\n") for name, value in fields(block)]
        expected = Relaxed.canonicalize_headers(
            [(name, value + b"\r\n") for name, value in written]
        )
        self.assertEqual(found, expected)
