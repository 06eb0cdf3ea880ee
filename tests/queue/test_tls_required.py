"""The header field by which mail may go without TLS."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.queue.tls_required import is_tls_optional
from tests.queue.office import QueueCase


class TlsRequiredTests(SynchronousTestCase):
    def test_one_field_that_says_no(self) -> None:
        for header, optional in (
            (b"Subject: x\r\nTLS-Required: No\r\n", True),
            (b"tls-required:\r\n no \r\n", True),
            (b"TLS-Required: Yes\r\n", False),
            (b"TLS-Required: No way\r\n", False),
            (b"TLS-Required: No\r\nTLS-Required: No\r\n", False),
            (b"Subject: TLS-Required: No\r\n", False),
            (b"X: y\r\n TLS-Required: No\r\n", False),
        ):
            self.assertIs(is_tls_optional(header), optional, header)


class QueueTests(QueueCase):
    def test_of_the_server_itself(self) -> None:
        self.send("a@far.test", content=b"TLS-Required: No\n\nSubject: x\n")
        self.send("a@near.test", content=b"Subject: x\n\nTLS-Required: No\n")
        found = {p.destination: p.message.tls_optional for p, _ in self.far.carried}
        self.assertEqual(found, {"far.test": True, "near.test": False})
