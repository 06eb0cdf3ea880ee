"""The resolver of tests has rules of its own."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.dns.resolver import DnsUnavailable, NoSuchName, dns_name
from tests.dns import contract


class ContractTests(contract.ResolverContract):
    def setUp(self) -> None:
        self.resolver = MemoryResolver(contract.ZONES, secure=contract.SECURE)


class MemoryTests(SynchronousTestCase):
    def test_it_tells_what_was_asked(self) -> None:
        resolver = MemoryResolver({("a.test", "A"): ["198.51.100.1"]})
        self.successResultOf(Deferred.fromCoroutine(resolver.addresses("A.test")))
        self.assertEqual(resolver.asked, [("a.test", "AAAA"), ("a.test", "A")])

    def test_who_cannot_be_asked(self) -> None:
        resolver = MemoryResolver(contract.ZONES, failing=["example.test"])
        asked = Deferred.fromCoroutine(resolver.query("example.test", "MX"))
        self.failureResultOf(asked, DnsUnavailable)
        circle = {("a.test", "CNAME"): ["b.test."], ("b.test", "CNAME"): ["a.test."]}
        asked = Deferred.fromCoroutine(MemoryResolver(circle).query("a.test", "A"))
        self.failureResultOf(asked, DnsUnavailable)

    def test_names_that_cannot_be(self) -> None:
        for name in ("a..b", "x" * 64 + ".test", "ä.test", ".".join(["abcdefgh"] * 40)):
            self.assertRaises(NoSuchName, dns_name, name)
