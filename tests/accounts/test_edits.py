"""What an admin may change, and what is refused with which words."""

from collections.abc import Callable
from functools import partial

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.directory import (
    Account,
    Alias,
    Directory,
    Group,
    MailingList,
)
from mailsrv.accounts.edits import EditRefused

ANNA, BERT = "anna@example.test", "bert@example.test"
INFO, STAFF = "info@example.test", "staff@example.test"


def office() -> Directory:
    directory = edits.add_domain(Directory(), "example.test")
    directory = edits.add_account(directory, ANNA, "hash a")
    return edits.add_account(directory, BERT, "hash b")


def refused(
    case: SynchronousTestCase, words: str, call: Callable[[], Directory]
) -> None:
    with case.assertRaises(EditRefused) as caught:
        call()
    case.assertIn(words, str(caught.exception))


class EditsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = office()

    refused = refused

    def test_names_become_canonical(self) -> None:
        directory = edits.add_domain(self.office, "BÜCHER.example")
        directory = edits.add_account(directory, "Carl@bücher.example", "hash")
        name = "carl@xn--bcher-kva.example"
        self.assertEqual(directory.account(name), Account(name, name, "hash"))

    def test_domain_twice(self) -> None:
        self.refused("already", lambda: edits.add_domain(self.office, "Example.test"))

    def test_wrong_domains(self) -> None:
        for name in ("", "a b", "[192.0.2.1]", "a_b.test", "-a.test"):
            self.refused("no domain name", partial(edits.add_domain, self.office, name))

    def test_separators(self) -> None:
        directory = edits.set_separators(self.office, "example.test", "+--")
        self.assertEqual(directory.domains["example.test"].separators, "+-")
        self.refused(
            "cannot separate",
            lambda: edits.set_separators(self.office, "example.test", "x"),
        )

    def test_domain_with_addresses_stays(self) -> None:
        self.refused(ANNA, lambda: edits.delete_domain(self.office, "example.test"))
        directory = edits.add_domain(self.office, "empty.test")
        self.assertEqual(edits.delete_domain(directory, "empty.test"), self.office)

    def test_account_in_a_foreign_domain(self) -> None:
        self.refused(
            "mailsrv domain add",
            lambda: edits.add_account(self.office, "carl@other.test", "hash"),
        )

    def test_address_taken(self) -> None:
        directory = edits.add_alias(self.office, INFO, [ANNA])
        for name in ("ANNA@example.test", INFO):
            self.refused(
                "exists already",
                partial(edits.add_account, directory, name, "hash"),
            )
        self.refused("as account", lambda: edits.add_alias(directory, ANNA, [BERT]))
        self.refused("as alias", lambda: edits.add_group(directory, INFO, [BERT]))

    def test_account_names_that_are_no_folder_names(self) -> None:
        for local in ("a/b", '"../x"', '"a b"', '"."', '".."', '"a/b"'):
            self.refused(
                "add this one as an alias",
                partial(
                    edits.add_account, self.office, f"{local}@example.test", "hash"
                ),
            )
        edits.add_alias(self.office, "a/b@example.test", [ANNA])

    def test_alias_takes_further_targets(self) -> None:
        directory = edits.add_alias(self.office, INFO, [ANNA])
        directory = edits.add_alias(directory, INFO, [BERT, ANNA])
        self.assertEqual(directory.entries[INFO], Alias(INFO, (ANNA, BERT)))

    def test_alias_to_the_outside(self) -> None:
        directory = edits.add_alias(self.office, INFO, ["Carl@Other.test", ANNA])
        self.assertEqual(
            directory.entries[INFO], Alias(INFO, ("Carl@other.test", ANNA))
        )
        directory = edits.remove_from(directory, INFO, ["Carl@other.test"])
        self.assertEqual(directory.entries[INFO], Alias(INFO, (ANNA,)))

    def test_alias_to_nobody(self) -> None:
        self.refused(
            "there is no address",
            lambda: edits.add_alias(self.office, INFO, ["carl@example.test"]),
        )
        self.refused("at least one", lambda: edits.add_alias(self.office, INFO, []))

    def test_loops(self) -> None:
        directory = edits.add_alias(self.office, INFO, [ANNA])
        directory = edits.add_group(directory, STAFF, [INFO])
        self.refused(
            "lead to itself", lambda: edits.add_alias(directory, INFO, [STAFF])
        )
        self.refused("lead to itself", lambda: edits.add_alias(directory, INFO, [INFO]))

    def test_group(self) -> None:
        directory = edits.add_group(self.office, STAFF, [ANNA], [BERT])
        directory = edits.add_group(directory, STAFF, [BERT], ["anna"])
        self.assertEqual(
            directory.entries[STAFF], Group(STAFF, (ANNA, BERT), (BERT, ANNA))
        )

    def test_remove_from(self) -> None:
        directory = edits.add_group(self.office, STAFF, [ANNA, BERT], [BERT])
        directory = edits.remove_from(directory, STAFF, [BERT])
        self.assertEqual(directory.entries[STAFF], Group(STAFF, (ANNA,)))
        self.refused(
            "does not belong", lambda: edits.remove_from(directory, STAFF, [BERT])
        )
        self.refused(
            "nobody would be left", lambda: edits.remove_from(directory, STAFF, [ANNA])
        )

    def test_deleted_account_leaves_its_groups(self) -> None:
        directory = edits.add_group(self.office, STAFF, [ANNA, BERT], [BERT])
        directory = edits.delete(directory, BERT, Account)
        self.assertEqual(directory.entries[STAFF], Group(STAFF, (ANNA,)))
        self.assertIsNone(directory.account(BERT))

    def test_last_target_stays(self) -> None:
        directory = edits.add_alias(self.office, INFO, [ANNA])
        self.refused(INFO, lambda: edits.delete(directory, ANNA, Account))
        directory = edits.set_catch_all(self.office, "example.test", ANNA)
        self.refused("example.test", lambda: edits.delete(directory, ANNA, Account))

    def test_delete_takes_the_named_kind_only(self) -> None:
        self.refused("no alias", lambda: edits.delete(self.office, ANNA, Alias))


