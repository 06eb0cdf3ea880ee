"""The relay against servers on loopback that do what servers of the world do."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    trustRootFromCertificates,
)
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.queue.carrying import Parcel
from mailsrv.queue.seven_bit import SevenBitCopies
from mailsrv.queue.spool import Spool
from mailsrv.queue.values import Answer, Recipient
from mailsrv.relay.hosts import MAX_HOSTS
from mailsrv.relay.relay import Relay
from mailsrv.settings import Listener, RelayRoute, RelaySettings
from mailsrv.threads import Pool
from mailsrv.tls.peer import Opportunistic
from tests.queue.values import message, recipient
from tests.relay.peer import DROP, Peer
from tests.tls import certificates

CONTENT = b"Subject: x\r\n\r\n.hello\r\n"


def server_tls(*names: str) -> CertificateOptions:
    """What a peer with a certificate for these names uses."""
    made = certificates.pair(*names)
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(made.key),
        certificate=X509.from_cryptography(made.certificate),
    )


def client_tls() -> SSL.Context:
    """A client's context that knows the tests' own authority."""
    authority = Certificate(X509.from_cryptography(certificates.ca().certificate))
    return CertificateOptions(
        trustRoot=trustRootFromCertificates([authority])
    ).getContext()


class Content:
    async def pieces(self, recipient: Recipient) -> AsyncIterator[bytes]:
        yield CONTENT

    def octets(self, recipient: Recipient) -> int:
        return len(CONTENT)


class RelayCase(TestCase):
    def setUp(self) -> None:
        self.resolver = MemoryResolver({})
        real: Any = reactor
        self.pool = Pool(real, 1, "test")
        self.addCleanup(self.pool.stop)
        self.spool = Spool(Path(self.mktemp()), self.pool)
        self.spool.create()

    def peer(self, **script: Any) -> Peer:
        peer = Peer(**script)
        self.addCleanup(lambda: Deferred.fromCoroutine(peer.stop()))
        return peer

    def relay(self, *routes: RelayRoute, port: int = 25) -> Relay:
        relay = Relay(
            RelaySettings(private_addresses=True, route=list(routes)),
            hostname="mail.example.test",
            listeners=[Listener(service="smtp", endpoint="tcp:2525")],
            resolver=self.resolver,
            policies=Opportunistic(),
            seven_bit=SevenBitCopies(self.spool, lambda header, body: b"", self.pool),
            reading=self.pool,
            reactor=reactor,
            now=time.time,
            port=port,
        )
        self.addCleanup(lambda: Deferred.fromCoroutine(self.stop(relay)))
        return relay

    async def stop(self, relay: Relay) -> None:
        await relay.stop()
        await self.a_moment()

    async def a_moment(self) -> None:
        clock: Any = reactor
        await deferLater(clock, 0.01)

    def to(self, peer: Peer, **options: Any) -> Relay:
        """A relay for which `peer` is the MX of far.test."""
        self.resolver.zones |= {
            ("far.test", "MX"): ["10 mx.far.test."],
            ("mx.far.test", "A"): ["127.0.0.1"],
        }
        return self.relay(port=peer.port, **options)

    async def carry(
        self, relay: Relay, *addresses: str, **changes: Any
    ) -> tuple[Answer, ...]:
        to = tuple(recipient(a) for a in addresses or ("bert@far.test",))
        sent = message(size_octets=len(CONTENT), **changes)
        parcel = Parcel(sent, to, Content(), to[0].destination)
        return (await relay.carry(parcel)).answers


class DirectTests(RelayCase):
    async def test_a_message(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        [answer] = await self.carry(relay)
        self.assertEqual(
            (answer.code, answer.enhanced_code, answer.text, answer.peer, answer.tls),
            (250, "2.0.0", "Taken", "mx.far.test [127.0.0.1]", ""),
        )
        self.assertFalse(answer.relayed)
        self.assertEqual(peer.contents, [CONTENT])
        self.assertIn("EHLO mail.example.test", peer.lines)
        self.assertIn("MAIL FROM:<anna@example.test>", peer.lines)

    async def test_connection_is_used_again(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        for _ in range(3):
            await self.carry(relay)
        self.assertEqual((len(peer.sessions), len(peer.contents)), (1, 3))

    async def test_idle_connection_that_has_gone(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        await self.carry(relay)
        peer.sessions[0].transport.loseConnection()
        [answer] = await self.carry(relay)
        self.assertEqual((answer.code, len(peer.contents)), (250, 2))

    async def test_idle_connection_that_answers_is_not_asked_for_ever(self) -> None:
        peer = self.peer(MAIL=["250 Ok", "451 4.7.1 Later"])
        relay = self.to(peer)
        await self.carry(relay)
        [answer] = await self.carry(relay)
        self.assertEqual((answer.code, answer.text), (451, "Later"))
        self.assertEqual(peer.verbs().count("MAIL"), 3)

    async def test_idle_connection_that_lacks_something(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        await self.carry(relay)
        [answer] = await self.carry(relay, smtputf8=True)
        self.assertEqual((answer.enhanced_code, len(peer.sessions)), ("5.6.7", 2))
        await self.a_moment()
        self.assertNotIn("QUIT", peer.verbs())  # not used up by asking it again

    async def test_recipients_have_answers_of_their_own(self) -> None:
        peer = self.peer(RCPT=["250 Ok", "550 5.1.1 Nobody", "450 4.2.0 Greylisted"])
        answers = await self.carry(self.to(peer), *(f"{n}@far.test" for n in "abc"))
        self.assertEqual([a.code for a in answers], [250, 550, 450])
        self.assertEqual(answers[1].enhanced_code, "5.1.1")
        self.assertEqual(len(peer.contents), 1)

    async def test_dsn_is_passed_on(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        to = recipient(notify="SUCCESS", orcpt="rfc822;b")
        sent = message(size_octets=len(CONTENT), ret="HDRS", envid="x")
        await relay.carry(Parcel(sent, (to,), Content(), "far.test"))
        self.assertIn("MAIL FROM:<anna@example.test> RET=HDRS ENVID=x", peer.lines)
        self.assertIn(
            "RCPT TO:<bert@far.test> NOTIFY=SUCCESS ORCPT=rfc822;b", peer.lines
        )

    async def test_only_who_needs_smtputf8_asks_for_it(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        [answer] = await self.carry(relay, "\u00e4@far.test")
        self.assertEqual(answer.enhanced_code, "5.6.7")
        [answer] = await self.carry(relay, "a@far.test")
        self.assertEqual(answer.code, 250)
        self.assertIn("MAIL FROM:<anna@example.test>", peer.lines)

    async def test_peer_without_dsn(self) -> None:
        [answer] = await self.carry(self.to(self.peer(EHLO="250 peer.test")))
        self.assertEqual((answer.code, answer.relayed), (250, True))

    async def test_drop_after_the_dot_is_temporary(self) -> None:
        peer = self.peer(end=DROP)
        [answer] = await self.carry(self.to(peer))
        self.assertEqual((answer.code, answer.peer[:11]), (451, "mx.far.test"))
        self.assertEqual(len(peer.contents), 1)

    async def test_refusal_of_the_connection_is_never_for_good(self) -> None:
        [answer] = await self.carry(self.to(self.peer(greeting="554 No service")))
        self.assertEqual((answer.code, answer.text), (450, "No service"))

    async def test_mail_is_refused(self) -> None:
        [answer] = await self.carry(self.to(self.peer(MAIL="550 5.7.1 You? No")))
        self.assertEqual((answer.code, answer.text), (550, "You? No"))

    async def test_what_a_peer_lacks(self) -> None:
        for change, code in (
            ({"smtputf8": True}, "5.6.7"),
            ({"require_tls": True}, "4.7.10"),
        ):
            [answer] = await self.carry(self.to(self.peer()), **change)
            self.assertEqual(answer.enhanced_code, code)
        small = self.peer(EHLO="250-peer.test\r\n250 SIZE 5")
        [answer] = await self.carry(self.to(small))
        self.assertEqual((answer.code, answer.enhanced_code), (552, "5.3.4"))

    async def test_eight_bits_become_seven(self) -> None:
        path = self.spool.path("file")
        for octets, code in (
            ("Subject: x\n\nGrüße\n".encode(), 250),
            ("Subject: Grüße\n\nx\n".encode(), 554),
        ):
            self.write(path, octets)
            peer = self.peer(EHLO="250 peer.test")
            [answer] = await self.carry(self.to(peer), eight_bit=True, file="file")
            self.assertEqual(answer.code, code)
            if code == 250:
                [content] = peer.contents
                self.assertIn(b"R3LDvMOfZQ0K", content)  # in base64

    def write(self, path: Path, octets: bytes) -> None:
        path.write_bytes(octets)


class HostTests(RelayCase):
    """Which hosts are asked, and when none is."""

    async def said(self, relay: Relay) -> tuple[int, str]:
        [answer] = await self.carry(relay)
        return answer.code, answer.enhanced_code

    async def test_backup_takes_over(self) -> None:
        down, up = self.peer(greeting="421 Busy"), self.peer()
        self.resolver.zones |= {
            ("far.test", "MX"): ["20 backup.far.test.", "10 mx.far.test."],
            ("mx.far.test", "A"): ["127.0.0.2"],  # nobody listens there
            ("backup.far.test", "A"): ["127.0.0.1"],
        }
        relay = self.relay(port=up.port)
        [answer] = await self.carry(relay)
        self.assertEqual((answer.code, answer.peer[:6]), (250, "backup"))
        self.assertEqual(down.contents, [])

    async def test_421_asks_the_next_host(self) -> None:
        peer = self.peer(greeting=["421 Busy", "220 Hello"])
        self.resolver.zones |= {
            ("far.test", "MX"): ["10 one.far.test.", "20 two.far.test."],
            ("one.far.test", "A"): ["127.0.0.1"],
            ("two.far.test", "A"): ["127.0.0.1"],
        }
        [answer] = await self.carry(self.relay(port=peer.port))
        self.assertEqual((answer.code, answer.peer[:3]), (250, "two"))

    async def test_no_mx_but_an_address(self) -> None:
        peer = self.peer()
        self.resolver.zones |= {("far.test", "A"): ["127.0.0.1"]}
        self.assertEqual((await self.said(self.relay(port=peer.port)))[0], 250)

    async def test_domain_that_takes_no_mail(self) -> None:
        self.resolver.zones |= {("far.test", "MX"): ["0 ."]}
        self.assertEqual(await self.said(self.relay()), (556, "5.1.10"))

    async def test_domain_that_does_not_exist(self) -> None:
        self.assertEqual(await self.said(self.relay()), (550, "5.1.2"))

    async def test_name_servers_that_do_not_answer(self) -> None:
        self.resolver.failing.add("far.test")
        self.assertEqual(await self.said(self.relay()), (451, "4.4.3"))

    async def test_this_server_is_the_mx(self) -> None:
        self.resolver.zones |= {("far.test", "MX"): ["10 Mail.Example.test."]}
        self.assertEqual(await self.said(self.relay()), (554, "5.4.6"))

    async def test_mx_of_an_inner_network(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        relay.use(RelaySettings())
        self.assertEqual(await self.said(relay), (550, "5.4.4"))
        self.assertEqual(peer.sessions, [])

    async def test_backup_before_this_server_that_cannot_be_found_now(self) -> None:
        self.resolver.zones |= {
            ("far.test", "MX"): ["10 one.far.test.", "20 mail.example.test."]
        }
        self.resolver.failing.add("one.far.test")
        self.assertEqual(await self.said(self.relay()), (451, "4.4.3"))

    async def test_backup_that_lacks_something_while_the_first_is_down(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        self.resolver.zones |= {
            ("far.test", "MX"): ["10 one.far.test.", "20 mx.far.test."],
            ("one.far.test", "A"): ["127.0.0.2"],  # nobody listens there
        }
        [answer] = await self.carry(relay, smtputf8=True)
        self.assertEqual((answer.code, answer.enhanced_code), (451, "4.4.1"))

    async def test_mx_that_is_an_address(self) -> None:
        peer = self.peer()
        relay = self.to(peer)
        self.resolver.zones |= {("far.test", "MX"): ["10 127.0.0.1."]}
        self.assertEqual(await self.said(relay), (550, "5.4.4"))
        self.assertEqual(peer.sessions, [])

    async def test_no_more_than_ten_hosts_are_looked_up(self) -> None:
        self.resolver.zones |= {
            ("far.test", "MX"): [f"{n} h{n}.far.test." for n in range(200)]
        }
        self.assertEqual(await self.said(self.relay()), (550, "5.4.4"))
        self.assertLessEqual(len(self.resolver.asked), 1 + 2 * MAX_HOSTS)

    async def test_host_that_is_down_is_left_alone_for_a_while(self) -> None:
        self.resolver.zones |= {
            ("far.test", "MX"): ["10 mx.far.test."],
            ("mx.far.test", "A"): ["127.0.0.2"],
        }
        relay = self.relay(port=self.peer().port)
        [first] = await self.carry(relay)
        [second] = await self.carry(relay)
        self.assertEqual((first.code, first.peer), (451, ""))
        self.assertIn("a moment ago", second.text)


class TlsTests(RelayCase):
    EHLO = "250-peer.test\r\n250-STARTTLS\r\n250 REQUIRETLS"

    async def test_any_certificate_is_better_than_none(self) -> None:
        peer = self.peer(tls=server_tls("else.test"), EHLO=self.EHLO)
        [answer] = await self.carry(self.to(peer))
        self.assertEqual(answer.code, 250)
        self.assertRegex(answer.tls, "^TLSv1.3 .*, not verified$")

    async def test_broken_tls_falls_back(self) -> None:
        peer = self.peer(EHLO=self.EHLO)
        [answer] = await self.carry(self.to(peer))
        self.assertEqual((answer.code, answer.tls), (250, ""))
        self.assertEqual(len(peer.sessions), 2)

    async def test_requiretls_does_not_fall_back(self) -> None:
        peer = self.peer(EHLO=self.EHLO)
        [answer] = await self.carry(self.to(peer), require_tls=True)
        self.assertEqual(answer.code, 451)
        self.assertEqual(peer.contents, [])

    async def test_starttls_that_is_refused(self) -> None:
        peer = self.peer(EHLO=self.EHLO, STARTTLS="454 No certificate today")
        [answer] = await self.carry(self.to(peer))
        self.assertEqual((answer.code, answer.tls), (250, ""))

    async def test_who_may_go_in_clear_goes_alone(self) -> None:
        """A connection that a message took without TLS must serve no other one."""
        peer = self.peer()
        relay = self.to(peer)
        await self.carry(relay, tls_optional=True)
        await self.carry(relay)
        await self.carry(relay, tls_optional=True)
        self.assertEqual(len(peer.sessions), 2)

    async def test_new_settings_want_new_connections(self) -> None:
        """What was in clear under the old ones must not serve the new ones."""
        peer = self.peer()
        relay = self.to(peer)
        settings = RelaySettings(private_addresses=True)
        await self.carry(relay)
        relay.use(settings)
        await self.carry(relay)
        self.assertEqual(len(peer.sessions), 2)
        # Also what was under way when they came.
        under_way = Deferred.fromCoroutine(self.carry(relay))
        relay.use(settings)
        await under_way
        await self.carry(relay)
        self.assertEqual((len(peer.sessions), len(peer.contents)), (3, 4))


class RouteTests(RelayCase):
    def route(self, peer: Peer, **options: Any) -> RelayRoute:
        options.setdefault("tls", "never")
        return RelayRoute(to=f"127.0.0.1:{peer.port}", **options)

    async def test_smarthost_for_everything(self) -> None:
        peer = self.peer()
        relay = self.relay(self.route(peer))
        [answer] = await self.carry(relay)
        self.assertEqual((answer.code, answer.peer), (250, "127.0.0.1 [127.0.0.1]"))
        self.assertEqual(relay.route("x@y", "a.test"), relay.route("", "b.test"))

    async def test_of_sender_and_recipient_domains(self) -> None:
        one, two, three = self.peer(), self.peer(), self.peer()
        relay = self.relay(
            self.route(one, recipient_domain="far.test"),
            self.route(two, sender_domain="example.test"),
            self.route(three),
        )
        await self.carry(relay, "a@far.test")
        await self.carry(relay, "a@near.test")
        await self.carry(relay, "a@near.test", reverse_path="x@other.test")
        self.assertEqual([len(p.contents) for p in (one, two, three)], [1, 1, 1])

    async def test_recipients_of_several_domains_in_one_transaction(self) -> None:
        peer = self.peer()
        answers = await self.carry(
            self.relay(self.route(peer)), "a@far.test", "b@near.test"
        )
        self.assertEqual([a.code for a in answers], [250, 250])
        self.assertEqual(len(peer.contents), 1)

    def password_file(self) -> Path:
        file = Path(self.mktemp())
        file.write_text("secret\n")
        return file

    async def test_log_in(self) -> None:
        peer = self.peer(
            tls=server_tls("localhost"),
            EHLO="250-peer.test\r\n250-STARTTLS\r\n250 AUTH PLAIN",
        )
        file = self.password_file()
        self.resolver.zones |= {("localhost", "A"): ["127.0.0.1"]}
        route = RelayRoute(
            to=f"localhost:{peer.port}", login="anna", password_file=file
        )
        relay = self.relay(route)
        [answer] = await self.carry(relay)
        self.assertEqual(answer.code, 451)  # its certificate is nobody's
        self.assertNotIn("AUTH", peer.verbs())
        relay._verified = client_tls()
        [answer] = await self.carry(relay)
        self.assertEqual(answer.code, 250)
        self.assertRegex(answer.tls, ", verified$")
        self.assertIn("AUTH PLAIN AGFubmEAc2VjcmV0", peer.lines)

    async def test_lmtp(self) -> None:
        peer = self.peer(lmtp=True, end=["250 Ok", "452 4.2.2 Full"])
        route = RelayRoute(
            to=f"lmtp:127.0.0.1:{peer.port}", recipient_domain="far.test"
        )
        answers = await self.carry(self.relay(route), "a@far.test", "b@far.test")
        self.assertEqual([a.code for a in answers], [250, 452])
        self.assertIn("LHLO mail.example.test", peer.lines)

    async def test_socket_that_is_not_there(self) -> None:
        route = RelayRoute(to="lmtp:unix:/nowhere/lmtp", recipient_domain="far.test")
        [answer] = await self.carry(self.relay(route))
        self.assertEqual((answer.code, answer.peer), (451, ""))

    async def test_routes_to_one_place_with_and_without_tls(self) -> None:
        peer = self.peer()
        plain = self.route(peer, recipient_domain="a.test")
        relay = self.relay(plain, self.route(peer, tls="require"))
        [answer] = await self.carry(relay, "x@a.test")
        self.assertEqual(answer.code, 250)
        [answer] = await self.carry(relay, "x@b.test")
        self.assertEqual((answer.code, len(peer.contents)), (451, 1))

    async def test_requiretls_over_a_smarthost_wants_its_certificate(self) -> None:
        ehlo = "250-peer.test\r\n250-STARTTLS\r\n250 REQUIRETLS"
        peer = self.peer(tls=server_tls("127.0.0.1"), EHLO=ehlo)
        relay = self.relay(self.route(peer, tls="opportunistic"))
        [answer] = await self.carry(relay, require_tls=True)
        self.assertEqual((answer.code, peer.contents), (451, []))

    async def test_password_file_that_is_gone(self) -> None:
        peer = self.peer()
        route = self.route(peer, tls=None, login="a", password_file=Path("/no/file"))
        [answer] = await self.carry(self.relay(route))
        self.assertEqual(answer.enhanced_code, "4.7.0")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class StopTests(RelayCase):
    async def test_what_is_under_way_is_cut(self) -> None:
        peer = self.peer(end="250-not all of it")
        relay = self.to(peer)
        carrying = Deferred.fromCoroutine(self.carry(relay))
        while not peer.contents:
            await self.a_moment()
        await relay.stop()
        [answer] = await carrying
        self.assertEqual(answer.code, 451)
