"""The SMTP server as LMTP's (RFC 2033): a reply for each recipient."""

from mailsrv.accounts import edits
from mailsrv.store.values import DeliveryFailed
from tests.smtp.office import (
    ANNA,
    BERT,
    CARL,
    MAIL,
    Connection,
    OfficeCase,
    rcpt,
)


class LmtpTests(OfficeCase):
    def client(self) -> Connection:
        client = Connection(self.factory("lmtp"))
        self.assertEqual(client.codes(b"LHLO mx.test\r\n"), [250])
        return client

    def test_a_reply_for_each_recipient(self) -> None:
        client = self.client()
        self.store.failing = {BERT}
        codes = client.codes(
            MAIL
            + b"".join(map(rcpt, (ANNA, "nobody@example.test", BERT, ANNA)))
            + b"BDAT 2 LAST\r\n\r\n"
        )
        self.assertEqual(codes, [250, 250, 550, 250, 250, 250, 451, 250])
        self.assertEqual(self.queue.taken, [])
        [event] = self.infos("copy refused")
        self.assertEqual((event["forward_path"], event["reply_code"]), (BERT, 451))

    def test_a_group_that_is_reached_in_part(self) -> None:
        # Refused, it would be sent to again, and to Anna twice.
        client = self.client()
        self.store.failing = {BERT}
        for others, waiting in (
            ((), [BERT]),
            ((BERT,), [BERT]),  # who waits anyway
            ((ANNA, BERT), [BERT]),
        ):
            recipients = ["team@example.test", *others]
            codes = client.codes(
                MAIL + b"".join(map(rcpt, recipients)) + b"BDAT 2 LAST\r\n\r\n"
            )
            self.assertEqual(codes, [250] * (1 + 2 * len(recipients)))
            _, rows, _ = self.queue.taken.pop()
            self.assertEqual([row.forward_path for row in rows], waiting)

    def test_a_group_that_is_not_reached(self) -> None:
        client = self.client()
        self.store.failing = {ANNA, BERT}
        codes = client.codes(
            MAIL + rcpt("team@example.test") + rcpt(CARL) + b"BDAT 2 LAST\r\n\r\n"
        )
        self.assertEqual(codes, [250, 250, 250, 451, 250])
        self.assertEqual(self.queue.taken, [])

    def test_groups_that_share_who_was_not_reached(self) -> None:
        self.database.edit(
            lambda d: edits.add_group(
                edits.add_group(d, "two@example.test", [BERT, CARL]),
                "far@example.test",
                [CARL, "eve@else.test"],
            )
        )
        client = self.client()
        self.store.failing = {BERT, CARL}
        recipients = (ANNA, "two@example.test", "far@example.test")
        codes = client.codes(
            MAIL + b"".join(map(rcpt, recipients)) + b"BDAT 2 LAST\r\n\r\n"
        )
        self.assertEqual(codes, [250] * 7)
        _, rows, _ = self.queue.taken.pop()
        self.assertEqual(
            sorted(row.forward_path for row in rows), [BERT, CARL, "eve@else.test"]
        )

    def test_a_refused_message(self) -> None:
        client = self.client()
        self.store.failure = DeliveryFailed("full")
        codes = client.codes(MAIL + rcpt(ANNA) + rcpt(BERT) + b"BDAT 1 LAST\r\n\n")
        self.assertEqual(codes, [250, 250, 250, 554, 554])  # a bare LF
        codes = client.codes(MAIL + rcpt(ANNA) + rcpt(BERT) + b"BDAT 2 LAST\r\n\r\n")
        self.assertEqual(codes, [250, 250, 250, 452, 452])

    def test_log_of_a_message_that_nobody_got(self) -> None:
        self.store.failing = {ANNA, BERT}
        client = self.client()
        codes = client.codes(MAIL + rcpt(ANNA) + rcpt(BERT) + b"BDAT 2 LAST\r\n\r\n")
        self.assertEqual(codes, [250, 250, 250, 451, 451])
        self.assertEqual(len(self.infos("message refused")), 1)
        self.assertEqual(self.infos("message accepted"), [])

    def test_trace_field(self) -> None:
        self.client().send(MAIL + rcpt(ANNA) + b"BDAT 2 LAST\r\n\r\n")
        [message] = self.store.messages
        self.assertIn(b"with LMTP\r\n", message.octets)

    def test_many_refusals(self) -> None:
        client = self.client()
        for _ in range(30):
            wire = MAIL + rcpt("nobody@example.test") + b"DATA\r\n"
            self.assertEqual(client.codes(wire), [250, 550, 503])
            self.assertEqual(client.codes(b"RSET\r\n"), [250])
