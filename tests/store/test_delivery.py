"""Delivery into Maildirs: names, links, order of syncs."""

import errno
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store import maildir
from mailsrv.store.delivery import (
    MAX_BATCH,
    TMP_LIFE_S,
    Delivery,
    Letter,
    LineCounter,
    Outcome,
    StagedFile,
)
from mailsrv.store.durable import Disk
from mailsrv.store.maildir import parse
from mailsrv.store.values import (
    SEEN,
    Delivered,
    InvalidName,
    NoSuchMailbox,
    Target,
)
from tests.store.faulty import FaultyDisk

CONTENT = [b"Subject: hello\n", b"\n", b"Hello\n"]
ANNA = Target("anna@example.test")
BOB = Target("bob@example.test")


class DeliveryCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.delivery = self.on(FaultyDisk())

    def on(self, disk: Disk) -> Delivery:
        return Delivery(self.root, host="mx.example.test", disk=disk)

    def outcome(
        self, content: Sequence[bytes] | StagedFile, *targets: Target
    ) -> Outcome:
        (outcome,) = self.delivery.deliver([Letter(content, targets)])
        return outcome

    def copies(
        self, content: Sequence[bytes] | StagedFile, *targets: Target
    ) -> list[Delivered]:
        outcome = self.outcome(content, *targets)
        assert isinstance(outcome, list), outcome
        return outcome

    def messages(self, target: Target) -> list[Path]:
        """Return the files that readers see, and check that `tmp/` is empty."""
        directory = self.delivery.directory_of(target)
        self.assertEqual(list(directory.glob("tmp/*")), [])
        return [*directory.glob("new/*"), *directory.glob("cur/*")]

    def message(self, target: Target) -> Path:
        (path,) = self.messages(target)
        return path


