"""The header of the PROXY protocol, by octets."""

import struct
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.proxy_protocol import MAX_V2, V2_START, Client, NotProxied, read_header


def v2(command: int, family: int, body: bytes) -> bytes:
    return V2_START + struct.pack("!BBH", command, family, len(body)) + body


FOUR = ip_address("192.0.2.7").packed + ip_address("192.0.2.1").packed
SIX = ip_address("2001:db8::7").packed + ip_address("2001:db8::1").packed
PORTS = struct.pack("!HH", 56324, 25)

GOOD: list[tuple[bytes, str | None]] = [
    (b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 25\r\n", "192.0.2.7"),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 56324 25\r\n", "2001:db8::7"),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(0x21, 0x11, FOUR + PORTS), "192.0.2.7"),
    (v2(0x21, 0x21, SIX + PORTS), "2001:db8::7"),
    (v2(0x21, 0x11, FOUR + PORTS + b"\x04\x00\x01x"), "192.0.2.7"),
    (v2(0x20, 0x00, b""), None),
    (v2(0x21, 0x31, bytes(216)), None),
]
BAD = [
    b"EHLO example.test\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 56324\r\n",
    b"PROXY TCP4 2001:db8::7 192.0.2.1 56324 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 -1 25\r\n",
    b"PROXY TCP4 192.0.2.7 192.0.2.1 65536 25\r\n",
    b"PROXY TCP9 192.0.2.7 192.0.2.1 1 25\r\n",
    b"PROXY " + b"x" * 101,
    v2(0x11, 0x11, FOUR + PORTS),
    v2(0x22, 0x11, FOUR + PORTS),
    v2(0x21, 0x11, bytes(MAX_V2)),
    b"\r\n\r\nEHLO",
]


class ReadHeaderTests(SynchronousTestCase):
    def test_good_ones(self) -> None:
        for header, address in GOOD:
            client = read_header(header + b"EHLO a\r\n")
            assert client is not None
            self.assertEqual(client.header_octets, len(header))
            expected = None if address is None else ip_address(address)
            self.assertEqual(client.address, expected, header)

    def test_bad_ones(self) -> None:
        for header in BAD:
            with self.assertRaises(NotProxied, msg=str(header)):
                read_header(header)

    def test_a_part_of_one_waits_for_the_rest(self) -> None:
        for header, _ in GOOD:
            for end in range(len(header)):
                self.assertIsNone(read_header(header[:end]), header[:end])

    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", V2_START, V2_START + b"\x21"]),
        st.binary(max_size=200),
    )
    def test_nothing_else_is_ever_raised(self, start: bytes, rest: bytes) -> None:
        try:
            client = read_header(start + rest)
        except NotProxied:
            return
        self.assertIsInstance(client, Client | None)
