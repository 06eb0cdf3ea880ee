"""Which way mail takes: to the domain's own servers, or where a setting sends it.

The first ``[[relay.route]]`` that fits counts; without one it is MX.
"""

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Literal

from mailsrv.accounts.addresses import InvalidAddress, canonical_domain
from mailsrv.settings import RelayRoute, RouteTls

MX = "mx"
_LMTP, _UNIX = "lmtp:", "unix:"
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/\s]+)):([0-9]{1,5})")
_TARGETS = '"HOST:PORT", "lmtp:HOST:PORT", "lmtp:unix:/PATH" or "mx"'


@dataclass(frozen=True, slots=True)
class Target:
    """Where mail goes; with a `path` a UNIX socket, without a host the MX."""

    protocol: Literal["smtp", "lmtp"] = "smtp"
    host: str = ""
    port: int = 0
    path: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """A way; `name` is shared by all that may share connections."""

    name: str
    target: Target
    tls: RouteTls = "opportunistic"  # with MX the domain's policy counts
    login: str = ""
    password_file: Path | None = None


class Routes:
    """The routes of the settings, which `problems` has looked at."""

    def __init__(self, settings: Sequence[RelayRoute]) -> None:
        self._routes = [
            (
                _domain(one.recipient_domain),
                _domain(one.sender_domain),
                _route(one),
            )
            for one in settings
        ]

    def find(self, reverse_path: str, destination: str) -> Route:
        """Return the way of mail from `reverse_path` to a domain in canonical form."""
        sender = reverse_path.rpartition("@")[2].lower()
        for recipient_domain, sender_domain, route in self._routes:
            if recipient_domain not in (None, destination):
                continue
            if sender_domain not in (None, sender):
                continue
            if route is not None:
                return route
            break
        return Route(destination, Target())


def _domain(text: str | None) -> str | None:
    return None if text is None else canonical_domain(text)


def _route(settings: RelayRoute) -> Route | None:
    """Return the route of a table; None: by MX."""
    target = parse_target(settings.to)
    if target is None:
        return None
    name = f"{settings.login}@{settings.to}" if settings.login else settings.to
    tls = settings.tls or ("require" if target.protocol == "smtp" else "opportunistic")
    return Route(name, target, tls, settings.login or "", settings.password_file)


def parse_target(text: str) -> Target | None:
    """Read a target; None: MX. Raises ValueError."""
    if text == MX:
        return None
    protocol: Literal["smtp", "lmtp"] = "lmtp" if text.startswith(_LMTP) else "smtp"
    rest = text.removeprefix(_LMTP)
    if protocol == "lmtp" and rest.startswith(_UNIX + "/"):
        return Target(protocol, path=rest.removeprefix(_UNIX))
    found = _HOST_PORT.fullmatch(rest)
    if found is None or not 0 < int(found[3]) < 65536:
        raise ValueError(f"{text!r} is no target")
    if found[1]:
        return Target(protocol, str(IPv6Address(found[1])), int(found[3]))
    return Target(protocol, _host(found[2]), int(found[3]))


def _host(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return canonical_domain(text)


Wrong = tuple[str, str, str]
"""A key, what is wrong with it, and what would be right."""


def problems(settings: Sequence[RelayRoute]) -> Iterator[Wrong]:
    """What keeps routes from being used, by ``[[relay.route]]`` number."""
    everything = 0
    for number, route in enumerate(settings, 1):
        for key, wrong, allowed in _problems(route):
            yield f"relay.route[{number}].{key}", wrong, allowed
        if everything:
            wrong = f"route {everything} takes everything before this one is asked"
            yield f"relay.route[{number}]", wrong, "put it before that one"
        if route.recipient_domain is None and route.sender_domain is None:
            everything = everything or number


def _problems(route: RelayRoute) -> Iterator[Wrong]:
    for key in ("recipient_domain", "sender_domain"):
        try:
            _domain(getattr(route, key))
        except InvalidAddress as error:
            yield key, str(error), 'a domain, such as "example.net"'
    try:
        target = parse_target(route.to)
    except ValueError:
        yield "to", f'"{route.to}" is no target', _TARGETS
        return
    if target is None and (route.tls or route.login):
        yield "to", "mx takes no tls and no login", "[[relay.tls_policy]] for TLS"
    if target is not None and target.path and route.tls not in (None, "never"):
        yield "tls", "a UNIX socket has no TLS", "leave it out"
    if (route.login is None) != (route.password_file is None):
        yield "login", "login and password_file need each other", "both, or neither"
    if route.login and route.tls in ("never", "opportunistic"):
        wrong = f'"{route.tls}" would show the password to whoever is on the way'
        yield "tls", wrong, '"require" or "implicit"'
    if route.password_file is not None:
        yield from _password_problems(route.password_file)


def _password_problems(file: Path) -> Iterator[Wrong]:
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
        read_password(file)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        yield "password_file", f"{file}: {why}", "a file with the password alone"
        return
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        wrong = f"{file} has mode {mode:04o}"
        yield "password_file", wrong, f"chmod 600 {file}"


MAX_PASSWORD = 1024


def read_password(file: Path) -> str:
    """Read the one line of a password file. Blocking. Raises OSError, ValueError."""
    with file.open("rb") as stream:
        lines = stream.read(MAX_PASSWORD).decode("utf-8").splitlines()
    if len(lines) != 1 or not lines[0]:
        raise ValueError("is not one line")
    return lines[0]
