"""Daily reports of TLS (RFC 8460)."""

import gzip
import json
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

from OpenSSL.crypto import X509Store
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.tls.https import HttpsAnswer, HttpsFailed
from mailsrv.tls.mta_sts import StsPolicy
from mailsrv.tls.peer import unverified_context
from mailsrv.tls.peer_certificate import NotTrusted
from mailsrv.tls.peer_policies import HostTls
from mailsrv.tls.peer_records import PeerRecords
from mailsrv.tls.sts_cache import PolicyFailed
from mailsrv.tls.tls_report import parse_record
from mailsrv.tls.tls_reporting import TlsReporting
from tests.inline_threads import InlineThreads

DAY_S = 86400
STS = StsPolicy("enforce", 1000, ("mx.far.test",))


class RecordTests(SynchronousTestCase):
    def test_records(self) -> None:
        for texts, uris in (
            ([b"v=TLSRPTv1; rua=mailto:a@far.test"], ("mailto:a@far.test",)),
            (
                [b"v=TLSRPTv1;rua=https://r.test/v1,mailto:a@far.test;"],
                ("https://r.test/v1", "mailto:a@far.test"),
            ),
            ([b"v=TLSRPTv1; rua=ftp://x"], ()),
            ([b"v=TLSRPTv1; rua=mailto:a@b.test", b"v=TLSRPTv1; rua=mailto:c@d"], ()),
            ([b"v=TLSRPTv2; rua=mailto:a@b.test"], ()),
            ([b"v=TLSRPTv1;\xff"], ()),
        ):
            self.assertEqual(parse_record(texts), uris)


class MemoryHttps:
    """Takes reports."""

    def __init__(self) -> None:
        self.works = True
        self.posted: list[str] = []

    async def post(self, url: str, media_type: str, body: object) -> HttpsAnswer:
        self.posted.append(url)
        if not self.works:
            raise HttpsFailed("its host does not answer")
        return HttpsAnswer(200, "", b"")