class DeliveryTests(DeliveryCase):
    def test_message_lands_in_new(self) -> None:
        (copy,) = self.copies(CONTENT, ANNA)
        path = self.message(ANNA)
        self.assertEqual(path.read_bytes(), b"".join(CONTENT))
        self.assertEqual((path.parent.name, os.fsencode(path.name)), ("new", copy.name))
        name = parse(copy.name)
        self.assertEqual((name.file_octets, name.size_octets), (22, 25))
        self.assertEqual((copy.file_octets, copy.size_octets), (22, 25))
        self.assertEqual(copy.internal_date, int(path.stat().st_mtime))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(path.parent.stat().st_mode & 0o777, 0o700)

    def test_folder_of_either_spelling(self) -> None:
        target = Target(ANNA.folder, mailbox="Öl")
        root = self.delivery.maildir_of(ANNA.folder)
        self.assertIsInstance(self.outcome(CONTENT, target), NoSuchMailbox)
        for spelled in (".Öl", ".&ANY-l"):
            maildir.create(root / spelled)
            self.copies(CONTENT, target)
            self.assertEqual(self.message(target).parent, root / spelled / "new")
            (root / spelled).rename(root / "gone")
            self.assertIsInstance(self.outcome(CONTENT, target), NoSuchMailbox)
            shutil.rmtree(root / "gone")

    def test_file_then_name_then_folder(self) -> None:
        disk = FaultyDisk()
        self.delivery = self.on(disk)
        maildir.create(self.delivery.directory_of(ANNA))
        self.copies(CONTENT, ANNA)
        self.assertEqual(disk.calls, ["create", "write", "fsync", "rename", "fsync"])

    def test_batch_syncs_a_folder_once(self) -> None:
        disk = FaultyDisk()
        self.delivery = self.on(disk)
        for target in (ANNA, BOB):
            maildir.create(self.delivery.directory_of(target))
        letters = [Letter(CONTENT, [ANNA])] * 5 + [Letter(CONTENT, [ANNA, BOB])] * 2
        self.delivery.deliver(letters)
        self.assertEqual(disk.calls.count("fsync"), 7 + 2)
        self.assertEqual((len(self.messages(ANNA)), len(self.messages(BOB))), (7, 2))

    def test_large_batch_keeps_its_order(self) -> None:
        count = MAX_BATCH + 3
        letters = [Letter([b"%d\n" % n], [ANNA]) for n in range(count)]
        outcomes = self.delivery.deliver(letters)
        names = [outcome[0].name for outcome in outcomes if isinstance(outcome, list)]
        self.assertEqual(sorted(names, key=maildir.arrival_key), names)
        new = self.delivery.directory_of(ANNA) / "new"
        found = [(new / os.fsdecode(name)).read_bytes() for name in names]
        self.assertEqual(found, [b"%d\n" % n for n in range(count)])

    def test_recipients_share_one_file(self) -> None:
        copies = self.copies(CONTENT, ANNA, BOB)
        self.assertEqual([copy.target for copy in copies], [ANNA, BOB])
        self.assertTrue(self.message(ANNA).samefile(self.message(BOB)))

    def test_copies_where_links_cannot_be(self) -> None:
        for error in (errno.EXDEV, errno.EMLINK, errno.EPERM):
            self.delivery = self.on(FaultyDisk("link", error))
            first = Target("anna@example.test", internal_date=5.0)
            other = Target(f"{error}@example.test")
            self.copies(CONTENT, first, other)
            path = self.message(other)
            self.assertEqual(path.read_bytes(), b"".join(CONTENT))
            self.assertEqual(path.stat().st_nlink, 1)
            self.assertEqual(path.stat().st_mtime, 5.0)

    def test_flags_lead_to_cur(self) -> None:
        date = 1_000_000_000.0
        target = Target("anna@example.test", flags=SEEN, internal_date=date)
        (copy,) = self.copies(CONTENT, target)
        path = self.message(target)
        self.assertEqual(path.parent.name, "cur")
        self.assertTrue(copy.name.endswith(b":2,S"))
        self.assertFalse(copy.in_new)
        self.assertEqual((path.stat().st_mtime, copy.internal_date), (date, date))

    def test_mailbox_of_that_name(self) -> None:
        target = Target("anna@example.test", "A/ü")
        self.assertIsInstance(self.outcome(CONTENT, target), NoSuchMailbox)
        self.assertIsInstance(self.outcome(CONTENT, ANNA, target), NoSuchMailbox)
        self.assertEqual(self.messages(ANNA), [])
        (self.root / "anna@example.test/Maildir/.A.&APw-").mkdir()
        self.copies(CONTENT, target)
        self.assertIn("/.A.&APw-/new/", str(self.message(target)))

    def test_invalid_name_harms_no_other_letter(self) -> None:
        bad = Target("anna@example.test", "../../bob@example.test/Maildir")
        first, second = self.delivery.deliver(
            [Letter(CONTENT, [bad]), Letter(CONTENT, [ANNA])]
        )
        self.assertIsInstance(first, InvalidName)
        self.assertIsInstance(second, list)

    def test_delivery_id_is_in_the_name(self) -> None:
        target = Target("anna@example.test", delivery_id="q1/anna@example.test")
        (first,) = self.copies(CONTENT, target)
        (second,) = self.copies(CONTENT, target)
        (field,) = {
            part
            for copy in (first, second)
            for part in copy.base.split(b",")
            if part.startswith(b"D=")
        }
        self.assertEqual(len(field), 26)
        self.assertNotEqual(first.base, second.base)

    def test_undo(self) -> None:
        copies = self.copies(CONTENT, ANNA, BOB)
        other = self.copies(CONTENT, ANNA)
        path = self.message(BOB)
        path.rename(path.parent.parent / "cur" / f"{path.name}:2,S")
        self.delivery.undo(copies)
        self.assertEqual(self.messages(BOB), [])
        self.assertEqual(os.fsencode(self.message(ANNA).name), other[0].name)
        self.delivery.undo(copies)

    def test_old_files_of_tmp_are_removed(self) -> None:
        self.copies(CONTENT, ANNA)
        directory = self.delivery.directory_of(ANNA)
        (directory / "tmp/young").touch()
        (directory / "tmp/old").touch()
        changed_at = (directory / "tmp/young").stat().st_mtime - TMP_LIFE_S - 5
        os.utime(directory / "tmp/old", (changed_at, changed_at))
        self.assertEqual(self.delivery.clean_tmp(directory), 1)
        self.assertEqual(os.listdir(directory / "tmp"), ["young"])
        self.assertEqual(self.delivery.clean_tmp(directory / "none"), 0)

    def test_all_folders_are_cleaned(self) -> None:
        self.copies(CONTENT, ANNA, BOB)
        (self.root / "stray").touch()
        sent = self.delivery.maildir_of("bob@example.test") / ".Sent"
        maildir.create(sent)
        for directory in (self.delivery.directory_of(ANNA), sent):
            (directory / "tmp/old").touch()
            os.utime(directory / "tmp/old", (5, 5))
        steps = self.delivery.clean()
        count = 0
        with self.assertRaises(StopIteration) as stopped:
            while True:
                next(steps)
                count += 1
        self.assertEqual((count, stopped.exception.value), (3, 2))


