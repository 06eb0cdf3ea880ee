"""The real resolver, with name servers on loopback that are good, bad and gone."""

import struct
from collections.abc import Sequence
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
from dns.message import Message
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from mailsrv.dns import client
from mailsrv.dns.client import DnsResolver
from mailsrv.dns.resolver import DnsUnavailable, NoSuchName
from mailsrv.dns.servers import Server, Servers, parse_server
from mailsrv.settings import DnsSettings
from tests.dns import contract
from tests.dns.name_server import Change, NameServer, rrset, wire
from tests.inline_threads import InlineThreads


def resolver_of(
    servers: Sequence[NameServer], *, validates: bool = False
) -> DnsResolver:
    given = [f"127.0.0.1:{server.port}" for server in servers]
    settings = DnsSettings(servers=given, validates=validates)
    return DnsResolver(settings, threads=InlineThreads(), reactor=reactor)


class ContractTests(contract.ResolverContract):
    def setUp(self) -> None:
        server = NameServer(reactor, contract.ZONES, contract.SECURE)
        self.addCleanup(server.stop)
        self.resolver = resolver_of([server])


class DnsResolverTests(TestCase):
    def setUp(self) -> None:
        self.server = self.serve()
        self.resolver = resolver_of([self.server])
        # Nobody should wait for rounds that must fail.
        self.patch(client, "ROUNDS_S", (0.3, 0.6))

    def serve(self) -> NameServer:
        server = NameServer(reactor, contract.ZONES, contract.SECURE)
        self.addCleanup(server.stop)
        return server

    async def count(self, name: str = "example.test", type: str = "MX") -> int:
        return len((await self.resolver.query(name, type)).records)

    async def test_what_is_asked(self) -> None:
        await self.count()
        [query] = self.server.heard
        self.assertTrue(query.flags & dns.flags.RD)
        self.assertTrue(query.flags & dns.flags.AD)
        self.assertTrue(query.ednsflags & dns.flags.DO)
        self.assertEqual(query.payload, 1232)

    async def test_ids_and_ports_are_random(self) -> None:
        for number in range(8):
            with self.assertRaises(NoSuchName):
                await self.count(f"name{number}.invalid")
        self.assertGreater(len({query.id for query in self.server.heard}), 4)
        self.assertGreater(len(set(self.server.sources)), 4)

    async def test_it_keeps_what_it_hears(self) -> None:
        for _ in range(3):
            self.assertEqual(await self.count(), 2)
            self.assertEqual(await self.count("EXAMPLE.test"), 2)
            for name in ("nowhere.invalid", "gone.test"):
                with self.assertRaises(NoSuchName):
                    await self.count(name)
            self.assertEqual(await self.count(type="TXT"), 0)
        self.assertEqual(len(self.server.heard), 4)

    async def test_equal_questions_are_one(self) -> None:
        asking = [Deferred.fromCoroutine(self.count()) for _ in range(20)]
        asking[0].addErrback(lambda _: None)
        asking[0].cancel()  # the others still want it
        self.assertEqual([await one for one in asking[1:]], [2] * 19)
        self.assertEqual(len(self.server.heard), 1)

    async def test_a_denial_without_soa_is_not_kept(self) -> None:
        def change(answer: Message, query: bytes) -> bytes:
            answer.authority.clear()
            return answer.to_wire()

        self.server.change = change
        for _ in range(2):
            self.assertEqual(await self.count(type="TXT"), 0)
        self.assertEqual(len(self.server.heard), 2)

    async def test_tcp_for_what_does_not_fit(self) -> None:
        texts = [f'"{number} {"x" * 200}"' for number in range(40)]
        self.server.zones = {("long.test", "TXT"): texts}

        def truncated(answer: Message, query: bytes) -> bytes:
            short = dns.message.make_response(dns.message.from_wire(query))
            short.flags |= dns.flags.TC
            return short.to_wire()

        self.server.change = truncated
        self.assertEqual(await self.count("long.test", "TXT"), 40)
        self.assertEqual(len(self.server.heard_tcp), 1)
        self.server.change_tcp = truncated
        with self.assertRaises(DnsUnavailable):
            await self.count("other.test", "TXT")
        self.server.change_tcp = lambda answer, _: None
        with self.assertRaises(DnsUnavailable):
            await self.count("another.test", "TXT")

    async def test_forgeries_are_passed_over(self) -> None:
        """Wrong id, wrong question, no answer, rubbish: the true one comes later."""

        def change(answer: Message, query: bytes) -> None:
            forged = dns.message.make_response(dns.message.from_wire(query))
            forged.flags |= dns.flags.RA
            good = answer.to_wire()
            (id,) = struct.unpack_from("!H", good)
            other = dns.message.make_query("other.test", "MX", id=id)
            for bad in (
                struct.pack("!H", id ^ 1) + forged.to_wire()[2:],
                dns.message.make_response(other).to_wire(),
                query,
                b"",
                good[:11],
                good,
            ):
                udp.write(bad, ("127.0.0.1", self.server.sources[-1]))

        udp = self.server._udp
        self.server.change = change
        self.assertEqual(await self.count(), 2)

    async def test_next_server(self) -> None:
        bad, silent, good = self.serve(), self.serve(), self.server
        bad.change = failing(dns.rcode.SERVFAIL)
        silent.change = lambda answer, _: None
        self.resolver = resolver_of([bad, silent, good])
        self.assertEqual(await self.count(), 2)
        # Who has answered is asked first from now on.
        self.assertEqual(await self.count("text.test", "TXT"), 1)
        self.assertEqual([len(s.heard) for s in (bad, silent, good)], [1, 1, 2])

    async def test_nobody_knows(self) -> None:
        for rcode in (dns.rcode.SERVFAIL, dns.rcode.REFUSED):
            self.server.change = failing(rcode)
            before = len(self.server.heard)
            with self.assertRaises(DnsUnavailable) as caught:
                await self.count()
            self.assertIn(rcode.name, str(caught.exception))
            self.assertEqual(len(self.server.heard), before + 1)

    async def test_nobody_is_there(self) -> None:
        await self.server.stop()
        with self.assertRaises(DnsUnavailable):
            await self.count()

    async def test_nobody_says_a_thing(self) -> None:
        self.server.change = lambda answer, _: None
        with self.assertRaises(DnsUnavailable):
            await self.count()
        self.assertEqual(len(self.server.heard), 2)
        self.server.change = wire
        self.assertEqual(await self.count(), 2)  # and nothing of that was kept

    async def test_without_edns(self) -> None:
        def change(answer: Message, query: bytes) -> bytes:
            if answer.edns >= 0:
                answer = dns.message.make_response(dns.message.from_wire(query))
                answer.set_rcode(dns.rcode.FORMERR)
            return answer.to_wire()

        self.server.change = change
        self.assertEqual(await self.count(), 2)

    async def test_a_server_that_does_not_resolve(self) -> None:
        """Its "nothing there" is no denial: mail would be bounced for it."""

        def change(answer: Message, query: bytes) -> bytes:
            answer.flags &= ~dns.flags.RA
            answer.answer.clear()
            return answer.to_wire()

        self.server.change = change
        with self.assertRaises(DnsUnavailable):
            await self.count()

    async def test_a_chain_that_the_server_cuts(self) -> None:
        def change(answer: Message, query: bytes) -> bytes:
            if len(answer.answer) > 1:
                del answer.answer[1:]
            answer.authority.clear()
            return answer.to_wire()

        self.server.change = change
        self.assertEqual(await self.count("www.test", "A"), 2)

    async def test_endless_chains(self) -> None:
        def circle(answer: Message, query: bytes) -> bytes:
            answer.answer = [
                rrset("www.test", "CNAME", ["a.test."]),
                rrset("a.test", "CNAME", ["www.test."]),
            ]
            return answer.to_wire()

        def ever_on(answer: Message, query: bytes) -> bytes:
            [question] = answer.question
            name = question.name.to_text(omit_final_dot=True)
            answer.answer = [rrset(name, "CNAME", [f"x{len(name)}.test."])]
            if name != "www.test":
                answer.answer = [rrset(name, "CNAME", [f"x.{name}."])]
            answer.authority.clear()
            answer.set_rcode(dns.rcode.NOERROR)
            return answer.to_wire()

        for change in (circle, ever_on):
            self.server.change = change
            with self.assertRaises(DnsUnavailable):
                await self.count("www.test", "A")

    async def test_other_servers_are_asked_anew(self) -> None:
        self.assertEqual(await self.count(), 2)
        other = self.serve()
        self.resolver.use(DnsSettings(servers=[f"127.0.0.1:{other.port}"]))
        await self.count("text.test", "TXT")
        self.assertEqual(await self.count(), 2)
        self.assertEqual(len(other.heard), 2)

    async def test_many_at_once(self) -> None:
        self.patch(client, "ROUNDS_S", (30.0,))  # on a machine that is busy
        asking = [
            Deferred.fromCoroutine(self.resolver.query(f"n{n}.a.b.test", "A"))
            for n in range(300)
        ]
        for one in asking:
            with self.assertRaises(NoSuchName):
                await one


