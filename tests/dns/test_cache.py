"""The cache's bounds, in time and room."""

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.cache import MAX_ENTRIES, MAX_OCTETS, Cache
from mailsrv.dns.resolver import Found, NoSuchName

FOUND = Found((), False, "a.test", 300)


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = Cache(self.clock.seconds)

    def kept(self, name: str) -> bool:
        return self.cache.get((name, "A")) is not None

    def test_ttl(self) -> None:
        self.cache.put(("a.test", "A"), FOUND, 300, 50)
        self.cache.put(("b.test", "A"), NoSuchName("b.test"), 60, 50)
        self.cache.put(("c.test", "A"), FOUND, 0, 50)
        self.clock.advance(59)
        found = self.cache.get(("a.test", "A"))
        self.assertEqual(getattr(found, "ttl_s", None), 241)
        self.assertTrue(self.kept("b.test"))
        self.assertFalse(self.kept("c.test"))
        self.clock.advance(1)
        self.assertFalse(self.kept("b.test"))
        self.clock.advance(240)
        self.assertFalse(self.kept("a.test"))

    def test_number(self) -> None:
        for number in range(MAX_ENTRIES):
            self.cache.put((f"{number}.test", "A"), FOUND, 300, 50)
        self.assertTrue(self.kept("0.test"))  # and it was used just now
        self.cache.put(("more.test", "A"), FOUND, 300, 50)
        kept = [self.kept(name) for name in ("0.test", "1.test", "more.test")]
        self.assertEqual(kept, [True, False, True])

    def test_octets(self) -> None:
        for number in range(5):
            self.cache.put((f"{number}.test", "A"), FOUND, 300, MAX_OCTETS // 4)
            self.cache.put((f"{number}.test", "A"), FOUND, 300, MAX_OCTETS // 4)
        kept = [self.kept(f"{number}.test") for number in range(5)]
        self.assertEqual(kept, [False, True, True, True, True])
        self.cache.clear()
        self.cache.put(("all.test", "A"), FOUND, 300, MAX_OCTETS)
        self.assertTrue(self.kept("all.test"))
