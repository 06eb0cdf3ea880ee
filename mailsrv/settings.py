"""The settings tree: every key, its unit and its default (settings_file reads it).

Each class is one table of ``mailsrv.toml``; the field's metadata is its one-line
documentation, from which the reference is made.
"""

from pathlib import Path
from typing import Any, Literal, NewType, get_args

import attrs

VERSION = 1  # of the format of the file

MIB = 1024 * 1024

Duration = NewType("Duration", float)
"""Seconds; written as a number of them, or with a unit as in ``"90s"``, ``"4h"``."""

MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR


def key(
    default: Any, doc: str, least: float | None = None, most: float | None = None
) -> Any:
    """A key with a default. Any: attrs gives a field the type of its name.

    `least` and `most` bound a number; a number without them must be above 0.
    """
    return attrs.field(
        default=default, metadata={"doc": doc, "least": least, "most": most}
    )


# What the server brings; a plugin's name may stand beside them.
Service = Literal[
    "smtp",
    "submission",
    "submissions",
    "lmtp",
    "sendmail",
    "imap",
    "imaps",
    "pop3",
    "pop3s",
    "web",
    "https",
]


@attrs.frozen(kw_only=True)
class Listener:
    """``[[listen]]``: one service on one Twisted endpoint."""

    service: str = attrs.field(
        metadata={
            "doc": "what is spoken there: "
            f"{', '.join(get_args(Service))}, or the name of a plugin for it"
        }
    )
    endpoint: str = attrs.field(
        metadata={"doc": "a Twisted endpoint string, such as tcp:25"}
    )
    proxies: list[str] = attrs.field(
        factory=list,
        metadata={
            "doc": "addresses and networks of the proxies that a haproxy: endpoint "
            "believes; none: whoever reaches it"
        },
    )


@attrs.frozen(kw_only=True)
class Certificate:
    """``[[tls.certificate]]``: a chain and its key; its names select it (SNI)."""

    chain: Path = attrs.field(metadata={"doc": "PEM, the server's certificate first"})
    key: Path = attrs.field(metadata={"doc": "PEM, readable by mailsrv alone"})


@attrs.frozen(kw_only=True)
class TlsSettings:
    """``[tls]``"""

    certificate: list[Certificate] = attrs.field(
        factory=list, metadata={"doc": "the first one is the default"}
    )
    clear_text_passwords_on_loopback: bool = key(
        False, "allow log-in without TLS from 127.0.0.0/8 and ::1"
    )


@attrs.frozen(kw_only=True)
class TrustedNetwork:
    """``[[smtp.trusted_networks]]``: devices that submit mail without a password."""

    networks: list[str] = attrs.field(
        metadata={"doc": "private networks, or single addresses"}
    )
    send_as: list[str] = attrs.field(
        metadata={"doc": "addresses of own domains that may be the sender"}
    )
    max_messages_per_hour: int = key(60, "from one address", most=10_000)


@attrs.frozen(kw_only=True)
class LocalUser:
    """``[[sendmail.users]]``: a user of this machine whose programs send mail."""

    name: str = attrs.field(metadata={"doc": "of the system user, such as www-data"})
    send_as: list[str] = attrs.field(
        metadata={"doc": "further addresses of own domains that may be the sender"}
    )


@attrs.frozen(kw_only=True)
class SendmailSettings:
    """``[sendmail]``: programs of this machine that send by ``mailsrv sendmail``."""

    drop: Path = attrs.field(
        default=Path("/var/spool/mailsrv/drop"),
        metadata={"doc": "folder where messages wait while the server is down"},
    )
    max_messages_per_hour: int = key(600, "of one user", most=100_000)
    users: list[LocalUser] = attrs.field(
        factory=list,
        metadata={"doc": "who may send as more than USER at the oldest domain"},
    )


