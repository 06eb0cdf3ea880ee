"""Whether the machine is as the settings want it: what a start and check-config ask.

Looks at files, users and endpoint strings; changes nothing and binds nothing.
"""

import os
import pwd
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorTime

from mailsrv.accounts import devices
from mailsrv.dns.servers import parse_server
from mailsrv.doors import plugin
from mailsrv.relay import routes, tls_policies
from mailsrv.settings import Listener, Settings
from mailsrv.settings_file import Problem
from mailsrv.store import pop3_uidl
from mailsrv.tls.contexts import UnusableCertificate, load_certificates
from mailsrv.tls.peer_certificate import authorities_of

IMPLICIT_TLS = ("submissions", "imaps", "pop3s", "https")  # RFC 8314 section 3
_WEB_URL = re.compile(
    r"https://[A-Za-z0-9.-]+(:\d{1,5})?(/[\w.~/-]*)?"
    r"|http://(127\.0\.0\.1|localhost)(:\d{1,5})?/?",
    re.ASCII,
)
PROXY_PREFIX = "haproxy:"  # of an endpoint behind the PROXY protocol


@dataclass(frozen=True, slots=True)
class RunsAs:
    """The system user that will serve: its ids decide what it can read."""

    name: str
    uid: int
    gids: frozenset[int]

    def may(self, status: os.stat_result, bits: int) -> bool:
        """Whether the user has `bits` (of rwx, 0 to 7) on a file of `status`."""
        if self.uid == 0:
            return True
        mode = status.st_mode
        if status.st_uid == self.uid:
            return (mode >> 6) & bits == bits
        if status.st_gid in self.gids:
            return (mode >> 3) & bits == bits
        return mode & bits == bits


def runs_as(user: str | None) -> RunsAs:
    """Look `user`, or else who we are, up. Raises KeyError if there is none."""
    entry = pwd.getpwnam(user) if user else pwd.getpwuid(os.geteuid())
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return RunsAs(entry.pw_name, entry.pw_uid, frozenset(groups))


def problems(settings: Settings, reactor: object) -> list[Problem]:
    """Everything that would keep a server with `settings` from serving."""
    found = [*_listeners(settings, reactor), *_certificates(settings)]
    found += _data(settings)
    found += _trusted_networks(settings)
    found += _name_servers(settings)
    found += [Problem(*wrong) for wrong in routes.problems(settings.relay.route)]
    found += [
        Problem(*wrong) for wrong in tls_policies.problems(settings.relay.tls_policy)
    ]
    found += _tls_policies(settings)
    found += _web(settings)
    if not settings.queue.retry_after:
        allowed = 'pauses, such as ["5m", "30m"]'
        found.append(Problem("queue.retry_after", "is empty", allowed))
    found += plugin.problems(settings, IReactorTime(reactor))
    try:
        pop3_uidl.compiled(settings.store.pop3_uidl_format)
    except ValueError as error:
        allowed = "pop3_uidl_format of Dovecot, with u, v, g or f"
        found.append(Problem("store.pop3_uidl_format", str(error), allowed))
    try:
        user = runs_as(settings.user)
    except KeyError:
        wrong = f'"{settings.user}" is no user of this system'
        return [*found, Problem("user", wrong, "a user made for mailsrv alone")]
    if os.geteuid() not in (0, user.uid):
        wrong = f'"{user.name}" is another user, and only root can become it'
        found.append(Problem("user", wrong, "start as root, or leave it out"))
    return [*found, *_owner(settings, user), *_keys(settings, user)]


def _tls_policies(settings: Settings) -> Iterator[Problem]:
    for number, policy in enumerate(settings.relay.tls_policy, 1):
        if (file := policy.ca_file) is None:
            continue
        try:
            authorities_of(file)
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "has no certificate"
            key = f"relay.tls_policy[{number}].ca_file"
            yield Problem(key, f"{file}: {why}", "a file of certificates (PEM)")


def _listeners(settings: Settings, reactor: object) -> Iterator[Problem]:
    if not settings.listen:
        yield Problem("listen", "is empty", "at least one [[listen]] table")
    for number, listener in enumerate(settings.listen, 1):
        key = f"listen[{number}]"
        if listener.service in IMPLICIT_TLS and not settings.tls.certificate:
            wrong = f'"{listener.service}" needs TLS, and no certificate is set'
            yield Problem(f"{key}.service", wrong, "add a [[tls.certificate]]")
        yield from _proxies(settings, listener, key)
        endpoint = listener.endpoint.removeprefix(PROXY_PREFIX)
        kind = endpoint.partition(":")[0]
        if kind == "systemd":
            continue  # its sockets exist only in the process that systemd starts
        if listener.service == "lmtp" and not _is_local(endpoint):
            wrong = f'"{listener.endpoint}" can be reached from elsewhere'
            allowed = '"unix:/run/mailsrv/lmtp" or "tcp:2424:interface=127.0.0.1"'
            yield Problem(f"{key}.endpoint", wrong, allowed)
        if listener.service == "sendmail" and not _is_for_users(endpoint):
            wrong = f'"{listener.endpoint}" does not tell whose programs connect'
            allowed = '"unix:/run/mailsrv/sendmail.sock:mode=666"'
            yield Problem(f"{key}.endpoint", wrong, allowed)
            continue
        if kind == "ssl":
            wrong = "mailsrv does TLS itself"
            yield Problem(f"{key}.endpoint", wrong, 'a "tcp:" endpoint')
            continue
        try:
            serverFromString(reactor, endpoint)
        except (ValueError, TypeError, LookupError) as error:
            wrong = f'"{listener.endpoint}" is no endpoint ({error})'
            yield Problem(f"{key}.endpoint", wrong, 'such as "tcp:25"')


