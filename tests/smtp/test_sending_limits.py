"""What a stolen password is good for."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import Account, AppPassword
from mailsrv.accounts.sent_counts import DAY_S, HOUR_S, SentCounts
from mailsrv.doors.values import Accept, Decision, Defer, Recipient, Sender
from mailsrv.settings import SendingSettings
from mailsrv.smtp.sending_limits import SendingLimits
from mailsrv.store.values import StoreError
from tests.inline_threads import InlineThreads

ANNA = "anna@example.test"
LIMITS = SendingSettings(
    messages_per_hour=3,
    messages_per_day=5,
    new_recipients_per_hour=2,
    new_recipients_per_day=3,
)


def sender(account: str | None = ANNA) -> Sender:
    return Sender("submission", "192.0.2.7", "pc", True, account, ANNA, 0)


class LimitsTests(SynchronousTestCase):
    def setUp(self) -> None:
        threads = InlineThreads()
        self.clock = threads.clock
        self.clock.rightNow = 20_000 * DAY_S
        self.path = Path(self.mktemp())
        self.counts = SentCounts(self.path)
        self.addCleanup(lambda: self.counts.close())
        app = AppPassword("shop", "digest", "send", 2, None)
        self.account = Account(ANNA, ANNA, "hash", app_passwords=(app,))
        self.told: list[tuple[bytes, Sequence[str]]] = []
        self.limits = SendingLimits(
            self.counts,
            LIMITS,
            account=lambda name: self.account,
            submit=self.submit,
            pool=threads.read,
            now=self.clock.seconds,
        )

    async def submit(
        self, octets: bytes, *, reverse_path: str, forward_paths: Sequence[str]
    ) -> str:
        self.told.append((octets, forward_paths))
        return "id"

    def message(self, account: str | None = ANNA) -> bool:
        return self.accepted(
            Deferred.fromCoroutine(self.limits.sender(sender(account)))
        )

    def to(self, address: str, *accounts: str, account: str | None = ANNA) -> bool:
        recipient = Recipient(sender(account), address, accounts)
        return self.accepted(Deferred.fromCoroutine(self.limits.recipient(recipient)))

    def accepted(self, deciding: "Deferred[Decision]") -> bool:
        decision = self.successResultOf(deciding)
        if isinstance(decision, Accept):
            return True
        self.assertIsInstance(decision, Defer)
        self.assertEqual(decision.code, 450)
        return False

    def test_messages(self) -> None:
        self.assertEqual([self.message() for _ in range(4)], [True] * 3 + [False])
        self.clock.advance(HOUR_S + 1)
        # Those that were refused do not count, or who tries again never gets on.
        self.assertEqual([self.message() for _ in range(3)], [True, True, False])
        self.clock.advance(DAY_S)
        self.assertTrue(self.message())

    def test_new_recipients(self) -> None:
        self.assertTrue(self.to("a@far.test"))
        self.assertTrue(self.to("b@far.test"))
        self.assertFalse(self.to("c@far.test"))
        self.assertTrue(self.to("A@far.test"))  # known by now
        self.assertTrue(self.to("ben@example.test", "ben@example.test"))
        self.clock.advance(HOUR_S + 1)
        self.assertTrue(self.to("c@far.test"))
        self.assertFalse(self.to("d@far.test"))
        self.assertTrue(self.to("d@far.test", account="ben@example.test"))

    def test_app_password_has_a_limit_of_its_own(self) -> None:
        self.limits.settings = SendingSettings()
        by_shop = replace(sender(), app_password="shop")
        said = [
            self.accepted(Deferred.fromCoroutine(self.limits.sender(by_shop)))
            for _ in range(3)
        ]
        self.assertEqual(said, [True, True, False])
        self.assertTrue(self.message())

    def test_who_is_not_logged_in(self) -> None:
        self.assertTrue(all(self.message(None) for _ in range(9)))
        self.assertTrue(all(self.to(f"{n}@x.test", account=None) for n in range(9)))

    def test_told_once_a_day(self) -> None:
        for _ in range(9):
            self.message()
        [(octets, to)] = self.told
        self.assertEqual(list(to), [ANNA, "postmaster@example.test"])
        self.assertIn(b"192.0.2.7", octets)
        self.assertIn(b"mailsrv account passwd anna@example.test\n", octets)
        self.clock.advance(DAY_S)
        for _ in range(9):
            self.message()
        self.assertEqual(len(self.told), 2)

    def test_notice_names_the_app_password(self) -> None:
        by_shop = replace(sender(), app_password="the shop")
        self.account = replace(
            self.account,
            app_passwords=(AppPassword("the shop", "digest", "send", 99, None),),
        )
        for _ in range(4):
            self.successResultOf(Deferred.fromCoroutine(self.limits.sender(by_shop)))
        [(octets, _)] = self.told
        self.assertIn(b"app-password remove anna@example.test 'the shop'\n", octets)

    def test_notice_that_cannot_be_sent_lets_nothing_pass(self) -> None:
        async def fails(*_: object, **__: object) -> str:
            raise StoreError("disk full")

        self.limits._submit = fails
        self.assertEqual([self.message() for _ in range(4)], [True] * 3 + [False])

    def test_disk_that_refuses_to_count_keeps_nobody_s_mail(self) -> None:
        self.counts.close()
        self.counts = SentCounts(self.path.parent / "no" / "such" / "folder")
        self.limits._counts = self.counts
        self.assertTrue(self.message())
        self.assertTrue(self.to("a@far.test"))

    def test_survives_a_restart(self) -> None:
        for _ in range(3):
            self.message()
        self.counts.close()
        self.counts = SentCounts(self.path)
        self.limits._counts = self.counts
        self.assertFalse(self.message())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
