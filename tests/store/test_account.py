"""AccountStore: opening, deliveries, flags, expunges, copies, moves, mailboxes."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.account import AccountStore
from mailsrv.store.content import MAX_HEADER_KEYS, UNUSED_DAYS, header_key
from mailsrv.store.schema import HEADER_KEYS
from mailsrv.store.values import (
    DELETED,
    FLAGGED,
    SEEN,
    InvalidName,
    MailboxExists,
    MessageGone,
    NoSuchMailbox,
    OverQuota,
)
from tests.store.account_fixture import MESSAGE, Office


class AccountTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.office = Office(Path(self.mktemp()))
        self.store = self.office.store
        self.addCleanup(self.office.connections.close)


class DeliveryTests(AccountTestCase):
    def test_empty_inbox_opens(self) -> None:
        state = self.store.open("inbox")
        self.assertEqual((state.name, list(state.uids)), ("INBOX", []))
        self.assertEqual(state.uid_next, 1)
        self.assertGreater(state.uid_validity, 0)
        self.assertEqual(len(state.mailbox_id), 32)

    def test_delivery_is_told_with_its_uid(self) -> None:
        state = self.store.open("INBOX")
        delivered = [self.office.deliver() for _ in range(3)]
        changes = self.store.ingest("INBOX", delivered)
        self.assertEqual([uid for uid, _, _ in changes.added], [1, 2, 3])
        self.assertEqual(changes.uid_next, 4)
        self.assertGreater(changes.highest_mod_seq, state.highest_mod_seq)
        self.assertFalse(changes.rebuilt)
        self.assertEqual(
            self.store.uids_of("INBOX", [d.base for d in delivered]), [1, 2, 3]
        )
        again = self.store.open("INBOX")
        self.assertEqual(list(again.uids), [1, 2, 3])
        self.assertEqual(set(again.mod_seqs), {changes.highest_mod_seq})

    def test_delivery_that_a_sync_has_found_is_taken_in_once(self) -> None:
        self.store.open("INBOX")
        delivered = self.office.deliver()
        self.assertEqual(len(self.store.sync("INBOX").added), 1)
        self.assertEqual(list(self.store.ingest("INBOX", [delivered]).added), [])

    def test_delivery_that_another_program_moved_is_left_to_sync(self) -> None:
        self.store.open("INBOX")
        delivered = self.office.deliver()
        os.rename(
            os.fsencode(self.office.maildir / "new") + b"/" + delivered.name,
            os.fsencode(self.office.maildir / "cur") + b"/" + delivered.base + b":2,S",
        )
        self.assertEqual(list(self.store.ingest("INBOX", [delivered]).added), [])
        ((uid, flags, _),) = self.store.sync("INBOX").added
        self.assertEqual((uid, flags), (1, SEEN))

    def test_rows_are_ready_after_a_delivery(self) -> None:
        uid = self.office.receive()
        (row,) = self.store.rows(
            "INBOX", [uid], ["size_octets", "envelope", "sent_day", "internal_date"]
        ).values()
        served = MESSAGE.replace(b"\n", b"\r\n")
        self.assertEqual(row[0], len(served))
        envelope = row[1]
        assert isinstance(envelope, bytes)
        self.assertIn(b"<1@example.test>", envelope)
        with self.store.open_message("INBOX", uid) as file:
            self.assertEqual(file.size_octets, len(served))
            self.assertEqual(file.read(0, 10_000), served)
            self.assertEqual(file.read(5, 7), served[5:12])

    def test_header_fields(self) -> None:
        uids = [self.office.receive() for _ in range(3)]
        key = header_key([b"SUBJECT", b"From"])
        found = self.store.header_fields("INBOX", uids, key)
        self.assertEqual(sorted(found), uids)
        self.assertEqual(
            found[1],
            b"From: Anna <anna@example.test>\r\n"
            b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n",
        )
        self.assertEqual(self.store.header_fields("INBOX", uids, key), found)
        without = header_key([b"from", b"to", b"date", b"message-id"], exclude=True)
        self.assertEqual(
            self.store.header_fields("INBOX", [1], without)[1],
            b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n",
        )

    def test_header_fields_of_found_mail_cost_no_more_than_themselves(self) -> None:
        self.office.drop(MESSAGE, sub="cur")
        self.office.drop(b"X: " + b"x" * 20_000 + b"\nTo: a\n\nb\n", sub="cur")
        uids = self.store.open("INBOX").uids
        found = self.store.header_fields("INBOX", uids, header_key([b"To"]))
        fields = {b"To: ben@example.test\r\n\r\n", b"To: a\r\n\r\n"}
        self.assertEqual(set(found.values()), fields)
        index = str(self.office.root / "index.sqlite")
        with self.office.connections.use(index, "read") as connection:
            row = connection.execute(
                "SELECT count(*), (SELECT count(*) FROM header_fields),"
                " (SELECT count(*) FROM message WHERE exact) FROM content"
            ).fetchone()
        self.assertEqual(row, (0, 2, 2))
        self.store.fill("INBOX", uids)
        again = self.store.header_fields("INBOX", uids, header_key([b"To"]))
        self.assertEqual(again, found)

    def test_many_kinds_of_header_fields_are_answered(self) -> None:
        uid = self.office.receive()
        for n in range(20):
            key = header_key([b"subject", b"x-%d" % n])
            self.assertIn(uid, self.store.header_fields("INBOX", [uid], key))

    def test_unused_kinds_of_header_fields_make_room(self) -> None:
        uid = self.office.receive()
        day = [20_000.0]
        store = AccountStore(
            self.office.root,
            connections=self.office.connections,
            quota_octets=None,
            now=lambda: day[0] * 86400,
        )

        def ask(n: int) -> None:
            key = header_key([b"subject", b"x-%d" % n])
            fields = store.header_fields("INBOX", [uid], key)
            self.assertEqual(
                fields[uid], b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n\r\n"
            )

        def kept() -> list[int]:
            with closing(sqlite3.connect(self.office.root / "index.sqlite")) as index:
                keys = index.execute("SELECT key, id FROM header_key").fetchall()
                fields = index.execute("SELECT id FROM header_fields").fetchall()
            self.assertEqual(
                {number % HEADER_KEYS for (number,) in fields},
                {number for _, number in keys},
            )
            return sorted(int(key.rpartition(b"-")[2]) for key, _ in keys)

        for n in range(MAX_HEADER_KEYS + 1):
            ask(n)
        self.assertEqual(kept(), list(range(MAX_HEADER_KEYS)))
        day[0] += UNUSED_DAYS
        for n in range(1, MAX_HEADER_KEYS):
            ask(n)
        ask(50)
        self.assertEqual(kept(), list(range(MAX_HEADER_KEYS)))
        day[0] += 1
        ask(51)
        ask(52)
        self.assertEqual(kept(), [*range(1, MAX_HEADER_KEYS), 51])

    def test_uids_survive_the_deletion_of_the_index(self) -> None:
        for _ in range(3):
            self.office.receive()
        self.store.expunge("INBOX", [2], only_deleted=False)
        before = self.store.open("INBOX")
        os.unlink(self.office.root / "index.sqlite")
        uid = self.office.receive()
        after = self.store.open("INBOX")
        self.assertEqual(list(after.uids), [1, 3, 4])
        self.assertEqual(uid, 4)
        self.assertEqual(after.uid_validity, before.uid_validity)
        self.assertEqual(after.mailbox_id, before.mailbox_id)
        self.assertGreater(min(after.mod_seqs), before.highest_mod_seq)

    def test_deleted_index_is_told_as_rebuilt(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(len(self.store.rows("INBOX", [1], ["envelope"])), 1)
        self.assertTrue(self.store.sync("INBOX").rebuilt)
        self.store.open("INBOX")
        self.assertFalse(self.store.sync("INBOX").rebuilt)

    def test_broken_index_is_made_anew(self) -> None:
        self.office.receive()
        self.store.close()
        (self.office.root / "index.sqlite").write_bytes(b"no database" * 1000)
        self.assertEqual(list(self.store.open("INBOX").uids), [1])

    def test_recent_is_claimed_once(self) -> None:
        self.store.open("INBOX")
        self.office.receive()
        self.assertEqual(self.store.status("INBOX").recent, 1)
        self.assertEqual(self.store.claim_recent("INBOX"), 1)
        self.assertEqual(self.store.claim_recent("INBOX"), 2)
        self.assertEqual(self.store.status("INBOX").recent, 0)

    def test_open_moves_new_mail_to_cur_but_examine_does_not(self) -> None:
        self.office.receive()
        self.store.open("INBOX", move_new=False)
        self.assertEqual(len(self.office.files("new")), 1)
        self.store.open("INBOX")
        self.assertEqual(len(self.office.files("new")), 0)
        (name,) = self.office.files("cur")
        self.assertTrue(name.endswith(b":2,"))
        self.assertEqual(list(self.store.sync("INBOX").flagged), [])


class FlagTests(AccountTestCase):
    def test_flags_stand_in_the_file_name(self) -> None:
        uid = self.office.receive()
        state = self.store.open("INBOX")
        changes = self.store.store_flags(
            "INBOX", [uid], "+", ["\\Seen", "$Label1"]
        ).changes
        ((_, flags, mod_seq),) = changes.flagged
        self.assertEqual(flags, SEEN | 32)
        self.assertGreater(mod_seq, state.highest_mod_seq)
        self.assertEqual(list(changes.keywords or ()), ["$Label1"])
        (name,) = self.office.files()
        self.assertTrue(name.endswith(b":2,Sa"))
        self.store.store_flags("INBOX", [uid], "-", ["\\Seen"])
        self.assertTrue(self.office.files()[0].endswith(b":2,a"))
        self.store.store_flags("INBOX", [uid], "=", ["\\Flagged"])
        self.assertTrue(self.office.files()[0].endswith(b":2,F"))

    def test_flags_that_are_set_already_change_nothing(self) -> None:
        uid = self.office.receive(flags=SEEN)
        state = self.store.open("INBOX")
        changes = self.store.store_flags("INBOX", [uid], "+", ["\\seen"]).changes
        self.assertEqual(list(changes.flagged), [])
        self.assertEqual(changes.highest_mod_seq, state.highest_mod_seq)

    def test_unchanged_since(self) -> None:
        first, second = self.office.receive(), self.office.receive()
        since = self.store.open("INBOX").highest_mod_seq
        self.store.store_flags("INBOX", [first], "+", ["\\Seen"])
        stored = self.store.store_flags(
            "INBOX", [first, second], "+", ["\\Flagged"], unchanged_since=since
        )
        self.assertEqual(stored.modified, [first])
        self.assertEqual([uid for uid, _, _ in stored.changes.flagged], [second])

    def test_file_that_another_program_flagged_keeps_these_flags(self) -> None:
        uid = self.office.receive()
        self.store.open("INBOX")
        (name,) = self.office.files()
        cur = os.fsencode(self.office.maildir / "cur") + b"/"
        os.rename(cur + name, cur + name + b"F")
        changes = self.store.store_flags("INBOX", [uid], "+", ["\\Seen"]).changes
        self.assertEqual(changes.flagged[0][1], SEEN | FLAGGED)
        self.assertTrue(self.office.files()[0].endswith(b":2,FS"))

    def test_keywords_beyond_the_letters(self) -> None:
        uid = self.office.receive()
        self.store.open("INBOX")
        names = [f"k{n}" for n in range(30)]
        self.store.store_flags("INBOX", [uid], "+", names)
        os.unlink(self.office.root / "index.sqlite")
        state = self.store.open("INBOX")
        self.assertEqual(state.flags[0], ((1 << 30) - 1) << 5)
        self.assertEqual(list(state.keywords), names)

    def test_store_of_many_messages(self) -> None:
        delivered = [self.office.deliver() for _ in range(450)]
        self.store.ingest("INBOX", delivered)
        uids = self.store.open("INBOX").uids
        changes = self.store.store_flags("INBOX", uids, "+", ["\\Seen"]).changes
        self.assertEqual(len(changes.flagged), 450)
        self.assertTrue(all(n.endswith(b":2,S") for n in self.office.files()))

    def test_expunge_takes_only_what_is_deleted(self) -> None:
        for flags in (DELETED, 0, DELETED):
            self.office.receive(flags=flags)
        self.store.open("INBOX")
        changes = self.store.expunge("INBOX", [1, 2])
        self.assertEqual(list(changes.expunged), [1])
        self.assertEqual(list(self.store.open("INBOX").uids), [2, 3])
        self.assertEqual(self.store.status("INBOX").messages, 2)

    def test_expunged_row_is_readable_until_forgotten(self) -> None:
        uid = self.office.receive()
        key = header_key([b"subject"])
        fields = self.store.header_fields("INBOX", [uid], key)
        rows = self.store.rows("INBOX", [uid], ["envelope", "size_octets"])
        self.assertEqual(list(rows), [uid])
        file = self.store.open_message("INBOX", uid)
        self.store.expunge("INBOX", [uid], only_deleted=False)
        self.assertEqual(
            self.store.rows("INBOX", [uid], ["envelope", "size_octets"]), rows
        )
        self.assertEqual(self.store.header_fields("INBOX", [uid], key), fields)
        self.assertRaises(MessageGone, self.store.open_message, "INBOX", uid)
        self.assertEqual(len(file.read(0, 10_000)), file.size_octets)
        file.close()
        self.store.forget("INBOX", [uid])
        self.assertEqual(self.store.rows("INBOX", [uid], ["envelope"]), {})


class TransferTests(AccountTestCase):
    def test_copy_translates_keywords_and_shares_the_content(self) -> None:
        self.office.receive(mailbox="Sent")
        self.store.store_flags("Sent", [1], "+", ["first", "second", "\\Seen"])
        uid = self.office.receive()
        self.store.store_flags("INBOX", [uid], "+", ["second", "\\Flagged"])
        rows = self.store.rows("INBOX", [uid], ["email_id", "internal_date"])
        copied = self.store.copy("INBOX", [uid, 99], "Sent")
        self.assertEqual(list(copied.source_uids), [uid])
        self.assertEqual(list(copied.target_uids), [2])
        ((_, flags, _),) = copied.target.added
        self.assertEqual(flags, FLAGGED | 1 << 6)
        self.assertEqual(
            self.store.rows("Sent", [2], ["email_id", "internal_date"])[2], rows[uid]
        )
        self.assertEqual(list(self.store.open("INBOX").uids), [uid])
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(self.store.open("Sent").uids, self.store.open("Sent").uids)
        self.assertEqual(self.store.rows("Sent", [2], ["email_id"])[2][0], rows[uid][0])

    def test_size_that_was_guessed_is_settled_for_copies_too(self) -> None:
        self.office.drop()
        self.store.open("INBOX")
        self.store.copy("INBOX", [1], "Sent")
        served = len(MESSAGE.replace(b"\n", b"\r\n"))
        self.assertLess(self.store.status("Sent").size_octets, served)
        self.store.fill("INBOX", [1])
        self.assertEqual(self.store.status("Sent").size_octets, served)
        self.assertEqual(self.store.quota().used_octets, 2 * served)

    def test_move(self) -> None:
        self.store.open("INBOX")
        self.store.open("Trash")
        uids = [self.office.receive() for _ in range(3)]
        moved = self.store.move("INBOX", uids[:2], "Trash")
        self.assertEqual(list(moved.source_uids), [1, 2])
        self.assertEqual(list(moved.target_uids), [1, 2])
        self.assertEqual(list(moved.source.expunged), [1, 2])
        self.assertEqual([uid for uid, _, _ in moved.target.added], [1, 2])
        self.assertEqual(len(self.office.files("cur", ".Trash")), 2)
        self.assertEqual(self.store.status("INBOX").messages, 1)
        self.assertEqual(len(self.store.rows("INBOX", [1], ["envelope"])), 1)
        self.store.forget("INBOX", [1, 2])
        self.assertEqual(len(self.store.rows("Trash", [1, 2], ["envelope"])), 2)

    def test_move_into_the_same_mailbox_gives_new_uids(self) -> None:
        self.office.receive()
        self.store.open("INBOX")
        moved = self.store.move("INBOX", [1], "INBOX")
        self.assertEqual(list(moved.target_uids), [2])
        self.assertEqual(list(self.store.open("INBOX").uids), [2])

    def test_copy_to_a_mailbox_that_does_not_exist(self) -> None:
        self.office.receive()
        with self.assertRaises(NoSuchMailbox):
            self.store.copy("INBOX", [1], "Nowhere")

    def test_copy_over_quota(self) -> None:
        self.office.receive()
        self.store.quota_octets = 300
        with self.assertRaises(OverQuota):
            self.store.copy("INBOX", [1], "Sent")
        self.assertEqual(self.office.files("cur", ".Sent"), [])

    def test_quota_counts_all_mailboxes(self) -> None:
        self.office.receive()
        self.office.receive(mailbox="Sent")
        served = len(MESSAGE.replace(b"\n", b"\r\n"))
        quota = self.store.quota()
        self.assertEqual((quota.used_octets, quota.messages), (2 * served, 2))
        os.unlink(self.office.root / "index.sqlite")
        self.assertEqual(self.store.quota(), quota)
        self.store.delete("Sent")
        self.assertEqual(self.store.quota().messages, 1)


class MailboxTests(AccountTestCase):
    def test_default_folders(self) -> None:
        found = {info.name: info for info in self.store.mailboxes()}
        self.assertEqual(
            sorted(found), ["Archive", "Drafts", "INBOX", "Junk", "Sent", "Trash"]
        )
        self.assertTrue(all(info.subscribed for info in found.values()))
        self.assertEqual(found["Junk"].special_uses, ("\\Junk",))
        self.store.delete("Archive")
        self.store.ensure_default_folders()
        self.assertNotIn(
            "Archive", [i.name for i in self.store.mailboxes() if i.selectable]
        )

    def test_folders_of_another_server_get_their_uses(self) -> None:
        office = Office.__new__(Office)
        root = Path(self.mktemp())
        for sub in ("cur", "new", "tmp", ".Sent Items/cur"):
            (root / "anna" / "Maildir" / sub).mkdir(parents=True)
        office.root, office.connections = root / "anna", self.office.connections
        store = office.another()
        store.ensure_default_folders()
        uses = {i.name: i.special_uses for i in store.mailboxes()}
        self.assertEqual(uses["Sent Items"], ("\\Sent",))
        self.assertNotIn("Sent", uses)

    def test_names_with_children_only(self) -> None:
        self.store.create("A/B/C")
        found = {info.name: info for info in self.store.mailboxes()}
        self.assertFalse(found["A"].selectable)
        self.assertTrue(found["A/B"].has_children)
        self.assertTrue(found["A/B/C"].selectable)
        self.assertRaises(NoSuchMailbox, self.store.open, "A/B")
        self.store.create("A")
        self.assertTrue({i.name: i for i in self.store.mailboxes()}["A"].selectable)

    def test_delete_leaves_children(self) -> None:
        self.store.create("A")
        self.store.create("A/B")
        self.store.delete("A")
        found = {info.name: info for info in self.store.mailboxes()}
        self.assertFalse(found["A"].selectable)
        self.assertTrue(found["A/B"].selectable)
        self.assertRaises(NoSuchMailbox, self.store.delete, "A")
        self.assertRaises(InvalidName, self.store.delete, "INBOX")

    def test_deleted_mailbox_comes_back_with_another_uid_validity(self) -> None:
        self.store.create("A")
        self.office.receive(mailbox="A")
        before = self.store.open("A")
        self.store.delete("A")
        self.store.create("A")
        after = self.store.open("A")
        self.assertGreater(after.uid_validity, before.uid_validity)
        self.assertEqual(list(after.uids), [])

    def test_rename_takes_children_along(self) -> None:
        self.store.create("A", ["\\All"])
        self.store.create("A/B")
        self.office.receive(mailbox="A/B")
        before = self.store.open("A/B")
        pairs = self.store.rename("A", "X/Y")
        self.assertEqual(sorted(pairs), [("A", "X/Y"), ("A/B", "X/Y/B")])
        after = self.store.open("X/Y/B")
        self.assertEqual(after.uid_validity, before.uid_validity)
        self.assertEqual(after.highest_mod_seq, before.highest_mod_seq)
        found = {info.name: info for info in self.store.mailboxes()}
        self.assertEqual(found["X/Y"].special_uses, ("\\All",))
        self.assertFalse(found["X"].selectable)
        self.assertNotIn("A", found)
        self.assertRaises(NoSuchMailbox, self.store.open, "A")

    def test_rename_refuses(self) -> None:
        self.store.create("A")
        self.assertRaises(MailboxExists, self.store.rename, "A", "Sent")
        self.assertRaises(MailboxExists, self.store.rename, "A", "INBOX")
        self.assertRaises(NoSuchMailbox, self.store.rename, "B", "C")
        self.assertRaises(InvalidName, self.store.rename, "A", "A/B")
        self.assertRaises(MailboxExists, self.store.create, "inbox")

    def test_rename_of_inbox_moves_its_messages(self) -> None:
        for _ in range(2):
            self.office.receive()
        self.store.create("INBOX/below")
        self.store.rename("inbox", "Old mail")
        self.assertEqual(list(self.store.open("INBOX").uids), [])
        self.assertEqual(list(self.store.open("Old mail").uids), [1, 2])
        self.assertEqual(list(self.store.open("INBOX/below").uids), [])

    def test_subscription_outlives_the_mailbox(self) -> None:
        self.store.create("A")
        self.store.subscribe("A")
        self.store.delete("A")
        found = {info.name: info for info in self.store.mailboxes()}
        self.assertTrue(found["A"].subscribed)
        self.assertFalse(found["A"].selectable)
        self.store.unsubscribe("A")
        self.assertNotIn("A", {info.name for info in self.store.mailboxes()})

    def test_names_never_leave_the_maildir(self) -> None:
        for name in ("../x", "a/../b", "/etc", "a//b", "a\0b", "", "..", "a/"):
            self.assertRaises(InvalidName, self.store.create, name)
            self.assertRaises(InvalidName, self.store.open, name)
