"""When texts are taken up for search: in the background, with rests, to an end."""

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import Account
from mailsrv.mailboxes.text_filler import (
    FIRST_S,
    LEAST_REST_S,
    MOST_S,
    QUIET_S,
    REST,
    TextFiller,
)
from mailsrv.store.account_reader import AccountReader
from mailsrv.store.texts import Matches
from mailsrv.store.values import UID
from tests.mailboxes.office import Office


class Worker:
    """Has some steps to do, each of them takes a while."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.running: Deferred[None] | None = None

    async def step(self) -> bool:
        self.running = Deferred()
        await self.running
        self.running = None
        self.steps -= 1
        return self.steps > 0

    def end(self) -> None:
        assert self.running is not None
        self.running.callback(None)


class TextFillerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.filler = TextFiller(self.clock)

    def test_one_step_at_a_time_with_rests(self) -> None:
        one, other = Worker(2), Worker(1)
        for account in (one, other, one):
            self.filler.add(account.step)
        self.clock.advance(FIRST_S - 0.1)
        self.assertIsNone(one.running)
        self.clock.advance(0.1)
        self.assertIsNotNone(one.running)
        self.clock.advance(0.1)  # what the step takes
        self.filler.add(one.step)
        self.assertIsNone(other.running)
        one.end()
        self.clock.advance(REST * 0.1 - 0.01)
        self.assertIsNone(other.running)
        self.clock.advance(0.01)
        self.assertIsNotNone(other.running)
        other.end()
        self.clock.advance(LEAST_REST_S)
        one.end()
        self.clock.advance(60)
        self.assertEqual((one.steps, other.steps), (0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_go_first_but_not_for_ever(self) -> None:
        account = Worker(2)
        self.filler.add(account.step)
        self.clock.advance(FIRST_S - 0.1)
        self.filler.others_work()
        self.clock.advance(QUIET_S - 0.01)
        self.assertIsNone(account.running)
        self.clock.advance(0.01)
        self.assertIsNotNone(account.running)
        account.end()
        ends_s = self.clock.seconds() + LEAST_REST_S + MOST_S
        while self.clock.seconds() < ends_s - QUIET_S:
            self.filler.others_work()
            self.clock.advance(QUIET_S / 2)
            self.assertIsNone(account.running)
        self.filler.others_work()
        self.clock.advance(QUIET_S)
        self.assertIsNotNone(account.running)

    def test_a_failure_ends_only_that_account(self) -> None:
        other = Worker(1)
        self.filler.add(self._fails)
        self.filler.add(other.step)
        self.clock.advance(FIRST_S)
        self.clock.advance(LEAST_REST_S)
        self.assertIsNotNone(other.running)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    async def _fails(self) -> bool:
        raise OSError

    def test_stop_waits_for_the_step(self) -> None:
        account = Worker(5)
        self.filler.add(account.step)
        self.clock.advance(FIRST_S)
        stopped = Deferred.fromCoroutine(self.filler.stop())
        self.assertNoResult(stopped)
        account.end()
        self.successResultOf(stopped)
        self.filler.add(account.step)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_discarded(self) -> None:
        account = Worker(5)
        self.filler.add(account.step)
        self.filler.discard(account.step)
        self.clock.advance(FIRST_S)
        self.assertIsNone(account.running)
        self.successResultOf(Deferred.fromCoroutine(self.filler.stop()))


class TextsOfAccountsTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.office = Office(self, root)

    def ask(self, text: str) -> Matches:
        uids = {UID(uid) for uid in range(1, 9)}

        def search(store: AccountReader) -> Matches:
            steps = store.search_text("INBOX", uids, text, header=True)
            while True:
                try:
                    next(steps)
                except StopIteration as stop:
                    # Any: the value of a StopIteration.
                    matches: Matches = stop.value
                    return matches

        return self.office.wait(self.office.account().read(search))

    def test_deliveries_are_taken_up_after_a_while(self) -> None:
        self.office.append("INBOX", body=b"Subject: s\r\n\r\nneedle\r\n")
        self.assertEqual(self.ask("needle"), Matches(set(), {UID(1)}))
        self.office.clock.advance(FIRST_S)
        self.assertEqual(self.ask("needle"), Matches({UID(1)}, set()))
        self.office.deliver(body=b"needle\r\n")
        self.office.clock.advance(2)
        self.assertEqual(self.ask("needle"), Matches({UID(1)}, {UID(2)}))
        self.office.clock.advance(FIRST_S)
        self.assertEqual(self.ask("needle"), Matches({UID(1), UID(2)}, set()))

    def test_an_account_is_taken_up_when_the_server_starts(self) -> None:
        self.office.append("INBOX", body=b"Subject: s\r\n\r\nneedle\r\n")
        account = self.office.account()
        self.office.stop()
        again = Office(self, self.office.root)
        self.office = again
        again.wait(again.mail_store.accounts_changed([_named(account.folder)]))
        again.clock.advance(FIRST_S)
        self.assertEqual(self.ask("needle"), Matches({UID(1)}, set()))

    def test_what_another_server_left_is_taken_over(self) -> None:
        maildir = self.office.root / "anna" / "Maildir"
        for folder in (maildir, maildir / ".Work", maildir / ".NoMaildir"):
            folder.mkdir(parents=True)
        for place in (maildir, maildir / ".Work"):
            for sub in ("cur", "new", "tmp"):
                (place / sub).mkdir()
            (place / "cur" / "1.a.b:2,S").write_bytes(b"Subject: s\n\nneedle\n")
        office = self.office
        office.wait(office.mail_store.accounts_changed([_named("anna")]))
        office.clock.advance(FIRST_S)
        self.assertEqual(self.ask("needle"), Matches({UID(1)}, set()))
        uncounted = office.wait(office.account().write(lambda s: s.uncounted()))
        self.assertEqual(uncounted, ["NoMaildir"])

    def test_an_account_that_nobody_uses_is_left_alone(self) -> None:
        office = self.office
        office.wait(office.mail_store.accounts_changed([_named("ben")]))
        office.clock.advance(FIRST_S)
        self.assertFalse((office.root / "ben").exists())


def _named(folder: str) -> Account:
    return Account(f"{folder}@example.test", folder, "", None)
