"""Delivery on a machine that fails: the right kind, and nothing left behind.

Real faults where the machine allows (a small tmpfs needs root), injected ones for
the rest.
"""

import errno
import os
import resource
import subprocess
from pathlib import Path

from twisted.trial.unittest import SkipTest

from mailsrv.store import maildir
from mailsrv.store.delivery import Delivery, Letter, Outcome
from mailsrv.store.values import (
    DeliveryFailed,
    FailureKind,
    PartlyDelivered,
    Target,
)
from tests.store.faulty import FaultyDisk
from tests.store.test_delivery import CONTENT, DeliveryCase

TARGETS = [Target(f"{name}@example.test") for name in ("anna", "bob", "carl")]
KINDS: dict[int, FailureKind] = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "readonly",
    errno.EMFILE: "descriptors",
    errno.ENFILE: "descriptors",
    errno.EIO: "io",
    errno.EACCES: "io",
}


class FaultCase(DeliveryCase):
    def assert_failed(self, outcome: Outcome, kind: FailureKind) -> None:
        assert isinstance(outcome, DeliveryFailed), outcome
        self.assertEqual(outcome.kind, kind)

    def assert_nothing_left(self) -> None:
        found = [path for path in self.root.rglob("*") if not path.is_dir()]
        self.assertEqual(found, [])


class InjectedFaultTests(FaultCase):
    def setUp(self) -> None:
        super().setUp()
        for target in TARGETS:
            maildir.create(self.delivery.directory_of(target))

    def test_each_call_may_fail(self) -> None:
        disk = FaultyDisk()
        self.on(disk).deliver([Letter(CONTENT, TARGETS)])
        calls = disk.calls
        self.assertEqual(calls.count("link"), 2)
        self.assertEqual(calls.count("fsync"), 4)
        for path in [p for p in self.root.rglob("*") if not p.is_dir()]:
            path.unlink()
        for operation in sorted(set(calls)):
            for after in range(calls.count(operation)):
                delivery = self.on(FaultyDisk(operation, errno.EIO, after))
                (outcome,) = delivery.deliver([Letter(CONTENT, TARGETS)])
                self.assert_failed(outcome, "io")
                self.assert_nothing_left()

    def test_copies_that_stand_apart(self) -> None:
        letter = Letter(CONTENT, TARGETS, apart=True)
        disk = FaultyDisk()
        self.on(disk).deliver([letter])
        calls = disk.calls
        for target in TARGETS:
            self.message(target).unlink()
        partly = 0
        for operation in sorted(set(calls)):
            for after in range(calls.count(operation)):
                disk = FaultyDisk(operation, errno.EIO, after)
                disk.once = True
                (outcome,) = self.on(disk).deliver([letter])
                delivered: list[Target] = []
                if isinstance(outcome, PartlyDelivered):
                    partly += 1
                    delivered = [copy.target for copy in outcome.delivered]
                    self.assertEqual({*delivered, *outcome.failed}, {*TARGETS})
                elif isinstance(outcome, list):  # another target's tmp/ did
                    delivered = TARGETS
                else:
                    self.assert_failed(outcome, "io")
                for target in TARGETS:
                    self.assertEqual(len(self.messages(target)), target in delivered)
                    if target in delivered:
                        self.message(target).unlink()
                self.assert_nothing_left()
        self.assertGreater(partly, 4)

    def test_kinds(self) -> None:
        for error, kind in KINDS.items():
            for operation in ("create", "write", "fsync", "rename", "link"):
                delivery = self.on(FaultyDisk(operation, error))
                if operation == "link" and error == errno.EACCES:
                    continue
                (outcome,) = delivery.deliver([Letter(CONTENT, TARGETS)])
                self.assert_failed(outcome, kind)
                self.assert_nothing_left()

    def test_half_written_file_is_removed(self) -> None:
        disk = FaultyDisk("write", errno.ENOSPC, short_write_octets=7)
        (outcome,) = self.on(disk).deliver([Letter(CONTENT, TARGETS)])
        self.assert_failed(outcome, "full")
        self.assert_nothing_left()

    def test_copy_that_fails_is_removed(self) -> None:
        class Disk(FaultyDisk):
            def link(self, source: object, target: object) -> None:
                raise OSError(errno.EXDEV, "")

        for operation, after in (("create", 1), ("write", 2), ("fsync", 1)):
            disk = Disk(operation, errno.EIO, after)
            (outcome,) = self.on(disk).deliver([Letter(CONTENT, TARGETS)])
            self.assert_failed(outcome, "io")
            self.assert_nothing_left()

    def test_failure_of_one_letter_is_not_that_of_another(self) -> None:
        letters = [Letter(CONTENT, [target]) for target in TARGETS]
        # Three files are synced, then three folders.
        for after, failed in ((2, 2), (3, 0)):
            disk = FaultyDisk("fsync", errno.EIO, after)
            disk.once = True
            outcomes = self.on(disk).deliver(letters)
            for n, outcome in enumerate(outcomes):
                if n == failed:
                    self.assert_failed(outcome, "io")
                    self.assertEqual(self.messages(TARGETS[n]), [])
                else:
                    self.assertIsInstance(outcome, list)
                    self.message(TARGETS[n]).unlink()

    def test_sync_is_not_tried_again(self) -> None:
        disk = FaultyDisk("fsync", errno.EIO)
        disk.once = True
        (outcome,) = self.on(disk).deliver([Letter(CONTENT, TARGETS[:1])])
        self.assert_failed(outcome, "io")
        self.assertEqual(disk.calls.count("fsync"), 1)

    def test_staged_file_that_fails_is_removed(self) -> None:
        for operation in ("write", "copy"):
            disk = FaultyDisk(operation, errno.ENOSPC, 1 if operation == "copy" else 2)
            staged = self.on(disk).stage(TARGETS[0])
            with self.assertRaises(DeliveryFailed) as caught:
                staged.write([b"Subject: x\n\n"])
                staged.write([b"body\n"])
                staged.replace_head(12, b"Subject: y\n\n")
            self.assertEqual(caught.exception.kind, "full")
            self.assert_nothing_left()
            with self.assertRaises(DeliveryFailed):
                staged.write([b"more"])

    def test_reserve_of_free_space(self) -> None:
        disk = FaultyDisk()
        free_octets = disk.free_octets(self.root)
        delivery = Delivery(
            self.root, host="mx", reserve_octets=2 * free_octets, disk=disk
        )
        outcomes = delivery.deliver([Letter(CONTENT, TARGETS)] * 5)
        for outcome in outcomes:
            self.assert_failed(outcome, "full")
        with self.assertRaises(DeliveryFailed):
            delivery.stage(TARGETS[0])
        self.assertEqual(disk.calls.count("free_octets"), 2, "once a second")
        self.assert_nothing_left()

    def test_folders_that_cannot_be_made(self) -> None:
        new = Target("new@example.test")
        for error, kind in ((errno.EIO, "io"), (errno.ENOSPC, "full")):
            delivery = self.on(FaultyDisk("fsync", error))
            (outcome,) = delivery.deliver([Letter(CONTENT, [new])])
            assert isinstance(outcome, DeliveryFailed)
            self.assertEqual(outcome.kind, kind)
            self.assert_nothing_left()


