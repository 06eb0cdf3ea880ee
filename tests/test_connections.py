"""Limits of connections in all and by address."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.connections import ConnectionLimits


class ConnectionLimitsTests(SynchronousTestCase):
    def test_limit_in_all(self) -> None:
        limits = ConnectionLimits(max_all=2, max_per_address=9)
        self.assertTrue(limits.acquire("192.0.2.1"))
        self.assertTrue(limits.acquire("192.0.2.2"))
        self.assertFalse(limits.acquire("192.0.2.3"))
        limits.release("192.0.2.1")
        self.assertTrue(limits.acquire("192.0.2.3"))

    def test_limit_of_an_address(self) -> None:
        limits = ConnectionLimits(max_all=9, max_per_address=1)
        self.assertTrue(limits.acquire("192.0.2.1"))
        self.assertFalse(limits.acquire("192.0.2.1"))
        self.assertTrue(limits.acquire("192.0.2.2"))
        limits.release("192.0.2.1")
        self.assertTrue(limits.acquire("192.0.2.1"))

    def test_ipv6_counts_by_64(self) -> None:
        limits = ConnectionLimits(max_all=9, max_per_address=1)
        self.assertTrue(limits.acquire("2001:db8::1"))
        self.assertFalse(limits.acquire("2001:db8::2:3:4:5"))
        self.assertTrue(limits.acquire("2001:db8:0:1::1"))
        self.assertTrue(limits.acquire("fe80::1%eth0"))
        self.assertFalse(limits.acquire("fe80::2%eth0"))
        self.assertTrue(limits.acquire("fe80::1%eth1"))

    def test_mapped_address_is_its_ipv4_address(self) -> None:
        limits = ConnectionLimits(max_all=9, max_per_address=1)
        self.assertTrue(limits.acquire("::ffff:192.0.2.1"))
        self.assertFalse(limits.acquire("192.0.2.1"))

    def test_peer_without_address_counts_in_all_only(self) -> None:
        limits = ConnectionLimits(max_all=2, max_per_address=1)
        self.assertTrue(limits.acquire(""))
        self.assertTrue(limits.acquire(""))
        self.assertFalse(limits.acquire(""))

    def test_nothing_is_kept_of_closed_connections(self) -> None:
        limits = ConnectionLimits(max_all=9, max_per_address=9)
        for n in range(9):
            limits.acquire(f"192.0.2.{n}")
            limits.release(f"192.0.2.{n}")
        self.assertEqual(limits, ConnectionLimits(max_all=9, max_per_address=9))
