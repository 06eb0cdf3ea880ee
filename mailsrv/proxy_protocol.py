"""The header of the PROXY protocol, versions 1 and 2: who the client of a proxy is.

Twisted's own wrapper greets before it has read the header, so that limits, logs and
STARTTLS see the proxy; ours lets the session begin after it. Pure: no I/O.

Source: "The PROXY protocol", section 2, of HAProxy (proxy-protocol.txt).
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

V1_START = b"PROXY "
V2_START = b"\r\n\r\n\0\r\nQUIT\n"
MAX_V1 = 107  # octets with CRLF, section 2.1
MAX_V2 = 16 + 2048  # the addresses and what extensions are in use
_V2_FIXED = 16
_LOCAL, _PROXY = 0x20, 0x21  # version 2 and the command
_TCP4, _TCP6 = 0x11, 0x21


class NotProxied(Exception):
    """The octets are no header: the peer is not a proxy."""


@dataclass(frozen=True, slots=True)
class Client:
    """The address that the proxy names, or None for a connection of its own."""

    address: IPv4Address | IPv6Address | None
    port: int
    header_octets: int


def read_header(octets: bytes) -> Client | None:
    """Read the header that `octets` begin with; None: more are needed.

    Raises `NotProxied`, at the latest after `MAX_V2` octets.
    """
    if octets.startswith(V1_START):
        return _read_v1(octets)
    if octets.startswith(V2_START):
        return _read_v2(octets)
    if V1_START.startswith(octets) or V2_START.startswith(octets):
        return None
    raise NotProxied


def _read_v1(octets: bytes) -> Client | None:
    end = octets.find(b"\r\n", 0, MAX_V1)
    if end < 0:
        if len(octets) >= MAX_V1:
            raise NotProxied
        return None
    words = octets[:end].decode("ascii", "replace").split(" ")
    if words[1] == "UNKNOWN":
        return Client(None, 0, end + 2)
    try:
        _, family, source, _, port, _ = words
        address = ip_address(source)
        if family != f"TCP{address.version}":
            raise NotProxied
        return Client(address, _port(port), end + 2)
    except ValueError as error:
        raise NotProxied from error


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError(text)
    return int(text)


def _read_v2(octets: bytes) -> Client | None:
    if len(octets) < _V2_FIXED:
        return None
    command, family, length = struct.unpack_from("!BBH", octets, len(V2_START))
    end = _V2_FIXED + length
    if command not in (_LOCAL, _PROXY) or end > MAX_V2:
        raise NotProxied
    if len(octets) < end:
        return None
    if command == _LOCAL:  # a health check
        return Client(None, 0, end)
    body = octets[_V2_FIXED:end]
    if family == _TCP4 and length >= 12:
        source, port = struct.unpack_from("!4s4xH", body)
        return Client(IPv4Address(source), port, end)
    if family == _TCP6 and length >= 36:
        source, port = struct.unpack_from("!16s16xH", body)
        return Client(IPv6Address(source), port, end)
    return Client(None, 0, end)
