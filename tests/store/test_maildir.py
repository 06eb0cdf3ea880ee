"""Names of Maildir files, and looks at folders."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.maildir import (
    Entry,
    MaildirName,
    UniqueNames,
    arrival_key,
    base_name,
    create,
    open_file,
    parse,
    part_doubles,
    path_of,
    rename,
    saved_at,
    scan,
    to_flags,
    to_letters,
)
from mailsrv.store.values import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN, MessageGone

HOUR_NS = 3600 * 10**9
file_names = st.binary(min_size=1, max_size=60).filter(lambda name: b"/" not in name)


class NameTests(SynchronousTestCase):
    def test_parts(self) -> None:
        name = parse(b"1700000000.M5P7.mx,S=1024,W=1050:2,FSa")
        self.assertEqual(name.base, b"1700000000.M5P7.mx,S=1024,W=1050")
        self.assertEqual(name.flags, FLAGGED | SEEN | 1 << 5)
        self.assertEqual((name.file_octets, name.size_octets), (1024, 1050))

    def test_names_without_flags_or_sizes(self) -> None:
        for name in (b"a", b"a:1,S", b"a:", b"a:2", b"a,S=x", b"a,S=5x", b"aS=5"):
            parsed = parse(name)
            self.assertEqual((parsed.flags, parsed.file_octets), (0, None), name)

    def test_letters(self) -> None:
        all_system = ANSWERED | DELETED | DRAFT | FLAGGED | SEEN
        self.assertEqual(to_flags("DFRST"), all_system)
        self.assertEqual(to_letters(all_system), "DFRST")
        self.assertEqual(to_letters(1 << 30 | 1 << 5), "az")
        self.assertEqual(to_letters(1 << 31), "")

    def test_what_is_not_understood_is_kept(self) -> None:
        name = parse(b"a,X=1,S=5:2,PSX,more,S=9").with_flags(FLAGGED)
        self.assertEqual(name.format(), b"a,X=1,S=5:2,FPX,more,S=9")

    def test_saved_at(self) -> None:
        self.assertEqual(saved_at(b"1700000000.M5P7.mx", 5), 1_700_000_000)
        self.assertEqual(saved_at(b"1700000000_7.12.host,U=4", 5), 1_700_000_000)
        self.assertEqual(saved_at(UniqueNames("h", lambda: 1.7e9).next(), 5), 1.7e9)
        for other in (
            b"a",
            b"17000.x",
            b"17000000000.x",
            b"1700000000",
            b"x1700000000.",
        ):
            self.assertEqual(saved_at(other, 5), 5, other)

    @settings(max_examples=50, deadline=None)
    @given(file_names, st.integers(0, 2**31 - 1))
    def test_flags_change_nothing_else(self, octets: bytes, flags: int) -> None:
        before = parse(octets)
        after = parse(before.with_flags(flags).format())
        self.assertEqual(after.flags, flags)
        self.assertEqual((after.base, after.rest), (before.base, before.rest))
        self.assertEqual(
            after.with_flags(0).letters, before.with_flags(0).letters, "unknown ones"
        )

    @settings(max_examples=50, deadline=None)
    @given(
        st.from_regex(rb"[!-+\--9;-~]+", fullmatch=True),
        st.from_regex(r"[A-Za-z]*", fullmatch=True),
    )
    def test_round_trip(self, base: bytes, letters: str) -> None:
        name = MaildirName(base, letters)
        self.assertEqual(parse(name.format()), name)
        self.assertEqual(parse(name.format(info=False)).base, base)

    def test_unique_names_sort_as_they_were_made(self) -> None:
        times = iter([9.000002, 9.000010, 9.000010, 10.0])
        names = UniqueNames("mx:1/2.test", now=lambda: next(times))
        made = [names.next() for _ in range(4)]
        self.assertEqual(sorted(made, key=arrival_key), made)
        self.assertEqual(len(set(made)), 4)
        self.assertTrue(made[0].endswith(b".mx\\0721\\0572.test"), made[0])
        self.assertNotEqual(made[0], UniqueNames("mx", now=lambda: 9.000002).next())

    def test_arrival_order_is_dovecots(self) -> None:
        order = [
            b"odd",
            b"999999999.M9P1.a",
            b"1000000000.M9P1.a",
            b"1000000000.P2M10.a:2,S",
            b"1000000000.M10Q.b",
            b"1000000000.M1000P1.a",
        ]
        self.assertEqual(sorted(reversed(order), key=arrival_key)[:3], order[:3])
        self.assertEqual(sorted(reversed(order), key=arrival_key)[-1], order[-1])

    def test_delivery_id_is_in_the_base_name(self) -> None:
        first = base_name(b"u", 1, 2, "q1/anna@example.test")
        self.assertEqual(first, base_name(b"u", 1, 2, "q1/anna@example.test"))
        self.assertNotEqual(first, base_name(b"u", 1, 2, "q1/bob@example.test"))
        self.assertEqual(parse(first).size_octets, 2)
        long = base_name(b"u", 1, 2, "ü/:," * 500)
        self.assertLess(len(long), 60)
        self.assertFalse(set(b"/:\n") & set(long))


class FolderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        create(self.directory)
        self.cur = self.directory / "cur"

    def put(self, name: str, content: bytes = b"x") -> Path:
        path = self.cur / name
        path.write_bytes(content)
        return path

    def age(self, folder: Path, seconds: float) -> None:
        changed_at = folder.stat().st_mtime_ns - int(seconds * 1e9)
        os.utime(folder, ns=(changed_at, changed_at))

    def test_only_regular_files_are_messages(self) -> None:
        self.put("a:2,S")
        self.put(".hidden")
        self.put(":2,S")
        self.put("line\nend")
        (self.cur / "folder").mkdir()
        (self.cur / "link").symlink_to("/etc/passwd")
        os.mkfifo(self.cur / "fifo")
        self.assertEqual(scan(self.cur).names, {b"a": b"a:2,S"})

    def test_a_base_name_is_one_message(self) -> None:
        self.put("a:2,")
        self.put("a:2,S")
        found = scan(self.cur)
        self.assertEqual({found.names[b"a"], *found.doubles}, {b"a:2,", b"a:2,S"})

    def test_scan_is_final_when_the_folder_is_at_rest(self) -> None:
        self.put("a")
        self.assertFalse(scan(self.cur).final)
        self.age(self.cur, 0.9)
        now_ns = self.cur.stat().st_mtime_ns
        self.assertFalse(scan(self.cur, lambda: now_ns + 10**9).final)
        self.assertTrue(scan(self.cur, lambda: now_ns + 10**9 + 1).final)

    def test_scan_is_not_final_when_the_clock_went_back(self) -> None:
        self.assertFalse(scan(self.cur, lambda: 0).final)

    def test_missing_folder(self) -> None:
        with self.assertRaises(FileNotFoundError):
            scan(self.directory / "none")

    def test_rename_of_what_is_gone(self) -> None:
        self.put("a:2,")
        old, new = Entry(b"a:2,", False), Entry(b"a:2,S", False)
        self.assertTrue(rename(self.directory, old, new))
        self.assertFalse(rename(self.directory, old, new))
        self.assertEqual(scan(self.cur).names, {b"a": b"a:2,S"})

    def test_links_are_not_opened(self) -> None:
        secret = self.directory / "secret"
        secret.write_bytes(b"secret")
        (self.cur / "link").symlink_to(secret)
        os.mkfifo(self.cur / "fifo")
        (self.cur / "folder").mkdir()
        for name in (b"link", b"fifo", b"folder"):
            with self.assertRaises(MessageGone, msg=repr(name)):
                open_file(path_of(self.directory, Entry(name, False)))
        with self.assertRaises(FileNotFoundError):
            open_file(path_of(self.directory, Entry(b"none", False)))

    def test_message_is_opened(self) -> None:
        self.put("a", b"content")
        fd, status = open_file(path_of(self.directory, Entry(b"a", False)))
        self.addCleanup(os.close, fd)
        self.assertEqual(status.st_size, 7)
        self.assertEqual(os.read(fd, 100), b"content")
        self.assertFalse(os.get_inheritable(fd))

    def test_two_links_become_one(self) -> None:
        os.link(self.put("a:2,"), self.cur / "a:2,S")
        entries = Entry(b"a:2,", False), Entry(b"a:2,S", False)
        self.assertTrue(part_doubles(self.directory, *entries, b"new"))
        self.assertEqual(scan(self.cur).names, {b"a": b"a:2,"})

    def test_two_files_become_two_messages(self) -> None:
        self.put("a:2,", b"first")
        self.put("a:2,S", b"second")
        entries = Entry(b"a:2,", False), Entry(b"a:2,S", False)
        self.assertTrue(part_doubles(self.directory, *entries, b"new"))
        self.assertEqual((self.cur / "a:2,").read_bytes(), b"first")
        self.assertEqual((self.cur / "new:2,S").read_bytes(), b"second")

    def test_create_keeps_what_is_there(self) -> None:
        self.put("a")
        create(self.directory)
        self.assertIn(b"a", scan(self.cur).names)
