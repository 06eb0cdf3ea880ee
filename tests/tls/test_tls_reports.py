"""Daily reports of TLS (RFC 8460)."""

import gzip
import json
from email import message_from_bytes, policy
from pathlib import Path

from OpenSSL.crypto import X509Store
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.tls.mta_sts import StsPolicy
from mailsrv.tls.peer import unverified_context
from mailsrv.tls.peer_certificate import NotTrusted
from mailsrv.tls.peer_policies import HostTls
from mailsrv.tls.peer_records import PeerRecords
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


class ReportingTests(SynchronousTestCase):
    def setUp(self) -> None:
        threads = InlineThreads()
        self.clock = threads.clock
        self.clock.rightNow = 20_000.0 * DAY_S + 1000
        self.records = PeerRecords(Path(self.mktemp()))
        self.addCleanup(self.records.close)
        self.sent: list[tuple[bytes, list[str]]] = []
        resolver = MemoryResolver(
            {
                ("_smtp._tls.far.test", "TXT"): [
                    '"v=TLSRPTv1; rua=mailto:tls@far.test"'
                ],
                ("near.test", "A"): ["192.0.2.1"],
            }
        )
        self.reporting = TlsReporting(
            self.records,
            resolver,
            None,  # type: ignore[arg-type]  # nobody wants it by HTTPS
            threads.peers,
            hostname="mail.example.test",
            sends=True,
            submit=self.submit,
            reactor=self.clock,
            now=self.clock.seconds,
        )

    async def submit(
        self, octets: bytes, *, reverse_path: str, forward_paths: list[str]
    ) -> str:
        self.assertEqual(reverse_path, "")
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

    def test_switched_off(self) -> None:
        self.reporting.sends = False
        self.note("far.test")
        self.clock.advance(DAY_S)
        self.report()
        self.assertEqual(self.sent, [])