@attrs.frozen(kw_only=True)
class SmtpSettings:
    """``[smtp]``: limits and rules of the SMTP services."""

    max_message_octets: int = key(
        50 * MIB, "largest message, offered as SIZE", least=64 * 1024
    )
    max_recipients: int = key(
        # RFC 5321 section 4.5.3.1.8: at least 100 must be taken.
        1000,
        "RCPT commands in a transaction",
        least=100,
    )
    max_errors: int = key(20, "refused commands before 421 and the end")
    max_connections: int = key(1000, "of all SMTP services together")
    max_connections_per_address: int = key(50, "from one IPv4 address or IPv6 /64")
    command_timeout_s: float = key(300.0, "to send one command")
    data_timeout_s: float = key(180.0, "for each further 64 KiB of a message")
    max_received: int = key(50, "Received fields before a loop is assumed")
    bare_newlines: Literal["reject", "normalise"] = key(
        "reject", "what becomes of bare CR or LF in a message"
    )
    over_quota: Literal["reject", "defer"] = key(
        "reject", "at RCPT to a full mailbox: 552 or 452"
    )
    trusted_networks: list[TrustedNetwork] = attrs.field(
        factory=list, metadata={"doc": "devices that submit without a password"}
    )


# The words of IMAP's CAPABILITY beside IMAP4rev1, in the order in which they are sent.
ImapExtension = Literal[
    "IMAP4REV2",
    "LITERAL+",
    "SASL-IR",
    "ID",
    "ENABLE",
    "IDLE",
    "NAMESPACE",
    "UTF8=ACCEPT",
    "COMPRESS=DEFLATE",
    "CHILDREN",
    "LIST-EXTENDED",
    "SPECIAL-USE",
    "CREATE-SPECIAL-USE",
    "LIST-STATUS",
    "STATUS=SIZE",
    "XLIST",
    "UNSELECT",
    "UIDPLUS",
    "MULTIAPPEND",
    "APPENDLIMIT",
    "BINARY",
    "MOVE",
    "QUOTA",
    "QUOTA=RES-STORAGE",
    "ESEARCH",
    "SEARCHRES",
    "WITHIN",
    "PREVIEW",
    "SAVEDATE",
    "OBJECTID",
    "CONDSTORE",
    "QRESYNC",
    "SORT",
    "SORT=DISPLAY",
    "ESORT",
    "THREAD=ORDEREDSUBJECT",
    "THREAD=REFERENCES",
]


@attrs.frozen(kw_only=True)
class ImapSettings:
    """``[imap]``"""

    max_connections: int = key(2000, "of imap and imaps together")
    max_connections_per_address: int = key(200, "from one IPv4 address or IPv6 /64")
    login_timeout_s: float = key(60.0, "to log in")
    idle_timeout_s: float = key(
        # RFC 3501 section 5.4: not under 30 minutes. More than that: some versions
        # of Outlook hear of no new mail once they were dropped at 30.
        2100.0,
        "without a command, and in IDLE",
        least=1800.0,
    )
    keep_alive_s: float = key(120.0, "between lines that keep an IDLE session alive")
    max_append_octets: int = key(50 * MIB, "largest message to APPEND", least=64 * 1024)
    disabled_extensions: list[ImapExtension] = attrs.field(
        factory=list, metadata={"doc": "words of CAPABILITY that no client is offered"}
    )


@attrs.frozen(kw_only=True)
class Pop3Settings:
    """``[pop3]``"""

    max_connections: int = key(500, "of pop3 and pop3s together")
    max_connections_per_address: int = key(50, "from one IPv4 address or IPv6 /64")
    idle_timeout_s: float = key(
        # RFC 1939 section 3: not under 10 minutes.
        600.0,
        "without a command",
        least=600.0,
    )


@attrs.frozen(kw_only=True)
class StoreSettings:
    """``[store]``"""

    pop3_uidl_format: str = key(
        "%08Xu%08Xv",
        "how POP3's unique ids are made: as in the Dovecot that mail came from",
    )
    free_space_reserve_octets: int = key(
        256 * MIB, "free space below which mail is deferred", least=0
    )


