"""Whole POP3 sessions over a real mail store."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.accounts import edits
from mailsrv.accounts.directory import Directory
from mailsrv.mailboxes.account import AccountMailboxes
from mailsrv.mailboxes.maildrop import PIECE_OCTETS
from mailsrv.pop3.engine import MAX_BUFFERED, MAX_LINE
from mailsrv.pop3.server import CLOSE_S, Pop3Protocol
from mailsrv.pop3.session import MAX_REJECTED
from mailsrv.settings import Pop3Settings, TlsSettings
from tests.mailboxes.twin import TwinPool
from tests.pop3.office import ANNA, ServerCase, accounts, plain


class HostileTests(ServerCase):
    """Whatever comes, each line gets an answer and nothing is raised."""

    LINES = (
        *(
            b"CAPA",
            b"UTF8",
            b"LANG",
            b"LANG *",
            b"AUTH",
            b"AUTH PLAIN",
            b"*",
            b"AGEAYQ==",
        ),
        *(b"USER anna", b"USER \xff", b"PASS secret", b"NOOP", b""),
        *(b"STAT", b"LIST", b"LIST 1", b"UIDL 2", b"TOP 1 0", b"RETR 1", b"RETR 9"),
        *(b"DELE 1", b"RSET", b"\x00\xff", b"A" * 300),
    )

    def setUp(self) -> None:
        super().setUp()
        self.deliver(b"one\r\n")

    def replies(self, wire: bytes, cuts: Sequence[int]) -> bytes:
        client = self.connect()
        edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
        said = b"".join(client.send(wire[a:b]) for a, b in pairwise(edges))
        for _ in range(5):  # a log-in after a wrong password waits, 0.25 s each
            self.office.clock.advance(0.5)
            said += client.take()
        client.lose()
        return said

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(st.sampled_from(LINES), max_size=12),
        st.booleans(),
        st.lists(st.integers(0, 150), max_size=8),
    )
    def test_any_split_gives_same_replies(
        self, lines: list[bytes], log_in: bool, cuts: list[int]
    ) -> None:
        if log_in:
            lines = [b"USER anna", b"PASS secret", *lines]
        wire = b"".join(line + b"\r\n" for line in lines)
        self.assertEqual(self.replies(wire, cuts), self.replies(wire, []))
        self.assertEqual(self.flushLoggedErrors(), [])


class AuthorizationTests(ServerCase):
    def test_greeting_and_quit(self) -> None:
        client = self.connect()
        self.assertEqual(client.greeting, b"+OK mailsrv ready\r\n")
        self.assertEqual(client.send(b"QUIT\r\n"), b"+OK Goodbye\r\n")
        self.assertTrue(client.wire.disconnecting)

    def test_capabilities_in_clear_text(self) -> None:
        lines = self.connect(tls=False).send(b"CAPA\r\n").split(b"\r\n")
        self.assertIn(b"STLS", lines)
        self.assertNotIn(b"USER", lines)
        self.assertFalse([line for line in lines if line.startswith(b"SASL")])

    def test_capabilities_in_tls(self) -> None:
        lines = self.connect().send(b"CAPA\r\n").split(b"\r\n")
        self.assertNotIn(b"STLS", lines)
        for line in (
            b"TOP",
            b"UIDL",
            b"USER",
            b"SASL PLAIN LOGIN",
            b"PIPELINING",
            b"RESP-CODES",
            b"AUTH-RESP-CODE",
            b"EXPIRE NEVER",
            b"UTF8 USER",
            b"LANG",
            b"IMPLEMENTATION mailsrv",
        ):
            self.assertIn(line, lines)
        self.assertEqual(lines[-2:], [b".", b""])

    def test_no_password_in_clear_text(self) -> None:
        client = self.connect(tls=False)
        for command in (b"USER anna", b"PASS secret", b"AUTH PLAIN AGEAYQ=="):
            self.assertIn(b"-ERR No passwords", client.send(command + b"\r\n"))

    def test_clear_text_on_loopback_if_allowed(self) -> None:
        self.factory.tls_settings = TlsSettings(clear_text_passwords_on_loopback=True)
        self.connect(tls=False, peer="127.0.0.1").log_in()
        self.assertIn(b"-ERR", self.connect(tls=False).send(b"USER anna\r\n"))

    def test_user_and_pass(self) -> None:
        client = self.connect()
        self.assertEqual(client.send(b"USER anna\r\n"), b"+OK Password?\r\n")
        self.assertEqual(client.send(b"PASS secret\r\n"), b"+OK 0 messages\r\n")

    def test_wrong_password_and_unknown_name_look_alike(self) -> None:
        client = self.connect()
        replies = [
            client.send(b"USER anna\r\nPASS wrong\r\n"),
            client.send(b"USER nobody\r\nPASS secret\r\n"),
        ]
        self.assertEqual(
            replies, [b"+OK Password?\r\n-ERR [AUTH] Wrong name or password\r\n"] * 2
        )
        client.log_in()

    def test_pass_needs_user_each_time(self) -> None:
        client = self.connect()
        client.send(b"USER anna\r\nPASS wrong\r\n")
        self.assertIn(b"-ERR USER", client.send(b"PASS secret\r\n"))

    def test_auth_plain(self) -> None:
        response = plain("\0anna\0secret")
        for dialogue in (
            [(b"AUTH PLAIN " + response, b"+OK 0 messages\r\n")],
            [(b"auth  plain  " + response, b"+OK 0 messages\r\n")],
            [(b"AUTH PLAIN", b"+ \r\n"), (response, b"+OK 0 messages\r\n")],
            [
                (b"AUTH LOGIN", b"+ VXNlcm5hbWU6\r\n"),
                (plain("anna"), b"+ UGFzc3dvcmQ6\r\n"),
                (plain("secret"), b"+OK 0 messages\r\n"),
            ],
            [
                (b"AUTH LOGIN " + plain("anna"), b"+ UGFzc3dvcmQ6\r\n"),
                (plain("secret"), b"+OK 0 messages\r\n"),
            ],
        ):
            client = self.connect()
            for sent, reply in dialogue:
                self.assertEqual(client.send(sent + b"\r\n"), reply)
            client.send(b"QUIT\r\n")
            client.lose()

    def test_auth_goes_wrong(self) -> None:
        client = self.connect()
        self.assertEqual(
            client.send(b"AUTH PLAIN\r\n*\r\n"), b"+ \r\n-ERR Cancelled\r\n"
        )
        self.assertIn(b"-ERR Wrong SASL", client.send(b"AUTH PLAIN ?\r\n"))
        self.assertIn(b"-ERR No such", client.send(b"AUTH CRAM-MD5\r\n"))
        self.assertIn(b"-ERR", client.send(b"AUTH PLAIN\r\n" + b"A" * 6000 + b"\r\n"))
        self.assertEqual(
            client.send(b"AUTH\r\n"), b"+OK Mechanisms\r\nPLAIN\r\nLOGIN\r\n.\r\n"
        )
        client.log_in()

    def test_long_line_in_auth_ends_the_connection(self) -> None:
        client = self.connect()
        client.send(b"AUTH PLAIN\r\n")
        self.assertIn(b"-ERR", client.send(b"A" * (MAX_LINE + 1)))
        self.assertTrue(client.wire.disconnecting)

    def test_stls(self) -> None:
        client = self.connect(tls=False)
        self.assertEqual(client.send(b"STLS\r\n"), b"+OK Begin TLS\r\n")
        self.assertIs(client.wire.tls_context, self.factory.tls)
        self.assertNotIn(b"STLS", client.send(b"CAPA\r\n"))
        self.assertIn(b"-ERR", client.send(b"STLS\r\n"))
        client.log_in()

    def test_octets_behind_stls_end_the_connection(self) -> None:
        client = self.connect(tls=False)
        self.assertIn(b"-ERR", client.send(b"STLS\r\nUSER anna\r\n"))
        self.assertIsNone(client.wire.tls_context)
        self.assertTrue(client.wire.disconnecting)

    def test_stls_after_utf8(self) -> None:
        client = self.connect(tls=False)
        self.assertIn(b"+OK", client.send(b"UTF8\r\n"))
        self.assertIn(b"-ERR", client.send(b"STLS\r\n"))

    def test_tls_hello_on_the_clear_port(self) -> None:
        client = self.connect(tls=False)
        self.assertEqual(client.send(b"\x16\x03\x01\x02\x00"), b"")
        self.assertTrue(client.wire.disconnecting)

    def test_lang(self) -> None:
        client = self.connect()
        self.assertIn(b"en English\r\n", client.send(b"LANG\r\n"))
        self.assertIn(b"+OK en ", client.send(b"LANG *\r\n"))
        self.assertIn(b"-ERR", client.send(b"LANG de\r\n"))


class TransactionTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.deliver(b"one\r\n", b".two\r\nlast\r\n", b"three\0\r\n")
        self.client = self.connect().log_in()

    def test_stat_and_list(self) -> None:
        listed = self.client.send(b"LIST\r\n").split(b"\r\n")
        sizes = [int(line.split()[1]) for line in listed[1:4]]
        self.assertEqual(listed[0], b"+OK 3 messages")
        self.assertEqual(listed[4:], [b".", b""])
        self.assertEqual(self.client.send(b"STAT\r\n"), b"+OK 3 %d\r\n" % sum(sizes))
        self.assertEqual(self.client.send(b"LIST 2\r\n"), b"+OK 2 %d\r\n" % sizes[1])
        message = self.client.send(b"RETR 3\r\n").split(b"\r\n", 1)[1]
        self.assertEqual(len(message) - 3, sizes[2])

    def test_retr(self) -> None:
        sent = self.client.send(b"RETR 2\r\n")
        self.assertTrue(sent.startswith(b"+OK "))
        self.assertIn(b"Subject: 2\r\n\r\n..two\r\nlast\r\n.\r\n", sent)
        self.assertTrue(self.client.send(b"RETR 3\r\n").endswith(b"three\x80\r\n.\r\n"))

    def test_top(self) -> None:
        sent = self.client.send(b"TOP 2 1\r\n")
        self.assertTrue(sent.endswith(b"Subject: 2\r\n\r\n..two\r\n.\r\n"), sent)
        self.assertTrue(
            self.client.send(b"TOP 2 0\r\n").endswith(b"Subject: 2\r\n\r\n.\r\n")
        )

    def test_no_such_message(self) -> None:
        for command in (
            b"RETR 4",
            b"RETR 0",
            b"DELE 4",
            b"LIST 4",
            b"UIDL 4",
            b"TOP 4 1",
        ):
            self.assertEqual(
                self.client.send(command + b"\r\n"), b"-ERR No such message\r\n"
            )

    def test_uidl_is_the_same_next_time(self) -> None:
        first = self.client.send(b"UIDL\r\n")
        ids = [line.split()[1] for line in first.split(b"\r\n")[1:4]]
        self.assertEqual(len(set(ids)), 3)
        self.assertTrue(all(1 <= len(i) <= 70 for i in ids))
        self.assertEqual(self.client.send(b"UIDL 2\r\n"), b"+OK 2 %s\r\n" % ids[1])
        self.client.send(b"DELE 1\r\nQUIT\r\n")
        self.client.lose()
        again = self.connect().log_in().send(b"UIDL\r\n")
        self.assertEqual(again.split(b"\r\n")[1:3], [b"1 " + ids[1], b"2 " + ids[2]])

    def test_uidl_does_not_depend_on_flags(self) -> None:
        first = self.client.send(b"UIDL\r\n")
        inbox = self.office.wait(self.mailboxes().select("INBOX", read_only=False))
        uids = list(inbox.uids([(1, 0)], by_uid=False))
        self.office.wait(
            inbox.store_flags(uids, "+", ["\\Seen", "$label1"], silent=False)
        )
        self.client.send(b"QUIT\r\n")
        self.client.lose()
        self.assertEqual(self.connect().log_in().send(b"UIDL\r\n"), first)

    def mailboxes(self) -> AccountMailboxes:
        account = accounts(Directory()).account(ANNA)
        assert account is not None
        return self.office.mail_store.account(account)

    def left(self) -> list[bytes]:
        """The subjects that a new session sees."""
        client = self.connect(peer="198.51.100.1").log_in()
        count = int(client.send(b"STAT\r\n").split()[1])
        found = [
            client.send(b"TOP %d 0\r\n" % n).split(b"Subject: ")[1].split(b"\r\n")[0]
            for n in range(1, count + 1)
        ]
        client.send(b"QUIT\r\n")
        client.lose()
        return found

    def test_deleted_at_quit_only(self) -> None:
        self.assertEqual(self.client.send(b"DELE 2\r\n"), b"+OK Marked\r\n")
        self.assertEqual(self.client.send(b"RETR 2\r\n"), b"-ERR No such message\r\n")
        self.assertIn(b"+OK 2 ", self.client.send(b"STAT\r\n"))
        self.assertEqual(self.client.send(b"QUIT\r\n"), b"+OK Goodbye\r\n")
        self.assertEqual(self.left(), [b"1", b"3"])

    def test_nothing_is_deleted_when_the_connection_is_lost(self) -> None:
        self.client.send(b"DELE 2\r\n")
        self.client.lose()
        self.assertEqual(self.left(), [b"1", b"2", b"3"])

    def test_nothing_is_deleted_after_the_timeout(self) -> None:
        self.client.send(b"DELE 2\r\n")
        self.office.clock.advance(Pop3Settings().idle_timeout_s)
        self.assertTrue(self.client.wire.disconnecting)
        self.assertEqual(self.client.take(), b"")
        self.assertEqual(self.left(), [b"1", b"2", b"3"])

    def test_rset(self) -> None:
        self.client.send(b"DELE 2\r\n")
        self.assertEqual(self.client.send(b"RSET\r\n"), b"+OK 3 messages\r\n")
        self.client.send(b"QUIT\r\n")
        self.assertEqual(self.left(), [b"1", b"2", b"3"])

    def test_view_is_fixed(self) -> None:
        self.deliver(b"new\r\n")
        self.assertIn(b"+OK 3 ", self.client.send(b"STAT\r\n"))
        self.assertEqual(self.client.send(b"LIST 4\r\n"), b"-ERR No such message\r\n")

    def test_second_session_is_told_to_wait(self) -> None:
        other = self.connect()
        self.assertIn(b"-ERR [IN-USE]", other.send(b"USER anna\r\nPASS secret\r\n"))
        self.client.send(b"QUIT\r\n")
        other.log_in()

    def test_imap_sessions_are_not_shut_out(self) -> None:
        inbox = self.office.wait(self.mailboxes().select("INBOX", read_only=False))
        self.assertEqual(inbox.exists, 3)
        self.client.send(b"DELE 1\r\nQUIT\r\n")
        self.office.clock.advance(0)
        inbox.news(expunges=True)
        self.assertEqual(inbox.exists, 2)

    def test_message_deleted_by_another_client(self) -> None:
        inbox = self.office.wait(self.mailboxes().select("INBOX", read_only=False))
        uids = list(inbox.uids([(2, 2)], by_uid=False))
        self.office.wait(inbox.store_flags(uids, "+", ["\\Deleted"], silent=False))
        self.office.wait(inbox.expunge())
        self.assertIn(b"-ERR The message is gone", self.client.send(b"RETR 2\r\n"))
        self.assertIn(b"Subject: 3", self.client.send(b"RETR 3\r\n"))
        self.assertIn(b"+OK", self.client.send(b"DELE 2\r\n"))
        self.assertEqual(self.client.send(b"QUIT\r\n"), b"+OK Goodbye\r\n")

    def test_small_messages_in_a_row_are_read_along(self) -> None:
        readers = self.office.threads.read
        assert isinstance(readers, TwinPool)
        jobs = readers.started
        first = self.client.send(b"RETR 1\r\n")
        sent = self.client.send(b"RETR 2\r\nTOP 3 0\r\n")
        self.assertEqual(readers.started, jobs + 1)
        self.assertIn(b"Subject: 2", sent)
        self.assertIn(b"Subject: 3", sent)
        # What was read along is no other than what is read by itself.
        self.assertEqual(self.client.send(b"RETR 1\r\n"), first)
        self.assertIn(self.client.send(b"RETR 2\r\n"), sent)

    def test_large_message_between_small_ones(self) -> None:
        self.deliver((b"x" * 70 + b"\r\n") * 2000)
        self.deliver(b"small")
        self.client.send(b"QUIT\r\n")
        self.client.lose()
        self.client = self.connect().log_in()
        sent = self.client.send(b"".join(b"RETR %d\r\n" % n for n in range(1, 6)))
        self.assertEqual(sent.count(b"\r\n.\r\n"), 5)
        self.assertEqual(sent.count(b"x" * 70 + b"\r\n"), 2000)
        self.assertIn(b"small\r\n.\r\n", sent)

    def test_failed_deletion_is_no_ok(self) -> None:
        def broken(*_: object) -> object:
            raise OSError("disk gone")

        assert isinstance(self.client.server, Pop3Protocol)
        self.client.send(b"DELE 2\r\n")
        self.patch(self.mailboxes(), "write", broken)
        self.assertIn(b"-ERR [SYS/TEMP]", self.client.send(b"QUIT\r\n"))
        self.assertTrue(self.client.wire.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_pipelining(self) -> None:
        sent = self.client.send(b"NOOP\r\nLIST 9\r\nDELE 1\r\nRSET\r\nQUIT\r\nNOOP\r\n")
        self.assertEqual(
            [line[:4].strip() for line in sent.split(b"\r\n")[:-1]],
            [b"+OK", b"-ERR", b"+OK", b"+OK", b"+OK"],
        )

    def test_very_many_pipelined_commands(self) -> None:
        sent = self.client.send(b"NOOP\r\n" * 1000)
        for _ in range(30):
            sent += self.client.take()
        self.assertEqual(sent.count(b"+OK\r\n"), 1000)

    def test_too_many_lines_that_are_no_commands(self) -> None:
        sent = self.client.send(b"XYZ\r\n" * (MAX_REJECTED + 5))
        self.assertEqual(sent.count(b"-ERR"), MAX_REJECTED + 1)
        self.assertTrue(self.client.wire.disconnecting)


class FlowTests(ServerCase):
    def test_slow_reader_is_waited_for(self) -> None:
        self.deliver((b"x" * 70 + b"\r\n") * 5000)
        client = self.connect().log_in()
        client.wire.is_slow = True
        sent = client.send(b"RETR 1\r\n")
        self.assertLess(len(sent), 2 * PIECE_OCTETS)
        self.assertEqual(client.take(), b"")
        while not sent.endswith(b"\r\n.\r\n"):
            client.server.resumeProducing()
            piece = client.take()
            self.assertTrue(0 < len(piece) < 2 * PIECE_OCTETS)
            sent += piece
        self.assertGreater(len(sent), 5000 * 72)

    def test_reader_that_stopped_is_cut_off(self) -> None:
        self.deliver((b"x" * 70 + b"\r\n") * 5000)
        client = self.connect().log_in()
        client.wire.is_slow = True
        client.send(b"RETR 1\r\n")
        self.office.clock.advance(Pop3Settings().idle_timeout_s)
        self.assertTrue(client.wire.aborted)

    def test_reader_that_is_lost_leaves_no_lock(self) -> None:
        self.deliver((b"x" * 70 + b"\r\n") * 5000)
        client = self.connect().log_in()
        client.wire.is_slow = True
        client.send(b"RETR 1\r\n")
        client.lose()
        self.connect().log_in()

    def test_client_that_only_sends_is_not_read_further(self) -> None:
        client = self.connect().log_in()
        client.server.pauseProducing()
        client.send(b"NOOP\r\n" * (MAX_BUFFERED // 6 + 1))
        self.assertEqual(client.wire.producerState, "paused")
        client.server.resumeProducing()
        for _ in range(MAX_BUFFERED // 300 + 10):
            client.take()
        self.assertEqual(client.wire.producerState, "producing")

    def test_trickling_octets_do_not_extend_the_time(self) -> None:
        client = self.connect()
        for octet in b"CAPABILITIES":
            client.send(bytes([octet]))
            self.office.clock.advance(Pop3Settings().idle_timeout_s / 10)
        self.assertTrue(client.wire.disconnecting)

    def test_connection_that_does_not_close_is_aborted(self) -> None:
        client = self.connect()
        client.send(b"QUIT\r\n")
        self.assertFalse(client.wire.aborted)
        self.office.clock.advance(CLOSE_S)
        self.assertTrue(client.wire.aborted)

    def test_too_many_connections(self) -> None:
        clients = [self.connect(), self.connect()]
        self.assertIn(b"-ERR [SYS/TEMP] Too many", self.connect().greeting)
        clients[0].lose()
        self.assertIn(b"+OK", self.connect().greeting)

    def test_drain(self) -> None:
        idle = self.connect()
        busy = self.connect().log_in()
        drained = self.office.start(self.factory.drain())
        self.assertIn(b"-ERR [SYS/TEMP]", idle.take())
        self.assertTrue(busy.wire.disconnecting)
        self.successResultOf(drained)

    def test_session_of_a_disabled_account_ends(self) -> None:
        other, client = self.connect(), self.connect().log_in()
        directory = accounts(Directory())
        self.factory.accounts_changed(directory)
        self.assertFalse(client.wire.disconnecting)
        self.factory.accounts_changed(edits.set_enabled(directory, ANNA, False))
        self.assertIn(b"-ERR [AUTH]", client.take())
        self.assertTrue(client.wire.disconnecting)
        self.assertFalse(other.wire.disconnecting)

    def test_session_of_a_removed_app_password_ends(self) -> None:
        client = self.connect().log_in()
        directory = accounts(Directory())
        account = directory.account(ANNA)
        assert account is not None
        [protocol] = self.factory._open
        protocol.account = replace(account, app="phone")
        self.factory.accounts_changed(directory)
        self.assertIn(b"-ERR [AUTH]", client.take())

    def test_our_own_fault_is_a_temporary_error(self) -> None:
        client = self.connect()

        def broken(*_: object) -> object:
            raise RuntimeError("secret detail")

        self.patch(self.factory.mail_store, "account", broken)
        reply = client.send(b"USER anna\r\nPASS secret\r\n")
        self.assertIn(b"-ERR [SYS/TEMP]", reply)
        self.assertNotIn(b"detail", reply)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertIn(b"+OK", client.send(b"CAPA\r\n"))
