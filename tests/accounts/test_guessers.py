"""Waits by network, and the limits of the tables. By account: test_authenticator."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import guessers, turns
from mailsrv.accounts.guessers import (
    FORGET_S,
    GOOD_S,
    MANY_ACCOUNTS,
    Guessers,
    network,
)
from mailsrv.accounts.turns import TooManyWaiting, Turns

MAX_S = 15.0


class NetworkTests(SynchronousTestCase):
    def test_networks(self) -> None:
        for peer, expected in (
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8::1:2:3:4", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("", ""),
        ):
            self.assertEqual(network(peer), expected)


class SprayTests(SynchronousTestCase):
    """One network that tries many accounts."""

    def setUp(self) -> None:
        self.guessers = Guessers()

    def spray(self, accounts: int, now: float = 0.0) -> None:
        for n in range(accounts):
            self.guessers.failed(f"user {n}", "net", b"%d" % n, now)

    def wait(self, now: float) -> float:
        return self.guessers.wait_s("fresh", "net", now, MAX_S)

    def test_some_failed_accounts_do_not_count(self) -> None:
        self.spray(MANY_ACCOUNTS)
        self.assertEqual([self.wait(0.0) for _ in range(3)], [0, 0, 0])

    def test_many_make_each_login_wait_behind_the_last(self) -> None:
        self.spray(MANY_ACCOUNTS + 3)
        self.assertEqual([self.wait(0.0) for _ in range(4)], [0, 1, 2, 3])

    def test_wait_has_a_limit(self) -> None:
        self.spray(1000)
        self.assertEqual(max(self.wait(0.0) for _ in range(100)), MAX_S)

    def test_other_networks_do_not_wait(self) -> None:
        self.spray(1000)
        self.assertEqual(self.guessers.wait_s("fresh", "other", 0.0, MAX_S), 0)

    def test_good_login_lately_speaks_for_the_network(self) -> None:
        self.spray(1000, now=GOOD_S)
        self.guessers.succeeded("anna", "net", 1.0)
        self.assertEqual([self.wait(GOOD_S) for _ in range(2)], [0, 0])
        self.assertEqual([self.wait(GOOD_S + 1) for _ in range(2)], [0, MAX_S])

    def test_is_forgotten(self) -> None:
        self.spray(1000)
        later = FORGET_S + 1
        self.assertEqual([self.wait(later) for _ in range(2)], [0, 0])

    def test_tables_are_bounded(self) -> None:
        self.patch(guessers, "MAX_REMEMBERED", 10)
        for n in range(50):
            self.guessers.failed("anna", f"net {n}", b"", 0.0)
            self.guessers.succeeded("anna", f"good {n}", 0.0)
        for table in (
            self.guessers._pairs,
            self.guessers._networks,
            self.guessers._good,
        ):
            self.assertEqual(len(table), 10)


class TurnsTests(SynchronousTestCase):
    def take(self, turns: Turns, network: str, trusted: bool = False) -> Deferred[None]:
        return Deferred.fromCoroutine(turns.take(network, trusted))

    def test_slots(self) -> None:
        turns = Turns(2)
        first, second, third = (self.take(turns, "a") for _ in range(3))
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNoResult(third)
        turns.release()
        self.successResultOf(third)

    def test_networks_take_turns(self) -> None:
        turns = Turns(1)
        order: list[str] = []
        self.take(turns, "first")

        async def wait(name: str) -> None:
            await turns.take(name, False)
            order.append(name)

        for name in ("loud", "loud", "loud", "quiet"):
            Deferred.fromCoroutine(wait(name))
        for _ in range(4):
            turns.release()
        self.assertEqual(order, ["loud", "quiet", "loud", "loud"])

    def test_known_networks_get_half_of_the_turns(self) -> None:
        turns, order = Turns(1), []
        self.take(turns, "first")
        for n in range(3):
            self.take(turns, f"bot {n}").addCallback(lambda _: order.append("bot"))
        for _ in range(2):
            self.take(turns, "ours", True).addCallback(lambda _: order.append("ours"))
        for _ in range(5):
            turns.release()
        self.assertEqual(order, ["ours", "bot", "ours", "bot", "bot"])
        turns.release()
        self.successResultOf(self.take(turns, "any"))

    def test_limits(self) -> None:
        self.patch(turns, "MAX_WAITING_OF_NETWORK", 1)
        self.patch(turns, "MAX_WAITING", 2)
        pool = Turns(1)
        for name in ("running", "a", "b"):
            self.take(pool, name)
        self.failureResultOf(self.take(pool, "a"), TooManyWaiting)
        self.failureResultOf(self.take(pool, "c"), TooManyWaiting)
