"""From mailbox names to directories, and what is no name."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store import maildir
from mailsrv.store.names import (
    canonical,
    directory,
    in_utf8,
    mailbox_name,
    mailboxes,
    spellings,
)
from mailsrv.store.values import InvalidName

_NAMES = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./&-ABQ"))


class NamesTests(SynchronousTestCase):
    def test_names_and_their_directories(self) -> None:
        for name, found in (
            ("Sent", ".Sent"),
            ("A/B", ".A.B"),
            ("Entwürfe", ".Entw&APw-rfe"),
            ("INBOX/Sub", ".INBOX.Sub"),
            ("~x", ".~x"),
            ("R&D", ".R&-D"),
            ("A&-B", ".A&--B"),
        ):
            self.assertEqual(spellings(name).modified_utf7, found)
            self.assertEqual(mailbox_name(found), name)

    def test_names_and_their_directories_in_utf8(self) -> None:
        for name, found in (
            ("Sent", ".Sent"),
            ("Entwürfe/日本", ".Entwürfe.日本"),
            ("R&D", ".R&D"),
            ("Q&A-List", ".Q&A-List"),
            ("A&-B", ".A&--B"),  # ".A&-B" is "A&B" to all who read it
            ("ü&-B", ".ü&-B"),
        ):
            self.assertEqual(spellings(name).utf8, found)
            self.assertEqual(mailbox_name(found), name)

    def test_inbox_is_the_root(self) -> None:
        root = Path("/mail")
        self.assertEqual(directory(root, "inbox"), root)
        self.assertEqual(canonical("InBox"), "INBOX")
        self.assertIsNone(mailbox_name(".INBOX"))
        self.assertIsNone(mailbox_name(".inbox"))
        self.assertEqual(canonical("inbox/Sub"), "INBOX/Sub")
        self.assertEqual(canonical("inboxes/Sub"), "inboxes/Sub")
        self.assertEqual(directory(root, "Inbox/Sub"), root / ".INBOX.Sub")

    def test_what_is_no_name(self) -> None:
        for name in (
            "",
            "/",
            "/A",
            "A/",
            "A//B",
            ".",
            "..",
            "../A",
            "A/../B",
            "a.b",
            "a\0",
            "a\nb",
            "a\x7f",
            "a\x85",
            "a\u2028",
            "\ud800",
            "x" * 255,
            "ü" * 200,
        ):
            with self.assertRaises(InvalidName, msg=repr(name)):
                spellings(name)

    def test_directories_that_no_name_leads_to_are_hidden(self) -> None:
        for found in (
            "cur",
            "",
            ".",
            "..",
            "..x",
            ".a..b",
            ".&AAA-",
            ".ü\n",
            ".a\udcffb",
        ):
            self.assertIsNone(mailbox_name(found), found)

    def test_what_is_no_modified_utf7_is_utf8(self) -> None:
        self.assertEqual(mailbox_name(".&AGE-"), "&AGE-")  # an "a" that needs no shift

    def test_mailboxes_are_listed_by_name(self) -> None:
        root = Path(self.mktemp())
        for name in ("cur", ".Sent", ".A.B", "..trash", ".INBOX"):
            (root / name).mkdir(parents=True)
        (root / ".file").touch()
        self.assertEqual(mailboxes(root), ["INBOX", "A/B", "Sent"])

    def test_a_new_directory_is_spelled_like_most(self) -> None:
        root = Path(self.mktemp())
        self.assertEqual(directory(root, "Öl").name, ".&ANY-l")
        for name, utf8 in (
            (".Sent", False),
            (".Ä", True),
            (".&AOQ-", False),  # as many
            (".R&D", True),
            (".&AOQ-.&AOQ-", False),
        ):
            (root / name).mkdir(parents=True)
            self.assertEqual(in_utf8(root), utf8)
            self.assertEqual(directory(root, "Öl").name, ".Öl" if utf8 else ".&ANY-l")
        self.assertEqual(mailboxes(root), ["INBOX", "R&D", "Sent", "Ä", "ä", "ä/ä"])

    def test_one_name_has_one_directory(self) -> None:
        root = Path(self.mktemp())
        for name in (".Ä", ".&AMQ-"):
            (root / name).mkdir(parents=True)
        self.assertEqual(mailboxes(root), ["INBOX", "Ä"])
        self.assertEqual(directory(root, "Ä"), root / ".&AMQ-")

    def test_lengths_are_those_of_the_spelling(self) -> None:
        root = Path(self.mktemp())
        name = "ж" * 120  # 240 octets in UTF-8, 322 in modified UTF-7
        with self.assertRaises(InvalidName):
            directory(root, name)
        (root / f".{name}").mkdir(parents=True)
        self.assertEqual(mailboxes(root), ["INBOX", name])
        with self.assertRaises(InvalidName):
            directory(root, "日" * 90)  # 270 and 242

    @settings(max_examples=50, deadline=None)
    @given(_NAMES)
    def test_each_name_has_a_directory_of_its_own_inside(self, name: str) -> None:
        try:
            found = spellings(name)
        except InvalidName:
            return
        if found == ("", ""):
            self.assertEqual(canonical(name), "INBOX")
            return
        for spelled in found:
            self.assertEqual(mailbox_name(spelled), canonical(name))
            self.assertNotIn("/", spelled)
            self.assertNotIn("..", spelled)
        self.assertLessEqual(min(len(s.encode()) for s in found), 255)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.tuples(_NAMES, st.sampled_from(["mailsrv", "utf8", "utf7"]))))
    def test_each_directory_has_a_name_of_its_own(
        self, made: list[tuple[str, str]]
    ) -> None:
        """Whoever has made them: mailsrv, or Dovecot with either setting."""
        root = Path(self.mktemp())
        maildir.create(root)
        known = {"INBOX": root}
        for name, by in made:
            try:
                path = directory(root, name)
                spelled = spellings(name)
            except InvalidName:
                continue
            name = canonical(name)
            if name not in known:
                if by != "mailsrv":
                    path = root / spelled[by == "utf8"]
                if len(path.name.encode()) > 255:
                    continue
                path.mkdir()
                known[name] = path
            self.assertEqual({n: directory(root, n) for n in known}, known)
            self.assertEqual(mailboxes(root)[1:], sorted(known.keys() - {"INBOX"}))
