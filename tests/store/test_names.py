"""From mailbox names to directories, and what is no name."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.names import (
    canonical,
    directory,
    directory_name,
    mailbox_name,
    mailboxes,
)
from mailsrv.store.values import InvalidName


class NamesTests(SynchronousTestCase):
    def test_names_and_their_directories(self) -> None:
        for name, found in (
            ("Sent", ".Sent"),
            ("A/B", ".A.B"),
            ("Entwürfe", ".Entw&APw-rfe"),
            ("INBOX/Sub", ".INBOX.Sub"),
            ("~x", ".~x"),
        ):
            self.assertEqual(directory_name(name), found)
            self.assertEqual(mailbox_name(found), name)

    def test_inbox_is_the_root(self) -> None:
        root = Path("/mail")
        self.assertEqual(directory(root, "inbox"), root)
        self.assertEqual(canonical("InBox"), "INBOX")
        self.assertIsNone(mailbox_name(".INBOX"))
        self.assertIsNone(mailbox_name(".inbox"))
        self.assertEqual(canonical("inbox/Sub"), "INBOX/Sub")
        self.assertEqual(canonical("inboxes/Sub"), "inboxes/Sub")
        self.assertEqual(directory_name("Inbox/Sub"), ".INBOX.Sub")

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
                directory_name(name)

    def test_directories_that_no_name_leads_to_are_hidden(self) -> None:
        for found in ("cur", "", ".", "..", "..x", ".a..b", ".&AGE-", ".a\udcffb"):
            self.assertIsNone(mailbox_name(found), found)

    def test_mailboxes_are_listed_by_name(self) -> None:
        root = Path(self.mktemp())
        for name in ("cur", ".Sent", ".A.B", "..trash", ".INBOX"):
            (root / name).mkdir(parents=True)
        (root / ".file").touch()
        self.assertEqual(mailboxes(root), ["INBOX", "A/B", "Sent"])

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("./")))
    def test_each_name_has_a_directory_of_its_own_inside(self, name: str) -> None:
        try:
            found = directory_name(name)
        except InvalidName:
            return
        if not found:
            self.assertEqual(canonical(name), "INBOX")
            return
        self.assertEqual(mailbox_name(found), canonical(name))
        self.assertNotIn("/", found)
        self.assertNotIn("..", found)
        self.assertLessEqual(len(found.encode("ascii")), 255)
