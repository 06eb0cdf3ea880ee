"""Keyword letters of a folder, and the keywords past z."""

import errno
import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.keywords import LETTERS_MASK, Keywords
from mailsrv.store.maildir import to_letters
from mailsrv.store.values import InvalidName, TooManyKeywords
from tests.store.faulty import FaultyDisk

MANY = [f"$k{n}" for n in range(58)]


class KeywordsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "dovecot-keywords"
        self.extra_path = self.directory / "mailsrv-keywords"

    def keywords(self, disk: FaultyDisk | None = None) -> Keywords:
        keywords = Keywords(self.directory, disk or FaultyDisk())
        keywords.refresh()
        return keywords

    def test_dovecots_file(self) -> None:
        self.path.write_bytes(b"0 $Forwarded\n1 NonJunk\n3 work\n")
        keywords = self.keywords()
        self.assertEqual(keywords.names, ["$Forwarded", "NonJunk", None, "work"])
        self.assertEqual(to_letters(keywords.flags(["nonjunk", "work", "x"])), "bd")

    def test_no_file(self) -> None:
        self.assertEqual(self.keywords().names, [])

    def test_what_is_broken_is_passed_over(self) -> None:
        self.path.write_bytes(b"0 a\n26 z\n-1 y\nx\n 5\n7\n2 \xff\n999999999 q\n")
        self.assertEqual(self.keywords().names, ["a", None, "\ufffd"])

    def test_what_is_no_atom_is_kept_and_not_shown(self) -> None:
        odd = ["a b", 'x"y', "(p)", "x]", "{1}", "\\Seen", "\u00e4", "a*", "%", "a"]
        lines = [f"{n} {name}\n" for n, name in enumerate(odd)]
        self.path.write_text("".join(lines))
        self.assertEqual(self.keywords().shown, (*[""] * 9, "a"))
        self.keywords().ensure(["!#$&'+,-./09:;<=>?@AZ[^_`az|}~"])
        self.assertEqual(self.path.read_text().count("\n"), 11)
        self.assertTrue(self.path.read_text().startswith("".join(lines)))
        self.assertEqual(self.keywords().shown[9:], ("a", self.keywords().names[10]))

    def test_new_names_get_the_next_letters(self) -> None:
        self.path.write_bytes(b"0 a\n2 c\n")
        keywords = self.keywords()
        self.assertEqual(to_letters(keywords.ensure(["d", "C", "D"])), "cd")
        self.assertEqual(self.path.read_bytes(), b"0 a\n2 c\n3 d\n")
        self.assertEqual(self.keywords().names, ["a", None, "c", "d"])

    def test_names_are_durable(self) -> None:
        disk = FaultyDisk()
        keywords = self.keywords(disk)
        keywords.ensure(["a"])
        self.assertEqual(
            disk.calls, ["create", "write", "fdatasync", "rename", "fsync"]
        )
        keywords.ensure(["a"])
        self.assertEqual(len(disk.calls), 5, "nothing new, nothing written")

    def test_name_that_is_not_durable_is_not_known(self) -> None:
        keywords = self.keywords(FaultyDisk("fdatasync", errno.EIO))
        with self.assertRaises(OSError):
            keywords.ensure(["a"])
        self.assertEqual((keywords.flags(["a"]), os.listdir(self.directory)), (0, []))

    def test_past_z(self) -> None:
        keywords = self.keywords()
        flags = keywords.ensure(MANY)
        self.assertEqual(flags, (1 << 63) - 32)
        self.assertEqual(self.keywords().names, MANY)
        self.assertEqual(len(self.path.read_text().splitlines()), 26)
        keywords.set_extra({b"one,S=1": flags, b"two": 31})
        again = self.keywords()
        self.assertEqual(again.extra, {b"one,S=1": flags & ~LETTERS_MASK})
        again.set_extra({b"one,S=1": 0})
        self.assertEqual(self.keywords().extra, {})
        self.assertEqual(self.keywords().names, MANY)

    def test_names_with_colons_past_z(self) -> None:
        names = [*MANY[:26], ":", ":a", "a:", "::27"]
        keywords = self.keywords()
        flags = keywords.ensure(names)
        keywords.set_extra({b"one two": flags})
        self.assertEqual(self.keywords().names, names)
        self.assertEqual(self.keywords().extra, {b"one two": flags & ~LETTERS_MASK})

    def test_no_room(self) -> None:
        keywords = self.keywords()
        keywords.ensure(MANY[:57])
        with self.assertRaises(TooManyKeywords):
            keywords.ensure(["x", "y"])
        self.assertEqual(keywords.flags(["x"]), 0)
        self.assertEqual(len(self.keywords().names), 57)

    def test_dropped_places_are_used_at_last(self) -> None:
        self.path.write_bytes(b"1 b\n")
        keywords = self.keywords()
        keywords.ensure(MANY[:56])
        self.assertEqual(keywords.names[0], None)
        self.assertEqual(to_letters(keywords.ensure(["last"])), "a")

    def test_names_that_would_break_the_file(self) -> None:
        for name in ("", "a b", "a\nb", "x" * 256):
            with self.assertRaises(InvalidName):
                self.keywords().ensure([name])

    @settings(max_examples=30, deadline=None)
    @given(
        st.lists(
            st.from_regex(r"[!-~äö]{1,4}", fullmatch=True).map(str.lower),
            max_size=58,
            unique=True,
        )
    )
    def test_round_trip(self, names: list[str]) -> None:
        self.path.unlink(missing_ok=True)
        self.extra_path.unlink(missing_ok=True)
        self.keywords().ensure(names)
        self.assertEqual(self.keywords().names, names)
