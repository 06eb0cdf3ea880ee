"""Messages on their way in: octets, memory, batches, failures."""

import errno
import os
from collections.abc import Coroutine, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mailboxes.incoming import (
    MEMORY_OCTETS,
    Courier,
    Incoming,
    with_delivered_to,
)
from mailsrv.store import maildir
from mailsrv.store.delivery import Delivery
from mailsrv.store.durable import Disk
from mailsrv.store.values import Delivered, DeliveryFailed, Target
from tests.mailboxes.twin import TwinPool, TwinThreads

T = TypeVar("T")
ANNA = Target("anna", delivered_to=b"anna@example.test")
BERT = Target("bert", delivered_to=b"bert@example.test")


class FaultyDisk(Disk):
    """Fails where the test wants it."""

    def __init__(self) -> None:
        self.fail_fsync = False
        self.fail_write_after: int | None = None

    def fsync(self, fd: int) -> None:
        if self.fail_fsync:
            raise OSError(errno.EIO, "injected")

    def fdatasync(self, fd: int) -> None:
        self.fsync(fd)

    def write(self, fd: int, pieces: Sequence[bytes]) -> None:
        if self.fail_write_after is not None:
            if self.fail_write_after <= 0:
                raise OSError(errno.ENOSPC, "injected")
            self.fail_write_after -= 1
        super().write(fd, pieces)


