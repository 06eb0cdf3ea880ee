"""Who counts as a device, which networks may be trusted, and the hourly limit."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import devices
from mailsrv.accounts.devices import HourlyLimit, devices_at, problems
from mailsrv.settings import TrustedNetwork

SCANNER = "scanner@example.test"


def trusted(*networks: str, most: int = 60) -> TrustedNetwork:
    return TrustedNetwork(
        networks=list(networks), send_as=[SCANNER], max_messages_per_hour=most
    )


class DevicesAtTests(SynchronousTestCase):
    settings = (trusted("192.168.1.0/28", "fd00::/64"), trusted("198.51.100.7"))

    def test_inside(self) -> None:
        for peer, network in (
            ("192.168.1.1", "192.168.1.0/28"),
            ("::ffff:192.168.1.15", "192.168.1.0/28"),
            ("fd00::9", "fd00::/64"),
            ("198.51.100.7", "198.51.100.7"),
        ):
            found = devices_at(peer, self.settings)
            assert found is not None
            self.assertEqual((found.network, found.send_as), (network, (SCANNER,)))

    def test_outside(self) -> None:
        for peer in ("192.168.1.16", "fd00:0:0:1::1", "198.51.100.8", "::1", ""):
            self.assertIsNone(devices_at(peer, self.settings), peer)
        self.assertIsNone(devices_at("192.168.1.1", ()))


class ProblemsTests(SynchronousTestCase):
    def wrong(self, network: str) -> bool:
        return any(problems(trusted(network)))

    def test_narrow_networks(self) -> None:
        for network in (
            "192.168.1.0/24",
            "10.0.0.0/8",
            "172.16.0.0/12",
            "127.0.0.1",
            "169.254.0.0/16",
            "203.0.113.9",
            "203.0.113.9/32",
            "fd12:3456::/48",
            "fe80::/64",
            "2001:db8::7",
            "::1",
        ):
            self.assertFalse(self.wrong(network), network)

    def test_open_relays_and_nonsense(self) -> None:
        for network in (
            "0.0.0.0/0",
            "::/0",
            "0.0.0.0",
            "::",
            "203.0.113.0/24",
            "203.0.113.8/31",
            "128.0.0.0/1",
            "172.0.0.0/8",
            "192.168.1.20/24",  # bits of a host in a network
            "::ffff:192.168.1.0/120",
            "::ffff:192.168.1.1",
            "2001:db8::/64",
            "ff02::1",
            "224.0.0.1",
            "192.168.1",
            "printer.local",
            "",
        ):
            self.assertTrue(self.wrong(network), network)

    def test_all_are_told(self) -> None:
        found = TrustedNetwork(networks=["0.0.0.0/0", "x"], send_as=["nobody"])
        self.assertEqual(
            [key for key, _, _ in problems(found)], ["networks", "networks", "send_as"]
        )
        empty = TrustedNetwork(networks=[], send_as=[])
        self.assertEqual(
            [key for key, _, _ in problems(empty)], ["networks", "send_as"]
        )


class HourlyLimitTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.limit = HourlyLimit(self.clock.seconds)

    def test_in_any_hour(self) -> None:
        taken = []
        for _ in range(5):
            taken.append(self.limit.take("a", 2))
            self.clock.advance(1500)
        # At 0, 1500, 3000 (two within the hour), 4500, 6000.
        self.assertEqual(taken, [True, True, False, True, True])

    def test_each_device_for_itself(self) -> None:
        self.assertTrue(self.limit.take("a", 1))
        self.assertFalse(self.limit.take("a", 1))
        self.assertTrue(self.limit.take("b", 1))

    def test_changed_limit(self) -> None:
        self.assertTrue(self.limit.take("a", 1))
        self.assertTrue(self.limit.take("a", 2))
        self.assertFalse(self.limit.take("a", 1))

    def test_memory_is_bounded(self) -> None:
        self.patch(devices, "MAX_REMEMBERED", 3)
        for device in range(10):
            self.limit.take(str(device), 1)
        self.assertEqual(len(self.limit._times), 3)