class ListEditsTests(SynchronousTestCase):
    refused = refused

    def setUp(self) -> None:
        self.office = edits.add_group(office(), STAFF, [ANNA, BERT])

    def test_group_becomes_a_list(self) -> None:
        after = edits.add_list(self.office, STAFF.upper(), [ANNA])
        self.assertEqual(after.entries[STAFF], MailingList(STAFF, (ANNA,)))

    def test_names_leave_room_for_tokens(self) -> None:
        long = "a" * edits.MAX_LIST_LOCAL
        edits.add_list(self.office, f"{long}@example.test", [ANNA])
        for local in (f"{long}a", "a+b", "a.-b", "a-", "\u00fc", '"a b"'):
            self.refused(
                "cannot name a list",
                partial(edits.add_list, self.office, f"{local}@example.test", [ANNA]),
            )

    def test_owners(self) -> None:
        self.refused("needs an owner", lambda: edits.add_list(self.office, INFO, []))
        directory = edits.add_list(
            self.office, INFO, [ANNA, STAFF, "ANNA@example.test"]
        )
        self.assertEqual(edits.existing_list(directory, INFO).owners, (ANNA, STAFF))
        self.refused("no owner", lambda: edits.set_list(directory, INFO, owners=[INFO]))
        alone = edits.set_list(directory, INFO, owners=[BERT])
        self.refused(INFO, lambda: edits.delete(alone, BERT, Account))

    def test_settings(self) -> None:
        directory = edits.add_list(self.office, INFO, [ANNA])
        directory = edits.set_list(
            directory,
            INFO,
            title="News",
            posting="announce",
            posters=["Boss@Example.org"],
            subject_tag="[News]",
            reply_to="list",
            joining="open",
        )
        expected = MailingList(
            *(INFO, (ANNA,), "News", "announce", ("boss@example.org",)),
            *("[News]", "list", "open"),
        )
        self.assertEqual(edits.set_list(directory, INFO), directory)
        self.assertEqual(directory.entries[INFO], expected)
        self.refused(
            "one line", lambda: edits.set_list(directory, INFO, title="a\nBcc: b")
        )
        self.refused("no list", lambda: edits.set_list(directory, STAFF, title="x"))
