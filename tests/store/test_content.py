"""Files as the octets of messages: read in pieces, and cut by others meanwhile."""

import os
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.header import MAX_HEADER
from mailsrv.mime.summary import summary
from mailsrv.store import content
from mailsrv.store.content import FileOctets, file_content

WORDS = (
    *(b"\n", b"\r\n", b"\r", b"--x", b"--x--", b"--", b"a", b"Subject: s", b"b" * 9),
    b"Content-Type: multipart/mixed; boundary=x",
    b"Content-Type: message/rfc822",
)
SOME = st.lists(st.sampled_from(WORDS), max_size=60).map(b"".join)
LARGE = (
    b"Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x\n\n"
    + b"text\n" * 300_000
    + b"--x--\n"
)


class FileOctetsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(content, "_PIECE_OCTETS", 5)  # the boundary of a piece is all over
        self.path = Path(self.mktemp())

    def open(self, octets: bytes) -> int:
        self.path.write_bytes(octets)
        fd = os.open(self.path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        return fd

    @settings(max_examples=50, deadline=None)
    @given(
        st.binary(max_size=40).map(lambda some: bytes(n % 3 for n in some)),
        st.binary(min_size=1, max_size=4).map(lambda some: bytes(n % 3 for n in some)),
        st.lists(st.tuples(st.integers(0, 45), st.integers(0, 45)), max_size=8),
    )
    @example(b"\0\1\0\1", b"\0", [(3, 2), (1, 0)])
    def test_finds_and_slices_as_bytes_do(
        self, octets: bytes, sought: bytes, places: list[tuple[int, int]]
    ) -> None:
        file = FileOctets(self.open(octets), len(octets))
        self.assertEqual(len(file), len(octets))
        self.assertEqual(file.find(sought), octets.find(sought))
        for start, end in places:
            self.assertEqual(file[start:end], octets[start:end])
            self.assertEqual(file.find(sought, start), octets.find(sought, start))
            self.assertEqual(
                file.find(sought, start, end), octets.find(sought, start, end)
            )

    @settings(max_examples=50, deadline=None)
    @given(SOME)
    def test_summary_is_that_of_the_bytes(self, octets: bytes) -> None:
        self.assertEqual(
            summary(FileOctets(self.open(octets), len(octets))), summary(octets)
        )

    @settings(max_examples=50, deadline=None)
    @given(SOME, st.integers(0, 200))
    def test_file_that_was_cut_has_some_summary(self, octets: bytes, cut: int) -> None:
        fd = self.open(octets)
        file = FileOctets(fd, len(octets))
        file.find(b"\n")
        os.truncate(self.path, min(cut, len(octets)))
        self.assertEqual(summary(file).file_octets, len(octets))

    def test_file_cut_in_the_midst(self) -> None:
        fd = self.open(b"a" * 20)
        file = FileOctets(fd, 20)
        os.truncate(self.path, 7)
        self.assertEqual((file[:20], file.find(b"b")), (b"a" * 7, -1))


class LargeFileTests(SynchronousTestCase):
    def test_large_file_is_read_in_pieces(self) -> None:
        path = Path(self.mktemp())
        path.write_bytes(LARGE)
        fd = os.open(path, os.O_RDONLY)
        self.addCleanup(os.close, fd)
        found = file_content(fd, len(LARGE))
        self.assertIsInstance(found, FileOctets)
        self.assertEqual(summary(found), summary(LARGE))
        os.truncate(path, 4096)  # as it is read, which killed the server
        self.assertEqual(found[:MAX_HEADER][:4096], LARGE[:4096])
        self.assertEqual(summary(found).file_octets, len(LARGE))
