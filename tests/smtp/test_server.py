"""The SMTP server on a transport without a network."""

from mailsrv.accounts import edits
from mailsrv.accounts.directory import Account
from mailsrv.accounts.live import POLL_S
from mailsrv.settings import SmtpSettings, TrustedNetwork
from mailsrv.smtp.server import (
    COMMANDS_IN_A_TURN,
    MAX_WAITING_OCTETS,
)
from mailsrv.store.values import DeliveryFailed
from tests.smtp.office import (
    ANNA,
    BERT,
    CARL,
    MAIL,
    MESSAGE,
    PEER,
    Connection,
    OfficeCase,
    plain,
    rcpt,
)


class MxTests(OfficeCase):
    def test_message(self) -> None:
        client = self.mx()
        self.assertEqual(client.codes(MAIL + rcpt(ANNA) + b"DATA\r\n")[:2], [250, 250])
        self.assertRegex(
            client.send(MESSAGE + b".\r\n"), rb"^250 2\.0\.0 Ok, id .*\r\n$"
        )
        [message] = self.store.messages
        self.assertTrue(message.octets.endswith(MESSAGE))
        self.assertEqual([t.folder for t in message.targets], [ANNA])
        self.assertEqual(message.targets[0].delivered_to, ANNA.encode())

    def test_recipients(self) -> None:
        client = self.mx()
        client.send(b"EHLO a\r\nMAIL FROM:<> SMTPUTF8\r\n")
        for address, code, enhanced in (
            (ANNA, 250, "2.0.0"),
            ("ANNA+x@Example.Test", 250, "2.0.0"),
            ("sales@example.test", 250, "2.0.0"),
            ("Postmaster", 250, "2.0.0"),
            ("team@example.test", 250, "2.0.0"),
            ("jörg@bücher.test", 250, "2.0.0"),
            ("jörg@xn--bcher-kva.test", 250, "2.0.0"),
            ("nobody@example.test", 550, "5.1.1"),
            ("gone@example.test", 550, "5.2.1"),
            ("a@else.test", 550, "5.7.1"),
            ("a@[192.0.2.1]", 550, "5.7.1"),
            (f"{'a' * 100}@example.test", 501, "5.1.3"),
        ):
            reply = client.send(rcpt(address)).decode()
            self.assertTrue(reply.startswith(f"{code} {enhanced} "), (address, reply))
        client.send(b"DATA\r\n")
        client.send(b".\r\n")
        [message] = self.store.messages
        self.assertEqual(len(message.targets), 3)  # each mailbox once
        self.assertNotIn(b"for <", message.octets)

    def test_utf8_recipient_needs_smtputf8(self) -> None:
        self.assertEqual(self.mx().codes(MAIL + rcpt("jörg@bücher.test")), [250, 553])

    def test_no_auth(self) -> None:
        client = self.mx()
        self.assertEqual(client.codes(b"AUTH PLAIN " + plain(ANNA) + b"\r\n"), [502])

    def test_quota(self) -> None:
        self.store.used[CARL] = 900
        sized = b"MAIL FROM:<> SIZE=%d\r\n"
        self.assertEqual(self.mx().codes(sized % 100 + rcpt(CARL)), [250, 250])
        self.assertEqual(self.mx().codes(sized % 101 + rcpt(CARL)), [250, 552])
        self.assertEqual(
            self.mx(over_quota="defer").codes(sized % 101 + rcpt(CARL)), [250, 452]
        )

    def test_full_member_does_not_shut_out_a_group(self) -> None:
        self.store.used[CARL] = 1000
        client = self.mx()
        self.assertEqual(client.codes(MAIL + rcpt("all@example.test")), [250, 250])

    def test_declared_size(self) -> None:
        client = self.mx(max_message_octets=1000)
        self.assertEqual(client.codes(b"MAIL FROM:<> SIZE=1001\r\n" + MAIL), [552, 250])

    def test_one_line_of_the_log_for_a_message(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA, "nobody@example.test") + b"DATA\r\n")
        self.clock.advance(2)
        client.send(b"Message-ID: <1@a>\r\n\r\n.\r\n")
        [event] = self.infos("message accepted")
        self.assertEqual(event["peer"], PEER)
        self.assertEqual(event["message_id"], "<1@a>")
        self.assertEqual(event["reverse_path"], "a@else.test")
        self.assertEqual(event["forward_paths"], ANNA)
        self.assertEqual((event["recipients"], event["size_octets"]), (1, 21))
        self.assertEqual((event["reply_code"], event["elapsed_s"]), (250, 2.0))
        [event] = self.infos("{command} refused")
        self.assertEqual(event["forward_path"], "nobody@example.test")

    def test_bdat(self) -> None:
        client = self.mx()
        wire = MAIL + rcpt(ANNA) + b"BDAT 10\r\nSubject: aBDAT 8 LAST\r\n\r\n\r\nbody"
        self.assertEqual(client.codes(wire), [250, 250, 250, 250])
        [message] = self.store.messages
        self.assertTrue(message.octets.endswith(b"\r\nSubject: a\r\n\r\nbody"))

    def test_content_before_refusal_goes_nowhere(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE)
        self.assertEqual(client.codes(b"bare\nLF\r\n.\r\n"), [554])
        self.assertEqual(self.store.messages, [])
        self.assertEqual(len(self.store.aborted), 1)
        self.assertEqual(self.infos("message refused")[0]["reply_code"], 554)

    def test_loop(self) -> None:
        client = self.mx(max_received=2)
        for count, code in ((2, 250), (3, 554)):
            client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
            fields = b"Received: from a\r\n\tby b; never\r\n" * count
            self.assertEqual(client.codes(fields + b"\r\n.\r\n"), [code])

    def test_endless_header_is_refused_and_not_kept(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        for _ in range(300):
            client.send(b"X: " + b"y" * 1000 + b"\r\n")
        self.assertEqual(client.codes(b"\r\n.\r\nNOOP\r\n"), [552, 250])

    def test_failures_of_the_machine_are_temporary(self) -> None:
        for failure, reply in (
            (DeliveryFailed("full"), b"452 4.3.1"),
            (DeliveryFailed("readonly"), b"451 4.3.0"),
            (DeliveryFailed("io"), b"451 4.3.0"),
            (DeliveryFailed("descriptors"), b"451 4.3.0"),
        ):
            failure.__cause__ = OSError(5, "told to the admin", "/path")
            self.store.failure = failure
            client = self.mx()
            client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
            answer = client.send(MESSAGE + b".\r\n")
            self.assertEqual(answer[:9], reply)
            self.assertNotIn(b"path", answer)
            self.assertIn(
                "told to the admin", self.infos("delivery failed")[-1]["reason"]
            )
            client.lose()

    def test_our_bug_is_a_temporary_error_and_the_session_lives(self) -> None:
        self.store.failure = ZeroDivisionError()
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + b".\r\n")[:9], b"451 4.3.0")
        self.store.failure = None
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + b".\r\n")[:9], b"250 2.0.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_account_deleted_since_rcpt_gets_nothing(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(BERT, ANNA) + b"DATA\r\n" + MESSAGE)
        self.database.edit(lambda d: edits.delete(d, BERT, Account))
        self.clock.advance(POLL_S)
        self.assertEqual(client.codes(b".\r\n"), [451])
        self.assertEqual(self.store.messages, [])
        self.assertEqual(client.codes(MAIL + rcpt(BERT, ANNA)), [250, 550, 250])

    def test_several_transactions_do_not_mix(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"RSET\r\n")
        for name in (BERT, CARL):
            client.send(MAIL + rcpt(name) + b"DATA\r\n")
            client.send(MESSAGE + b".\r\n")
        folders = [[t.folder for t in m.targets] for m in self.store.messages]
        self.assertEqual(folders, [[BERT], [CARL]])
        self.assertEqual(len({m.header for m in self.store.messages}), 2)


