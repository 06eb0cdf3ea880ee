"""A day's report on TLS with one domain (RFC 8460). Pure."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from mailsrv.mime.date import date_time
from mailsrv.tls.mta_sts import StsPolicy
from mailsrv.tls.peer_certificate import NotTrusted
from mailsrv.tls.peer_records import Sessions

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_ADDRESSES = 5  # of one domain that get its report


def parse_record(texts: Sequence[bytes]) -> tuple[str, ...]:
    """Return where a domain wants its reports (section 3): mailto: and https: URIs."""
    records = [text for text in texts if text.startswith(b"v=TLSRPTv1;")]
    if len(records) != 1:
        return ()
    for field in records[0].decode("ascii", "replace").split(";")[1:]:
        name, _, value = field.strip().partition("=")
        if name.strip() == "rua":
            uris = [uri.strip() for uri in value.split(",")][:MAX_ADDRESSES]
            return tuple(u for u in uris if u.startswith(("mailto:", "https:")))
    return ()


def policy_of(
    domain: str, host: str, sts: StsPolicy | None, tlsa: Sequence[str]
) -> dict[str, Any]:
    """Describe the policy of a session (section 4.4). Any: values of JSON."""
    policy: dict[str, Any] = {"policy-domain": domain}
    if tlsa:
        lines = list(tlsa)
        return {
            "policy-type": "tlsa",
            "policy-string": lines,
            **policy,
            "mx-host": host,
        }
    if sts is not None:
        lines, hosts = list(sts.lines), list(sts.mx)
        return {
            "policy-type": "sts",
            "policy-string": lines,
            **policy,
            "mx-host": hosts,
        }
    return {"policy-type": "no-policy-found", **policy}


def failure_of(
    failure: NotTrusted, host: str, sending_ip: str, receiving_ip: str
) -> dict[str, str]:
    """Describe a failure (section 4.4); without addresses if nobody was asked."""
    details = {
        "result-type": failure.result_type,
        "sending-mta-ip": sending_ip,
        "receiving-mx-hostname": host,
        "receiving-ip": receiving_ip,
    }
    return {name: value for name, value in details.items() if value}


def mailbox_of(uri: str) -> str | None:
    """Return the address in a mailto: URI (RFC 6068); None: there is none."""
    to = unquote(uri.removeprefix("mailto:").partition("?")[0])
    local, _, domain = to.rpartition("@")
    plain = to.isascii() and to.isprintable() and not set(to) & set('<> "')
    return to if plain and local and domain else None


@dataclass(frozen=True, slots=True)
class TlsReport:
    """One report, ready to be sent."""

    domain: str
    day: int
    hostname: str
    sessions: Sequence[Sessions]

    @property
    def id(self) -> str:
        return f"{self._date(0):%Y%m%d}.{self.domain}@{self.hostname}"

    def _date(self, days: int) -> datetime:
        return _EPOCH + timedelta(days=self.day + days)

    def compressed(self) -> bytes:
        """Return the report itself, as ``application/tlsrpt+gzip``."""
        policies: dict[str, dict[str, Any]] = {}
        for one in self.sessions:
            found = policies.setdefault(
                one.policy,
                {
                    "policy": json.loads(one.policy),
                    "summary": {
                        "total-successful-session-count": 0,
                        "total-failure-session-count": 0,
                    },
                    "failure-details": [],
                },
            )
            kind = "failure" if one.failure else "successful"
            found["summary"][f"total-{kind}-session-count"] += one.count
            if one.failure:
                details: Mapping[str, str] = json.loads(one.failure)
                counted = {**details, "failed-session-count": one.count}
                found["failure-details"].append(counted)
        report = {
            "organization-name": self.hostname,
            "date-range": {
                "start-datetime": f"{self._date(0):%Y-%m-%dT00:00:00Z}",
                "end-datetime": f"{self._date(0):%Y-%m-%dT23:59:59Z}",
            },
            "contact-info": f"postmaster@{self.hostname}",
            "report-id": self.id,
            "policies": list(policies.values()),
        }
        return gzip.compress(json.dumps(report).encode(), mtime=0)

    def mail(self, sender: str, to: str, now_utc: float) -> bytes:
        """Return the message that carries the report (section 5.3)."""
        boundary = f"=_{self.day}.{self.hostname}"
        start = int(self._date(0).timestamp())
        end = int(self._date(1).timestamp()) - 1
        name = f"{self.hostname}!{self.domain}!{start}!{end}.json.gz"
        attached = base64.encodebytes(self.compressed()).decode()
        return f"""\
Date: {date_time(now_utc)}
From: <{sender}>
To: <{to}>
Subject: Report Domain: {self.domain} Submitter: {self.hostname}
 Report-ID: <{self.id}>
Message-ID: <{self.id}>
TLS-Report-Domain: {self.domain}
TLS-Report-Submitter: {self.hostname}
Auto-Submitted: auto-generated
TLS-Required: No
MIME-Version: 1.0
Content-Type: multipart/report; report-type="tlsrpt"; boundary="{boundary}"

--{boundary}
Content-Type: text/plain; charset=us-ascii

How TLS connections from {self.hostname} to the mail servers of {self.domain}
went on {self._date(0):%Y-%m-%d} (RFC 8460). This is for programs to read.

--{boundary}
Content-Type: application/tlsrpt+gzip
Content-Transfer-Encoding: base64
Content-Disposition: attachment; filename="{name}"

{attached}
--{boundary}--
""".encode()
