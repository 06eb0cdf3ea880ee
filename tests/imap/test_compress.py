"""COMPRESS=DEFLATE as a client meets it: order, flushes, bombs, fairness."""

import os
import zlib
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.imap.connection import DEFLATED_OCTETS, MAX_INFLATED, MAX_QUEUED
from mailsrv.imap.deflate import RAW
from mailsrv.imap.session import Session
from mailsrv.settings import ImapSettings
from tests.imap.office import Client, ImapCase

DIALOGUE = (
    b"1 SELECT {5+}\r\nINBOX\r\n2 APPEND INBOX {9+}\r\nA:\r\n\r\nb\r\n\r\n"
    b"3 FETCH 1 (FLAGS BODY.PEEK[])\r\n4 UID STORE 1 +FLAGS (\\Seen)\r\n"
)


class Compressed:
    """A client that has said COMPRESS."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.deflate = zlib.compressobj(wbits=RAW)
        self.inflate = zlib.decompressobj(wbits=RAW)

    def packed(self, octets: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        return self.deflate.compress(octets) + self.deflate.flush(flush)

    def send(self, octets: bytes) -> bytes:
        return self.inflate.decompress(self.client.send(self.packed(octets)))

    def heard(self) -> bytes:
        return self.inflate.decompress(self.client.heard())

    @property
    def session(self) -> Session:
        session = self.client.server.session
        assert session is not None
        return session


class CompressCase(ImapCase):
    def compressed(self) -> Compressed:
        client = self.logged_in()
        self.assertIn(b"1 OK", client.send(b"1 COMPRESS DEFLATE\r\n"))
        return Compressed(client)


class CompressTests(CompressCase):
    def test_begin(self) -> None:
        client = Client(self.factory())
        self.assertIn(b"1 BAD", client.send(b"1 COMPRESS DEFLATE\r\n"))
        self.assertIn(b"COMPRESS=DEFLATE", client.send(b"2 LOGIN anna secret\r\n"))
        self.assertIn(b"3 NO [CANNOT]", client.send(b"3 COMPRESS LZW\r\n"))
        self.assertIn(b"4 BAD", client.send(b"4 COMPRESS\r\n"))
        self.assertIn(b"5 OK", client.send(b"5 COMPRESS deflate\r\n"))
        packed = Compressed(client)
        answer = packed.send(b"6 COMPRESS DEFLATE\r\n")
        self.assertIn(b"6 NO [COMPRESSIONACTIVE]", answer)
        self.assertIn(b"7 OK", packed.send(b"7 NOOP\r\n"))

    def test_disabled(self) -> None:
        client = self.logged_in(ImapSettings(disabled_extensions=["COMPRESS=DEFLATE"]))
        self.assertNotIn(b"COMPRESS", client.send(b"1 CAPABILITY\r\n"))
        self.assertIn(b"2 BAD", client.send(b"2 COMPRESS DEFLATE\r\n"))

    def test_what_follows_the_command_in_its_packet_is_compressed(self) -> None:
        client = self.logged_in()
        packed = Compressed(client)
        answer = client.send(b"1 COMPRESS DEFLATE\r\n" + packed.packed(b"2 NOOP\r\n"))
        plain, _, rest = answer.partition(b"\r\n")
        self.assertTrue(plain.startswith(b"1 OK"))
        self.assertIn(b"2 OK", packed.inflate.decompress(rest))

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.integers(0, 200), max_size=6), st.booleans())
    def test_any_split_gives_the_same_answers(
        self, cuts: list[int], partial: bool
    ) -> None:
        packed = self.compressed()
        flush = zlib.Z_PARTIAL_FLUSH if partial else zlib.Z_SYNC_FLUSH
        wire = packed.packed(DIALOGUE, flush)
        answer = b""
        for a, b in pairwise([0, *sorted(cuts), len(wire)]):
            answer += packed.inflate.decompress(packed.client.send(wire[a:b]))
        self.assertIn(b"3 OK", answer)
        self.assertIn(b"BODY[] {9}\r\nA:\r\n\r\nb\r\n)", answer)
        self.assertIn(b"4 OK", answer)
        packed.send(b"5 STORE 1:* +FLAGS (\\Deleted)\r\n6 EXPUNGE\r\n")
        packed.client.lose()

    def test_news_in_idle_come_at_once(self) -> None:
        packed = self.compressed()
        packed.send(b"1 SELECT INBOX\r\n")
        self.assertEqual(packed.send(b"2 IDLE\r\n"), b"+ idling\r\n")
        self.deliver()
        self.clock.advance(1)
        self.assertIn(b"* 1 EXISTS\r\n", packed.heard())
        self.clock.advance(ImapSettings().keep_alive_s)
        self.assertIn(b"Still here", packed.heard())

    def test_a_waiting_session_has_no_compressor(self) -> None:
        packed = self.compressed()
        packed.send(b"1 NOOP\r\n")
        deflater = packed.session._deflater
        assert deflater is not None
        self.assertIsNone(deflater._stream)

    def test_the_last_word_is_heard(self) -> None:
        packed = self.compressed()
        answer = packed.send(b"1 LOGOUT\r\n")
        self.assertIn(b"* BYE", answer)
        self.assertIn(b"1 OK", answer)
        self.assertTrue(packed.client.ended)
        packed = self.compressed()
        self.clock.advance(ImapSettings().idle_timeout_s)
        self.assertIn(b"* BYE Autologout", packed.heard())

    def test_a_connection_lost_before_its_flush(self) -> None:
        packed = self.compressed()
        packed.client.server.dataReceived(packed.packed(b"1 NOOP\r\n"))
        packed.client.lose()
        self.clock.advance(0)
        self.assertEqual(packed.client.heard(), b"")


class HostileTests(CompressCase):
    def test_damaged_data_ends_the_session(self) -> None:
        for octets in (b"2 NOOP\r\n", b"\xff" * 10):
            packed = self.compressed()
            answer = packed.inflate.decompress(packed.client.send(octets))
            self.assertEqual(answer, b"* BYE The compressed data is damaged\r\n")
            self.assertTrue(packed.client.ended)

    def test_a_stream_that_ends_ends_the_session(self) -> None:
        packed = self.compressed()
        wire = packed.packed(b"2 NOOP\r\n", zlib.Z_FINISH)
        self.assertIn(b"* BYE", packed.inflate.decompress(packed.client.send(wire)))

    def test_a_bomb_ends_the_session(self) -> None:
        for line in (b"2 NOOP ", b"2 SELECT {1000000+}\r\n", b"2 IDLE\r\n"):
            packed = self.compressed()
            answer = packed.send(line + b"x" * 5_000_000)
            self.assertIn(b"* BYE", answer)
            self.assertTrue(packed.client.ended)
            self.assertLessEqual(packed.session.engine.buffered_octets, MAX_QUEUED)

    def test_a_bomb_of_commands_ends_the_session(self) -> None:
        packed = self.compressed()
        few = b"2 NOOP\r\n" * 100 + b"3 CAPABILITY".ljust(60_000) + b"\r\n"
        heard = packed.send(few)
        self.assertIn(b"3 OK", heard)
        self.assertFalse(packed.client.ended)
        line = b"4 NOOP".ljust(60_000) + b"\r\n"
        heard = packed.send(line * (MAX_INFLATED // len(line) + 10))
        self.assertIn(b"4 OK", heard)
        self.assertTrue(heard.endswith(b"out of the compressed data\r\n"))
        self.assertTrue(packed.client.ended)

    def test_a_refused_bomb_of_a_message_lets_others_in(self) -> None:
        packed = self.compressed()
        size = 60_000_000
        wire = packed.packed(b"2 APPEND INBOX {%d+}\r\n" % size + bytes(size))
        self.assertLess(len(wire), 100_000)
        packed.client.server.dataReceived(wire)
        self.assertNotIn(b"OK", packed.heard())  # a part of it was read away
        packed.client.server.dataReceived(packed.packed(b"\r\n3 NOOP\r\n"))
        self.clock.advance(0)
        answer = packed.heard()
        self.assertIn(b"2 NO [TOOBIG]", answer)
        self.assertIn(b"3 OK", answer)

    def test_what_piles_up_is_not_read(self) -> None:
        packed = self.compressed()
        self.office.threads.writers.held = True
        packed.client.send(packed.packed(b"1 SELECT INBOX\r\n"))
        noise = b"2 XYZZY " + os.urandom(30_000).hex().encode() + b"\r\n"
        while packed.client.wire.producerState == "producing":
            packed.client.send(packed.packed(noise))
        self.assertLessEqual(packed.session.engine.buffered_octets, MAX_QUEUED)
        self.office.threads.writers.held = False
        self.office.threads.writers.release()
        self.clock.advance(0)
        self.assertIn(b"2 BAD", packed.heard())
        self.assertEqual(packed.client.wire.producerState, "producing")

    def test_a_large_answer_lets_others_in(self) -> None:
        packed = self.compressed()
        text = os.urandom(4 * DEFLATED_OCTETS).hex().encode()
        message = b"A: b\r\n\r\n" + text
        packed.send(b"1 SELECT INBOX\r\n2 APPEND INBOX {%d+}\r\n" % len(message))
        packed.send(message + b"\r\n")
        turns: list[int] = []
        packed.client.server.dataReceived(packed.packed(b"3 FETCH 1 BODY.PEEK[]\r\n"))
        self.clock.callLater(0, lambda: turns.append(len(packed.heard())))
        self.clock.advance(0)
        self.assertIn(b"3 OK", packed.heard()[-100:])
        self.assertTrue(0 < turns[0] < len(text) // 2, turns)