class SubmissionTests(OfficeCase):
    def message(self, client: Connection, header: bytes) -> bytes:
        self.assertEqual(
            client.codes(
                b"MAIL FROM:<%b>\r\n" % ANNA.encode() + rcpt(BERT) + b"DATA\r\n"
            ),
            [250, 250, 354],
        )
        return client.send(header + b"\r\nbody\r\n.\r\n")

    def test_plain_and_login(self) -> None:
        factory = self.factory("submission")
        for wire, codes in (
            (b"AUTH PLAIN " + plain(ANNA) + b"\r\n", [235]),
            (b"AUTH PLAIN\r\n" + plain(ANNA) + b"\r\n", [334, 235]),
            (b"AUTH LOGIN\r\nYW5uYQ==\r\nc2VjcmV0\r\n", [334, 334, 235]),
            (b"AUTH LOGIN YW5uYQ==\r\nc2VjcmV0\r\n", [334, 235]),
            (b"AUTH LOGIN\r\n*\r\nNOOP\r\n", [334, 501, 250]),
            (b"AUTH PLAIN AAAA\r\nNOOP\r\n", [501, 250]),
            (b"AUTH NTLM\r\nNOOP\r\n", [504, 250]),
        ):
            client = Connection(factory, tls=True)
            client.send(b"EHLO a\r\n")
            self.assertEqual(client.codes(wire), codes, wire)
            client.lose()
        client = Connection(factory, tls=True)
        client.send(b"EHLO a\r\n")
        self.assertEqual(client.send(b"AUTH LOGIN\r\n"), b"334 VXNlcm5hbWU6\r\n")
        self.assertEqual(client.send(b"YQ==\r\n"), b"334 UGFzc3dvcmQ6\r\n")

    def test_wrong_password(self) -> None:
        client = Connection(self.factory("submission"), tls=True)
        auth = b"AUTH PLAIN " + plain(ANNA, "guess") + b"\r\nMAIL FROM:<>\r\n"
        replies = client.send(b"EHLO a\r\n" + auth)
        self.clock.pump([1] * 60)
        replies += client.wire.take()
        self.assertRegex(replies, rb"(?s)535 5\.7\.8 .*\r\n530 5\.7\.0 ")

    def test_sender_addresses(self) -> None:
        client = self.submission()
        for address, code in (
            (ANNA, 250),
            ("anna+x@example.test", 250),
            ("sales@example.test", 250),
            ("", 250),
            (BERT, 553),
            ("team@example.test", 553),  # only Bert may
            ("a@else.test", 553),
        ):
            wire = f"MAIL FROM:<{address}>\r\nRSET\r\n".encode()
            self.assertEqual(client.codes(wire), [code, 250], address)
        bert = self.submission(BERT)
        self.assertEqual(bert.codes(b"MAIL FROM:<team@example.test>\r\n"), [250])

    def test_outside_recipient(self) -> None:
        client = self.submission()
        codes = client.codes(
            b"MAIL FROM:<anna@example.test> RET=HDRS ENVID=x\r\n"
            b"RCPT TO:<a@Else.test> NOTIFY=NEVER ORCPT=rfc822;b\r\n"
            b"DATA\r\nFrom: anna@example.test\r\n\r\nbody\r\n.\r\n"
        )
        self.assertEqual(codes, [250, 250, 354, 250])
        [(message, [to], sign)] = self.queue.taken
        self.assertTrue(sign)
        self.assertEqual(
            (message.reverse_path, message.account, message.ret, message.envid),
            (ANNA, ANNA, "HDRS", "x"),
        )
        self.assertEqual(
            (to.message, to.forward_path, to.destination, to.notify, to.orcpt),
            (message.id, "a@else.test", "else.test", "NEVER", "rfc822;b"),
        )
        [stored] = self.store.messages
        self.assertEqual(list(stored.targets), [self.queue.spool])
        return_path, _, rest = stored.octets.partition(b"\r\n")
        self.assertEqual(return_path, b"Return-Path: <anna@example.test>")
        self.assertEqual(message.skip_octets, len(return_path) + 1)
        self.assertEqual(message.size_octets, len(rest))

    def test_from_and_sender_must_be_own(self) -> None:
        for header, code in (
            (b"From: Anna <anna@example.test>\r\n", b"250"),
            (b"From: Sales <sales@example.test>\r\n", b"250"),
            (b"From: Bert <bert@example.test>\r\n", b"550"),
            (b"From: a@example.test, anna@example.test\r\n", b"550"),
            (b"From: anna@example.test\r\nSender: bert@example.test\r\n", b"550"),
            (b"From: anna@example.test\r\nFrom: bert@example.test\r\n", b"554"),
            (b"From: undisclosed:;\r\n", b"554"),
            (b"From: anna\r\n @example.test (bert@example.test)\r\n", b"250"),
        ):
            self.assertEqual(self.message(self.submission(), header)[:3], code, header)
            self.store.messages.clear()
            self.connections.max_per_address += 1

    def test_header_is_made_whole(self) -> None:
        client = self.submission()
        self.message(
            client, b"Subject: a\r\nBcc: secret@example.test,\r\n\tx@y\r\nX: y\r\n"
        )
        octets = self.store.messages[0].octets
        self.assertNotIn(b"secret", octets)
        self.assertRegex(octets, rb"\r\nDate: [A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} 2027 ")
        self.assertRegex(
            octets, rb"\r\nMessage-ID: <[0-9a-f.]+@mail\.example\.test>\r\n"
        )
        self.assertIn(b"\r\nFrom: <anna@example.test>\r\n", octets)
        self.assertTrue(octets.endswith(b"\r\nSubject: a\r\nX: y\r\n\r\nbody\r\n"))
        [event] = self.infos("message accepted")
        self.assertEqual(event["user"], ANNA)
        self.assertIn(event["message_id"].encode(), octets)

    def test_complete_header_stays_as_it_is(self) -> None:
        header = (
            b"Date: now\r\nFROM: anna@example.test\r\nmessage-id : <1@a>\r\nBccx: a\r\n"
        )
        self.message(self.submission(), header)
        self.assertTrue(
            self.store.messages[0].octets.endswith(b"\r\n" + header + b"\r\nbody\r\n")
        )

    def test_disabled_account_is_logged_out(self) -> None:
        factory = self.factory("submission")
        idle, busy, other = (Connection(factory, tls=True) for _ in range(3))
        for client, login in ((idle, ANNA), (busy, ANNA), (other, BERT)):
            client.send(b"EHLO a\r\nAUTH PLAIN " + plain(login) + b"\r\n")
        busy.send(b"MAIL FROM:<>\r\n" + rcpt(BERT) + b"DATA\r\n")
        factory.accounts_changed(
            self.database.edit(lambda d: edits.set_enabled(d, ANNA, False))
        )
        self.assertEqual(idle.wire.take()[:9], b"421 4.7.0")
        self.assertTrue(idle.ended)
        message = b"From: <anna@example.test>\r\n\r\n.\r\nMAIL FROM:<>\r\n"
        self.assertEqual(busy.codes(message), [550, 530])
        self.assertEqual(other.codes(b"MAIL FROM:<>\r\n"), [250])

    def test_mail_before_tls_and_log_in(self) -> None:
        client = Connection(self.factory("submission"))
        codes = client.codes(b"EHLO a\r\nMAIL FROM:<>\r\nAUTH PLAIN AAAA\r\n")
        self.assertEqual(codes, [250, 530, 538])