class StagedFileTests(DeliveryCase):
    def test_staged_file_is_delivered(self) -> None:
        staged = self.delivery.stage(ANNA)
        staged.write([b"Subject: x\n", b"\n"])
        staged.write([b"a\r", b""])
        staged.write([b"\nb\n"])
        self.assertEqual((staged.file_octets, staged.size_octets), (17, 20))
        (copy, _) = self.copies(staged, ANNA, BOB)
        self.assertEqual(self.message(ANNA).read_bytes(), b"Subject: x\n\na\r\nb\n")
        self.assertEqual((copy.file_octets, copy.size_octets), (17, 20))
        self.assertTrue(self.message(ANNA).samefile(self.message(BOB)))

    def test_discarded_file_is_gone(self) -> None:
        staged = self.delivery.stage(ANNA)
        staged.write(CONTENT)
        staged.discard()
        staged.discard()
        self.assertEqual(self.messages(ANNA), [])

    def test_head_is_replaced(self) -> None:
        for disk in (FaultyDisk(), FaultyDisk("copy", errno.EXDEV)):
            delivery = self.on(disk)
            target = Target(f"{disk.operation}x@example.test")
            staged = delivery.stage(target)
            body = b"\nbody\n" * 1000
            staged.write([b"A: 1\n", b"B: 2\n", body])
            staged.replace_head(5, b"A: one\nAA: \n")
            staged.write([b"end\n"])
            (outcome,) = delivery.deliver([Letter(staged, [target])])
            assert isinstance(outcome, list)
            content = self.message(target).read_bytes()
            self.assertEqual(content, b"A: one\nAA: \nB: 2\n" + body + b"end\n")
            self.assertEqual(outcome[0].file_octets, len(content))
            self.assertEqual(
                outcome[0].size_octets, len(content) + content.count(b"\n")
            )

    def test_no_descriptor_stays_open(self) -> None:
        self.copies(CONTENT, ANNA)
        before = os.listdir("/proc/self/fd")
        staged = self.delivery.stage(ANNA)
        staged.write(CONTENT)
        staged.replace_head(15, b"")
        self.copies(staged, ANNA, BOB)
        self.copies(CONTENT, ANNA)
        self.assertEqual(os.listdir("/proc/self/fd"), before)


class LineCounterTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.text("\r\na", max_size=5).map(str.encode)))
    def test_any_split_gives_the_size_as_served(self, pieces: list[bytes]) -> None:
        counter = LineCounter()
        for piece in pieces:
            counter.feed(piece)
        content = b"".join(pieces)
        served = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        self.assertEqual(counter.octets, len(content))
        self.assertEqual(counter.octets + counter.added, len(served))
