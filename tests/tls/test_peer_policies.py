"""What domains demand, against certificates of every kind."""

import hashlib
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.settings import RelayTls, RelayTlsPolicy
from mailsrv.tls.https import HttpsAnswer, HttpsFailed
from mailsrv.tls.mta_sts import StsPolicy
from mailsrv.tls.peer import PeerTls, unverified_context
from mailsrv.tls.peer_certificate import NotTrusted
from mailsrv.tls.peer_policies import HostTls, Policies
from mailsrv.tls.peer_records import PeerRecords
from mailsrv.tls.sts_cache import PolicyFailed, StsCache
from tests.inline_threads import InlineThreads
from tests.tls.peers import Issued, handshake, issue

HOST, DOMAIN = "mx.far.test", "far.test"
POLICY = "version: STSv1\nmode: {mode}\nmx: mx.far.test\nmax_age: {age}\n"


class MemoryHttps:
    """Answers with what it is given."""

    def __init__(self) -> None:
        self.answer: HttpsAnswer | None = None
        self.asked: list[str] = []
        self.tls = False  # why there is no answer
        self.held: Deferred[None] | None = None

    async def get(self, url: str, *, max_octets: int) -> HttpsAnswer:
        self.asked.append(url)
        if self.held is not None:
            await self.held
        if self.answer is None:
            raise HttpsFailed("its host does not answer", tls=self.tls)
        return self.answer