class DeviceTests(OfficeCase):
    """A scanner at the address of `PEER`, which has no password."""

    def device(self, *, network: str = PEER, most: int = 60) -> Connection:
        trusted = TrustedNetwork(
            networks=[network],
            send_as=["Scanner@example.test", "a@else.test"],
            max_messages_per_hour=most,
        )
        settings = SmtpSettings(trusted_networks=[trusted])
        client = Connection(self.factory("submission", settings))
        client.send(b"EHLO scanner\r\n")
        return client

    def test_message(self) -> None:
        client = self.device()
        codes = client.codes(
            b"MAIL FROM:<scanner@example.test>\r\n"
            + rcpt(BERT)
            + b"DATA\r\nSubject: scan\r\n\r\nbody\r\n.\r\n"
        )
        self.assertEqual(codes, [250, 250, 354, 250])
        (message,) = self.store.messages
        self.assertIn(b"\r\nFrom: <scanner@example.test>\r\n", message.octets)
        self.assertIn(b" with ESMTP\r\n", message.octets)
        accepted = [e for e in self.events if e["log_format"] == "message accepted"]
        self.assertEqual([e["trusted_network"] for e in accepted], [PEER])

    def test_sender_that_says_none(self) -> None:
        client = self.device()
        client.send(b"MAIL FROM:<>\r\n" + rcpt(BERT) + b"DATA\r\n\r\nbody\r\n.\r\n")
        (message,) = self.store.messages
        self.assertIn(b"\r\nFrom: <scanner@example.test>\r\n", message.octets)

    def test_senders(self) -> None:
        client = self.device()
        for sender, code in (
            ("SCANNER@example.test", 250),
            (ANNA, 553),
            ("scanner+x@example.test", 553),
            ("a@else.test", 553),  # named, but of another domain
        ):
            wire = f"MAIL FROM:<{sender}>\r\nRSET\r\n".encode()
            self.assertEqual(client.codes(wire), [code, 250], sender)

    def test_from_of_another(self) -> None:
        client = self.device()
        codes = client.codes(
            b"MAIL FROM:<scanner@example.test>\r\n"
            + rcpt(BERT)
            + b"DATA\r\nFrom: %b\r\n\r\nbody\r\n.\r\n" % ANNA.encode()
        )
        self.assertEqual(codes, [250, 250, 354, 550])

    def test_to_the_outside(self) -> None:
        client = self.device()
        client.send(b"MAIL FROM:<scanner@example.test>\r\n")
        self.assertEqual(client.codes(rcpt("a@else.test")), [250])

    def test_others_have_to_log_in(self) -> None:
        client = self.device(network="192.0.2.8")
        self.assertEqual(client.codes(b"MAIL FROM:<scanner@example.test>\r\n"), [530])
        client = Connection(self.factory("mx", self.settings()))
        client.send(b"EHLO scanner\r\n")
        client.send(b"MAIL FROM:<scanner@example.test>\r\n")
        self.assertEqual(client.codes(rcpt("a@else.test")), [550])

    def settings(self) -> SmtpSettings:
        return SmtpSettings(
            trusted_networks=[TrustedNetwork(networks=[PEER], send_as=[ANNA])]
        )

    def test_limit_of_an_hour_is_for_the_address(self) -> None:
        factory = self.device(most=2).server._factory
        wire = b"EHLO scanner\r\nMAIL FROM:<scanner@example.test>\r\n"
        codes = [Connection(factory).codes(wire)[-1] for _ in range(3)]
        self.assertEqual(codes, [250, 250, 451])
        self.clock.advance(3600)
        self.assertEqual(Connection(factory).codes(wire)[-1], 250)

    def test_who_logs_in_is_nobody_s_device(self) -> None:
        factory = self.factory("submission", self.settings())
        client = Connection(factory, tls=True)
        wire = b"EHLO a\r\nAUTH PLAIN " + plain(BERT) + b"\r\n"
        self.assertEqual(client.codes(wire), [250, 235])
        self.assertEqual(client.codes(f"MAIL FROM:<{ANNA}>\r\n".encode()), [553])
        self.assertEqual(client.codes(f"MAIL FROM:<{BERT}>\r\n".encode()), [250])