class ReportingTests(SynchronousTestCase):
    def setUp(self) -> None:
        threads = InlineThreads()
        self.clock = threads.clock
        self.clock.rightNow = 20_000.0 * DAY_S + 1000
        self.records = PeerRecords(Path(self.mktemp()))
        self.addCleanup(self.records.close)
        self.sent: list[tuple[bytes, list[str]]] = []
        self.taken: set[str] = set()
        self.full = False
        self.https = MemoryHttps()
        self.resolver = MemoryResolver(
            {
                ("_smtp._tls.far.test", "TXT"): [
                    '"v=TLSRPTv1; rua=mailto:tls@far.test"'
                ],
                ("near.test", "A"): ["192.0.2.1"],
            }
        )
        self.reporting = TlsReporting(
            self.records,
            self.resolver,
            self.https,  # type: ignore[arg-type]  # of it only `post` is used
            threads.peers,
            hostname="mail.example.test",
            sends=True,
            submit=self.submit,
            reactor=self.clock,
            now=self.clock.seconds,
        )

    async def submit(
        self,
        octets: bytes,
        *,
        reverse_path: str,
        forward_paths: list[str],
        once: str,
    ) -> str:
        self.assertEqual(reverse_path, "")
        if self.full:
            raise OSError("full")
        if once in self.taken:
            return ""
        self.taken.add(once)
        self.sent.append((octets, forward_paths))
        return "id"

    def note(self, domain: str, failure: NotTrusted | None = None) -> None:
        host = HostTls(
            domain,
            "mx.far.test",
            "must",
            "MTA-STS",
            unverified_context(),
            X509Store(),
            (),
            lambda *_: None,
            sts=STS,
        )
        self.reporting.note(host, failure, "192.0.2.9", "192.0.2.1")

    def report(self) -> None:
        for work in (self.reporting.flush(), self.reporting.report()):
            self.successResultOf(Deferred.fromCoroutine(work))

    def test_a_day(self) -> None:
        for _ in range(3):
            self.note("far.test")
        expired = NotTrusted("it has expired", "certificate-expired")
        self.note("far.test", expired)
        self.note("far.test", expired)
        self.note("near.test")  # which wants no reports
        self.report()
        self.assertEqual(self.sent, [])  # the day is not over
        self.clock.advance(DAY_S)
        self.report()
        self.report()
        [(octets, to)] = self.sent
        self.assertEqual(to, ["tls@far.test"])
        message = message_from_bytes(octets, policy=policy.default)
        self.assertEqual(message["TLS-Report-Domain"], "far.test")
        self.assertEqual(message["TLS-Report-Submitter"], "mail.example.test")
        self.assertEqual(message.get_content_type(), "multipart/report")
        # RFC 8460 section 5.3.1: it arrives whatever is wrong with the domain's TLS.
        self.assertEqual(message["TLS-Required"], "No")
        _, attached = message.iter_parts()
        self.assertEqual(attached.get_content_type(), "application/tlsrpt+gzip")
        packed = attached.get_payload(decode=True)
        assert isinstance(packed, bytes)
        report = json.loads(gzip.decompress(packed))
        self.assertEqual(
            report["date-range"],
            {
                "start-datetime": "2024-10-04T00:00:00Z",
                "end-datetime": "2024-10-04T23:59:59Z",
            },
        )
        [found] = report["policies"]
        self.assertEqual(found["policy"]["policy-type"], "sts")
        self.assertEqual(found["policy"]["policy-domain"], "far.test")
        self.assertEqual(
            found["summary"],
            {"total-successful-session-count": 3, "total-failure-session-count": 2},
        )
        self.assertEqual(
            found["failure-details"],
            [
                {
                    "result-type": "certificate-expired",
                    "sending-mta-ip": "192.0.2.9",
                    "receiving-mx-hostname": "mx.far.test",
                    "receiving-ip": "192.0.2.1",
                    "failed-session-count": 2,
                }
            ],
        )

    def wants(self, rua: str) -> None:
        self.resolver.zones["_smtp._tls.far.test", "TXT"] = [f'"v=TLSRPTv1; rua={rua}"']

    def after_a_day(self, *, advance: float = DAY_S) -> None:
        self.note("far.test")
        self.clock.advance(advance)
        self.report()

    def found(self) -> dict[str, Any]:
        """The one report that was sent."""
        [(octets, _)] = self.sent
        _, attached = message_from_bytes(octets, policy=policy.default).iter_parts()
        packed = attached.get_payload(decode=True)
        assert isinstance(packed, bytes)
        read: dict[str, Any] = json.loads(gzip.decompress(packed))
        return read

    def test_name_servers_that_do_not_answer(self) -> None:
        """The day is not lost: they are asked again."""
        self.resolver.failing.add("_smtp._tls.far.test")
        self.after_a_day()
        self.assertEqual(self.sent, [])
        self.resolver.failing.clear()
        self.report()
        self.assertEqual(len(self.sent), 1)

    def test_report_that_cannot_be_sent_now(self) -> None:
        """It goes later, and those of other domains go now."""
        self.wants("https://r.test/v1,mailto:tls@far.test")
        self.resolver.zones["_smtp._tls.near.test", "TXT"] = [
            '"v=TLSRPTv1; rua=https://near.test/"'
        ]
        self.full, self.https.works = True, False
        self.note("near.test")
        self.after_a_day()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertEqual(
            sorted(self.https.posted), ["https://near.test/", "https://r.test/v1"]
        )
        self.https.works = True
        self.report()
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.full = False
        self.report()
        self.report()
        # Each place has got it once.
        self.assertEqual([to for _, to in self.sent], [["tls@far.test"]])
        self.assertEqual(len(self.https.posted), 4)

    def test_what_nobody_takes_for_days(self) -> None:
        self.wants("https://r.test/v1")
        self.https.works = False
        self.after_a_day()
        self.clock.advance(2 * DAY_S)
        self.report()
        self.assertEqual(len(self.https.posted), 1)

    def test_odd_places(self) -> None:
        """What strangers write into their DNS."""
        self.wants("mailto:a%2Bb@far.test?x=y,mailto:,mailto:a%0Ab@far.test,mailto:c")
        self.after_a_day()
        self.assertEqual([to for _, to in self.sent], [["a+b@far.test"]])

    def test_counts_that_cannot_be_written(self) -> None:
        count = self.records.count

        def full(sessions: object) -> None:
            raise OSError("full")

        self.records.count = full  # type: ignore[method-assign]
        self.note("far.test")
        self.note("far.test")
        flushing = Deferred.fromCoroutine(self.reporting.flush())
        self.failureResultOf(flushing, OSError)
        self.records.count = count  # type: ignore[method-assign]
        self.after_a_day()
        [found] = self.found()["policies"]
        self.assertEqual(found["summary"]["total-successful-session-count"], 3)

    def test_policy_that_cannot_be_had(self) -> None:
        self.reporting.note_policy(PolicyFailed("far.test", "sts-webpki-invalid"))
        self.clock.advance(DAY_S)
        self.report()
        [found] = self.found()["policies"]
        self.assertEqual(
            found,
            {
                "policy": {
                    "policy-type": "sts",
                    "policy-string": [],
                    "policy-domain": "far.test",
                },
                "summary": {
                    "total-successful-session-count": 0,
                    "total-failure-session-count": 1,
                },
                "failure-details": [
                    {
                        "result-type": "sts-webpki-invalid",
                        "failed-session-count": 1,
                    }
                ],
            },
        )

    def test_switched_off(self) -> None:
        self.reporting.sends = False
        self.note("far.test")
        self.clock.advance(DAY_S)
        self.report()
        self.assertEqual(self.sent, [])