def _proxies(settings: Settings, listener: Listener, key: str) -> Iterator[Problem]:
    """Who may say whose connection it is: to devices that is as good as a password."""
    for text in listener.proxies:
        try:
            ip_network(text)
        except ValueError as error:
            yield Problem(f"{key}.proxies", str(error), 'such as "192.0.2.1"')
    endpoint = listener.endpoint.removeprefix(PROXY_PREFIX)
    if endpoint == listener.endpoint:
        if listener.proxies:
            wrong = f'"{endpoint}" asks no proxy'
            yield Problem(f"{key}.proxies", wrong, f'"{PROXY_PREFIX}{endpoint}"')
    elif (
        settings.smtp.trusted_networks
        and listener.service in ("submission", "submissions")
        and not (listener.proxies or _is_local(endpoint))
    ):
        wrong = "whoever reaches this port could claim to be in a trusted network"
        yield Problem(f"{key}.proxies", wrong, "the addresses of your proxies")


def _web(settings: Settings) -> Iterator[Problem]:
    url = settings.web.url
    if url is None:
        return
    if not _WEB_URL.fullmatch(url):  # RFC 8058 section 3.1: HTTPS
        allowed = '"https://mail.example.org"'
        yield Problem("web.url", f'"{url}" is no address with TLS', allowed)
    if not any(listener.service in ("web", "https") for listener in settings.listen):
        allowed = 'a [[listen]] with service "https", or "web" behind a proxy'
        yield Problem("web.url", "no service answers there", allowed)


def _is_local(endpoint: str) -> bool:
    """Whether only programs of this machine reach a port: LMTP asks for no log-in."""
    kind, *arguments = re.split(r"(?<!\\):", endpoint)
    if kind == "unix":
        return True
    given = [a.removeprefix("interface=") for a in arguments if "interface=" in a]
    try:
        return bool(given) and ip_address(given[-1].replace("\\:", ":")).is_loopback
    except ValueError:
        return False


def _is_for_users(endpoint: str) -> bool:
    """Whether it is a socket that all users of this machine can open."""
    kind, *arguments = endpoint.split(":")
    return kind == "unix" and "mode=666" in arguments


def _certificates(settings: Settings) -> Iterator[Problem]:
    for number, certificate in enumerate(settings.tls.certificate, 1):
        try:
            load_certificates([certificate])
        except UnusableCertificate as error:
            yield Problem(f"tls.certificate[{number}]", str(error))


def _data(settings: Settings) -> Iterator[Problem]:
    try:
        folder = settings.data.stat()
    except OSError as error:
        allowed = "a folder that the server's user owns"
        yield Problem("data", f"{settings.data}: {error.strerror}", allowed)
        return
    if not stat.S_ISDIR(folder.st_mode):
        yield Problem("data", f"{settings.data} is not a folder")


def _trusted_networks(settings: Settings) -> Iterator[Problem]:
    for number, trusted in enumerate(settings.smtp.trusted_networks, 1):
        for key, wrong, allowed in devices.problems(trusted):
            yield Problem(f"smtp.trusted_networks[{number}].{key}", wrong, allowed)


def _name_servers(settings: Settings) -> Iterator[Problem]:
    for number, text in enumerate(settings.dns.servers, 1):
        try:
            parse_server(text)
        except ValueError:
            wrong = f'"{text}" is no address'
            allowed = '"192.0.2.53", "192.0.2.53:5353" or "[::1]:5353"'
            yield Problem(f"dns.servers[{number}]", wrong, allowed)


def _owner(settings: Settings, user: RunsAs) -> Iterator[Problem]:
    """One system user owns all mail: nobody else may need to read it."""
    for path in (settings.data, settings.data / "accounts.sqlite", *_mail(settings)):
        if path.exists() and user.uid not in (0, path.stat().st_uid):
            wrong = f"{path} does not belong to {user.name}, who has to own all mail"
            yield Problem("data", wrong, f"chown -R {user.name} {settings.data}")
            return


def _mail(settings: Settings) -> Iterator[Path]:
    root = settings.data / "mail"
    if root.is_dir():
        yield root
        for folder in sorted(root.iterdir()):
            yield folder
            yield folder / "Maildir"


def _keys(settings: Settings, user: RunsAs) -> Iterator[Problem]:
    """Keys are read again when they are renewed: by then root is dropped."""
    for number, certificate in enumerate(settings.tls.certificate, 1):
        for field, file in (("chain", certificate.chain), ("key", certificate.key)):
            if file.exists() and (hidden := _hidden(file, user)) is not None:
                wrong = f"{user.name} cannot read {hidden}, so renewing would fail"
                allowed = "give it to a group of that user, mode 0640 (folders 0750)"
                yield Problem(f"tls.certificate[{number}].{field}", wrong, allowed)


def _hidden(file: Path, user: RunsAs) -> Path | None:
    """The first part of the way to `file` that is closed to `user`."""
    real = file.resolve()
    for folder in reversed(real.parents):
        if not user.may(folder.stat(), 1):
            return folder
    return None if user.may(real.stat(), 4) else real
