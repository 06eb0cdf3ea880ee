"""TLS as clients meet it: in memory, with Python's own ssl at the other end."""

import os
import ssl
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.settings import Certificate
from mailsrv.tls.authority import Pair
from mailsrv.tls.contexts import (
    TlsContexts,
    UnusableCertificate,
    load_certificates,
)
from tests.tls.certificates import ca, pair, write


def client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=ca().chain_pem().decode())
    return context


class Client:
    """A client of the standard library, shaking hands in memory."""

    def __init__(
        self,
        tls: TlsContexts,
        context: ssl.SSLContext,
        name: str = "mail.example.test",
        session: ssl.SSLSession | None = None,
    ) -> None:
        server = Factory.forProtocol(Protocol)
        self._transport = StringTransport()
        self._server = TLSMemoryBIOFactory(tls, False, server).buildProtocol(None)
        self._server.makeConnection(self._transport)
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._in, self._out, server_hostname=name, session=session
        )

    def _exchange(self) -> None:
        if sent := self._out.read():
            self._server.dataReceived(sent)
        self._in.write(self._transport.value())
        self._transport.clear()

    def shake_hands(self) -> "Client":
        for _ in range(10):
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                self._exchange()
            else:
                self._exchange()
                break
        try:
            self.tls.read(1)  # takes up the tickets of TLS 1.3
        except ssl.SSLWantReadError:
            pass
        return self

    def names(self) -> set[str]:
        certificate = self.tls.getpeercert()
        assert certificate is not None
        # The type of getpeercert's values covers all of its fields.
        return {str(pair[1]) for pair in certificate["subjectAltName"]}


class TlsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def written(self, *names: str) -> Certificate:
        return write(self.folder, pair(*names), names[0].replace("*", "star"))

    def contexts(self, *certificates: Certificate) -> TlsContexts:
        return TlsContexts(load_certificates(certificates))

    def default(self) -> TlsContexts:
        return self.contexts(self.written("mail.example.test"))


class HandshakeTests(TlsTests):
    def test_a_verifying_client_is_content(self) -> None:
        for name in ("mail.example.test", "127.0.0.1"):
            client = Client(self.default(), client_context(), name).shake_hands()
            self.assertEqual(client.tls.version(), "TLSv1.3")
            self.assertIsNone(client.tls.compression())

    def test_tls_1_2_is_taken_and_1_1_is_not(self) -> None:
        context = client_context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        client = Client(self.default(), context).shake_hands()
        self.assertEqual(client.tls.version(), "TLSv1.2")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
        old = Client(self.default(), context)
        self.assertRaises(ssl.SSLError, old.shake_hands)

    def test_any_alpn_is_harmless(self) -> None:
        context = client_context()
        context.set_alpn_protocols(["h2", "surely-unknown"])
        client = Client(self.default(), context).shake_hands()
        self.assertIsNone(client.tls.selected_alpn_protocol())

    def test_sessions_resume(self) -> None:
        tls = self.default()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = client_context()
            context.maximum_version = version
            first = Client(tls, context).shake_hands()
            second = Client(tls, context, session=first.tls.session).shake_hands()
            self.assertTrue(second.tls.session_reused, version)


class NameTests(TlsTests):
    def setUp(self) -> None:
        super().setUp()
        self.tls = self.contexts(
            self.written("mail.example.test", "example.test"),
            self.written("mail.example.org", "*.example.org"),
        )

    def served(self, name: str) -> set[str]:
        context = client_context()
        context.check_hostname = False
        return Client(self.tls, context, name).shake_hands().names()

    def test_the_name_selects_the_certificate(self) -> None:
        self.assertIn("example.test", self.served("example.test"))
        self.assertIn("mail.example.org", self.served("MAIL.example.org"))
        self.assertIn("mail.example.org", self.served("imap.example.org"))

    def test_an_unknown_name_gets_the_first(self) -> None:
        self.assertIn("example.test", self.served("example.com"))
        self.assertIn("example.test", self.served("a.b.example.org"))

    def test_a_trailing_dot_is_ignored(self) -> None:
        self.assertIn("mail.example.org", self.served("mail.example.org."))

    def test_no_name_and_odd_names(self) -> None:
        loaded = self.tls.loaded
        for name in (None, b"", b".", b"\xff\xfe", b"*.example.org\0"):
            self.assertIs(loaded.for_name(name), loaded.default)


class ReloadTests(TlsTests):
    def renewed(self, certificate: Certificate, made: Pair) -> None:
        certificate.chain.write_bytes(made.chain_pem())
        certificate.key.write_bytes(made.key_pem())

    def test_changed_files_are_loaded_again(self) -> None:
        certificate = self.written("mail.example.test")
        loaded = load_certificates([certificate])
        self.assertIsNone(loaded.renewed())
        self.renewed(certificate, pair("mail.example.test", "new.example.test"))
        again = loaded.renewed()
        assert again is not None
        self.assertIn("new.example.test", again.by_name)
        self.assertIsNone(again.renewed())

    def test_half_a_renewal_is_not_taken(self) -> None:
        certificate = self.written("mail.example.test")
        loaded = load_certificates([certificate])
        certificate.key.write_bytes(pair("other.example.test").key_pem())
        self.assertRaises(UnusableCertificate, loaded.renewed)
        certificate.key.unlink()
        self.assertRaises(UnusableCertificate, loaded.renewed)

    def test_the_next_connection_gets_the_new_one(self) -> None:
        certificate = self.written("mail.example.test")
        tls = self.contexts(certificate)
        begun = Client(tls, client_context())
        self.renewed(certificate, pair("mail.example.test", "new.example.test"))
        tls.replace(load_certificates([certificate]))
        self.assertNotIn("new.example.test", begun.shake_hands().names())
        then = Client(tls, client_context()).shake_hands()
        self.assertIn("new.example.test", then.names())


class UnusableTests(TlsTests):
    def refused(self, certificate: Certificate) -> str:
        error = self.assertRaises(UnusableCertificate, self.contexts, certificate)
        return str(error)

    def test_missing_files(self) -> None:
        certificate = self.written("mail.example.test")
        certificate.chain.unlink()
        self.assertIn("No such file", self.refused(certificate))
        certificate.key.unlink()
        self.assertIn(str(certificate.key), self.refused(certificate))

    def test_not_pem(self) -> None:
        certificate = self.written("mail.example.test")
        certificate.chain.write_text("nothing")
        self.assertIn(str(certificate.chain), self.refused(certificate))

    def test_another_s_key(self) -> None:
        certificate = self.written("mail.example.test")
        certificate.key.write_bytes(pair("example.test").key_pem())
        self.assertIn("is not the key of", self.refused(certificate))

    def test_a_key_that_everybody_can_read(self) -> None:
        certificate = self.written("mail.example.test")
        certificate.key.chmod(0o644)
        self.assertIn("has mode 0644; allowed: 0600 or 0640", self.refused(certificate))
        certificate.key.chmod(0o640)
        self.contexts(certificate)

    def test_a_key_with_a_pass_phrase_does_not_ask(self) -> None:
        certificate = self.written("mail.example.test")
        certificate.key.write_bytes(
            pair("mail.example.test").key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            )
        )
        os.chmod(certificate.key, 0o600)
        self.assertIn(str(certificate.key), self.refused(certificate))
