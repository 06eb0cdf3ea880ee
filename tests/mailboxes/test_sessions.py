"""AccountMailboxes: sessions over one account, and other programs beside them."""

import os
import shutil
import socket
from functools import partial

from twisted.internet.task import Clock

from mailsrv.mailboxes import selected as selected_module
from mailsrv.mailboxes import sequence
from mailsrv.mailboxes.selected import Selected
from mailsrv.mailboxes.sequence import (
    Exists,
    Expunge,
    Flags,
    Gone,
    Keywords,
    Recent,
)
from mailsrv.mailboxes.views import KEEP_S
from mailsrv.store.values import (
    DELETED,
    SEEN,
    MailboxExists,
    Moved,
    NoSuchMailbox,
)
from tests.mailboxes.office import Office, all_uids, flags_of
from tests.mailboxes.test_account import OfficeTestCase, content, envelopes
from tests.mailboxes.test_watch import FileClock


def looks_in_s(clock: Clock) -> list[float]:
    """Return when the folders of selected mailboxes will be looked at."""
    return [
        round(call.getTime() - clock.seconds(), 3)
        for call in clock.getDelayedCalls()
        if "Views._due" in str(call)
    ]


class SessionTests(OfficeTestCase):
    def setUp(self) -> None:
        super().setUp()
        for n in range(4):
            self.office.append("INBOX", [], b"Subject: %d\r\n\r\n" % n)
        self.first = self.office.select()
        self.second = self.office.select()

    def test_idle_session_hears_the_rest_of_very_much_news(self) -> None:
        self.patch(sequence, "MAX_FLAGS", 1)
        self.patch(selected_module, "MAX_FLAGS", 1)
        heard: list[int] = []
        self.second.on_news = lambda: heard.append(len(self.news(self.second)))
        self.office.wait(
            self.first.store_flags([1, 2, 3], "+", ["\\Seen"], silent=True)
        )
        self.office.clock.pump([0, 0, 0])
        self.assertEqual(sum(heard), 3)

    def test_two_sessions_share_one_view(self) -> None:
        self.assertIs(self.first._view, self.second._view)
        self.assertEqual(all_uids(self.first), [1, 2, 3, 4])

    def test_silent_store_is_heard_by_the_other_alone(self) -> None:
        store = self.first.store_flags([2], "+", ["\\Seen"], silent=True)
        self.office.wait(store)
        self.assertEqual(self.news(self.first), [])
        self.assertEqual(self.news(self.second), [Flags(2, 2, SEEN, 0)])

    def test_store_answers_for_each_message_even_unchanged(self) -> None:
        for _ in range(2):
            self.office.wait(
                self.first.store_flags([1, 2], "=", ["\\Seen"], silent=False)
            )
            self.assertEqual(
                self.news(self.first, expunges=False),
                [Flags(1, 1, SEEN, 0), Flags(2, 2, SEEN, 0)],
            )

    def test_long_store_is_cut_and_each_part_is_told(self) -> None:
        for n in range(210):
            self.office.append("Drafts", [], b"Subject: %d\r\n\r\n" % n)
        drafts = self.office.select("Drafts")
        jobs = self.office.threads.writers.started
        portions: list[int] = []
        self.office.wait(
            drafts.store_flags(
                all_uids(drafts),
                "+",
                ["\\Seen"],
                silent=False,
                stored=lambda: portions.append(len(self.news(drafts))),
            )
        )
        self.assertEqual(self.office.threads.writers.started, jobs + 2)
        self.assertEqual(portions, [200, 10])
        self.assertEqual(self.news(drafts), [])

    def test_expunge_takes_what_is_deleted_and_other_holds_it_back(self) -> None:
        self.office.wait(
            self.second.store_flags([1, 3], "+", ["\\Deleted"], silent=True)
        )
        self.office.wait(self.first.expunge([3, 4]))
        news = self.news(self.first)
        self.assertEqual(news, [Expunge(3, 3), Flags(1, 1, DELETED, 0)])
        self.assertEqual(self.news(self.second, expunges=False), [])
        self.assertLess(self.second.highest_mod_seq, self.first.highest_mod_seq)
        self.assertEqual(self.second.seq(4), 4)
        self.assertEqual(self.news(self.second), [Expunge(3, 3)])
        self.assertEqual(self.second.highest_mod_seq, self.first.highest_mod_seq)
        self.office.wait(self.first.expunge())
        self.assertEqual(self.news(self.second), [Expunge(1, 1)])
        self.assertEqual(all_uids(self.first), [2, 4])

    def test_expunged_message_can_be_read_till_all_were_told(self) -> None:
        self.office.wait(self.first.store_flags([2], "+", ["\\Deleted"], silent=True))
        self.office.wait(self.first.expunge())
        self.news(self.first)

        def readable() -> int:
            return len(self.office.wait(self.second.read(partial(envelopes, [2]))))

        self.assertEqual(readable(), 1)
        self.news(self.second)
        self.assertEqual(readable(), 0)

    def test_session_that_leaves_holds_no_expunged_message(self) -> None:
        self.office.wait(self.first.store_flags([2], "+", ["\\Deleted"], silent=True))
        self.office.wait(self.first.expunge())
        self.news(self.first)
        self.second.leave()
        rows = self.first.read(partial(envelopes, [2]))
        self.assertEqual(self.office.wait(rows), {})

    def test_copy_and_move_tell_both_mailboxes(self) -> None:
        archive = self.office.select("Archive")
        copied = self.office.wait(self.first.copy([1, 2], "Archive"))
        self.assertEqual(list(copied.target_uids), [1, 2])
        self.assertEqual(copied.uid_validity, archive.uid_validity)
        self.assertIn(Exists(2), self.news(archive))
        moved: list[Moved] = []
        self.office.wait(self.first.move([3], "Archive", moved.append))
        self.assertEqual([list(part.target_uids) for part in moved], [[3]])
        self.assertIn(Exists(3), self.news(archive))
        self.assertEqual(self.news(self.first), [Expunge(3, 3)])
        self.assertEqual(self.news(self.second), [Expunge(3, 3)])

    def test_copy_to_missing_mailbox(self) -> None:
        failed = self.office.start(self.first.copy([1], "No"))
        self.failureResultOf(failed, NoSuchMailbox)

    def test_close_expunges_unheard(self) -> None:
        self.office.wait(self.first.store_flags([1], "+", ["\\Deleted"], silent=True))
        self.office.wait(self.first.close())
        self.assertEqual(self.news(self.second), [Expunge(1, 1)])

    def test_examine_never_expunges_at_close(self) -> None:
        self.office.wait(self.first.store_flags([1], "+", ["\\Deleted"], silent=True))
        examined = self.office.select(read_only=True)
        self.office.wait(examined.close())
        self.assertEqual(self.news(self.second), [Flags(1, 1, DELETED, 0)])

    def test_view_goes_a_while_after_its_last_session(self) -> None:
        views = self.office.account()._views
        (view,) = views
        self.first.leave()
        self.first.leave()
        self.office.clock.advance(KEEP_S)
        self.assertTrue(views.watched("INBOX"))
        self.second.leave()
        self.assertFalse(views.watched("INBOX"))
        self.office.clock.advance(KEEP_S - 1)
        again = self.office.select()
        self.office.clock.advance(KEEP_S)
        self.assertEqual(list(views), [view])
        again.leave()
        self.office.clock.advance(KEEP_S)
        self.assertEqual(list(views), [])

    def test_view_that_was_kept_shows_what_came_meanwhile(self) -> None:
        self.office.wait(self.first.store_flags([2], "+", ["\\Deleted"], silent=True))
        self.first.leave()
        self.second.leave()
        maildrop = self.office.wait(self.office.account().open_maildrop())
        self.office.wait(maildrop.delete([maildrop.messages[0][0]]))
        maildrop.close()
        self.office.append("INBOX", flags=["\\Flagged"])
        (path,) = self.maildir("cur").glob("*:2,T")
        path.rename(path.with_name(path.name[:-1] + "RT"))  # nobody watches
        again = self.office.select()
        self.assertEqual(all_uids(again), [2, 3, 4, 5])
        flags = flags_of(again)
        self.assertEqual(flags[2], ["\\Answered", "\\Deleted"])
        self.assertEqual(flags[5], ["\\Flagged"])

    def test_view_whose_uids_became_void_is_not_shown(self) -> None:
        self.first.leave()
        self.second.leave()
        uidlist = self.maildir("cur").parent / "dovecot-uidlist"
        old = b" V%d " % self.first.uid_validity
        uidlist.write_bytes(uidlist.read_bytes().replace(old, b" V77 "))
        self.assertEqual(self.office.select().uid_validity, 77)

    def test_recent_goes_to_one_session_and_is_remembered(self) -> None:
        self.assertEqual((self.first.recent, self.second.recent), (4, 0))
        self.office.append("INBOX")
        status = self.office.account().status
        self.assertEqual(self.office.wait(status("inbox")).recent, 1)
        self.assertEqual(self.second.news(expunges=True), [Exists(5), Recent(1)])
        self.assertEqual(self.office.wait(status("inbox")).recent, 0)
        self.first.leave()
        self.second.leave()
        self.assertEqual(self.office.select().recent, 0)

    def test_sessions_of_a_deleted_mailbox_end(self) -> None:
        mailboxes = self.office.account()
        self.office.wait(mailboxes.create("Old"))
        old = self.office.select("Old")
        woken: list[str] = []
        old.on_news = lambda: woken.append("woken")
        self.office.wait(mailboxes.delete("Old"))
        self.assertEqual(woken, ["woken"])
        self.assertEqual(self.news(old), [Gone()])
        self.office.wait(mailboxes.create("Old"))
        again = self.office.select("Old")
        old.leave()
        self.office.append("Old")
        self.assertIn(Exists(1), self.news(again))

    def test_session_follows_a_rename(self) -> None:
        mailboxes = self.office.account()
        self.office.wait(mailboxes.create("A/B"))
        selected = self.office.select("A/B")
        self.office.wait(mailboxes.rename("A", "C"))
        self.assertEqual(selected.name, "C/B")
        self.office.append("C/B")
        self.assertIn(Exists(1), self.news(selected))
        self.office.wait(selected.store_flags([1], "+", ["\\Seen"], silent=True))

    def test_rename_of_inbox_moves_its_messages(self) -> None:
        self.office.wait(self.office.account().rename("inbox", "Elsewhere"))
        self.assertEqual(len(self.news(self.first)), 4)
        self.assertEqual(self.first.exists, 0)

    def test_existing_mailbox_is_refused(self) -> None:
        failed = self.office.start(self.office.account().create("Sent"))
        self.failureResultOf(failed, MailboxExists)

    def test_cancelled_caller_keeps_no_change_from_the_others(self) -> None:
        self.office.threads.writers.held = True
        store = self.office.start(
            self.first.store_flags([1], "+", ["\\Seen"], silent=True)
        )
        store.addErrback(lambda failure: None)
        store.cancel()
        self.office.threads.writers.held = False
        self.office.threads.writers.release()
        self.assertEqual(self.news(self.second), [Flags(1, 1, SEEN, 0)])

    def test_select_at_the_same_time(self) -> None:
        self.office.threads.writers.held = True
        both = [self.office.start(self.office.account().select("Sent")) for _ in "ab"]
        while self.office.threads.writers.release():
            pass
        a, b = [self.successResultOf(one) for one in both]
        self.office.threads.writers.held = False
        self.assertIs(a._view, b._view)
        self.office.append("Sent")
        self.assertIn(Exists(1), self.news(a))
        self.assertIn(Exists(1), self.news(b))