@attrs.frozen(kw_only=True)
class LoginSettings:
    """``[login]``: passwords and guessers."""

    cache_s: float = key(300.0, "how long a verified password is remembered", least=0)
    max_delay_s: float = key(15.0, "longest wait put on a guesser", least=0, most=60)
    scram: Literal["off", "auto", "on"] = key(
        "auto", "offer SCRAM-SHA-256: never, once all accounts have its keys, always"
    )
    scram_plus: bool = key(
        False, "offer SCRAM-SHA-256-PLUS as well, which some clients choose and fail at"
    )
    argon2_memory_kib: int = key(65536, "memory of one password hash", least=8)
    argon2_passes: int = key(3, "passes over that memory")
    argon2_lanes: int = key(4, "lanes of a hash")


@attrs.frozen(kw_only=True)
class PluginSettings:
    """``[[plugin]]``: plugins are asked in the order of the file."""

    name: str = attrs.field(metadata={"doc": "as ``mailsrv plugins`` lists it"})
    timeout_s: float = key(
        10.0, "for an answer; without one the message is deferred", most=120
    )
    options: dict[str, Any] = attrs.field(
        factory=dict, metadata={"doc": "the plugin's own: see its documentation"}
    )


@attrs.frozen(kw_only=True)
class LogSettings:
    """``[log]``"""

    format: Literal["text", "json"] = key("text", "a line of text or of JSON")
    level: Literal["debug", "info", "warn"] = key("info", "least level that is written")


@attrs.frozen(kw_only=True)
class DnsSettings:
    """``[dns]``: the name servers that all parts ask."""

    servers: list[str] = attrs.field(
        factory=list,
        metadata={
            "doc": "addresses of resolvers, with :PORT if it is not 53; "
            "empty: those of /etc/resolv.conf"
        },
    )
    validates: bool = key(
        False,
        "the resolvers check DNSSEC, and nobody can forge the way to them; "
        "a resolver on this machine is always believed",
    )


_LIFETIME = Duration(5 * DAY)  # RFC 5321 section 4.5.4.1: 4 to 5 days
_WARN_AFTER = Duration(4 * HOUR)


def _default_pauses() -> list[Duration]:
    # Greylisting and restarts are over in minutes; a server that is down for long is
    # asked less and less.
    pauses = [2, 5, 10, 20, 30, 60, 120, 240]
    return [Duration(minutes * MINUTE) for minutes in pauses]


@attrs.frozen(kw_only=True)
class QueueSettings:
    """``[queue]``: mail that waits for other servers."""

    retry_after: list[Duration] = attrs.field(
        factory=_default_pauses,
        metadata={"doc": "pauses between attempts; the last one repeats"},
    )
    lifetime: Duration = key(_LIFETIME, "then mail that still waits goes back")
    warn_after: Duration = key(
        _WARN_AFTER, "then the sender is told of the delay, once"
    )
    max_deliveries: int = key(
        50, "attempts at a time; newsletters use three quarters of them", most=1000
    )
    max_deliveries_per_destination: int = key(
        20, "attempts at a time to one destination; it begins with 5", most=100
    )


RouteTls = Literal["never", "opportunistic", "require", "implicit"]


@attrs.frozen(kw_only=True)
class RelayRoute:
    """``[[relay.route]]``: another way than MX; the first that fits is taken."""

    to: str = attrs.field(
        metadata={
            "doc": "HOST:PORT of a smarthost, lmtp:HOST:PORT or lmtp:unix:/PATH of a "
            "mail store, or mx"
        }
    )
    recipient_domain: str | None = key(None, "only for mail to this domain")
    sender_domain: str | None = key(None, "only for mail from this domain")
    tls: RouteTls | None = key(
        None,
        "implicit is TLS from the first octet; with require and implicit the "
        "certificate is verified; without it: require, to LMTP opportunistic",
    )
    login: str | None = key(None, "name to log in with")
    password_file: Path | None = key(
        None, "file of mode 0600 with the password alone, read at each log-in"
    )


TlsMode = Literal["opportunistic", "require", "verify"]


