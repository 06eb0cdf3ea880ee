"""What the SMTP server hands to the queue, and what it says of that."""

from mailsrv.accounts import edits
from mailsrv.accounts.live import POLL_S
from mailsrv.queue.values import Priority
from mailsrv.store.values import SEEN, DeliveryFailed
from tests.smtp.office import (
    ANNA,
    BERT,
    MAIL,
    MESSAGE,
    Connection,
    OfficeCase,
    rcpt,
)


class QueueTests(OfficeCase):
    """What goes on through the queue, instead of into mailboxes at once."""

    def deliver(self, client: Connection, *to: str, header: bytes = b"") -> list[int]:
        wire = MAIL + b"".join(map(rcpt, to)) + b"DATA\r\n" + header + MESSAGE
        return client.codes(wire + b".\r\n")

    def rows(self) -> list[tuple[str, str, str]]:
        return [
            (row.destination, row.forward_path, row.original)
            for _, rows, _ in self.queue.taken
            for row in rows
        ]

    def test_strangers_reach_nobody_elsewhere(self) -> None:
        self.assertEqual(self.mx().codes(MAIL + rcpt("a@else.test")), [250, 550])

    def test_alias_that_leads_elsewhere(self) -> None:
        targets = ["Carl@else.test", ANNA]
        self.database.edit(lambda d: edits.add_alias(d, "both@example.test", targets))
        codes = self.deliver(self.mx(), "both@example.test", "both@example.test")
        self.assertEqual(codes, [250, 250, 250, 354, 250])
        self.assertEqual(
            self.rows(), [("else.test", "Carl@else.test", "both@example.test")]
        )
        self.assertFalse(self.queue.taken[0][2])  # not ours to sign
        [stored] = self.store.messages
        folders = [target.folder for target in stored.targets]
        self.assertEqual(folders, [ANNA, self.queue.spool.folder])
        self.assertNotIn(b"Delivered-To", stored.octets)

    def test_copy_that_fails_beside_others_waits(self) -> None:
        self.store.failing = {BERT}
        codes = self.deliver(self.mx(), ANNA, "team@example.test")
        self.assertEqual(codes, [250, 250, 250, 354, 250])
        self.assertEqual(self.rows(), [("local", BERT, "team@example.test")])
        [copy] = self.queue.kept
        self.assertEqual(copy.target.folder, ANNA)
        self.assertEqual(self.queue.taken[0][0].file, "kept")

    def test_only_copy_that_fails_is_told(self) -> None:
        self.store.failing = {BERT}
        self.assertEqual(self.deliver(self.mx(), BERT), [250, 250, 354, 451])
        self.assertEqual(self.queue.taken, [])

    def test_no_promise_without_the_queue(self) -> None:
        self.queue.failure = DeliveryFailed("full")
        client = self.submission()
        codes = client.codes(
            b"MAIL FROM:<anna@example.test>\r\n"
            + rcpt(ANNA)
            + rcpt("a@else.test")
            + b"DATA\r\n\r\n.\r\n"
        )
        self.assertEqual(codes, [250, 250, 250, 354, 452])
        self.assertEqual(self.store.messages, [])

    def test_spool_that_fails(self) -> None:
        self.store.failing = {self.queue.spool.folder}
        client = self.submission()
        codes = client.codes(
            b"MAIL FROM:<anna@example.test>\r\n"
            + rcpt(ANNA)
            + rcpt("a@else.test")
            + b"DATA\r\n\r\n.\r\n"
        )
        self.assertEqual(codes[-1], 451)
        self.assertEqual((self.store.messages, self.queue.taken), ([], []))

    def test_success_that_is_to_be_reported(self) -> None:
        client = self.mx()
        codes = client.codes(
            MAIL
            + b"RCPT TO:<anna@example.test> NOTIFY=SUCCESS\r\n"
            + b"DATA\r\n\r\n.\r\n"
        )
        self.assertEqual(codes, [250, 250, 354, 250])
        self.assertEqual(self.rows(), [("local", ANNA, "")])
        [stored] = self.store.messages
        self.assertEqual(list(stored.targets), [self.queue.spool])

    def test_success_of_an_alias_of_several(self) -> None:
        """RFC 3461 section 5.2.7.3: one report, and none for each member."""
        members = [ANNA, "a@else.test"]
        self.database.edit(
            lambda d: edits.add_alias(d, "several@example.test", members)
        )
        for asked, left in (
            (b"SUCCESS", "NEVER"),
            (b"DELAY,SUCCESS,FAILURE", "DELAY,FAILURE"),
        ):
            codes = self.mx().codes(
                MAIL
                + b"RCPT TO:<several@example.test> NOTIFY=%b ORCPT=rfc822;all@x\r\n"
                % asked
                + b"DATA\r\n\r\n.\r\n"
            )
            self.assertEqual(codes, [250, 250, 354, 250])
            rows = {r.destination: r for r in self.queue.taken[-1][1]}
            self.assertEqual(set(rows), {"alias", "else.test"})
            self.assertEqual(
                (rows["alias"].forward_path, rows["alias"].notify),
                ("several@example.test", asked.decode()),
            )
            self.assertEqual(rows["else.test"].notify, left)
            self.assertEqual({r.orcpt for r in rows.values()}, {"rfc822;all@x"})
            # Anna gets hers at once: nobody is to hear of it.
            folders = {t.folder for t in self.store.messages[-1].targets}
            self.assertEqual(folders, {ANNA, self.queue.spool.folder})

    def test_success_of_an_alias_of_one(self) -> None:
        self.database.edit(
            lambda d: edits.add_alias(d, "one@example.test", ["a@else.test"])
        )
        self.mx().codes(
            MAIL
            + b"RCPT TO:<one@example.test> NOTIFY=SUCCESS\r\n"
            + b"DATA\r\n\r\n.\r\n"
        )
        [(_, [row], _)] = self.queue.taken
        self.assertEqual((row.destination, row.notify), ("else.test", "SUCCESS"))

    def test_two_ways_to_one_address(self) -> None:
        """It gets one copy; what either RCPT wants to hear is told."""
        self.database.edit(
            lambda d: edits.add_alias(d, "one@example.test", ["a@else.test"])
        )
        client = self.submission()
        for first, second, told in (
            (" NOTIFY=NEVER", "", "FAILURE,DELAY"),
            (" NOTIFY=NEVER", " NOTIFY=NEVER", "NEVER"),
            ("", "", ""),
            (" NOTIFY=SUCCESS", " NOTIFY=FAILURE", "FAILURE,SUCCESS"),
        ):
            client.codes(
                f"MAIL FROM:<{ANNA}>\r\nRCPT TO:<one@example.test>{first}\r\n"
                f"RCPT TO:<a@else.test>{second}\r\nDATA\r\n\r\n.\r\n".encode()
            )
            [row] = self.queue.taken[-1][1]
            self.assertEqual(row.notify, told, (first, second))

    def test_who_needs_no_smtputf8_has_no_need_of_it_for_others(self) -> None:
        members = ["a@else.test"]
        self.database.edit(lambda d: edits.add_alias(d, "\u00e4@example.test", members))
        self.mx().codes(
            "MAIL FROM:<c@else.test> SMTPUTF8\r\n"
            "RCPT TO:<\u00e4@example.test>\r\nRCPT TO:<anna@example.test>\r\n"
            "DATA\r\n\r\n.\r\n".encode()
        )
        [(message, _, _)] = self.queue.taken
        self.assertFalse(message.smtputf8)

    def test_priority(self) -> None:
        self.database.edit(
            lambda d: edits.add_alias(d, "far@example.test", ["a@else.test"])
        )
        for mail, header, priority in (
            (MAIL, b"", Priority.LETTER),
            (MAIL, b"Precedence: Bulk\r\n", Priority.BULK),
            (MAIL, b"List-Unsubscribe: <x>\r\n", Priority.BULK),
            (b"MAIL FROM:<>\r\n", b"", Priority.REPORT),
        ):
            client = self.mx()
            client.send(mail + rcpt("far@example.test") + b"DATA\r\n" + header)
            client.send(b"A: b\r\n\r\n\xe4\r\n.\r\n")
            message = self.queue.taken[-1][0]
            self.assertEqual(message.priority, priority, header)
            self.assertTrue(message.eight_bit)
            self.assertFalse(message.smtputf8)

    def test_sent_mail_is_filed_for_who_wants_it(self) -> None:
        self.database.edit(lambda d: edits.set_files_sent(d, ANNA, True))
        self.clock.advance(POLL_S)
        client = self.submission()
        wire = (
            b"MAIL FROM:<anna@example.test>\r\n"
            + rcpt("a@else.test")
            + b"DATA\r\n\r\n.\r\n"
        )
        self.assertEqual(client.codes(wire)[-1], 250)
        copies = [
            (t.folder, t.mailbox, t.flags) for t in self.store.messages[0].targets
        ]
        spool = self.queue.spool.folder
        self.assertEqual(copies, [(spool, "INBOX", 0), (ANNA, "Sent", SEEN)])
        self.store.failing = {"Sent"}  # the mail goes out all the same
        self.assertEqual(client.codes(wire)[-1], 250)
        self.assertEqual(len(self.queue.taken), 2)
        self.assertEqual(self.rows(), [("else.test", "a@else.test", "")] * 2)
        bert = self.submission(BERT)
        self.assertEqual(bert.codes(wire.replace(b"anna", b"bert"))[-1], 250)
        self.assertEqual(len(self.store.messages[-1].targets), 1)

    def test_requiretls_needs_tls(self) -> None:
        client = self.mx()
        mail = b"MAIL FROM:<a@else.test> REQUIRETLS\r\n"
        self.assertEqual(client.codes(mail), [530])
        client = Connection(self.factory(), tls=True)
        client.send(b"EHLO client.test\r\n")
        self.assertEqual(client.codes(mail), [250])

    def test_tls_required_no(self) -> None:
        """RFC 8689 section 3: the field says nothing beside REQUIRETLS."""
        for option, optional in ((b"", True), (b" REQUIRETLS", False)):
            client = self.submission()
            wire = (
                b"MAIL FROM:<anna@example.test>%b\r\nRCPT TO:<a@else.test>\r\nDATA\r\n"
                b"From: anna@example.test\r\nTLS-Required: No\r\n\r\nx\r\n.\r\n"
            )
            self.assertEqual(client.codes(wire % option), [250, 250, 354, 250])
            message, _, _ = self.queue.taken[-1]
            self.assertIs(message.tls_optional, optional)
            self.assertIs(message.require_tls, not optional)
