"""The SMTP server on a transport without a network."""

import socket

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from mailsrv.accounts import edits
from mailsrv.accounts.directory import Account
from mailsrv.accounts.live import POLL_S
from mailsrv.connections import ConnectionLimits
from mailsrv.queue.values import Priority
from mailsrv.settings import SmtpSettings, TlsSettings, TrustedNetwork
from mailsrv.smtp.engine import ROLES, Role
from mailsrv.smtp.server import (
    COMMANDS_IN_A_TURN,
    LINGER_S,
    MAX_WAITING_OCTETS,
    STRETCH_OCTETS,
)
from mailsrv.store.values import SEEN, DeliveryFailed
from tests.smtp.office import (
    ANNA,
    BERT,
    CARL,
    PEER,
    Connection,
    OfficeCase,
    Wire,
    plain,
)

MAIL = b"MAIL FROM:<a@else.test>\r\n"
MESSAGE = b"From: <a@else.test>\r\nSubject: one\r\n\r\nbody\r\n"


def rcpt(*addresses: str) -> bytes:
    return b"".join(f"RCPT TO:<{a}>\r\n".encode() for a in addresses)


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


class ConnectionTests(OfficeCase):
    def test_greeting(self) -> None:
        self.assertEqual(
            Connection(self.factory()).greeting,
            b"220 mail.example.test ESMTP mailsrv\r\n",
        )

    def test_too_many_connections(self) -> None:
        clients = [Connection(self.factory()) for _ in range(6)]
        self.assertEqual(clients[5].greeting[:10], b"421 4.7.0 ")
        self.assertTrue(clients[5].ended)
        clients[5].lose()
        clients[0].lose()
        self.assertEqual(Connection(self.factory()).greeting[:4], b"220 ")

    def test_starttls(self) -> None:
        factory = self.factory("submission")
        client = Connection(factory)
        client.send(b"EHLO a\r\n")
        self.assertEqual(client.send(b"STARTTLS\r\n")[:4], b"220 ")
        self.assertIs(client.wire.tls_context, factory.tls)
        self.assertNotIn(b"STARTTLS", client.send(b"EHLO a\r\n"))

    def test_octets_behind_starttls(self) -> None:
        client = Connection(self.factory())
        self.assertEqual(client.codes(b"EHLO a\r\nSTARTTLS\r\nNOOP\r\n"), [250, 421])
        self.assertIsNone(client.wire.tls_context)
        self.assertTrue(client.ended)

    def test_tls_hello_closes(self) -> None:
        client = Connection(self.factory())
        self.assertEqual(client.send(b"\x16\x03\x01"), b"")
        self.assertTrue(client.ended)

    def test_quit(self) -> None:
        client = self.mx()
        self.assertEqual(client.send(b"QUIT\r\nNOOP\r\n")[:4], b"221 ")
        self.assertTrue(client.ended)

    def test_octets_after_the_end_change_nothing(self) -> None:
        client = self.mx()
        client.send(b"QUIT\r\n")
        self.clock.advance(LINGER_S - 1)
        self.assertEqual(client.send(b"NOOP\r\n"), b"")
        self.clock.advance(1)
        self.assertTrue(client.wire.aborted)

    def test_clear_text_log_in_on_loopback_only(self) -> None:
        allowed = TlsSettings(clear_text_passwords_on_loopback=True)
        factory = self.factory("submission", tls_settings=allowed)
        for peer, offered in (("127.0.0.9", True), (PEER, False)):
            wire = Wire(tls=False)
            # As a proxy on this host gives it: the transport's peer is the proxy.
            wire.peerAddr = IPv4Address("TCP", "127.0.0.1", 1)
            server = factory.buildProtocol(IPv4Address("TCP", peer, 1))
            server.makeConnection(wire)
            server.dataReceived(b"EHLO a\r\nAUTH PLAIN " + plain(ANNA) + b"\r\n")
            octets = wire.take()
            self.assertEqual(b"AUTH PLAIN LOGIN" in octets, offered)
            self.assertEqual(b"\r\n235 " in octets, offered)

    def test_log_in_before_starttls_counts_no_more(self) -> None:
        allowed = TlsSettings(clear_text_passwords_on_loopback=True)
        server = self.factory("submission", tls_settings=allowed).buildProtocol(
            IPv4Address("TCP", "127.0.0.1", 1)
        )
        wire = Wire(tls=False)
        server.makeConnection(wire)
        server.dataReceived(b"EHLO a\r\nAUTH PLAIN " + plain(ANNA) + b"\r\n")
        server.dataReceived(b"STARTTLS\r\n")
        wire.take()
        server.dataReceived(b"EHLO a\r\nMAIL FROM:<" + ANNA.encode() + b">\r\n")
        self.assertIn(b"\r\n530 ", wire.take())

    def test_peer_that_does_not_let_go(self) -> None:
        client = self.mx()
        client.send(b"QUIT\r\n")
        self.clock.advance(LINGER_S)
        self.assertTrue(client.wire.aborted)

    def test_new_settings_are_for_new_sessions(self) -> None:
        factory = self.factory()
        client = Connection(factory)
        factory.settings = SmtpSettings(max_message_octets=7)
        self.assertNotIn(b"SIZE 7\r\n", client.send(b"EHLO a\r\n"))
        self.assertIn(b"SIZE 7\r\n", Connection(factory).send(b"EHLO a\r\n"))

    def test_drain(self) -> None:
        factory = self.factory()
        idle, busy = Connection(factory), Connection(factory)
        busy.send(b"EHLO a\r\n" + MAIL + rcpt(ANNA) + b"DATA\r\n")
        drained = Deferred.fromCoroutine(factory.drain())
        self.assertEqual(idle.wire.take()[:9], b"421 4.3.2")
        idle.lose()
        self.assertNoResult(drained)
        self.assertEqual(busy.codes(MESSAGE + b".\r\n"), [250, 421])
        busy.lose()
        self.successResultOf(drained)
        self.assertEqual(Connection(factory).greeting[:4], b"421 ")