class Bench:
    """A courier over a new folder, on twin threads."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.root.mkdir()
        self.clock = Clock()
        self.threads = TwinThreads(self.clock)
        self.disk = FaultyDisk()
        delivery = Delivery(self.root, host="mx", disk=self.disk)
        self.courier = Courier(delivery, self.threads, self.clock)
        self.in_flight = 0
        self.indexed: list[Delivered] = []

    @property
    def sync(self) -> TwinPool:
        assert isinstance(self.threads.sync, TwinPool)
        return self.threads.sync

    def incoming(self, *targets: Target, header: bytes = b"") -> Incoming:
        return Incoming(
            self.courier,
            targets or [ANNA],
            header,
            grew=self.grew,
            delivered=self.indexed.extend,
        )

    def grew(self, octets: int) -> None:
        self.in_flight += octets

    def commit(self, incoming: Incoming) -> "Deferred[list[Delivered]]":
        done = Deferred.fromCoroutine(incoming.commit())
        self.clock.advance(0)
        return done

    def files(self, folder: str = "anna") -> list[bytes]:
        new = self.root / folder / "Maildir" / "new"
        return [path.read_bytes() for path in sorted(new.glob("*"))]

    def left_in_tmp(self) -> list[Path]:
        return list(self.root.glob("*/Maildir/tmp/*"))


class IncomingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(self.mktemp())

    def test_delivers_with_lf_and_tells_the_indexer(self) -> None:
        incoming = self.bench.incoming(header=b"Subject: x\r\n\r\n")
        incoming.feed(b"one\r\ntwo\r\n")
        delivered = self.successResultOf(self.bench.commit(incoming))
        expected = b"Delivered-To: anna@example.test\nSubject: x\n\none\ntwo\n"
        self.assertEqual(self.bench.files(), [expected])
        self.assertEqual(self.bench.indexed, delivered)
        self.assertEqual(delivered[0].size_octets, len(expected) + 5)
        self.assertEqual(self.bench.in_flight, 0)

    def test_tells_what_the_file_has_of_a_short_message(self) -> None:
        incoming = self.bench.incoming(header=b"Subject: x\r\n\r\n")
        incoming.feed(b"one\r\n")
        told: list[bytes | None] = []

        async def confirm(*results: object) -> None:
            told.extend([incoming.in_memory(1000), incoming.in_memory(10)])

        done = Deferred.fromCoroutine(incoming.commit(confirm))
        self.bench.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(told, [self.bench.files()[0], None])

    def test_what_is_not_in_memory_is_not_told(self) -> None:
        incoming = self.bench.incoming(header=b"Subject: x\r\n\r\n")
        self.successResultOf(Deferred.fromCoroutine(incoming.stage()))
        incoming.feed(b"one\r\n")
        self.assertIsNone(incoming.in_memory(1000))
        self.successResultOf(Deferred.fromCoroutine(incoming.abort()))

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"."]), max_size=30),
        st.lists(st.integers(0, 60), max_size=6),
    )
    def test_any_split_gives_the_same_file(
        self, parts: list[bytes], cuts: list[int]
    ) -> None:
        wire = b"".join(parts)
        bench = Bench(self.mktemp())
        incoming = bench.incoming(ANNA, BERT)
        edges = [0, *sorted(cuts), len(wire)]
        for start, end in pairwise(edges):
            incoming.feed(wire[start:end])
        self.successResultOf(bench.commit(incoming))
        self.assertEqual(bench.files(), [wire.replace(b"\r\n", b"\n")])

    def test_shared_copy_is_one_file_without_delivered_to(self) -> None:
        incoming = self.bench.incoming(ANNA, BERT, header=b"A: b\r\n\r\n")
        self.successResultOf(self.bench.commit(incoming))
        self.assertEqual(self.bench.files("anna"), [b"A: b\n\n"])
        inodes = {p.stat().st_ino for p in self.bench.root.glob("*/Maildir/new/*")}
        self.assertEqual(len(inodes), 1)

    def test_two_ways_to_one_mailbox_give_one_copy(self) -> None:
        alias = Target("anna", delivered_to=b"info@example.test")
        incoming = self.bench.incoming(ANNA, alias)
        self.successResultOf(self.bench.commit(incoming))
        self.assertEqual(self.bench.files(), [b"Delivered-To: anna@example.test\n"])

    def test_return_path_stays_on_top(self) -> None:
        header = b"Return-Path: <>\r\nReceived: x\r\n\r\n"
        self.assertEqual(
            with_delivered_to(header, [ANNA]),
            b"Return-Path: <>\r\nDelivered-To: anna@example.test\r\n"
            b"Received: x\r\n\r\n",
        )

    def test_abort_leaves_nothing(self) -> None:
        incoming = self.bench.incoming()
        incoming.feed(b"x" * (MEMORY_OCTETS + 1))
        self.assertEqual(len(self.bench.left_in_tmp()), 1)
        self.successResultOf(Deferred.fromCoroutine(incoming.abort()))
        self.assertEqual(self.bench.left_in_tmp(), [])
        self.assertEqual(self.bench.in_flight, 0)
        incoming.feed(b"more")
        self.assertEqual(self.bench.in_flight, 0)

    def test_failed_fsync_leaves_nothing(self) -> None:
        self.bench.disk.fail_fsync = True
        failed = self.failureResultOf(self.bench.commit(self.bench.incoming()))
        self.assertEqual(failed.check(DeliveryFailed), DeliveryFailed)
        self.assertEqual(failed.value.kind, "io")
        self.assertEqual(self.bench.files() + self.bench.left_in_tmp(), [])
        self.assertEqual(self.bench.indexed, [])
        self.assertEqual(self.bench.in_flight, 0)


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(self.mktemp())

    def test_large_message_streams_under_back_pressure(self) -> None:
        bench = self.bench
        bench.sync.held = True
        incoming = bench.incoming(ANNA, BERT)
        chunk = b"0123456789abcdef" * 4095 + b"\r\n"
        fed = most = 0
        for _ in range(100):
            incoming.feed(chunk)
            fed += 1
            most = max(most, held(incoming))
            if incoming.full:
                drained = Deferred.fromCoroutine(incoming.drained())
                self.assertNoResult(drained)
                bench.sync.release()
                self.successResultOf(drained)
        self.assertLess(most, 1024 * 1024)
        bench.sync.held = False
        bench.sync.release()
        self.successResultOf(bench.commit(incoming))
        self.assertEqual(bench.files(), [chunk.replace(b"\r\n", b"\n") * fed])
        self.assertEqual(bench.left_in_tmp(), [])
        self.assertEqual(bench.in_flight, 0)

    def test_message_up_to_the_limit_is_written_once(self) -> None:
        incoming = self.bench.incoming(ANNA, BERT)
        incoming.feed(b"x" * MEMORY_OCTETS)
        self.assertEqual(self.bench.sync.started, 0)
        self.successResultOf(self.bench.commit(incoming))
        self.assertEqual(self.bench.sync.started, 1)

    def test_full_disk_while_streaming_fails_at_commit(self) -> None:
        bench = self.bench
        bench.disk.fail_write_after = 1
        incoming = bench.incoming()
        for _ in range(40):
            incoming.feed(b"x" * 65536)
            self.successResultOf(Deferred.fromCoroutine(incoming.drained()))
        failed = self.failureResultOf(bench.commit(incoming))
        self.assertEqual(failed.value.kind, "full")
        self.assertEqual(bench.files() + bench.left_in_tmp(), [])
        self.assertEqual(bench.in_flight, 0)

    def test_commit_waits_for_the_running_write(self) -> None:
        bench = self.bench
        bench.sync.held = True
        incoming = bench.incoming()
        incoming.feed(b"x" * (MEMORY_OCTETS + 1))
        done = bench.commit(incoming)
        self.assertEqual(len(bench.files()), 0)
        while bench.sync.release():
            bench.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual([len(one) for one in bench.files()], [incoming_octets()])


class BatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(self.mktemp())
        self.bench.sync.held = True

    def commits(self, count: int) -> "list[Deferred[list[Delivered]]]":
        return [
            Deferred.fromCoroutine(self.bench.incoming().commit()) for _ in range(count)
        ]

    def test_messages_of_one_turn_share_a_job(self) -> None:
        done = self.commits(5)
        self.bench.clock.advance(0)
        self.assertEqual(self.bench.sync.release(), 1)
        for one in done:
            self.assertEqual(len(self.successResultOf(one)), 1)
        self.assertEqual(len(self.bench.files()), 5)

    def test_messages_gather_while_all_jobs_are_busy(self) -> None:
        done = []
        for _ in range(20):
            done += self.commits(1)
            self.bench.clock.advance(0)
        busy = self.bench.sync.release()
        self.assertLess(busy, 10)
        self.bench.clock.advance(0)
        self.assertEqual(self.bench.sync.release(), 1)
        for one in done:
            self.successResultOf(one)

    def test_streamed_message_has_a_job_of_its_own(self) -> None:
        self.bench.sync.held = False
        large = self.bench.incoming()
        large.feed(b"x" * (MEMORY_OCTETS + 1))
        large.feed(b"x")
        self.bench.sync.held = True
        slow = Deferred.fromCoroutine(large.commit())
        self.bench.sync.release()  # the rest of the message is written
        (small,) = self.commits(1)
        self.bench.clock.advance(0)
        self.assertEqual(self.bench.sync.release(), 2)
        self.successResultOf(slow)
        self.successResultOf(small)

    def test_drained_waits_for_the_answers(self) -> None:
        (done,) = self.commits(1)
        drained = Deferred.fromCoroutine(self.bench.courier.drained())
        self.bench.clock.advance(0)
        self.assertNoResult(drained)
        told: list[str] = []
        done.addCallback(lambda copies: told.append("answered"))
        drained.addCallback(lambda nothing: told.append("drained"))
        self.bench.sync.release()
        self.assertEqual(told, ["answered", "drained"])

    def test_one_failure_in_a_batch_is_only_its_own(self) -> None:
        (good,) = self.commits(1)
        bad = Deferred.fromCoroutine(
            self.bench.incoming(Target("anna", "Missing")).commit()
        )
        self.bench.clock.advance(0)
        self.bench.sync.release()
        self.successResultOf(good)
        self.failureResultOf(bad)
        self.assertEqual(len(self.bench.files()), 1)

    def test_bug_in_the_job_fails_each_message_for_now(self) -> None:
        (done,) = self.commits(1)
        os.rmdir(self.bench.root)
        self.bench.root.write_bytes(b"no folder")
        self.bench.clock.advance(0)
        self.bench.sync.release()
        self.failureResultOf(done, DeliveryFailed)
        self.flushLoggedErrors()


def incoming_octets() -> int:
    return len(b"Delivered-To: anna@example.test\n") + MEMORY_OCTETS + 1


def held(incoming: Incoming) -> int:
    """The octets of a message that are in memory now."""
    return incoming._held


class JudgedTests(SynchronousTestCase):
    """What message policies read and change before a message is committed."""

    HEADER = b"Return-Path: <>\r\nSubject: x\r\n\r\n"

    def setUp(self) -> None:
        self.bench = Bench(self.mktemp())
        maildir.create(self.bench.root / "anna" / "Maildir" / ".Junk")

    def incoming(self, size: int, *targets: Target) -> Incoming:
        incoming = self.bench.incoming(*targets, header=self.HEADER)
        for _ in range(size // 1000):
            incoming.feed(b"y" * 998 + b"\r\n")
        incoming.feed(b"end\r")  # the half of a line end
        return incoming

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        # Any: what a coroutine yields. The result: successResultOf is untyped.
        done = Deferred.fromCoroutine(work)
        self.bench.clock.advance(0)
        result: T = self.successResultOf(done)
        return result

    def assert_full(self, work: Coroutine[Any, Any, object]) -> None:
        # Any: as above.
        failed = self.failureResultOf(Deferred.fromCoroutine(work), DeliveryFailed)
        self.assertEqual(failed.value.kind, "full")

    def read(self, incoming: Incoming) -> bytes:
        content = self.wait(incoming.content())
        self.assertEqual(content.size_octets, incoming.size_octets)
        found = b""
        while octets := self.successResultOf(content.read(len(found), 1 << 20)):
            found += octets
        content.close()
        return found

    def test_what_is_read_is_what_is_delivered(self) -> None:
        for size in (0, 10_000, 2_000_000):
            incoming = self.incoming(size)
            octets = self.read(incoming)
            self.assertEqual(self.read(incoming), octets)  # as often as one likes
            self.wait(incoming.commit())
            self.assertIn(octets, self.bench.files())
            self.assertTrue(octets.endswith(b"end\r"))
        self.assertEqual(self.bench.left_in_tmp(), [])

    def test_another_header(self) -> None:
        for size in (0, 10_000, 2_000_000):
            incoming = self.incoming(size)
            before = self.read(incoming)
            new = self.HEADER.replace(b"\r\n\r\n", b"\r\nX-New: y\r\n\r\n")
            self.wait(incoming.replace_header(new))
            after = before.replace(b"x\n\n", b"x\nX-New: y\n\n", 1)
            self.assertEqual(self.read(incoming), after)
            self.assertEqual(self.bench.in_flight, len(after))
            self.wait(incoming.replace_header(self.HEADER))
            self.assertEqual(self.read(incoming), before)
            self.wait(incoming.commit())
            self.assertIn(before, self.bench.files())
            self.assertEqual(self.bench.in_flight, 0)

    def test_elsewhere(self) -> None:
        junk = Target("anna", "Junk")
        for size in (0, 2_000_000):
            incoming = self.incoming(size, ANNA, BERT)
            octets = self.read(incoming)
            incoming.redirect([BERT, junk])
            self.wait(incoming.commit())
            self.assertEqual(self.bench.files("anna"), [])
            self.assertEqual(self.bench.files("bert"), [octets])
            new = list(self.bench.root.glob("anna/Maildir/.Junk/new/*"))
            self.assertEqual([path.read_bytes() for path in new], [octets])
            for path in (*new, *self.bench.root.glob("bert/Maildir/new/*")):
                path.unlink()
        self.assertEqual(self.bench.left_in_tmp(), [])

    def test_a_failing_disk_is_told_and_leaves_nothing(self) -> None:
        self.bench.disk.fail_write_after = 1
        incoming = self.incoming(2_000_000)
        self.assert_full(incoming.content())
        self.wait(incoming.abort())
        self.bench.disk.fail_write_after = None
        incoming = self.incoming(2_000_000)
        self.wait(incoming.content()).close()
        self.bench.disk.fail_write_after = 0
        self.assert_full(incoming.replace_header(self.HEADER * 2))
        self.wait(incoming.abort())
        self.assertEqual((self.bench.left_in_tmp(), self.bench.in_flight), ([], 0))
