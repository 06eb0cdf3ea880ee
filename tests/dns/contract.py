"""What every `IResolver` does. Import the module, or the class runs by itself."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from mailsrv.dns.resolver import Found, HostAddress, IResolver, NoSuchName

ZONES = {
    ("example.test", "MX"): ["10 mx1.example.test.", "20 mx2.example.test."],
    ("mx1.example.test", "A"): ["198.51.100.1", "198.51.100.2"],
    ("mx1.example.test", "AAAA"): ["2001:db8::1"],
    ("mx2.example.test", "A"): ["198.51.100.3"],
    ("www.test", "CNAME"): ["www2.test."],
    ("www2.test", "CNAME"): ["mx1.example.test."],
    ("deep.circle.test", "CNAME"): ["circle.test."],
    ("gone.test", "CNAME"): ["nowhere.invalid."],
    ("signed.test", "TLSA"): ["3 1 1 " + "ab" * 32],
    ("text.test", "TXT"): ['"v=spf1 " "-all"'],
    ("a.b.test", "A"): ["198.51.100.4"],
}
SECURE = ("signed.test", "missing.signed.test")


class ResolverContract(TestCase):
    """For a `resolver` made of ZONES and SECURE."""

    resolver: IResolver

    async def test_it_provides_the_interface(self) -> None:
        verifyObject(IResolver, self.resolver)

    async def test_records(self) -> None:
        found = await self.resolver.query("Example.TEST", "MX")
        mxs = sorted(record.to_text() for record in found.records)
        expected = ["10 mx1.example.test.", "20 mx2.example.test."]
        self.assertEqual(mxs, expected)
        self.assertEqual(found.canonical, "example.test")
        self.assertFalse(found.secure)
        self.assertGreater(found.ttl_s, 0)
        [text] = (await self.resolver.query("text.test", "TXT")).records
        self.assertEqual(text.to_text(), '"v=spf1 " "-all"')

    async def test_addresses(self) -> None:
        found = await self.resolver.addresses("mx1.example.test")
        ips = ["2001:db8::1", "198.51.100.1", "198.51.100.2"]
        self.assertEqual(sorted(found), sorted(HostAddress(ip, False) for ip in ips))
        self.assertEqual(found[0].ip, ips[0])
        found = await self.resolver.addresses("mx2.example.test")
        self.assertEqual(found, (HostAddress("198.51.100.3", False),))
        self.assertEqual(await self.resolver.addresses("example.test"), ())

    async def test_cnames(self) -> None:
        found = await self.resolver.query("www.test", "A")
        self.assertEqual(len(found.records), 2)
        self.assertEqual(found.canonical, "mx1.example.test")
        found = await self.resolver.query("www.test", "MX")
        self.assertEqual((found.records, found.canonical), ((), "mx1.example.test"))
        with self.assertRaises(NoSuchName):
            await self.resolver.query("gone.test", "A")

    async def test_nothing_of_that_type(self) -> None:
        for name in ("example.test", "b.test"):  # the latter has a name below it
            found = await self.resolver.query(name, "TXT")
            self.assertEqual((found.records, found.canonical), ((), name))

    async def test_no_such_name(self) -> None:
        for name in ("nowhere.invalid", "a..b", "x" * 64 + ".test", "ä.test"):
            for ask in (self.resolver.addresses(name), self.resolver.query(name, "A")):
                with self.assertRaises(NoSuchName) as caught:
                    await ask
                self.assertEqual(caught.exception.name, name)

    async def test_security(self) -> None:
        found = await self.resolver.query("signed.test", "TLSA")
        self.assertTrue(found.secure)
        with self.assertRaises(NoSuchName) as caught:
            await self.resolver.query("missing.signed.test", "TLSA")
        self.assertTrue(caught.exception.secure)

    async def test_at_the_same_time(self) -> None:
        started = [
            Deferred.fromCoroutine(_query(self.resolver, "example.test", "MX"))
            for _ in range(3)
        ]
        for one in started:
            self.assertEqual(len((await one).records), 2)


async def _query(resolver: IResolver, name: str, type: str) -> Found:
    return await resolver.query(name, type)
