"""``mailsrv quickstart``: a whole server's files in one folder, ready to run.

What exists is never changed, so it may be run again, to add an account for example.
"""

import json
import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import attrs
import click

from mailsrv import settings_file
from mailsrv.accounts import edits
from mailsrv.accounts.addresses import InvalidAddress, canonical_domain, parse
from mailsrv.accounts.database import AccountDatabase
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.passwords import hash_password, new_keys, random_password
from mailsrv.cli.editing import opened
from mailsrv.settings import Listener, LoginSettings
from mailsrv.settings_file import SettingsError
from mailsrv.store.folders import ensure_defaults
from mailsrv.tls import authority
from mailsrv.trust.dkim_keys import KEYS_FOLDER, KeyFolder, State

PORTS = {
    "smtp": 25,
    "submission": 587,
    "submissions": 465,
    "imap": 143,
    "imaps": 993,
    "pop3": 110,
    "pop3s": 995,
}
DEFAULT_PORT_BASE = 2000
MAX_SOCKET = 100  # of 108 octets, unix(7)
DEFAULT_ACCOUNT = "admin"
_IS_LOCALHOST = ("127.0.0.1", "::1", "0.0.0.0", "::", "")  # noqa: S104  only read
REQUIRED_ALIASES = ("postmaster", "abuse")  # RFC 2142 sections 4 and 5


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What a person needs to log in; the password of an old account is unknown."""

    address: str
    login: str
    password: str | None


@dataclass(frozen=True, slots=True)
class Result:
    """What was set up, as ``--json`` prints it."""

    config: str
    domain: str
    ca: str
    host: str  # where clients on this machine find the server
    ports: dict[str, int]
    maildir: str  # with {account} for an address
    accounts: list[NewAccount]


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for everything; made if missing.",
)
@click.option("--domain", required=True, help="The domain that has mail here.")
@click.option("--host", default="127.0.0.1", show_default=True, help="IP to listen on.")
@click.option(
    "--port-base",
    type=click.IntRange(0, 64000),
    default=DEFAULT_PORT_BASE,
    show_default=True,
    help="Added to each usual port, so 2000 gives 2025 for SMTP.",
)
@click.option("--account", "accounts", multiple=True, help="A name; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("more_accounts", nargs=-1)
def quickstart(
    folder: Path,
    domain: str,
    host: str,
    port_base: int,
    accounts: tuple[str, ...],
    as_json: bool,
    more_accounts: tuple[str, ...],
) -> None:
    """Make settings, certificates, folders and accounts for a first server.

    Accounts get random passwords, which are printed once and stored nowhere.
    Run it again with other names to add accounts; nothing that exists is changed.
    """
    try:
        result = set_up(
            folder.absolute(),
            canonical_domain(domain),
            ip_address(host),
            port_base,
            [*accounts, *more_accounts] or [DEFAULT_ACCOUNT],
        )
    except (ValueError, InvalidAddress, edits.EditRefused, SettingsError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(json.dumps(asdict(result), indent=2) if as_json else _table(result))


def set_up(
    folder: Path,
    domain: str,
    host: IPv4Address | IPv6Address,
    port_base: int,
    names: Sequence[str],
    login: LoginSettings | None = None,
) -> Result:
    """Make what is missing under `folder`; `login` is written into new settings."""
    addresses = [
        parse(name if "@" in name else f"{name}@{domain}").canonical for name in names
    ]
    config = folder / "mailsrv.toml"
    for path in (folder, folder / "tls", folder / "data"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    _certificates(folder / "tls", domain, host)
    ports = {service: port_base + port for service, port in PORTS.items()}
    if not config.exists():
        text = _settings_text(folder, domain, host, ports, login)
        _write(config, text.encode(), 0o600)
    settings = settings_file.load(config)
    with opened(settings) as database:
        accounts = [_account(database, name, settings.login) for name in addresses]
        _required_aliases(database, domain, addresses[0])
        _dkim_keys(settings.data, domain)
        for name in addresses:
            home = settings.data / "mail" / name
            home.mkdir(mode=0o700, parents=True, exist_ok=True)
            ensure_defaults(home / "Maildir")
    maildir = str(settings.data / "mail" / "{account}" / "Maildir")
    ca = str(folder / "tls" / "ca.pem")
    found = _ports(settings.listen) or ports
    return Result(
        str(config), domain, ca, _host(settings.listen), found, maildir, accounts
    )


def _account(database: AccountDatabase, name: str, login: LoginSettings) -> NewAccount:
    """Make the account unless it exists."""
    if database.snapshot().account(name) is not None:
        return NewAccount(name, name, None)
    password = random_password()
    password_hash, keys = hash_password(password, login), new_keys(password, login)

    def change(directory: Directory) -> Directory:
        domain = parse(name).domain
        if domain not in directory.domains:
            directory = edits.add_domain(directory, domain)
        return edits.add_account(directory, name, password_hash, scram_keys=keys)

    database.edit(change)
    return NewAccount(name, name, password)


def _required_aliases(database: AccountDatabase, domain: str, target: str) -> None:
    """Somebody reads what every domain has to accept."""

    def change(directory: Directory) -> Directory:
        for local in REQUIRED_ALIASES:
            if f"{local}@{domain}" not in directory.entries:
                directory = edits.add_alias(directory, f"{local}@{domain}", [target])
        return directory

    database.edit(change)


def _dkim_keys(data: Path, domain: str) -> None:
    """Outgoing mail is signed; its records are for the domain's DNS."""
    folder = KeyFolder(data / KEYS_FOLDER)
    if not folder.keys(domain):
        folder.make(domain, State.ACTIVE, time.time())