@attrs.frozen(kw_only=True)
class RelayTls:
    """``[relay.tls]``: TLS with the mail servers (MX) of other domains."""

    mode: TlsMode = key(
        "opportunistic",
        "the least for all domains: TLS where it is offered, TLS always, or TLS always "
        "with a certificate that is verified; a domain may demand more",
    )
    dane: bool = key(
        True, "honour TLSA records; they count only from a resolver that is believed"
    )
    mta_sts: bool = key(True, "honour the MTA-STS policies of domains")
    reports: bool = key(
        True, "send domains that ask for it a daily count of TLS failures (TLSRPT)"
    )


@attrs.frozen(kw_only=True)
class RelayTlsPolicy:
    """``[[relay.tls_policy]]``: TLS with some domains, instead of ``mode``."""

    domains: list[str] = attrs.field(
        metadata={"doc": 'recipient domains; "*.example.net": all below that one'}
    )
    mode: Literal["never", "opportunistic", "require", "verify"] = attrs.field(
        metadata={
            "doc": "never and opportunistic ignore what the domain itself demands"
        }
    )
    ca_file: Path | None = key(
        None, "PEM; with verify: the authorities that count, instead of the system's"
    )
    names: list[str] = attrs.field(
        factory=list,
        metadata={
            "doc": "with verify: names of which the certificate has one, "
            "instead of the MX host's"
        },
    )


@attrs.frozen(kw_only=True)
class RelaySettings:
    """``[relay]``: the way to other servers."""

    private_addresses: bool = key(
        False, "send to MX hosts whose addresses are private, as in a lab"
    )
    route: list[RelayRoute] = attrs.field(
        factory=list, metadata={"doc": "ways other than MX"}
    )
    tls: RelayTls = RelayTls()
    tls_policy: list[RelayTlsPolicy] = attrs.field(
        factory=list, metadata={"doc": "TLS with single domains"}
    )


@attrs.frozen(kw_only=True)
class SendingSettings:
    """``[sending]``: what an account may send, against a stolen password."""

    messages_per_hour: int = key(300, "messages of an account in an hour")
    messages_per_day: int = key(1500, "messages of an account in a day")
    new_recipients_per_hour: int = key(
        150, "people elsewhere whom the account writes to for the first time, an hour"
    )
    new_recipients_per_day: int = key(500, "such people in a day")


@attrs.frozen(kw_only=True)
class WebSettings:
    """``[web]``: pages for those whom lists and newsletters write to."""

    url: str | None = key(
        None,
        "how people reach the web or https service, such as https://mail.example.org; "
        "without it mail bears no links to unsubscribe or confirm",
    )


@attrs.frozen(kw_only=True)
class Settings:
    """The whole file. Relative paths are taken from the file's folder."""

    version: int = attrs.field(metadata={"doc": "format of this file: 1"})
    hostname: str = attrs.field(metadata={"doc": "this server's name in SMTP"})
    data: Path = attrs.field(metadata={"doc": "folder of accounts.sqlite and mail/"})
    user: str | None = key(None, "system user to run as once the ports are bound")
    listen: list[Listener] = attrs.field(
        factory=list, metadata={"doc": "the services and where they listen"}
    )
    tls: TlsSettings = TlsSettings()
    smtp: SmtpSettings = SmtpSettings()
    sendmail: SendmailSettings = SendmailSettings()
    imap: ImapSettings = ImapSettings()
    pop3: Pop3Settings = Pop3Settings()
    store: StoreSettings = StoreSettings()
    login: LoginSettings = LoginSettings()
    sending: SendingSettings = SendingSettings()
    queue: QueueSettings = QueueSettings()
    dns: DnsSettings = DnsSettings()
    relay: RelaySettings = RelaySettings()
    web: WebSettings = WebSettings()
    log: LogSettings = LogSettings()
    plugin: list[PluginSettings] = attrs.field(
        factory=list, metadata={"doc": "what is asked beside the built-in rules"}
    )