class ServersTests(SynchronousTestCase):
    def test_whose_word_on_dnssec_counts(self) -> None:
        """What is not on this machine is believed only if a setting says so."""
        for texts, validates, trusted in (
            (["192.0.2.53"], False, False),
            (["192.0.2.53"], True, True),
            (["[::1]:5353", "127.0.0.53"], False, True),
        ):
            for text in texts:
                server = parse_server(text, validates=validates)
                self.assertIs(server.trusted, trusted)

    def test_addresses_of_servers(self) -> None:
        for text, server in (
            ("192.0.2.53", Server("192.0.2.53")),
            ("192.0.2.53:5353", Server("192.0.2.53", 5353)),
            ("2001:db8::1", Server("2001:db8::1")),
            ("[2001:db8::1]", Server("2001:db8::1")),
            ("[2001:db8::1]:5353", Server("2001:db8::1", 5353)),
        ):
            self.assertEqual(parse_server(text), server)
        for text in ("dns.test", "192.0.2.53:", "192.0.2.53:0", "[::1]:99999", ""):
            self.assertRaises(ValueError, parse_server, text)

    def test_resolv_conf(self) -> None:
        clock = Clock()
        file = Path(self.mktemp())
        servers = Servers(
            [],
            validates=False,
            threads=InlineThreads(),
            seconds=clock.seconds,
            file=file,
        )

        def ips() -> list[str]:
            current = Deferred.fromCoroutine(servers.current())
            return [server.ip for server in self.successResultOf(current)]

        self.assertEqual(ips(), ["127.0.0.1"])  # there is no file
        file.write_text(
            "# nameserver 192.0.2.9\nsearch test\nnameserver 192.0.2.1\n"
            "nameserver what\nnameserver\nnameserver fe80::1%eth0\noptions edns0\n"
            "nameserver 192.0.2.2\nnameserver 192.0.2.3\n"
        )
        self.assertEqual(ips(), ["127.0.0.1"])
        clock.advance(5)
        expected = ["192.0.2.1", "fe80::1%eth0", "192.0.2.2"]
        self.assertEqual(ips(), expected)
        file.unlink()  # between two steps of whoever writes it
        clock.advance(5)
        self.assertEqual(ips(), expected)


def failing(rcode: dns.rcode.Rcode) -> Change:
    def change(answer: Message, query: bytes) -> bytes:
        failed = dns.message.make_response(dns.message.from_wire(query))
        failed.set_rcode(rcode)
        return failed.to_wire()

    return change
