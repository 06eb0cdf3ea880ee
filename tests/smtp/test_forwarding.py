"""Mail that an alias leads elsewhere, and the reports on it that come back."""

from mailsrv.accounts import edits
from mailsrv.routing.router import Router
from mailsrv.routing.srs import Srs
from tests.smtp.office import OfficeCase

MESSAGE = b"From: carl@else.test\r\nDKIM-Signature: x\r\n\r\nhello\r\n.\r\n"


class ForwardingTests(OfficeCase):
    def setUp(self) -> None:
        super().setUp()
        self.router = Router(self.router._live, (), Srs(b"k" * 32, lambda: 0.0))
        self.database.edit(
            lambda d: edits.add_alias(d, "info@example.test", ["home@far.test"])
        )

    def deliver(self, reverse_path: str, forward_path: str) -> list[int]:
        wire = f"MAIL FROM:<{reverse_path}>\r\nRCPT TO:<{forward_path}>\r\nDATA\r\n"
        return self.mx().codes(wire.encode() + MESSAGE)

    def test_there_and_back(self) -> None:
        codes = self.deliver("carl@else.test", "info@example.test")
        self.assertEqual(codes, [250, 250, 354, 250])
        [(message, [row], signed)] = self.queue.taken
        self.assertEqual(message.reverse_path, "carl@else.test")
        assert row.reverse_path is not None
        self.assertRegex(row.reverse_path, r"^SRS0=.*=else.test=carl@example.test$")
        self.assertFalse(signed)
        # The signature of the sender covers it still.
        [stored] = self.store.messages
        self.assertTrue(stored.octets.endswith(MESSAGE.removesuffix(b".\r\n")))

        codes = self.deliver("", row.reverse_path)
        self.assertEqual(codes, [250, 250, 354, 250])
        _, [back], _ = self.queue.taken[-1]
        self.assertEqual(back.forward_path, "carl@else.test")
        self.assertIsNone(back.reverse_path)

    def test_nobody_sends_through_us_by_guessing(self) -> None:
        path = "SRS0=aaaaaaaaaaaaaaaa=aa=victim.test=dora@example.test"
        self.assertEqual(self.deliver("", path)[:2], [250, 550])
