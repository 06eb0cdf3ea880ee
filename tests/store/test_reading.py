"""Reading an open message from any place."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.summary import summary
from mailsrv.store.reading import MessageFile, SmallMessageFile


class MessageFileTests(SynchronousTestCase):
    def open(self, content: bytes) -> MessageFile:
        path = Path(self.mktemp())
        path.write_bytes(content)
        made = summary(content)
        file = MessageFile(
            os.open(path, os.O_RDONLY),
            made.size_octets,
            made.structure,
            made.checkpoints,
        )
        self.addCleanup(file.close)
        return file

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\n", b"\r\n", b"x" * 30_000, b"\r", b"ab"])),
        st.lists(
            st.tuples(st.integers(0, 200_000), st.integers(0, 100_000)), min_size=1
        ),
    )
    def test_any_piece_is_that_of_the_whole(
        self, pieces: list[bytes], reads: list[tuple[int, int]]
    ) -> None:
        content = b"".join(pieces)
        served = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        for file in (self.open(content), SmallMessageFile(content, None)):
            self.assertEqual(file.size_octets, len(served))
            for offset, count in reads:
                piece = served[offset : offset + count]
                self.assertEqual(file.read(offset, count), piece)

    def test_small_file_knows_its_parts(self) -> None:
        content = b"Subject: x\n\ntext\n"
        with SmallMessageFile(content, None) as file:
            self.assertEqual(file.structure().served_body, 14)

    def test_reading_in_pieces_reads_the_file_about_once(self) -> None:
        content = (b"x" * 72 + b"\n") * 40_000  # 2.9 MB
        file = self.open(content)
        real, octets = os.pread, 0

        def pread(fd: int, size: int, place: int) -> bytes:
            nonlocal octets
            got = real(fd, size, place)
            octets += len(got)
            return got

        self.patch(os, "pread", pread)
        for offset in range(0, file.size_octets, 65536):
            # Each command opens the file anew.
            file._reached = (0, 0)
            self.assertTrue(file.read(offset, 65536))
        self.assertLess(octets, 3 * len(content))
        octets = 0
        for offset in range(0, file.size_octets, 65536):
            file.read(offset, 65536)
        self.assertLess(octets, 2.2 * len(content))
