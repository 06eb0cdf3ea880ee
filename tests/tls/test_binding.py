"""Channel bindings, as the other end of the connection computes them."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from OpenSSL import SSL
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.settings import Certificate
from mailsrv.tls.binding import channel_binding
from mailsrv.tls.contexts import TlsContexts, load_certificates
from tests.tls.certificates import pair, write


class BindingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def certificate(self, name: str) -> Certificate:
        return write(self.folder, pair(name), name)

    def connected(
        self, *names: str, asked: str = "a.test", version: int = SSL.TLS1_3_VERSION
    ) -> tuple[Callable[[str], bytes | None] | None, SSL.Connection]:
        """The server's bindings, and the client of a connection that stands."""
        tls = TlsContexts(load_certificates([self.certificate(n) for n in names]))
        protocol = Protocol()
        factory = Factory.forProtocol(lambda: protocol)
        wire = StringTransport()
        server = TLSMemoryBIOFactory(tls, False, factory).buildProtocol(None)
        server.makeConnection(wire)
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(version)
        client = SSL.Connection(context, None)
        client.set_tlsext_host_name(asked.encode())
        client.set_connect_state()
        for _ in range(3):
            with contextlib.suppress(SSL.WantReadError):
                client.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                server.dataReceived(client.bio_read(65536))
            if sent := wire.value():
                client.bio_write(sent)
                wire.clear()
        return channel_binding(ITransport(protocol.transport)), client

    def test_exporter(self) -> None:
        binding, client = self.connected("a.test")
        assert binding is not None
        # RFC 9266 section 2, of an empty context.
        there = client.export_keying_material(b"EXPORTER-Channel-Binding", 32, b"")
        self.assertEqual(binding("tls-exporter"), there)

    def test_exporter_of_another_connection(self) -> None:
        first, _ = self.connected("a.test")
        second, _ = self.connected("a.test")
        assert first is not None and second is not None
        self.assertNotEqual(first("tls-exporter"), second("tls-exporter"))

    def test_end_point_is_the_certificate_that_was_shown(self) -> None:
        for asked in ("a.test", "b.test", "unknown.test"):
            binding, client = self.connected("a.test", "b.test", asked=asked)
            assert binding is not None
            shown = client.get_peer_certificate(as_cryptography=True)
            assert shown is not None
            self.assertEqual(
                binding("tls-server-end-point"), shown.fingerprint(hashes.SHA256())
            )

    def test_other_kinds(self) -> None:
        binding, _ = self.connected("a.test")
        assert binding is not None
        for name in ("tls-unique", "", "tls-exporter "):
            self.assertIsNone(binding(name))

    def test_none_before_tls_1_3(self) -> None:
        binding, client = self.connected("a.test", version=SSL.TLS1_2_VERSION)
        self.assertEqual(client.get_protocol_version_name(), "TLSv1.2")
        self.assertIsNone(binding)

    def test_none_in_clear(self) -> None:
        self.assertIsNone(channel_binding(StringTransport()))
