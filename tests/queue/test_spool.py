"""What is sent of a file has the size that is announced, octet by octet."""

from collections.abc import Coroutine
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from mailsrv.mime.served import to_crlf
from mailsrv.queue import spool
from mailsrv.queue.values import Message, Priority, Recipient
from tests.queue.office import QueueCase

LETTER = Priority.LETTER

octets = st.lists(
    st.sampled_from([b"a", b"\n", b"\r", b"\r\n", b".", b"\n\n", b"From x\n"]),
    max_size=40,
).map(b"".join)


class SpoolTests(QueueCase):
    @settings(max_examples=150, deadline=None)
    @given(octets, octets, st.integers(1, 5))
    def test_announced_and_sent(self, header: bytes, body: bytes, piece: int) -> None:
        self.patch(spool, "_PIECE_OCTETS", piece)
        first = b"Return-Path: <x>\n"
        delivered = self.wait(
            self.mail_store.deliver(first + header + b"\n" + body, self.queue.spool)
        )
        message = Message(
            "m",
            delivered.base.decode(),
            "a@example.test",
            None,
            0.0,
            Priority.LETTER,
            delivered.size_octets - len(first) - 1,
            skip_octets=len(first),
            prefix=b"P: q\r\n",
        )
        to = Recipient("m", "b@far.test", "far.test", 0.0, prefix=b"R: s\r\n")
        content = self.queue.spooled.content(message)

        async def sent() -> bytes:
            return b"".join([one async for one in content.pieces(to)])

        rest = to_crlf(header + b"\n" + body)
        for _ in range(2):  # from the file, and from memory
            result = self.wait(sent())
            self.assertEqual(len(result), content.octets(to))
            self.assertEqual(result, b"R: s\r\nP: q\r\n" + rest)
            with self.queue.spooled.open(message) as (found, pieces):
                whole = found + (b"\r\n" if rest != found else b"") + b"".join(pieces)
            self.assertEqual(len(whole), len(rest), (whole, rest))
            self.queue.spooled.remember(message, first + header + b"\n" + body)

    def test_short_files_that_came_last_are_in_memory(self) -> None:
        spooled = self.queue.spooled

        async def sent(file: str) -> bytes:
            message = Message(file, file, "a@example.test", None, 0, LETTER, 0)
            to = Recipient(file, "b@far.test", "far.test", 0.0)
            return b"".join([one async for one in spooled.content(message).pieces(to)])

        def remember(file: str, octets: bytes) -> None:
            message = Message(file, file, "a@example.test", None, 0, LETTER, 0)
            spooled.remember(message, octets)

        remember("long", b"x" * (spool.SHORT_OCTETS + 1))
        self.not_there(sent("long"))
        remember("first", b"one\n")
        self.assertEqual(self.wait(sent("first")), b"one\r\n")
        for number in range(spool._RECENT_OCTETS // spool.SHORT_OCTETS):
            remember(f"other{number}", b"x" * spool.SHORT_OCTETS)
        self.not_there(sent("first"))

    def not_there(self, reading: Coroutine[Any, Any, bytes]) -> None:
        # Any: what a coroutine waits for.
        done = Deferred.fromCoroutine(reading)
        self.settle()
        self.failureResultOf(done, FileNotFoundError)