def spki(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


class PolicyCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.threads = InlineThreads()
        self.clock = self.threads.clock
        self.clock.rightNow = 1_800_000_000.0
        self.https = MemoryHttps()
        self.records = PeerRecords(Path(self.mktemp()))
        self.addCleanup(self.records.close)
        self.resolver = MemoryResolver(
            {("far.test", "NS"): ["a."], (HOST, "A"): ["192.0.2.1"]},
            secure=[HOST, f"_25._tcp.{HOST}"],
        )
        self.noted: list[tuple[HostTls, NotTrusted | None]] = []
        self.failures: list[PolicyFailed] = []
        self.settings = RelayTls()
        self.single: list[RelayTlsPolicy] = []

    def sts_cache(self) -> StsCache:
        return StsCache(
            self.records,
            self.resolver,
            self.https,  # type: ignore[arg-type]  # of it only `get` is used
            self.threads.peers,
            self.clock.seconds,
            self.failures.append,
        )

    def policies(self) -> Policies:
        sts = self.sts_cache()
        return Policies(
            self.settings,
            self.single,
            resolver=self.resolver,
            sts=sts,
            context=unverified_context(),
            note=lambda host, failure, *_: self.noted.append((host, failure)),
        )

    async def _ask(
        self, secure: bool, require_tls: bool, tls_optional: bool = False
    ) -> PeerTls:
        policy = await self.policies().for_domain(
            DOMAIN, require_tls=require_tls, tls_optional=tls_optional
        )
        return await policy.for_host(HOST, secure=secure)

    def for_host(
        self,
        *,
        secure: bool = False,
        require_tls: bool = False,
        tls_optional: bool = False,
    ) -> PeerTls:
        asking = Deferred.fromCoroutine(self._ask(secure, require_tls, tls_optional))
        self.clock.advance(0)
        found: PeerTls = self.successResultOf(asking)
        return found

    def refused(self, *, secure: bool = False, require_tls: bool = False) -> str:
        """Why a host must not have the mail: the result type that is counted."""
        asking = Deferred.fromCoroutine(self._ask(secure, require_tls))
        self.clock.advance(0)
        failure = self.failureResultOf(asking, NotTrusted).value
        [(host, noted)] = self.noted
        self.assertEqual((host.domain, host.host), (DOMAIN, HOST))
        self.assertIs(noted, failure)
        return str(failure.result_type)

    def judged(self, tls: PeerTls, issued: Issued) -> str:
        """What is said of a certificate, or why it is refused."""
        try:
            judged = tls.judge(handshake(issued))
        except NotTrusted as failure:
            return f"refused: {failure.result_type}"
        self.found = judged.failure
        return judged.words.partition(", ")[2]

    def trust(self, authority: Issued) -> RelayTlsPolicy:
        file = Path(self.mktemp())
        file.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
        return RelayTlsPolicy(domains=[DOMAIN], mode="verify", ca_file=file)


class CertificateTests(PolicyCase):
    def test_opportunistic_goes_on_and_says_what_is_wrong(self) -> None:
        tls = self.for_host()
        self.assertEqual((tls.tls, tls.source), ("may", "opportunistic"))
        self.assertEqual(
            self.judged(tls, issue(HOST)),
            "not verified: the certificate is self-signed",
        )

    def test_verified(self) -> None:
        authority = issue(authority=True, common_name="ca")
        other = issue(authority=True, common_name="other")
        self.single = [self.trust(authority)]
        tls = self.for_host()
        self.assertEqual((tls.tls, tls.source), ("must", "setting"))
        for issued, said in (
            (issue(HOST, by=authority), "verified by setting"),
            (issue("*.far.test", by=authority), "verified by setting"),
            (issue("else.test", by=authority), "refused: certificate-host-mismatch"),
            (issue(HOST, by=authority, days=-1), "refused: certificate-expired"),
            (issue(HOST, by=other), "refused: certificate-not-trusted"),
            (issue(HOST), "refused: certificate-not-trusted"),
        ):
            self.assertEqual(self.judged(tls, issued), said)

    def test_settings_for_single_domains(self) -> None:
        for domains, mode, need in (
            (["far.test"], "never", "never"),
            (["*.test"], "require", "must"),
            (["*.far.test"], "require", "may"),
        ):
            self.single = [RelayTlsPolicy(domains=domains, mode=mode)]  # type: ignore[arg-type]
            self.assertEqual(self.for_host().tls, need, domains)
        self.single = []
        self.settings = RelayTls(mode="require")
        self.assertEqual(self.for_host().tls, "must")


class DaneTests(PolicyCase):
    def tlsa(self, *records: str) -> None:
        self.resolver.zones[f"_25._tcp.{HOST}", "TLSA"] = list(records)

    def said(self, issued: Issued) -> str:
        return self.judged(self.for_host(secure=True), issued)

    def test_certificate_itself(self) -> None:
        good, other = issue("else.test", days=-1), issue(HOST)
        for record in (
            f"3 1 1 {hashlib.sha256(spki(good.certificate)).hexdigest()}",
            f"3 1 2 {hashlib.sha512(spki(good.certificate)).hexdigest()}",
            f"3 0 1 {hashlib.sha256(der(good.certificate)).hexdigest()}",
            f"3 1 0 {spki(good.certificate).hex()}",
        ):
            self.tlsa(record)
            # Neither names nor times count: RFC 7672 section 3.1.1.
            self.assertEqual(self.said(good), "verified by DANE")
            self.assertEqual(self.said(other), "refused: certificate-not-trusted")

    def test_authority(self) -> None:
        root = issue(authority=True, common_name="root")
        middle = issue(by=root, authority=True, common_name="middle")
        good = issue(HOST, by=middle)
        for record in (
            f"2 0 1 {hashlib.sha256(der(middle.certificate)).hexdigest()}",
            f"2 1 1 {hashlib.sha256(spki(root.certificate)).hexdigest()}",
            f"2 0 0 {der(root.certificate).hex()}",
        ):
            self.tlsa(record)
            self.assertEqual(self.said(good), "verified by DANE", record)
            for bad, why in (
                (issue("else.test", by=middle), "certificate-host-mismatch"),
                (issue(HOST, by=middle, days=-1), "certificate-expired"),
                (issue(HOST), "certificate-not-trusted"),
            ):
                self.assertEqual(self.said(bad), f"refused: {why}")

    def test_one_of_several_is_enough(self) -> None:
        good = issue(HOST)
        digest = hashlib.sha256(spki(good.certificate)).hexdigest()
        self.tlsa(f"3 1 1 {'00' * 32}", f"3 1 1 {digest}")
        self.assertEqual(self.said(good), "verified by DANE")

    def test_records_that_cannot_be_used(self) -> None:
        """TLS all the same, of any certificate: RFC 7672 section 2.2."""
        self.tlsa(f"1 1 1 {'00' * 32}", f"3 1 9 {'00' * 32}")
        tls = self.for_host(secure=True)
        self.assertEqual((tls.tls, tls.source), ("must", "DANE"))
        self.assertIn("not verified", self.judged(tls, issue(HOST)))

    def test_only_what_dnssec_vouches_for(self) -> None:
        self.tlsa(f"3 1 1 {'00' * 32}")
        self.assertEqual(self.for_host(secure=False).source, "opportunistic")

    def test_records_that_are_held_back(self) -> None:
        self.resolver.failing.add(f"_25._tcp.{HOST}")
        self.assertEqual(self.refused(secure=True), "dnssec-invalid")

    def test_records_that_cannot_be_used_undo_no_other_demand(self) -> None:
        self.tlsa(f"1 1 1 {'00' * 32}")
        self.settings = RelayTls(mode="verify")
        for require_tls, source in ((False, "setting"), (True, "REQUIRETLS")):
            tls = self.for_host(secure=True, require_tls=require_tls)
            self.assertEqual((tls.tls, tls.source), ("must", source))
            said = self.judged(tls, issue(HOST))
            self.assertEqual(said, "refused: certificate-not-trusted")

    def test_alias_of_a_host(self) -> None:
        """RFC 7672 section 3.2.2: the name where the records stand counts as well."""
        target = "mx7.provider.test"
        self.resolver = MemoryResolver(
            {
                (HOST, "CNAME"): [f"{target}."],
                (target, "A"): ["192.0.2.1"],
            },
            secure=[HOST, target, f"_25._tcp.{target}"],
        )
        root = issue(authority=True, common_name="root")
        digest = hashlib.sha256(der(root.certificate)).hexdigest()
        self.resolver.zones[f"_25._tcp.{target}", "TLSA"] = [f"2 0 1 {digest}"]
        for name in (target, HOST, DOMAIN):
            said = self.said(issue(name, by=root))
            self.assertEqual(said, "verified by DANE", name)
        said = self.said(issue("else.test", by=root))
        self.assertEqual(said, "refused: certificate-host-mismatch")


class StsTests(PolicyCase):
    def publish(
        self, mode: str = "enforce", id: str = "1", mx: str = "", age: int = 1000
    ) -> None:
        text = POLICY.format(mode=mode, age=age).replace("mx.far.test", mx or HOST)
        self.resolver.zones["_mta-sts.far.test", "TXT"] = [f'"v=STSv1; id={id};"']
        self.https.answer = HttpsAnswer(200, "text/plain", text.encode())

    def test_enforced(self) -> None:
        self.publish()
        tls = self.for_host()
        self.assertEqual((tls.tls, tls.source), ("must", "MTA-STS"))
        self.assertEqual(
            self.https.asked, ["https://mta-sts.far.test/.well-known/mta-sts.txt"]
        )
        bad = self.judged(tls, issue(HOST))
        self.assertEqual(bad, "refused: certificate-not-trusted")

    def test_host_that_is_not_named(self) -> None:
        self.publish(mx="mx.else.test")
        self.assertEqual(self.refused(), "validation-failure")

    def test_testing_changes_nothing_but_is_counted(self) -> None:
        """RFC 8461 section 5: what would have failed is reported."""
        for mx, found in (
            ("mx.else.test", "validation-failure"),
            (HOST, "certificate-not-trusted"),
        ):
            self.publish("testing", mx=mx, id=mx.replace(".", ""))
            tls = self.for_host()
            self.assertEqual(tls.tls, "may")
            self.assertIn("not verified: ", self.judged(tls, issue(HOST)))
            assert self.found is not None
            self.assertEqual(self.found.result_type, found)

    def test_without_a_policy_a_bad_certificate_is_no_failure(self) -> None:
        self.judged(self.for_host(), issue(HOST))
        self.assertIsNone(self.found)

    def test_records_of_dane_that_cannot_be_used_undo_no_policy(self) -> None:
        """RFC 8461 section 2: DANE comes first only where it can be used."""
        self.publish()
        self.resolver.zones[f"_25._tcp.{HOST}", "TLSA"] = [f"1 1 1 {'00' * 32}"]
        tls = self.for_host(secure=True)
        self.assertEqual((tls.tls, tls.source), ("must", "MTA-STS"))
        bad = self.judged(tls, issue(HOST))
        self.assertEqual(bad, "refused: certificate-not-trusted")

    def test_kept_until_the_id_changes(self) -> None:
        self.publish()
        self.for_host()
        self.for_host()
        self.assertEqual(len(self.https.asked), 1)
        self.publish("none", id="2")
        self.assertEqual(self.for_host().tls, "may")
        self.assertEqual(len(self.https.asked), 2)

    def test_outlives_its_record_and_its_web_server(self) -> None:
        self.publish()
        self.for_host()
        self.https.answer = None
        self.resolver.zones["_mta-sts.far.test", "TXT"] = ['"v=STSv1; id=2;"']
        self.assertEqual(self.for_host().source, "MTA-STS")
        del self.resolver.zones["_mta-sts.far.test", "TXT"]
        self.assertEqual(self.for_host().source, "MTA-STS")
        self.clock.advance(1001)
        self.assertEqual(self.for_host().source, "opportunistic")

    def test_first_one_that_cannot_be_had(self) -> None:
        """RFC 8460 section 4.3.2: reports say why."""
        self.publish()
        for answer, tls, result_type in (
            (HttpsAnswer(404, "text/plain", b""), False, "sts-policy-fetch-error"),
            (None, False, "sts-policy-fetch-error"),
            (None, True, "sts-webpki-invalid"),
            (HttpsAnswer(200, "text/html", b"x"), False, "sts-policy-invalid"),
            (HttpsAnswer(200, "text/plain", b"x"), False, "sts-policy-invalid"),
        ):
            self.https.answer, self.https.tls = answer, tls
            self.assertEqual(self.for_host().source, "opportunistic")
            self.assertEqual(self.failures, [PolicyFailed(DOMAIN, result_type)])
            self.failures.clear()

    def policy(self, cache: StsCache) -> "Deferred[StsPolicy | None]":
        return Deferred.fromCoroutine(cache.policy(DOMAIN))

    def test_two_that_ask_meanwhile(self) -> None:
        self.publish()
        cache, self.https.held = self.sts_cache(), Deferred()
        asking = [self.policy(cache), self.policy(cache)]
        self.https.held.callback(None)
        for one in asking:
            found = self.successResultOf(one)
            assert found is not None
            self.assertEqual(found.mode, "enforce")
        self.assertEqual(len(self.https.asked), 1)

    def test_one_that_cannot_be_kept_is_not_taken_for_none(self) -> None:
        """Who asks meanwhile must not send in clear for a disk that is full."""
        self.publish()
        cache, self.https.held = self.sts_cache(), Deferred()
        asking = [self.policy(cache), self.policy(cache)]

        def full(domain: str, kept: object) -> None:
            raise OSError("full")

        self.records.keep = full  # type: ignore[method-assign]
        self.https.held.callback(None)
        for one in asking:
            self.failureResultOf(one, OSError)

    def renew(self) -> None:
        renewing = Deferred.fromCoroutine(self.sts_cache().renew())
        self.successResultOf(renewing)

    def test_renewed_each_day(self) -> None:
        """RFC 8461 section 10.2: long before its end, whether there is mail or not."""
        self.publish(age=3 * 86400)
        self.for_host()
        self.clock.advance(86000)
        self.renew()
        self.assertEqual(len(self.https.asked), 1)
        self.clock.advance(500)
        self.renew()
        self.assertEqual(len(self.https.asked), 2)
        # Its three days have begun anew.
        self.https.answer = None
        self.clock.advance(3 * 86400 - 10)
        self.renew()
        self.assertEqual(self.for_host().source, "MTA-STS")
        self.clock.advance(20)
        self.assertEqual(self.for_host().source, "opportunistic")
        self.renew()
        self.assertIsNone(self.records.policy(DOMAIN))

    def test_switched_off(self) -> None:
        self.publish()
        self.settings = RelayTls(mta_sts=False)
        self.assertEqual(self.for_host().source, "opportunistic")

    def test_dane_comes_first(self) -> None:
        self.publish()
        self.resolver.zones[f"_25._tcp.{HOST}", "TLSA"] = [f"3 1 1 {'00' * 32}"]
        self.assertEqual(self.for_host(secure=True).source, "DANE")


class RequireTlsTests(PolicyCase):
    def test_needs_somebody_who_vouches_for_the_host(self) -> None:
        async def ask() -> PeerTls:
            policy = await self.policies().for_domain(DOMAIN, require_tls=True)
            return await policy.for_host(HOST, secure=False)

        self.failureResultOf(Deferred.fromCoroutine(ask()), NotTrusted)
        tls = self.for_host(secure=True, require_tls=True)
        self.assertEqual((tls.tls, tls.source), ("must", "REQUIRETLS"))
        bad = self.judged(tls, issue(HOST))
        self.assertEqual(bad, "refused: certificate-not-trusted")


class TlsOptionalTests(PolicyCase):
    """RFC 8689 section 4.2.2: what the recipient's side demands is left aside."""

    def setUp(self) -> None:
        super().setUp()
        self.resolver.zones[f"_25._tcp.{HOST}", "TLSA"] = [f"3 1 1 {'00' * 32}"]
        self.resolver.zones["_mta-sts.far.test", "TXT"] = ['"v=STSv1; id=1;"']
        text = POLICY.format(mode="enforce", age=1000).replace("mx.", "mx7.")
        self.https.answer = HttpsAnswer(200, "text/plain", text.encode())

    def test_no_policy_of_the_domain_counts(self) -> None:
        tls = self.for_host(secure=True, tls_optional=True)
        self.assertEqual((tls.tls, tls.source), ("may", "opportunistic"))
        self.assertIn("not verified", self.judged(tls, issue(HOST)))
        # RFC 8460 section 3: such a session is in no report.
        tls.note(NotTrusted("x"))
        self.assertEqual(self.noted, [])

    def test_settings_here_count(self) -> None:
        self.settings = RelayTls(mode="require")
        self.assertEqual(self.for_host(tls_optional=True).tls, "must")
        self.single = [RelayTlsPolicy(domains=[DOMAIN], mode="verify")]
        tls = self.for_host(secure=True, tls_optional=True)
        bad = self.judged(tls, issue(HOST))
        self.assertEqual(bad, "refused: certificate-not-trusted")


class NoteTests(PolicyCase):
    def test_what_reports_are_made_of(self) -> None:
        tls = self.for_host()
        tls.note(None)
        tls.note(NotTrusted("x", "certificate-expired"))
        self.assertEqual(
            [f and f.result_type for _, f in self.noted], [None, "certificate-expired"]
        )
        self.assertEqual({host.domain for host, _ in self.noted}, {DOMAIN})
