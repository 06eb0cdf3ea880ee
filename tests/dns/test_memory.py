"""The resolver of tests has rules of its own."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.dns.resolver import NoSuchName, dns_name


class MemoryTests(SynchronousTestCase):
    def test_it_tells_what_was_asked(self) -> None:
        resolver = MemoryResolver({("a.test", "A"): ["198.51.100.1"]})
        self.successResultOf(Deferred.fromCoroutine(resolver.addresses("A.test")))
        self.assertEqual(resolver.asked, [("a.test", "AAAA"), ("a.test", "A")])

    def test_names_that_cannot_be(self) -> None:
        for name in ("a..b", "x" * 64 + ".test", "ä.test", ".".join(["abcdefgh"] * 40)):
            self.assertRaises(NoSuchName, dns_name, name)
