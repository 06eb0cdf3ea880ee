"""Deflated octets: any split, any flush, bounded, and streams that begin anew."""

import base64
import os
import zlib
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.deflate import RAW, Damaged, Deflater, Inflater

WIRE = b'1 LOGIN "x" {3+}\r\nabc\r\n' + b"2 NOOP\r\n" * 300


def taken(inflater: Inflater, most: int) -> bytes:
    return b"".join(iter(lambda: inflater.take(most), b""))


class InflaterTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.integers(0, 400), max_size=6),
        st.lists(
            st.sampled_from([zlib.Z_NO_FLUSH, zlib.Z_PARTIAL_FLUSH, zlib.Z_FULL_FLUSH]),
            min_size=3,
            max_size=3,
        ),
        st.integers(1, 300),
    )
    def test_any_split_any_flush_any_room(
        self, cuts: list[int], flushes: list[int], most: int
    ) -> None:
        compressor = zlib.compressobj(wbits=RAW)
        sent = b""
        for begin, flush in enumerate(flushes):
            sent += compressor.compress(WIRE[begin * 800 : begin * 800 + 800])
            sent += compressor.flush(flush) if flush else b""
        sent += compressor.compress(WIRE[2400:]) + compressor.flush(zlib.Z_SYNC_FLUSH)
        inflater = Inflater()
        got = b""
        for a, b in pairwise([0, *sorted(cuts), len(sent)]):
            inflater.feed(sent[a:b])
            got += taken(inflater, most)
        self.assertEqual(got, WIRE)
        self.assertEqual(inflater.waiting_octets, 0)

    def test_partial_flush_is_enough(self) -> None:
        compressor = zlib.compressobj(wbits=RAW)
        inflater = Inflater()
        for command in (b"1 NOOP\r\n", b"2 NOOP\r\n", b"3 LOGOUT\r\n"):
            inflater.feed(compressor.compress(command))
            inflater.feed(compressor.flush(zlib.Z_PARTIAL_FLUSH))
            self.assertEqual(taken(inflater, 1000), command)

    def test_nothing_is_inflated_that_has_no_room(self) -> None:
        compressor = zlib.compressobj(wbits=RAW)
        bomb = compressor.compress(bytes(10_000_000))
        bomb += compressor.flush(zlib.Z_SYNC_FLUSH)
        inflater = Inflater()
        inflater.feed(bomb)
        self.assertEqual(len(inflater.take(1000)), 1000)
        self.assertGreater(inflater.waiting_octets, len(bomb) // 2)
        self.assertEqual(len(taken(inflater, 65536)), 10_000_000 - 1000)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_octets_of_any_kind_are_data_or_damaged(self, octets: bytes) -> None:
        inflater = Inflater()
        inflater.feed(octets)
        try:
            taken(inflater, 1000)
        except Damaged:
            pass

    def test_damaged(self) -> None:
        compressor = zlib.compressobj(wbits=RAW)
        whole = compressor.compress(b"1 NOOP\r\n") + compressor.flush()
        for octets in (b"1 NOOP\r\n", b"\xff\xff", whole):
            inflater = Inflater()
            inflater.feed(octets)
            with self.assertRaises(Damaged):
                inflater.take(1000)


class DeflaterTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.lists(st.binary(max_size=300), max_size=4), max_size=8))
    def test_each_burst_can_be_read_at_once(self, bursts: list[list[bytes]]) -> None:
        deflater = Deflater()
        client = zlib.decompressobj(wbits=RAW)
        for burst in bursts:
            sent = b"".join(map(deflater.deflate, burst)) + deflater.flush()
            self.assertEqual(client.decompress(sent), b"".join(burst))
        self.assertFalse(client.eof)

    def test_what_was_sent_before_may_come_again(self) -> None:
        # A compressor that began anew must not refer to what its forerunner sent.
        deflater = Deflater()
        client = zlib.decompressobj(wbits=RAW)
        text = b"* 1 FETCH (UID 17 FLAGS (\\Seen))\r\n" * 2000
        for _ in range(50):
            sent = deflater.deflate(text) + deflater.flush()
            self.assertLess(len(sent), len(text) // 20)
            self.assertEqual(client.decompress(sent), text)

    def test_base64_between_text(self) -> None:
        text = b"".join(b"%d lines of text\r\n" % n for n in range(3000))
        coded = base64.encodebytes(os.urandom(90_000)).replace(b"\n", b"\r\n")
        for burst in ([coded], [text], [b"a", coded, b"b", text, b"c", coded, coded]):
            deflater = Deflater()
            sent = b"".join(map(deflater.deflate, burst)) + deflater.flush()
            octets = b"".join(burst)
            self.assertEqual(zlib.decompressobj(wbits=RAW).decompress(sent), octets)
            self.assertLess(len(sent), 0.8 * len(octets))

    def test_nothing_to_flush(self) -> None:
        self.assertEqual(Deflater().flush(), b"")
