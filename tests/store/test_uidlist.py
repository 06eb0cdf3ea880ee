"""dovecot-uidlist: reading, giving UIDs, and what others did to the file."""

import errno
import os
import shutil
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.uidlist import Mark, Record, Uidlist
from mailsrv.store.uidvalidity import next_uid_validity
from mailsrv.store.values import MAX_UID, UID, LockHeld, StoreError
from tests.store.faulty import FaultyDisk

G = "0123456789abcdef0123456789abcdef"
LIST = (
    f"3 V1234 N10 G{G} Xother\n1 P100 O3 :a,S=5\n5 :b\n12 Zunknown Gabc :c,W=9:2,S\n"
).encode()


def names(records: "list[Record] | tuple[Record, ...]") -> list[tuple[int, bytes]]:
    return [(record.uid, record.base) for record in records]


class UidlistCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "dovecot-uidlist"

    def uidlist(
        self, mark: Mark | None = None, disk: FaultyDisk | None = None
    ) -> Uidlist:
        return Uidlist(
            self.directory,
            self.directory,
            mark,
            disk=disk or FaultyDisk(),
            now=lambda: 1_000_000,
        )

    def add(self, uidlist: Uidlist, *bases: bytes, floor: int = 0) -> list[int]:
        with uidlist.lock:
            uidlist.refresh()
            return list(uidlist.append([(base, b"") for base in bases], floor=floor))

    def all(self) -> list[tuple[int, bytes]]:
        return names(list(self.uidlist().refresh().records))


