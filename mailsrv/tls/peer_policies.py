"""What each domain demands of the way to its servers: settings, MTA-STS and DANE.

DANE comes first (RFC 8461 section 2), then MTA-STS, then what the settings want of all.
REQUIRETLS (RFC 8689 section 4.2.1) wants a certificate that is verified, of a host
that DNSSEC or MTA-STS vouches for.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from OpenSSL import SSL
from OpenSSL.crypto import X509Store
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator

from mailsrv.dns.resolver import IResolver
from mailsrv.settings import RelayTls, RelayTlsPolicy
from mailsrv.tls import dane
from mailsrv.tls.dane import TlsaRecords
from mailsrv.tls.mta_sts import StsPolicy
from mailsrv.tls.peer import (
    Creator,
    DomainPolicy,
    Judged,
    Need,
    PeerTls,
    version_and_cipher,
)
from mailsrv.tls.peer_certificate import (
    NotTrusted,
    authorities_of,
    check_chain,
    check_names,
    shown,
    system_authorities,
)
from mailsrv.tls.sts_cache import StsCache

SMTP_PORT = 25

Note = Callable[["HostTls", NotTrusted | None, str, str], None]
"""Is told how sessions went: the failure or None, our address and the peer's."""


@dataclass(frozen=True, slots=True)
class HostTls:
    """TLS with one host (see `peer.PeerTls`)."""

    domain: str
    host: str
    tls: Need
    source: str
    context: SSL.Context = field(repr=False)
    authorities: X509Store = field(repr=False)
    names: tuple[str, ...]  # of which the certificate needs one
    note_: Note = field(repr=False)
    verifies: bool = False  # else the certificate is looked at, and said to be bad
    tlsa: TlsaRecords | None = None
    sts: StsPolicy | None = None

    def creator(self, host: str) -> IOpenSSLClientConnectionCreator:
        return Creator(self.context, host if self.tlsa is None else self.tlsa.base)

    def judge(self, connection: SSL.Connection) -> Judged:
        said = version_and_cipher(connection)
        try:
            self._check(connection)
        except NotTrusted as failure:
            if self.verifies:
                raise
            # RFC 8461 section 5: what "testing" would refuse is reported.
            tested = self.sts is not None and self.sts.mode == "testing"
            words = f"{said}, not verified: {failure.text}"
            return Judged(words, failure if tested else None)
        return Judged(f"{said}, verified" + (f" by {self.source}" * self.verifies))

    def _check(self, connection: SSL.Connection) -> None:
        if self.sts is not None and self.sts.mode == "testing":
            check_named(self.host, self.sts)
        chain = shown(connection)
        if self.tlsa is not None and self.tlsa.usable:
            dane.check(chain, self.tlsa.usable, self.names)
            return
        check_chain(chain, self.authorities)
        check_names(chain[0], self.names)

    def note(
        self,
        failure: NotTrusted | None,
        *,
        sending_ip: str = "",
        receiving_ip: str = "",
    ) -> None:
        self.note_(self, failure, sending_ip, receiving_ip)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Count the failure that keeps us from connecting at all."""
        try:
            yield
        except NotTrusted as failure:
            self.note(failure)
            raise


def _not_noted(
    host: HostTls, failure: NotTrusted | None, sending_ip: str, receiving_ip: str
) -> None:
    """Nobody wants to know."""


def check_named(host: str, sts: StsPolicy) -> None:
    """Check that a policy names the MX host (RFC 8461 4.1). Raises `NotTrusted`."""
    if not sts.allows(host):
        text = f"{host} is not a mail server that the domain's policy names"
        raise NotTrusted(text)


@dataclass(frozen=True, slots=True)
class _Of:
    """What one domain demands (see `peer.DomainPolicy`)."""

    policies: "Policies"
    domain: str
    sts: StsPolicy | None
    setting: RelayTlsPolicy | None
    require_tls: bool
    tls_optional: bool  # RFC 8689 section 4.2.2: what the domain demands is left aside

    @property
    def text(self) -> str:
        if self.setting is not None:
            return f"{self.setting.mode} by setting"
        return "opportunistic" if self.sts is None else f"MTA-STS {self.sts.mode}"

    @property
    def _enforces(self) -> bool:
        return self.sts is not None and self.sts.mode == "enforce"

    async def for_host(self, host: str, *, secure: bool) -> PeerTls:
        policies, setting = self.policies, self.setting
        mode = policies.settings.mode if setting is None else setting.mode
        if setting is not None and not self.require_tls:
            return self._by_setting(host, setting)
        by_sts = self._host(host, "must", "MTA-STS", (host,), verifies=True)
        if self._enforces and self.sts is not None:
            with by_sts.noted():
                check_named(host, self.sts)
        by_dane = policies.settings.dane and secure and not self.tls_optional
        records = await self._tlsa(host) if by_dane else None
        if records is not None and records.usable:
            # RFC 7672 section 3.2.2: of these names DANE-TA wants one.
            names = tuple(dict.fromkeys((records.base, host, self.domain)))
            return self._host(host, "must", "DANE", names, verifies=True, tlsa=records)
        if self._enforces:
            return by_sts
        if self.require_tls:
            if not secure and not (self.sts and self.sts.allows(host)):
                text = f"nothing vouches for {host}, as REQUIRETLS wants"
                raise NotTrusted(text, "validation-failure")
            return self._host(host, "must", "REQUIRETLS", (host,), verifies=True)
        if mode == "verify":
            return self._host(host, "must", "setting", (host,), verifies=True)
        if records is not None:
            # RFC 7672 section 2.2: with none that can be used, TLS all the same.
            return self._host(host, "must", "DANE", (host,), tlsa=records)
        need: Need = "must" if mode == "require" else "may"
        source = "setting" if need == "must" else "opportunistic"
        return self._host(host, need, source, (host,))

    async def _tlsa(self, host: str) -> TlsaRecords | None:
        policies = self.policies
        with self._host(host, "must", "DANE", (host,)).noted():
            return await dane.look_up(policies.resolver, host, policies.port)

    def _by_setting(self, host: str, setting: RelayTlsPolicy) -> PeerTls:
        needs: dict[str, Need] = {"never": "never", "opportunistic": "may"}
        names = tuple(setting.names) or (host,)
        return self._host(
            host,
            needs.get(setting.mode, "must"),
            "setting",
            names,
            verifies=setting.mode == "verify",
        )

    def _host(
        self,
        host: str,
        need: Need,
        source: str,
        names: tuple[str, ...],
        *,
        verifies: bool = False,
        tlsa: TlsaRecords | None = None,
    ) -> HostTls:
        policies = self.policies
        return HostTls(
            self.domain,
            host,
            need,
            source,
            policies.context,
            policies.authorities(self.setting),
            names,
            # RFC 8460 section 3: how such mail went is in no report.
            _not_noted if self.tls_optional else policies.note,
            verifies,
            tlsa,
            self.sts,
        )


class Policies:
    """The policies of all domains (see `peer.PeerPolicies`)."""

    def __init__(
        self,
        settings: RelayTls,
        single: Sequence[RelayTlsPolicy],
        *,
        resolver: IResolver,
        sts: StsCache,
        context: SSL.Context,
        note: Note,
        port: int = SMTP_PORT,
    ) -> None:
        """Reads the authorities' files, blocking. Raises OSError, ValueError."""
        self.resolver = resolver
        self.context = context
        self.note = note
        self.port = port
        self._sts = sts
        self._system = system_authorities()
        self.use(settings, single)

    def use(self, settings: RelayTls, single: Sequence[RelayTlsPolicy]) -> None:
        """Take new settings up."""
        self.settings = settings
        self._own: dict[str, X509Store] = {
            str(one.ca_file): authorities_of(one.ca_file)
            for one in single
            if one.ca_file is not None
        }
        self._single = {domain.lower(): one for one in single for domain in one.domains}

    async def for_domain(
        self, domain: str, *, require_tls: bool = False, tls_optional: bool = False
    ) -> DomainPolicy:
        setting = self._setting(domain)
        wants_sts = self.settings.mta_sts and (setting is None or require_tls)
        asked = wants_sts and not tls_optional
        sts = await self._sts.policy(domain) if asked else None
        return _Of(self, domain, sts, setting, require_tls, tls_optional)

    def authorities(self, setting: RelayTlsPolicy | None) -> X509Store:
        if setting is None or setting.ca_file is None:
            return self._system
        return self._own[str(setting.ca_file)]

    def _setting(self, domain: str) -> RelayTlsPolicy | None:
        """The one of the domain itself, or of the nearest above it."""
        if (found := self._single.get(domain)) is not None:
            return found
        labels = domain.split(".")
        for first in range(1, len(labels)):
            above = self._single.get("*." + ".".join(labels[first:]))
            if above is not None:
                return above
        return None
