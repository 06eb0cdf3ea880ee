"""Sessions, deliveries and appends over a real Maildir."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mailboxes.maildrop import MaildropInUse
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import (
    Exists,
    Expunge,
    Flags,
    Gone,
    Keywords,
    News,
    Recent,
)
from mailsrv.store.account import AccountStore
from mailsrv.store.values import (
    DeliveryFailed,
    NoSuchMailbox,
    Row,
)
from tests.mailboxes.office import Office, all_uids, flags_of

SUBJECTS = [b"Subject: %d" % n for n in range(3)]


def content(uid: int, store: AccountStore, name: str = "INBOX") -> bytes:
    with store.open_message(name, uid) as file:
        return file.read(0, file.size_octets)


def envelopes(uids: Sequence[int], store: AccountStore) -> dict[int, Row]:
    return store.rows("INBOX", uids, ["envelope"])


class OfficeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        self.office = Office(self, self.root)

    def news(self, selected: Selected, *, expunges: bool = True) -> list[News]:
        """Return the news without RECENT and without MODSEQs, which a clock begins."""
        return [
            Flags(one.seq, one.uid, one.flags, 0) if isinstance(one, Flags) else one
            for one in selected.news(expunges=expunges)
            if not isinstance(one, Recent)
        ]

    def maildir(self, name: str = "") -> Path:
        return self.root / "anna" / "Maildir" / name


class DeliveryTests(OfficeTestCase):
    def test_selected_mailbox_hears_at_once(self) -> None:
        idle = self.office.select()
        heard: list[list[News]] = []
        idle.on_news = lambda: heard.append(self.news(idle))
        self.office.deliver()
        self.assertEqual(heard, [])
        self.office.clock.advance(0.02)
        self.assertEqual(heard, [[Exists(1)]])

    def test_unwatched_delivery_is_indexed_within_a_second(self) -> None:
        self.office.wait(self.office.account().mailboxes())
        writers = self.office.threads.writers.started
        self.office.deliver()
        self.office.deliver()
        self.assertEqual(self.office.threads.writers.started, writers)
        self.office.clock.advance(1.0)
        self.assertEqual(self.office.threads.writers.started, writers + 1)
        self.assertEqual(all_uids(self.office.select()), [1, 2])

    def test_open_finds_what_the_index_was_never_told(self) -> None:
        self.office.deliver()
        self.assertEqual(all_uids(self.office.select()), [1])
        self.office.clock.advance(1.0)
        self.assertEqual(all_uids(self.office.select()), [1])

    def test_what_the_index_missed_at_a_crash_is_found(self) -> None:
        self.office.select().leave()
        self.office.deliver()
        # The process is gone before its second is over: another one starts.
        self.assertEqual(all_uids(Office(self, self.root).select()), [1])

    def test_one_file_for_two_accounts(self) -> None:
        self.office.deliver("anna", "bert")
        self.office.clock.advance(1.0)
        for folder in ("anna", "bert"):
            selected = self.office.wait(self.office.account(folder).select("INBOX"))
            (uid,) = all_uids(selected)
            self.assertEqual(
                self.office.wait(selected.read(partial(content, uid))),
                b"Return-Path: <bert@example.test>\r\nSubject: x\r\n\r\ntext\r\n",
            )

    def test_index_rows_are_ready_before_anybody_asks(self) -> None:
        self.office.select().leave()
        self.office.deliver()
        self.office.clock.advance(1.0)
        files = list(self.maildir("new").iterdir())
        # Were the envelope not there already, the missing file would show.
        for path in files:
            path.write_bytes(b"")
        selected = self.office.select(read_only=True)
        rows = self.office.wait(selected.read(partial(envelopes, [1])))
        self.assertIn(b'"x"', rows[1][0])

    def test_in_flight_octets_count_against_the_quota(self) -> None:
        mailboxes = self.office.account(quota_octets=1000)
        self.assertTrue(self.office.wait(mailboxes.has_room(1000)))
        incoming = self.office.wait(mailboxes.arrivals.receive("INBOX"))
        incoming.feed(b"x" * 600)
        self.assertTrue(self.office.wait(mailboxes.has_room(400)))
        self.assertFalse(self.office.wait(mailboxes.has_room(401)))
        self.office.wait(mailboxes.arrivals.append("INBOX", [incoming]))
        self.assertEqual(mailboxes.in_flight_octets, 0)
        self.assertFalse(self.office.wait(mailboxes.has_room(401)))
        self.assertTrue(self.office.wait(mailboxes.has_room(400)))

    def test_new_quota_takes_effect(self) -> None:
        mailboxes = self.office.account(quota_octets=10)
        self.assertFalse(self.office.wait(mailboxes.has_room(11)))
        self.office.account(quota_octets=100)
        self.assertTrue(self.office.wait(mailboxes.has_room(11)))
        self.assertEqual(self.office.wait(mailboxes.quota()).limit_octets, 100)

    def test_mailboxes_never_opened_are_counted_one_at_a_time(self) -> None:
        mailboxes = self.office.account(quota_octets=1000)
        self.office.wait(mailboxes.mailboxes())
        (self.maildir(".Sent") / "cur" / "1.a:2,").write_bytes(b"A: b\n\n")
        before = self.office.threads.writers.started
        self.assertEqual(self.office.wait(mailboxes.quota()).used_octets, 6)
        self.assertGreater(self.office.threads.writers.started - before, 6)
        before = self.office.threads.writers.started
        self.office.wait(mailboxes.quota())
        self.assertEqual(self.office.threads.writers.started - before, 2)

    def test_stop_indexes_what_waits(self) -> None:
        self.office.wait(self.office.account().mailboxes())
        self.office.deliver()
        writers = self.office.threads.writers.started
        self.office.wait(self.office.mail_store.stop())
        self.assertGreater(self.office.threads.writers.started, writers)
        self.assertEqual(self.office.clock.getDelayedCalls(), [])


class AppendTests(OfficeTestCase):
    def test_append_gives_a_uid_flags_and_keywords(self) -> None:
        selected = self.office.select("Sent")
        uid = self.office.append("Sent", ["\\Seen", "$Forwarded"])
        self.assertEqual(uid, 1)
        news = self.news(selected)
        self.assertEqual(news[0], Keywords(("$Forwarded",)))
        self.assertIn(Exists(1), news)
        self.assertEqual(flags_of(selected), {1: ["\\Seen", "$Forwarded"]})

    def test_internal_date_and_octets(self) -> None:
        mailboxes = self.office.account()
        incoming = self.office.wait(
            mailboxes.arrivals.receive("Sent", [], 1_000_000_000)
        )
        incoming.feed(b"A: b\r\n\r\nbare\nline\r\n")
        self.office.wait(mailboxes.arrivals.append("Sent", [incoming]))
        (path,) = [
            p for d in ("new", "cur") for p in self.maildir(f".Sent/{d}").iterdir()
        ]
        self.assertEqual(path.stat().st_mtime, 1_000_000_000)
        self.assertEqual(path.read_bytes(), b"A: b\n\nbare\nline\n")

    def test_file_that_another_program_renames_at_once(self) -> None:
        self.assertEqual(self.meddle(lambda path: path.rename(f"{path}T")), (1,))

    def test_file_that_another_program_takes_away_at_once(self) -> None:
        self.assertEqual(self.meddle(Path.unlink), ())

    def meddle(self, with_file: Callable[[Path], object]) -> tuple[int, ...]:
        """APPEND while another program does something with the file."""
        mailboxes = self.office.account()
        incoming = self.office.wait(
            mailboxes.arrivals.receive("Sent", ["\\Seen", "kw"])
        )
        incoming.feed(b"A: b\r\n\r\n")
        self.office.threads.writers.held = True
        appending = self.office.start(mailboxes.arrivals.append("Sent", [incoming]))
        (path,) = (self.maildir(".Sent") / "cur").iterdir()
        with_file(path)
        self.office.threads.writers.held = False
        self.office.threads.writers.release()
        return tuple(self.successResultOf(appending).uids)

    def test_several_in_one_commit_keep_their_order(self) -> None:
        mailboxes = self.office.account()
        messages = [
            self.office.wait(mailboxes.arrivals.receive("Sent")) for _ in range(3)
        ]
        for n, incoming in enumerate(messages):
            incoming.feed(b"Subject: %d\r\n\r\n" % n)
        appended = self.office.wait(mailboxes.arrivals.append("Sent", messages))
        self.assertEqual(appended.uids, (1, 2, 3))
        selected = self.office.select("Sent")
        contents = [
            self.office.wait(selected.read(partial(content, uid, name="Sent")))
            for uid in appended.uids
        ]
        self.assertEqual([c[:10] for c in contents], SUBJECTS)

    def test_missing_mailbox_is_refused_before_the_literal(self) -> None:
        failed = self.office.start(self.office.account().arrivals.receive("No/Such"))
        self.failureResultOf(failed, NoSuchMailbox)

    def test_failure_takes_back_the_earlier_ones(self) -> None:
        mailboxes = self.office.account()
        first = self.office.wait(mailboxes.arrivals.receive("Sent"))
        second = self.office.wait(mailboxes.arrivals.receive("Sent"))
        second._fail(DeliveryFailed("full"))
        failed = self.office.start(mailboxes.arrivals.append("Sent", [first, second]))
        self.failureResultOf(failed, DeliveryFailed)
        self.assertEqual(all_uids(self.office.select("Sent")), [])


class MaildropTests(OfficeTestCase):
    def setUp(self) -> None:
        super().setUp()
        for _ in range(3):
            self.office.append("INBOX")

    def test_fixed_at_login_and_deleted_from_at_quit(self) -> None:
        mailboxes = self.office.account()
        maildrop = self.office.wait(mailboxes.open_maildrop())
        selected = self.office.select()
        self.office.append("INBOX")
        self.news(selected)
        self.assertEqual([uid for uid, _, _ in maildrop.messages], [1, 2, 3])
        self.assertEqual(len({uidl for _, uidl, _ in maildrop.messages}), 3)
        uids = [uid for uid, _, _ in maildrop.messages]
        self.office.wait(maildrop.delete(uids[:2]))
        self.assertEqual(self.news(selected), [Expunge(2, 2), Expunge(1, 1)])
        maildrop.close()

    def test_second_one_is_locked_out_but_imap_is_not(self) -> None:
        mailboxes = self.office.account()
        first = self.office.wait(mailboxes.open_maildrop())
        failed = self.office.start(mailboxes.open_maildrop())
        self.failureResultOf(failed, MaildropInUse)
        self.assertEqual(self.office.select().exists, 3)
        first.close()
        second = self.office.wait(mailboxes.open_maildrop())
        first.close()
        self.failureResultOf(
            self.office.start(mailboxes.open_maildrop()), MaildropInUse
        )
        second.close()

    def test_failed_login_frees_the_lock(self) -> None:
        mailboxes = self.office.account()
        self.office.threads.read.run = None  # type: ignore[method-assign, assignment]  # breaks the second step
        failed = self.office.start(mailboxes.open_maildrop())
        self.failureResultOf(failed, TypeError)
        self.assertIsNone(mailboxes.maildrop)


class AccountsTests(OfficeTestCase):
    def test_deleted_account_ends_its_sessions(self) -> None:
        selected = self.office.select()
        self.office.wait(self.office.mail_store.accounts_changed([]))
        self.assertEqual(self.news(selected), [Gone()])
        self.assertIsNot(self.office.account(), selected._mailboxes)

    def test_tmp_is_swept_daily(self) -> None:
        self.office.wait(self.office.account().mailboxes())
        old = self.maildir("tmp") / "old"
        old.write_bytes(b"")
        os.utime(old, (0, 0))
        self.office.clock.advance(24 * 3600)
        self.assertFalse(old.exists())