class ReadingTests(UidlistCase):
    def test_dovecots_list_is_read(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        reading = uidlist.refresh()
        self.assertTrue(reading.whole)
        self.assertEqual(
            names(list(reading.records)), [(1, b"a,S=5"), (5, b"b"), (12, b"c,W=9")]
        )
        first, second, third = reading.records
        self.assertEqual((first.field(b"P"), first.field(b"O")), (b"100", b"3"))
        self.assertEqual((second.field(b"P"), third.field(b"G")), (None, b"abc"))
        mark = uidlist.mark
        assert mark is not None
        self.assertEqual((mark.uid_validity, mark.uid_next), (1234, 13))
        self.assertEqual((mark.mailbox_id, mark.broken), (G, False))

    def test_no_list(self) -> None:
        uidlist = self.uidlist()
        reading = uidlist.refresh()
        self.assertEqual((reading.whole, list(reading.records)), (True, []))
        self.assertIsNone(uidlist.mark)

    def test_only_the_tail_is_read_again(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        uidlist.refresh()
        self.assertEqual(list(uidlist.refresh().records), [])
        with self.path.open("ab") as file:
            file.write(b"13 :d\n")
        reading = self.uidlist(uidlist.mark).refresh()
        self.assertEqual(
            (reading.whole, names(list(reading.records))), (False, [(13, b"d")])
        )

    def test_a_new_file_is_read_whole(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        uidlist.refresh()
        other = self.directory / "other"
        other.write_bytes(LIST + b"13 :d\n")
        other.rename(self.path)
        self.assertTrue(uidlist.refresh().whole)

    def test_a_new_file_with_the_old_inode_is_read_whole(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        uidlist.refresh()
        self.path.write_bytes(LIST.replace(b"V1234", b"V1235") + b"13 :d\n")
        reading = uidlist.refresh()
        self.assertTrue(reading.whole)
        self.assertEqual(len(reading.records), 4)

    def test_a_rewritten_list_that_looks_like_the_old_one_is_read_whole(self) -> None:
        """Inode, size, time and header are as they were; only the line is another."""
        one = self.uidlist()
        self.assertEqual(self.add(one, b"n0"), [1])
        before = self.path.stat()
        first = self.directory / "first"
        first.hardlink_to(self.path)
        other = self.uidlist()
        for uid in (1, 99):  # the second file can have the number of the first
            with other.lock:
                other.refresh()
                other.drop({uid})
        self.assertEqual(self.add(other, b"n3"), [2])
        first.write_bytes(self.path.read_bytes())
        first.rename(self.path)
        os.utime(self.path, ns=(before.st_atime_ns, before.st_mtime_ns))
        after = self.path.stat()
        self.assertEqual(
            (after.st_ino, after.st_size, after.st_mtime_ns),
            (before.st_ino, before.st_size, before.st_mtime_ns),
        )
        self.assertFalse(one.in_step())
        with one.lock, self.assertRaises(RuntimeError):
            one.append([(b"n4", b"")])
        with one.lock, self.assertRaises(RuntimeError):
            one.drop({1})
        reading = one.refresh()
        self.assertEqual(
            (reading.whole, names(list(reading.records))), (True, [(2, b"n3")])
        )
        self.assertEqual(self.add(one, b"n4"), [3])

    def test_a_list_of_another_generation_is_read_whole(self) -> None:
        """Its last lines are the same, but a line before them was dropped."""
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        uidlist.refresh()
        self.path.write_bytes(LIST.replace(b"N10", b"N13").replace(b":b", b":B"))
        self.assertFalse(uidlist.in_step())
        self.assertTrue(uidlist.refresh().whole)

    def test_in_step(self) -> None:
        uidlist = self.uidlist()
        self.assertFalse(uidlist.in_step(), "no list")
        self.add(uidlist, b"a")
        self.assertTrue(uidlist.in_step())
        self.assertTrue(self.uidlist(uidlist.mark).in_step())
        self.add(self.uidlist(), b"b")
        self.assertFalse(uidlist.in_step(), "lines of others")
        uidlist.refresh()
        self.assertTrue(uidlist.in_step())
        self.path.unlink()
        self.assertFalse(uidlist.in_step())

    def test_line_that_grows_waits_for_its_end(self) -> None:
        self.path.write_bytes(LIST + b"13 :dd")
        uidlist = self.uidlist()
        self.assertEqual(len(uidlist.refresh().records), 3)
        assert uidlist.mark is not None
        self.assertFalse(uidlist.mark.broken)
        with self.path.open("ab") as file:
            file.write(b"dd\n")
        self.assertEqual(names(list(uidlist.refresh().records)), [(13, b"dddd")])

    def test_version_1_becomes_3(self) -> None:
        self.path.write_bytes(b"1 1234 7\n3 a:2,S\n6 b\n")
        uidlist = self.uidlist()
        self.assertEqual(names(list(uidlist.refresh().records)), [(3, b"a"), (6, b"b")])
        self.assertEqual(self.add(uidlist, b"c"), [7])
        assert uidlist.mark is not None
        mailbox_id = uidlist.mark.mailbox_id
        self.assertEqual(len(mailbox_id), 32)
        self.assertEqual(
            self.path.read_text(), f"3 V1234 N8 G{mailbox_id}\n3 :a\n6 :b\n7 :c\n"
        )

    def test_broken_lines_are_left_out_and_others_kept(self) -> None:
        for line in (
            b"x",
            b"6",
            b"6 ",
            b"6 :",
            b"6 b",
            b"0 :z",
            b"-6 :z",
            b"5 :z",
            b"4 :z",
            b"6 :a/b",
            b"6 lower :z",
            b"99999999999 :z",
            b"4294967294 :z",
            b"\0\0\0",
            b"",
        ):
            self.path.write_bytes(LIST.replace(b"12 Z", line + b"\n12 Z"))
            uidlist = self.uidlist()
            found = names(list(uidlist.refresh().records))
            self.assertEqual(found, [(1, b"a,S=5"), (5, b"b"), (12, b"c,W=9")], line)
            self.assertEqual(self.add(uidlist, b"z"), [13])
            self.assertEqual(self.all()[-1], (13, b"z"))
            assert uidlist.mark is not None
            self.assertFalse(uidlist.mark.broken)
            self.assertNotIn(b"\n" + line + b"\n", self.path.read_bytes())

    def test_later_line_of_a_file_holds(self) -> None:
        self.path.write_bytes(LIST + b"13 :b\n")
        self.assertEqual(self.all(), [(1, b"a,S=5"), (12, b"c,W=9"), (13, b"b")])

    def test_broken_header_means_a_new_uid_validity(self) -> None:
        for header in (
            b"",
            b"\n",
            b"3 V0 N1\n",
            b"3 Vx N1\n",
            b"2 V1 N1\n",
            b"3 N1\n",
            b"3 V99999999999 N1\n",
            b"3 V1234 N10",
            b"\xff\n",
        ):
            self.path.write_bytes(header)
            uidlist = self.uidlist()
            uidlist.refresh()
            self.assertIsNone(uidlist.mark, header)
            self.assertEqual(self.add(uidlist, b"a"), [1])
            mark = uidlist.mark
            assert isinstance(mark, Mark)
            self.assertGreaterEqual(mark.uid_validity, 1_000_000)


class WritingTests(UidlistCase):
    def test_append_leaves_the_header_alone(self) -> None:
        self.path.write_bytes(LIST)
        inode = self.path.stat().st_ino
        uidlist = self.uidlist()
        with uidlist.lock:
            uidlist.refresh()
            uids = uidlist.append([(b"d", b""), (b"e", b"G1 P2")])
        self.assertEqual(uids, [13, 14])
        self.assertEqual(self.path.read_bytes(), LIST + b"13 :d\n14 G1 P2 :e\n")
        self.assertEqual(self.path.stat().st_ino, inode)
        self.assertEqual(list(uidlist.refresh().records), [], "own lines are no news")

    def test_new_list(self) -> None:
        uidlist = self.uidlist()
        self.assertEqual(self.add(uidlist, b"a", b"b"), [1, 2])
        mark = uidlist.mark
        assert mark is not None
        self.assertEqual(
            self.path.read_text(), f"3 V1000000 N3 G{mark.mailbox_id}\n1 :a\n2 :b\n"
        )

    def test_restored_list(self) -> None:
        uidlist = self.uidlist()
        with uidlist.lock:
            uidlist.refresh()
            records = [Record(UID(3), b"a", b"P9")]
            uidlist.write(records, uid_next=9, uid_validity=77, mailbox_id=G)
        self.assertEqual(self.path.read_text(), f"3 V77 N9 G{G}\n3 P9 :a\n")

    def test_no_uid_below_the_floor(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        self.assertEqual(self.add(uidlist, b"d", floor=40), [40])
        self.assertEqual(self.add(uidlist, b"e", floor=20), [41])

    def test_dropped_lines_do_not_bring_uids_back(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        self.add(uidlist, b"d")
        with uidlist.lock:
            uidlist.refresh()
            uidlist.drop({5, 12, 13})
        self.assertEqual(
            self.path.read_text(),
            f"3 V1234 N14 G{G} Xother\n1 P100 O3 :a,S=5\n",
        )
        self.assertEqual(self.add(self.uidlist(), b"e"), [14])

    def test_torn_line_is_mended_by_the_next_write(self) -> None:
        self.path.write_bytes(LIST + b"13 :d")
        uidlist = self.uidlist()
        self.assertEqual(self.add(uidlist, b"e"), [13])
        self.assertEqual(self.all()[3:], [(13, b"e")])
        self.assertTrue(self.path.read_bytes().startswith(b"3 V1234 N14 "))

    def test_lines_of_others_come_first(self) -> None:
        first, second = self.uidlist(), self.uidlist()
        self.assertEqual(self.add(first, b"a"), [1])
        self.assertEqual(self.add(second, b"b"), [2])
        self.assertEqual(self.add(first, b"c"), [3])
        self.assertEqual(self.all(), [(1, b"a"), (2, b"b"), (3, b"c")])

    def test_uids_run_out(self) -> None:
        self.path.write_bytes(f"3 V1 N{MAX_UID - 1} G{G}\n".encode())
        uidlist = self.uidlist()
        self.assertEqual(self.add(uidlist, b"a"), [MAX_UID - 1])
        with self.assertRaises(StoreError):
            self.add(uidlist, b"b", b"c")

    def test_lock_and_refresh_are_needed(self) -> None:
        self.path.write_bytes(LIST)
        uidlist = self.uidlist()
        uidlist.refresh()
        with self.assertRaises(RuntimeError):
            uidlist.append([(b"d", b"")])
        with uidlist.lock:
            self.path.write_bytes(LIST + b"13 :e\n")
            with self.assertRaises(RuntimeError):
                uidlist.append([(b"d", b"")])

    def test_append_is_durable(self) -> None:
        self.path.write_bytes(LIST)
        disk = FaultyDisk()
        self.add(self.uidlist(disk=disk), b"d")
        self.assertEqual(disk.calls[-2:], ["write", "fdatasync"])

    def test_new_file_is_durable_before_and_after_its_name(self) -> None:
        self.path.write_bytes(LIST)
        disk = FaultyDisk()
        uidlist = self.uidlist(disk=disk)
        with uidlist.lock:
            uidlist.refresh()
            uidlist.drop({5})
        self.assertEqual(disk.calls[-4:], ["write", "fdatasync", "rename", "fsync"])

    def test_failed_sync_gives_no_uid(self) -> None:
        self.path.write_bytes(LIST)
        inode = self.path.stat().st_ino
        disk = FaultyDisk("fdatasync", errno.EIO)
        uidlist = self.uidlist(disk=disk)
        with self.assertRaises(OSError):
            self.add(uidlist, b"d")
        self.assertEqual(self.path.read_bytes(), LIST)
        disk.operation = ""
        self.assertEqual(self.add(uidlist, b"e"), [13])
        self.assertNotEqual(self.path.stat().st_ino, inode, "not the file that failed")

    def test_full_disk_gives_no_uid(self) -> None:
        self.path.write_bytes(LIST)
        # the first write is that of the lock
        disk = FaultyDisk("write", errno.ENOSPC, after=1, short_write_octets=4)
        with self.assertRaises(OSError):
            self.add(self.uidlist(disk=disk), b"d")
        self.assertEqual(self.path.read_bytes(), LIST)
        self.assertEqual(sorted(os.listdir(self.directory)), ["dovecot-uidlist", "tmp"])

    def test_failed_rewrite_leaves_the_old_list(self) -> None:
        for operation in ("write", "fdatasync", "rename"):
            self.path.write_bytes(LIST)
            after = 1 if operation == "write" else 0
            uidlist = self.uidlist(disk=FaultyDisk(operation, errno.EIO, after))
            with self.assertRaises(OSError), uidlist.lock:
                uidlist.refresh()
                uidlist.drop({5})
            self.assertEqual(self.path.read_bytes(), LIST)
            self.assertEqual(
                sorted(os.listdir(self.directory)), ["dovecot-uidlist", "tmp"]
            )


class ModelTests(UidlistCase):
    def fresh(self) -> None:
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    @settings(max_examples=40, deadline=None)
    @given(st.integers(0, 200), st.booleans())
    def test_a_list_cut_anywhere_reuses_no_uid(self, cut: int, appended: bool) -> None:
        self.fresh()
        uidlist = self.uidlist()
        self.add(uidlist, b"a", b"b")
        if appended:
            self.add(uidlist, b"c", b"d,S=1")
        content = self.path.read_bytes()
        given_out = {uid: base for uid, base in self.all()}
        mark = uidlist.mark
        assert mark is not None
        self.path.write_bytes(content[:cut])
        after = self.uidlist()
        kept = dict(names(list(after.refresh().records)))
        self.assertLessEqual(kept.items(), given_out.items())
        self.add(after, b"new", floor=mark.uid_next)
        assert after.mark is not None
        for uid, base in self.all():
            if base == b"new" and after.mark.uid_validity == mark.uid_validity:
                self.assertNotIn(uid, given_out)
        if after.mark.uid_validity == mark.uid_validity:
            self.assertGreater(after.mark.uid_next, max(given_out))
        else:
            self.assertGreater(after.mark.uid_validity, mark.uid_validity)

    @settings(max_examples=40, deadline=None)
    @given(
        st.lists(
            st.one_of(
                st.tuples(st.sampled_from("12od"), st.integers(1, 3)),
                st.tuples(st.just("x"), st.integers(1, 15)),
            ),
            max_size=14,
        )
    )
    def test_two_writers_and_an_outsider_agree(
        self, steps: list[tuple[str, int]]
    ) -> None:
        """1 and 2 append, o appends as Dovecot does, d drops, x dies in a line."""
        self.fresh()
        lists = {"1": self.uidlist(), "2": self.uidlist()}
        known: dict[str, dict[bytes, int]] = {"1": {}, "2": {}}
        ever: dict[int, bytes] = {}
        made = 0
        for who, number in steps:
            bases = [b"n%d" % (made + n) for n in range(number)]
            made += number
            if who in lists:
                uids = self.follow(lists[who], known[who], bases)
                for uid, base in zip(uids, bases, strict=True):
                    self.assertEqual(ever.setdefault(uid, base), base)
            elif who == "x" and self.path.exists():
                with self.path.open("ab") as file:
                    file.write(b"77777 :torn,S=1"[:number])
            elif who == "o" and self.path.exists():
                self.follow(lists["1"], known["1"], [])  # mends what is torn
                fresh = self.uidlist()
                fresh.refresh()
                assert fresh.mark is not None
                first = fresh.mark.uid_next
                with self.path.open("ab") as file:
                    for n, base in enumerate(bases):
                        file.write(b"%d :%s\n" % (first + n, base))
                        self.assertNotIn(first + n, ever)
                        ever[first + n] = base
            elif who == "d" and self.path.exists():
                fresh = self.uidlist()
                with fresh.lock:
                    fresh.refresh()
                    fresh.drop({number})
        for who, uidlist in lists.items():
            self.follow(uidlist, known[who], [])
            expected = {base: uid for uid, base in self.all()}
            self.assertEqual(known[who], expected)
            for base, found in expected.items():
                self.assertEqual(ever[found], base)

    def follow(
        self, uidlist: Uidlist, known: dict[bytes, int], bases: list[bytes]
    ) -> list[UID]:
        with uidlist.lock:
            reading = uidlist.refresh()
            if reading.whole:
                known.clear()
            known.update((record.base, record.uid) for record in reading.records)
            uids = uidlist.append([(base, b"") for base in bases])
        known.update(zip(bases, uids, strict=True))
        return uids


class ThreadsTests(UidlistCase):
    def test_no_uid_is_given_twice(self) -> None:
        """Four writers at once, each with a view of its own of the file."""

        def append(writer: int) -> list[tuple[int, bytes]]:
            uidlist = self.uidlist()
            given_out: list[tuple[int, bytes]] = []
            for n in range(12):
                base = b"%d-%d" % (writer, n)
                while len(given_out) == n:
                    try:
                        (uid,) = self.add(uidlist, base)
                        given_out.append((uid, base))
                    except LockHeld:
                        os.sched_yield()
            return given_out

        with ThreadPoolExecutor(4) as pool:
            by_writer = list(pool.map(append, range(4)))
        together = [pair for pairs in by_writer for pair in pairs]
        self.assertEqual(sorted(uid for uid, _ in together), list(range(1, 49)))
        self.assertEqual(self.all(), sorted(together))

    def test_no_uid_validity_is_given_twice(self) -> None:
        with ThreadPoolExecutor(4) as pool:
            values = list(
                pool.map(
                    lambda _: next_uid_validity(self.directory, lambda: 1000.0),
                    range(40),
                )
            )
        self.assertEqual(len(set(values)), 40)


class UidValidityTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()

    def take(self, now: float = 0x1000, above: int = 0) -> int:
        return next_uid_validity(self.root, lambda: now, above=above)

    def test_clock_counts_only_the_first_time(self) -> None:
        self.assertEqual(
            [self.take(), self.take(), self.take(now=5)], [4096, 4097, 4098]
        )
        self.assertEqual(
            sorted(os.listdir(self.root)),
            ["dovecot-uidvalidity", "dovecot-uidvalidity.00001002"],
        )
        self.assertEqual((self.root / "dovecot-uidvalidity").read_text(), "00001002")

    def test_dovecots_counter_goes_on(self) -> None:
        (self.root / "dovecot-uidvalidity.5a000000").touch()
        (self.root / "dovecot-uidvalidity.5a000007").touch()
        (self.root / "dovecot-uidvalidity").write_text("5a000000")
        self.assertEqual(self.take(), 0x5A000008)
        self.assertFalse((self.root / "dovecot-uidvalidity.5a000000").exists())

    def test_who_saw_no_counter_makes_none_that_others_have_left(self) -> None:
        with ThreadPoolExecutor(2) as pool:
            others: list[Future[int]] = []

            def now() -> float:
                """Called after the look for a counter, before one is made."""
                others.extend(pool.submit(self.take) for _ in range(2))
                wait(others, timeout=0.2)
                return 0x1000

            first = next_uid_validity(self.root, now)
        self.assertEqual(
            sorted([first, *(other.result() for other in others)]), [4096, 4097, 4098]
        )

    def test_lost_counter_goes_on_above_the_hint(self) -> None:
        (self.root / "dovecot-uidvalidity").write_text("00002000")
        self.assertEqual([self.take(), self.take()], [0x2001, 0x2002])

    def test_broken_hint_counts_for_nothing(self) -> None:
        (self.root / "dovecot-uidvalidity").write_text("what?")
        self.assertEqual(self.take(), 0x1000)

    def test_above(self) -> None:
        self.assertEqual(self.take(above=9000), 9001)
        self.assertEqual(self.take(above=9500), 9501)
        self.assertEqual(self.take(above=100), 9502)