def _certificates(folder: Path, domain: str, host: IPv4Address | IPv6Address) -> None:
    """An authority, and the server's certificate signed by it."""
    ca, ca_key = folder / "ca.pem", folder / "ca.key"
    chain, key = folder / "server.pem", folder / "server.key"
    if not (ca.exists() and ca_key.exists()):
        made = authority.make_authority(f"mailsrv for {domain}")
        _write(ca_key, made.key_pem(), 0o600)
        _write(ca, made.chain_pem(), 0o644)
    if not (chain.exists() and key.exists()):
        signer = authority.load(ca.read_bytes(), ca_key.read_bytes())
        names = dict.fromkeys((f"mail.{domain}", domain, "localhost"))
        addresses = [] if host.is_unspecified else [host]
        pair = authority.make_server(signer, names, addresses)
        _write(key, pair.key_pem(), 0o600)
        _write(chain, pair.chain_pem(), 0o644)


def _settings_text(
    folder: Path,
    domain: str,
    host: IPv4Address | IPv6Address,
    ports: dict[str, int],
    login: LoginSettings | None,
) -> str:
    kind = "tcp" if host.version == 4 else "tcp6"
    interface = str(host).replace(":", "\\\\:")  # for the endpoint, then for TOML
    lines = [
        "# Made by mailsrv quickstart. Every key: etc/mailsrv.toml in the sources,",
        "# or the settings reference. Check by: mailsrv check-config FILE",
        "version = 1",
        f'hostname = "mail.{domain}"',
        'data = "data"',
        "",
    ]
    for service, port in ports.items():
        lines += [
            "[[listen]]",
            f'service = "{service}"',
            f'endpoint = "{kind}:{port}:interface={interface}"',
            "",
        ]
    endpoint = f"unix:{folder.absolute()}/sendmail.sock:mode=666"
    if len(endpoint) < MAX_SOCKET and endpoint.count(":") == 2:
        lines += [
            "# Programs of this machine: mailsrv sendmail",
            "[[listen]]",
            'service = "sendmail"',
            f"endpoint = {json.dumps(endpoint)}",
            "[sendmail]",
            'drop = "drop"',
            "",
        ]
    lines += ["[tls]"]
    if host.is_loopback:
        lines += [
            "# For trials with curl or telnet on this machine. Leave it out when",
            "# others are to reach the server, through a proxy for example.",
            "clear_text_passwords_on_loopback = true",
        ]
    lines += [
        "",
        "[[tls.certificate]]",
        'chain = "tls/server.pem"',
        'key = "tls/server.key"',
        "",
    ]
    if login is not None:
        values = attrs.asdict(login).items()
        lines += [
            "[login]",
            *(f"{key} = {json.dumps(value)}" for key, value in values),
            "",
        ]
    return "\n".join(lines)


def _ports(listeners: Iterable[Listener]) -> dict[str, int]:
    """The ports of settings that exist, which may not be those asked for now."""
    ports = {}
    for listener in listeners:
        _, _, rest = listener.endpoint.partition(":")
        port = rest.partition(":")[0]
        if port.isdecimal():
            ports[str(listener.service)] = int(port)
    return ports


def _host(listeners: Iterable[Listener]) -> str:
    """The name or address to type into a client, of settings that exist."""
    for listener in listeners:
        interface = listener.endpoint.partition("interface=")[2].replace("\\", "")
        if interface not in _IS_LOCALHOST:
            return interface
    return "localhost"


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file: whole or not at all, and never readable by others first."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    opened = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(opened, "wb") as stream:
        os.fchmod(opened, mode)
        stream.write(content)
        os.fsync(opened)
    temporary.replace(path)


def _table(result: Result) -> str:
    """What to type into a client, for people."""
    host = result.host
    port = result.ports
    lines = [
        f"Settings     {result.config}",
        f"Authority    {result.ca} (import it into the client)",
        "Run          twistd -n mailsrv --config " + result.config,
        f"DNS          mailsrv dkim show {result.domain} --config {result.config}",
        "",
        f"Incoming     IMAP   {host}  port {port.get('imaps')}  SSL/TLS"
        f"   or port {port.get('imap')}  STARTTLS",
        f"             POP3   {host}  port {port.get('pop3s')}  SSL/TLS"
        f"   or port {port.get('pop3')}  STARTTLS",
        f"Outgoing     SMTP   {host}  port {port.get('submissions')}  SSL/TLS"
        f"   or port {port.get('submission')}  STARTTLS",
        "Log-in       normal password; the user name is the whole address",
        "",
    ]
    width = max(len(account.login) for account in result.accounts)
    for account in result.accounts:
        password = account.password or (
            f"(set before; new one: mailsrv account passwd {account.login}"
            f" --config {result.config})"
        )
        lines.append(f"  {account.login:{width}}  {password}")
    return "\n".join(lines)
