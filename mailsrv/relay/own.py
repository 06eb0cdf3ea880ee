"""Whether a host is this server itself: mail must not run in circles."""

import re
import socket
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from mailsrv.settings import Listener

SMTP_PORT = 25
_SERVICES = ("smtp", "submission", "submissions", "lmtp")
_COLON = re.compile(r"(?<!\\):")


class Own:
    """Our name, and where we listen for mail."""

    def __init__(self, hostname: str, listeners: Sequence[Listener]) -> None:
        self._hostname = hostname.lower()
        self._listens = {
            place
            for listener in listeners
            if listener.service in _SERVICES
            for place in _places(listener.endpoint)
        }

    def is_name(self, host: str) -> bool:
        """Whether `host` is our name."""
        return host.lower().removesuffix(".") == self._hostname

    def is_here(self, ip: str, port: int) -> bool:
        """Whether a connection to `ip` and `port` would come to us."""
        for interface, own_port in self._listens:
            if own_port == port and interface in ("", ip):
                return _is_local(ip)
        return False


def _places(endpoint: str) -> Iterator[tuple[str, int]]:
    """Give address (empty: all of this machine) and port of an endpoint string."""
    kind, *arguments = _COLON.split(endpoint.removeprefix("haproxy:"))
    if kind == "systemd":
        yield "", SMTP_PORT  # which its socket has, if it is anything like others
    given = dict(one.split("=", 1) for one in arguments if "=" in one)
    bare = [one for one in arguments if "=" not in one]
    port = given.get("port", bare[0] if bare else "")
    if kind in ("tcp", "tcp6", "tcp4") and port.isdecimal():
        interface = given.get("interface", "").replace("\\:", ":")
        if interface and ip_address(interface).is_unspecified:
            interface = ""
        yield interface, int(port)


def _is_local(ip: str) -> bool:
    """Whether one of this machine's interfaces has the address, by now."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))  # only what is ours can be bound
    except OSError:
        return False
    return True