class OutsideTests(OfficeTestCase):
    """Other programs, and other processes of ours."""

    def test_other_program_delivers_flags_and_removes(self) -> None:
        selected = self.office.select()
        (self.maildir("new") / "1.a.host").write_bytes(b"A: b\n\n")
        self.office.wait(selected.refresh())
        self.assertIn(Exists(1), self.news(selected))
        (name,) = os.listdir(self.maildir("cur"))
        os.rename(
            self.maildir("cur") / name,
            self.maildir("cur") / (name.partition(":")[0] + ":2,S"),
        )
        self.office.wait(selected.refresh())
        self.assertEqual(self.news(selected), [Flags(1, 1, SEEN, 0)])
        os.unlink(self.maildir("cur") / (name.partition(":")[0] + ":2,S"))
        self.settle(selected)
        self.assertEqual(self.news(selected), [Expunge(1, 1)])

    def test_outside_change_is_looked_at_soon_and_our_own_later(self) -> None:
        clock = FileClock()
        office = Office(self, self.root, clock)
        selected = office.select()
        clock.pump([0.2, 2.0])  # what follows from the opening is over
        office.ahead_s += 10
        office.wait(selected.refresh())
        office.deliver()
        clock.read()
        self.assertEqual(looks_in_s(clock), [1.1])
        clock.pump([0.02, 1.1])
        selected.news(expunges=True)
        clock.pump([1.1] * 3)
        self.assertEqual(selected.exists, 1)
        (self.maildir("new") / "1.a.host").write_bytes(b"A: b\n\n")
        clock.read()
        self.assertEqual(looks_in_s(clock), [0.02])
        clock.advance(0.02)
        self.assertIn(Exists(2), self.news(selected))

    def test_sessions_end_before_the_answer_if_all_uids_are_void(self) -> None:
        self.office.append("INBOX")
        selected = self.office.select()
        os.unlink(self.root / "anna" / "index.sqlite")
        self.maildir("dovecot-uidlist").unlink()
        self.office.threads.writers.held = True
        looked = self.office.start(selected.refresh())
        self.office.threads.writers.release()
        self.office.threads.writers.held = False
        self.successResultOf(looked)
        self.assertEqual(self.news(selected), [Gone()])

    def test_sessions_end_when_another_program_removes_the_folder(self) -> None:
        self.office.wait(self.office.account().create("Old"))
        old = self.office.select("Old")
        shutil.rmtree(self.maildir(".Old"))
        self.failureResultOf(self.office.start(old.refresh()), NoSuchMailbox)
        self.assertEqual(self.news(old), [Gone()])

    def test_foreign_lock_is_waited_for_without_a_thread(self) -> None:
        selected = self.office.select()
        lock = self.maildir("dovecot-uidlist.lock")
        lock.write_text(f"{os.getppid()}:{socket.gethostname()}")
        mailboxes = self.office.account()
        incoming = self.office.wait(mailboxes.arrivals.receive("INBOX"))
        incoming.feed(b"A: b\r\n\r\n")
        appended = self.office.start(mailboxes.arrivals.append("INBOX", [incoming]))
        self.office.clock.pump([0.05] * 20)
        self.assertNoResult(appended)
        lock.unlink()
        self.office.clock.pump([0.05] * 2)
        self.assertEqual(self.successResultOf(appended).uids, (1,))
        self.assertIn(Exists(1), self.news(selected))

    def test_reader_that_needs_a_lost_index_waits_for_a_foreign_lock(self) -> None:
        uid = self.office.append("INBOX")
        selected = self.office.select()
        os.unlink(self.root / "anna" / "index.sqlite")
        lock = self.maildir("dovecot-uidlist.lock")
        lock.write_text(f"{os.getppid()}:{socket.gethostname()}")
        read = self.office.start(selected.read(partial(content, uid)))
        self.office.clock.pump([0.05] * 20)
        self.assertNoResult(read)
        lock.unlink()
        self.office.clock.pump([0.05] * 2)
        self.assertIn(b"A: b", self.successResultOf(read))

    def settle(self, selected: Selected) -> None:
        """Look once more a second later: a removal is believed late."""
        self.office.wait(selected.refresh())
        self.office.ahead_s += 2
        self.office.clock.advance(1.1)

    def test_two_processes_on_one_account(self) -> None:
        other = Office(self, self.root)
        here, there = self.office.select(), other.select()
        self.office.append("INBOX")
        other.append("INBOX")
        self.office.append("INBOX")
        self.office.wait(here.refresh())
        other.wait(there.refresh())
        self.news(here)
        self.news(there)
        self.assertEqual(all_uids(here), [1, 2, 3])
        self.assertEqual(all_uids(there), [1, 2, 3])
        other.wait(there.store_flags([1], "+", ["\\Deleted", "$x"], silent=True))
        other.wait(there.expunge())
        other.wait(there.store_flags([2], "+", ["$x"], silent=True))
        self.office.wait(here.refresh())
        self.assertEqual(
            self.news(here), [Keywords(("$x",)), Expunge(1, 1), Flags(1, 2, 32, 0)]
        )
        self.assertFalse(here.gone or there.gone)

    def test_own_delivery_after_another_process_delivered(self) -> None:
        """UIDs ascend in each view though two processes give them."""
        other = Office(self, self.root)
        here = self.office.select()
        other.append("INBOX")
        self.assertEqual(self.office.append("INBOX"), 2)
        self.news(here)
        self.assertEqual(all_uids(here), [1, 2])

    def test_lost_index_is_built_again_under_open_sessions(self) -> None:
        self.office.append("INBOX", ["\\Seen"])
        self.office.append("INBOX")
        selected = self.office.select()
        for path in (self.root / "anna").glob("index.sqlite*"):
            path.unlink()
        self.office.append("INBOX")
        self.office.wait(selected.refresh())
        self.assertFalse(selected.gone)
        self.assertIn(Exists(3), self.news(selected))
        self.assertEqual(flags_of(selected), {1: ["\\Seen"], 2: [], 3: []})