class TraceTests(OfficeCase):
    def received(self, client: Connection, mail: bytes) -> bytes:
        client.send(mail + rcpt(BERT) + b"DATA\r\n")
        self.assertEqual(
            client.codes(MESSAGE.replace(b"From:", b"X:") + b".\r\n"), [250]
        )
        return self.store.messages[-1].octets

    def test_return_path_and_received(self) -> None:
        octets = self.received(self.mx(), MAIL)
        self.assertRegex(
            octets,
            rb"^Return-Path: <a@else\.test>\r\n"
            rb"Received: from client\.test \(\[192\.0\.2\.7\]\)\r\n"
            rb"\tby mail\.example\.test with ESMTP\r\n\tid [0-9a-f.]+\r\n"
            rb"\tfor <bert@example\.test>;\r\n\t[A-Z][a-z]{2}, 1[45] Jan 2027 "
            rb"\d\d:\d\d:\d\d [+-]\d{4}\r\nX: ",
        )

    def test_protocol_names(self) -> None:
        helo = Connection(self.factory())
        helo.send(b"HELO client.test\r\n")
        for client, mail, name in (
            (helo, MAIL, b"SMTP"),
            (self.mx(), MAIL + b"", b"ESMTP"),
            (self.mx(), b"MAIL FROM:<> SMTPUTF8\r\n", b"UTF8SMTP"),
            (self.submission(), b"MAIL FROM:<>\r\n", b"ESMTPSA (TLS)"),
            (self.submission(), b"MAIL FROM:<> SMTPUTF8\r\n", b"UTF8SMTPSA (TLS)"),
        ):
            octets = self.received(client, mail)
            self.assertIn(b" with " + name + b"\r\n", octets)

    def test_foreign_return_path_goes(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(b"Return-path: <x@y>\r\nA: b\r\n\r\n.\r\n")
        octets = self.store.messages[0].octets
        self.assertEqual(octets.lower().count(b"return-path"), 1)
        self.assertTrue(octets.endswith(b"\r\nA: b\r\n\r\n"))

    def test_client_name_cannot_write_header_fields(self) -> None:
        client = Connection(self.factory())
        client.send("EHLO a\tb\x0bü(\x7f\r\n".encode())
        self.assertIn(b"Received: from a?b?(? ([", self.received(client, MAIL))


class OrderTests(OfficeCase):
    def test_replies_keep_their_order_while_a_decision_waits(self) -> None:
        self.store.held = True
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        self.assertEqual(client.send(MESSAGE + b".\r\nNOOP\r\n" + MAIL), b"")
        self.assertEqual(client.send(rcpt("a@else.test")), b"")
        self.store.release()
        replies = client.wire.take().split(b"\r\n")
        self.assertEqual(
            [r[:3] for r in replies], [b"250", b"250", b"250", b"550", b""]
        )
        self.assertIn(b"id", replies[0])

    def test_others_come_in_between_many_commands(self) -> None:
        client = self.mx()
        replies = client.send(b"NOOP\r\n" * (COMMANDS_IN_A_TURN + 1))
        self.assertEqual(replies.count(b"250 "), COMMANDS_IN_A_TURN)
        self.clock.advance(0)
        self.assertEqual(client.wire.take(), b"250 2.0.0 Ok\r\n")

    def test_what_is_read_ahead_is_bounded(self) -> None:
        self.store.held = True
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE + b".\r\n")
        client.send(b"NOOP\r\n" * (MAX_WAITING_OCTETS // 6))
        self.clock.pump([0] * (MAX_WAITING_OCTETS // 6 // COMMANDS_IN_A_TURN + 2))
        self.assertEqual(client.wire.producerState, "producing")
        client.send(b"NOOP\r\n" * 2)
        self.assertEqual(client.wire.producerState, "paused")
        self.store.release()
        self.clock.pump([0] * (MAX_WAITING_OCTETS // 6 // COMMANDS_IN_A_TURN + 2))
        self.assertEqual(client.wire.producerState, "producing")

    def test_peer_that_reads_no_replies_is_not_served(self) -> None:
        client = self.mx()
        client.server.pauseProducing()
        self.assertEqual(client.send(b"NOOP\r\n" * (MAX_WAITING_OCTETS // 6 + 2)), b"")
        self.assertEqual(client.wire.producerState, "paused")
        client.server.resumeProducing()
        self.assertTrue(client.wire.take().startswith(b"250 2.0.0 Ok\r\n"))
        self.clock.pump([0] * (MAX_WAITING_OCTETS // 6 // COMMANDS_IN_A_TURN + 2))
        self.assertEqual(client.wire.producerState, "producing")

    def test_connection_lost_before_the_end_takes_the_message_back(self) -> None:
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE)
        client.lose()
        [event] = self.infos("message abandoned")
        self.assertEqual(event["forward_paths"], ANNA)
        self.assertEqual(len(self.store.aborted), 1)
        self.assertEqual(self.store.messages, [])
        self.assertEqual(self.clock.getDelayedCalls()[1:], [])  # the directory's poll

    def test_connection_lost_during_the_commit(self) -> None:
        self.store.held = True
        client = self.mx()
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE + b".\r\nNOOP\r\n")
        client.lose()
        self.store.release()
        self.assertEqual(len(self.store.messages), 1)
        self.assertEqual(client.wire.take(), b"")