class DescriptorTests(FaultCase):
    def test_no_descriptors(self) -> None:
        for target in TARGETS:
            maildir.create(self.delivery.directory_of(target))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        # The next descriptor would be the first one over the limit.
        lowest = os.open("/", os.O_RDONLY)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
        (outcome,) = self.delivery.deliver([Letter(CONTENT, TARGETS)])
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assert_failed(outcome, "descriptors")
        self.assert_nothing_left()
        self.copies(CONTENT, *TARGETS)


class TmpfsTests(FaultCase):
    """On a file system of 256 KiB that is full, or becomes read-only."""

    def setUp(self) -> None:
        super().setUp()
        self.mount("mount", "-t", "tmpfs", "-o", "size=256k", "mailsrv", self.root)
        self.addCleanup(self.mount, "umount", self.root)
        for target in TARGETS:
            maildir.create(self.delivery.directory_of(target))

    def mount(self, *command: str | Path) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SkipTest(f"a tmpfs needs root: {done.stderr.strip()}")

    def test_full(self) -> None:
        self.delivery = Delivery(self.root, host="mx")
        letter = Letter([b"x" * 60_000 + b"\n"], TARGETS)
        outcomes = self.delivery.deliver([letter] * 8)
        good = [outcome for outcome in outcomes if isinstance(outcome, list)]
        self.assertTrue(0 < len(good) < 8, good)
        for outcome in outcomes[len(good) :]:
            self.assert_failed(outcome, "full")
        for target in TARGETS:
            paths = self.messages(target)
            self.assertEqual(len(paths), len(good))
            self.assertEqual({path.stat().st_size for path in paths}, {60_001})
        for copy in good[0]:
            self.delivery.undo([copy])
        self.copies(CONTENT, *TARGETS)

    def test_staged_file_on_a_full_disk(self) -> None:
        staged = Delivery(self.root, host="mx").stage(TARGETS[0])
        with self.assertRaises(DeliveryFailed) as caught:
            for _ in range(20):
                staged.write([b"x" * 60_000])
        self.assertEqual(caught.exception.kind, "full")
        self.assert_nothing_left()

    def test_read_only(self) -> None:
        self.delivery = Delivery(self.root, host="mx")
        self.mount("mount", "-o", "remount,ro", self.root)
        self.assert_failed(self.outcome(CONTENT, *TARGETS), "readonly")
        self.assert_failed(self.outcome(CONTENT, Target("new@a.test")), "readonly")
        with self.assertRaises(DeliveryFailed) as caught:
            self.delivery.stage(TARGETS[0])
        self.assertEqual(caught.exception.kind, "readonly")
        self.mount("mount", "-o", "remount,rw", self.root)
        self.assert_nothing_left()
        self.copies(CONTENT, *TARGETS)