class SocketTests(OfficeCase):
    """A transport that has a socket: replies go there at once."""

    def test_what_the_socket_does_not_take_follows_in_order(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        ours.setblocking(False)
        wire = Wire(tls=False)
        wire.getHandle = lambda: ours  # type: ignore[attr-defined]  # as TCP has it
        server = self.factory().buildProtocol(wire.getPeer())
        server.makeConnection(wire)
        self.assertEqual(wire.value(), b"")
        sent = 0
        while not wire.value():  # until the socket's buffer is full
            server.dataReceived(b"NOOP\r\nVRFY a\r\n" * 100)
            sent += 100
        theirs.settimeout(60)
        got = b""
        while b"\r\n" not in got:
            got += theirs.recv(65536)
        greeting, _, got = got.partition(b"\r\n")
        self.assertEqual(greeting[:4], b"220 ")
        ours.close()
        while octets := theirs.recv(65536):
            got += octets
        replies = (got + wire.value()).split(b"\r\n")[:-1]
        self.assertEqual([r[:3] for r in replies], [b"250", b"252"] * sent)


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


class NoiseTests(OfficeCase):
    PIECES = (
        *(
            b"EHLO a\r\n",
            b"LHLO a\r\n",
            b"HELO\r\n",
            MAIL,
            rcpt(ANNA),
            rcpt(CARL),
            b"DATA\r\n",
        ),
        *(b"MAIL FROM:<anna@example.test>\r\n", b"RSET\r\n", b"BDAT 9\r\n"),
        *(b"BDAT 3 LAST\r\n", MESSAGE, b"\r\n.\r\n", b".\r\n", b"\n", b"\0", b"\xff"),
        *(b'From: ;:<"@,\r\n', b"AUTH LOGIN\r\n", b"*\r\n", b"QUIT\r\n", b"\r\n"),
        *(b"AUTH PLAIN " + plain(ANNA) + b"\r\n", b"STARTTLS\r\n", b"VRFY x\r\n"),
    )

    @settings(max_examples=50, deadline=None)
    @given(
        st.sampled_from(ROLES),
        st.booleans(),
        st.lists(st.sampled_from(PIECES), max_size=25),
    )
    def test_no_order_of_octets_breaks_a_session(
        self, role: Role, tls: bool, pieces: list[bytes]
    ) -> None:
        client = Connection(self.factory(role), tls=tls)
        for piece in pieces:
            client.send(piece)
        client.lose()
        self.clock.advance(0)
        self.assertEqual([e for e in self.events if e.get("log_failure")], [])
        self.assertEqual(self.connections, ConnectionLimits(10, 5))
        taken_back = {id(m) for m in self.store.aborted}
        self.assertTrue(all(m.targets for m in self.store.messages))
        self.assertEqual(self.store.begun - taken_back, set())


class DeadlineTests(OfficeCase):
    def test_command(self) -> None:
        client = self.mx(command_timeout_s=100.0)
        self.clock.advance(90)
        self.assertEqual(client.codes(b"NOOP\r\n"), [250])
        self.clock.advance(99)
        self.assertFalse(client.ended)
        self.clock.advance(1)
        self.assertEqual(client.wire.take()[:9], b"421 4.4.2")
        self.assertTrue(client.ended)

    def test_trickling_command_does_not_extend(self) -> None:
        client = self.mx(command_timeout_s=100.0)
        for _ in range(10):
            client.send(b"N")
            self.clock.advance(10)
        self.assertTrue(client.ended)

    def test_trickling_content_does_not_extend(self) -> None:
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE)
        for _ in range(10):
            self.assertFalse(client.ended)
            client.send(b"x\r\n" * 100)
            self.clock.advance(10)
        self.assertTrue(client.ended)
        client.lose()
        self.assertEqual(self.store.messages, [])

    def test_flowing_content_extends(self) -> None:
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        for _ in range(10):
            self.clock.advance(90)
            client.send(b"x" * STRETCH_OCTETS)
        self.assertEqual(client.codes(b"\r\n.\r\n"), [250])

    def test_our_own_slowness_does_not_count(self) -> None:
        self.store.held = True
        client = self.mx(data_timeout_s=100.0)
        client.send(MAIL + rcpt(ANNA) + b"DATA\r\n")
        client.send(MESSAGE + b".\r\n")
        self.clock.pump([10] * 50)
        self.assertFalse(client.ended)
        self.store.release()
        self.assertEqual(client.wire.take()[:3], b"250")
        self.assertFalse(client.ended)
