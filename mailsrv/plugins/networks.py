"""A connection policy by networks: who is let in, who is not."""

from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any

from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import ACCEPT, Connection, Decision, Reject
from mailsrv.interfaces import IConnectionPolicy, IPluginServices

_NO = Reject("Your network is not welcome here")


@implementer(IConnectionPolicy)
class Networks:
    """Refuses connections from the networks in ``deny``, but for those in ``allow``."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        # Any: values of TOML.
        if unknown := options.keys() - {"allow", "deny"}:
            raise ValueError(f"{', '.join(unknown)}: only allow and deny are known")
        self._allow = _networks("allow", options.get("allow", []))
        self._deny = _networks("deny", options.get("deny", []))

    def connection(self, connection: Connection) -> Decision:
        if not connection.peer:  # a UNIX socket
            return ACCEPT
        peer = ip_address(connection.peer)
        mapped = getattr(peer, "ipv4_mapped", None)
        if mapped is not None:
            peer = mapped
        denied = any(peer in network for network in self._deny)
        allowed = any(peer in network for network in self._allow)
        return _NO if denied and not allowed else ACCEPT


def _networks(option: str, texts: object) -> list[IPv4Network | IPv6Network]:
    # A number would be a network as well: 10 is 0.0.0.10.
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise ValueError(f'{option}: a list such as ["192.0.2.0/24"]')
    try:
        return [ip_network(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


networks = Plugin("networks", Networks)
