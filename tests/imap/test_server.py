"""Sessions as a client meets them: states, limits, time, STARTTLS, IDLE, faults."""

import os
from typing import cast

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from mailsrv.accounts import edits
from mailsrv.imap.connection import LINGER_S, MAX_QUEUED
from mailsrv.imap.server import COMMANDS_IN_A_TURN, MAX_BAD
from mailsrv.settings import ImapSettings
from tests.imap.office import Client, ImapCase


class LoginTests(ImapCase):
    def test_passwords_in_clear_are_refused(self) -> None:
        client = Client(self.factory(tls=True), tls=False)
        self.assertIn(b"STARTTLS LOGINDISABLED]", client.heard())
        for command in (b"LOGIN anna secret", b"AUTHENTICATE PLAIN AGFubmEAc2VjcmV0"):
            self.assertIn(b"1 NO [PRIVACYREQUIRED]", client.send(b"1 %b\r\n" % command))

    def test_starttls(self) -> None:
        client = Client(self.factory(tls=True), tls=False)
        client.send(b'1 ID ("name" "x")\r\n')
        self.assertIn(b"2 OK", client.send(b"2 STARTTLS\r\n"))
        self.assertIn(b"AUTH=PLAIN", client.send(b"3 CAPABILITY\r\n"))
        self.assertIn(b"4 OK", client.send(b"4 LOGIN anna secret\r\n"))
        self.assertIn(b"5 BAD", client.send(b"5 STARTTLS\r\n"))

    def test_a_command_behind_starttls_ends_the_session(self) -> None:
        client = Client(self.factory(tls=True), tls=False)
        client.heard()
        answer = client.send(b"1 STARTTLS\r\n2 NOOP\r\n")
        self.assertEqual(answer, b"* BYE Nothing may follow STARTTLS\r\n")
        self.assertTrue(client.ended)

    def test_a_tls_hello_ends_the_session_at_once(self) -> None:
        client = Client(self.factory(tls=True), tls=False)
        client.heard()
        self.assertEqual(client.send(b"\x16\x03\x01\x02\x00"), b"")
        self.assertTrue(client.ended)

    def test_authenticate(self) -> None:
        for command, answers in (
            (b"AUTHENTICATE PLAIN AGFubmEAc2VjcmV0\r\n", [b"1 OK [CAPABILITY"]),
            (b"authenticate plain\r\nAGFubmEAc2VjcmV0\r\n", [b"+ ", b"1 OK"]),
            (
                b"AUTHENTICATE LOGIN\r\nYW5uYQ==\r\nc2VjcmV0\r\n",
                [b"+ VXNlcm5hbWU6", b"+ UGFzc3dvcmQ6", b"1 OK"],
            ),
            (b"AUTHENTICATE PLAIN\r\n*\r\n", [b"+ ", b"1 BAD"]),
            (b"AUTHENTICATE PLAIN %%\r\n", [b"1 BAD"]),
            (b"AUTHENTICATE PLAIN AGFubmEAd3Jvbmc=\r\n", [b"1 NO [AUTHENT"]),
            (b"AUTHENTICATE CRAM-MD5\r\n", [b"1 NO"]),
        ):
            client = Client(self.factory())
            client.heard()
            lines = client.send(b"1 " + command).split(b"\r\n")[:-1]
            self.assertEqual(len(lines), len(answers), (command, lines))
            for line, start in zip(lines, answers, strict=True):
                self.assertTrue(line.startswith(start), (command, line))
            client.lose()

    def test_a_disabled_extension(self) -> None:
        settings = ImapSettings(disabled_extensions=["IDLE", "MOVE"])
        client = self.logged_in(settings)
        words = client.send(b"1 CAPABILITY\r\n").split()
        self.assertIn(b"UIDPLUS", words)
        self.assertNotIn(b"MOVE", words)
        self.assertNotIn(b"IDLE", words)
        self.assertIn(b"2 BAD", client.send(b"2 IDLE\r\n"))

    def test_what_is_never_offered(self) -> None:
        # With UIDONLY Outlook's cloud gets no mail; LITERAL- would undo LITERAL+.
        words = self.logged_in().send(b"1 CAPABILITY\r\n").split()
        self.assertIn(b"LITERAL+", words)
        self.assertNotIn(b"UIDONLY", words)
        self.assertNotIn(b"LITERAL-", words)

    def test_an_extension_that_is_disabled_for_the_account(self) -> None:
        self.live.database.edit(
            lambda d: edits.set_disabled_extensions(d, "anna", ["MOVE"])
        )
        self.clock.advance(2)
        client = Client(self.factory())
        words = client.send(b"0 LOGIN anna secret\r\n").split()
        self.assertIn(b"UIDPLUS", words)
        self.assertNotIn(b"MOVE", words)
        self.assertIn(b"2 BAD", client.send(b"2 MOVE 1 Trash\r\n"))

    def test_a_wrong_password(self) -> None:
        client = Client(self.factory())
        client.heard()
        answer = client.send(b"1 LOGIN anna wrong\r\n2 NOOP\r\n")
        self.clock.advance(20)  # guessers wait
        answer += client.heard()
        self.assertIn(b"1 NO [AUTHENTICATIONFAILED] Log-in failed\r\n2 OK", answer)

    def test_states(self) -> None:
        client = Client(self.factory())
        self.assertIn(b"1 BAD", client.send(b"1 SELECT INBOX\r\n"))
        client.send(b"0 LOGIN anna secret\r\n")
        self.assertIn(b"2 BAD", client.send(b"2 LOGIN anna secret\r\n"))
        self.assertIn(b"3 BAD", client.send(b"3 FETCH 1 FLAGS\r\n"))
        self.assertIn(b"4 BAD", client.send(b"4 XYZZY\r\n"))
        self.assertIn(b"5 BAD", client.send(b"5 NOOP now\r\n"))
        self.assertIn(b"6 OK", client.send(b"6 NOOP \r\n"))
        self.assertIn(b"* ENABLED\r\n7 OK", client.send(b"7 ENABLE XYZZY IDLE\r\n"))
        self.assertIn(b"8 BAD", client.send(b"8 ENABLE\r\n"))


class LimitsTests(ImapCase):
    def test_connections_of_one_address(self) -> None:
        clients = [Client(self.factory()) for _ in range(5)]
        self.assertIn(b"BYE", Client(self.factory()).heard())
        clients[0].lose()
        self.assertIn(b"OK", Client(self.factory()).heard())

    def test_bad_commands(self) -> None:
        client = Client(self.factory())
        for _ in range(MAX_BAD):
            client.send(b"1 XYZZY\r\n")
        self.assertFalse(client.ended)
        self.assertIn(b"* BYE", client.send(b"1 XYZZY\r\n"))
        self.assertTrue(client.ended)

    def test_bad_commands_now_and_then_are_forgiven(self) -> None:
        client = Client(self.factory())
        for _ in range(MAX_BAD + 1):
            client.send(b"1 XYZZY\r\n2 NOOP\r\n")
        self.assertFalse(client.ended)

    def test_pipelined_commands_let_others_in(self) -> None:
        client = self.logged_in()
        client.server.dataReceived(b"1 CAPABILITY\r\n" * 100)
        self.assertLessEqual(client.heard().count(b"1 OK"), COMMANDS_IN_A_TURN)
        self.clock.advance(0)
        self.assertGreater(client.heard().count(b"1 OK"), 100 - COMMANDS_IN_A_TURN - 1)

    def test_commands_wait_for_a_client_that_does_not_read(self) -> None:
        client = self.logged_in()
        client.server.pauseProducing()
        self.assertEqual(client.send(b"1 NOOP\r\n2 NOOP\r\n").count(b"OK"), 1)
        client.server.resumeProducing()
        self.assertEqual(client.heard().count(b"2 OK"), 1)

    def test_a_connection_lost_while_logging_in(self) -> None:
        client = Client(self.factory())
        self.office.threads.hash.held = True  # type: ignore[attr-defined]  # a twin
        client.send(b"1 LOGIN anna secret\r\n")
        client.lose()
        self.office.threads.hash.release()  # type: ignore[attr-defined]
        self.clock.advance(0)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_long_line_before_login(self) -> None:
        client = Client(self.factory())
        self.assertIn(b"* BYE Line too long", client.send(b"x" * 40_000))
        self.assertTrue(client.ended)

    def test_log_in_in_time_trickle_or_not(self) -> None:
        client = Client(self.factory())
        for _ in range(12):
            client.send(b"1 NOOP\r\n")
            self.clock.advance(5)
        self.assertIn(b"* BYE Autologout", client.heard())
        self.assertTrue(client.ended)

    def test_autologout(self) -> None:
        client = self.logged_in()
        self.clock.advance(2000)
        client.send(b"1 NOOP\r\n")
        self.clock.advance(2000)
        self.assertFalse(client.ended)
        self.clock.advance(200)
        self.assertIn(b"* BYE Autologout", client.heard())
        self.assertTrue(client.ended)
        self.assertIsNone(client.wire.producer)  # else TLS would stay open
        self.clock.advance(LINGER_S)
        self.assertTrue(client.wire.aborted)

    def test_commands_that_pile_up_are_not_read(self) -> None:
        client = self.logged_in()
        self.office.threads.writers.held = True
        noop = b"2 NOOP".ljust(1022) + b"\r\n"
        client.send(b"1 SELECT INBOX\r\n" + noop * (MAX_QUEUED // 1024))
        self.assertEqual(client.wire.producerState, "producing")
        client.send(noop)
        self.assertEqual(client.wire.producerState, "paused")
        self.office.threads.writers.held = False
        self.office.threads.writers.release()
        self.clock.advance(0)
        heard = client.heard()
        self.assertLess(heard.index(b"1 OK"), heard.index(b"2 OK"))
        self.assertEqual(heard.count(b"2 OK"), MAX_QUEUED // 1024 + 1)
        self.assertEqual(client.wire.producerState, "producing")

    def test_a_client_that_does_not_read_is_waited_for_and_then_cut(self) -> None:
        client = self.logged_in()
        for _ in range(3):
            client.send(
                b"0 APPEND INBOX {200006+}\r\nA:\r\n\r\n%b\r\n" % (b"x" * 200_000)
            )
        client.send(b"1 SELECT INBOX\r\n")
        client.server.pauseProducing()
        first = client.send(b"2 FETCH 1:3 BODY.PEEK[]\r\n")
        self.assertLess(len(first), 500_000)
        client.server.resumeProducing()
        self.assertIn(b"2 OK", client.heard())
        client.server.pauseProducing()
        client.send(b"3 FETCH 1:3 BODY.PEEK[]\r\n")
        self.clock.advance(ImapSettings().idle_timeout_s + 1)
        self.assertTrue(client.wire.aborted)


class IdleTests(ImapCase):
    def idle(self, settings: ImapSettings | None = None) -> Client:
        client = self.logged_in(settings)
        client.send(b"1 SELECT INBOX\r\n")
        self.assertEqual(client.send(b"2 IDLE\r\n"), b"+ idling\r\n")
        return client

    def test_news_comes_at_once(self) -> None:
        client = self.idle()
        self.deliver()
        self.clock.advance(0.02)
        self.assertIn(b"* 1 EXISTS\r\n", client.heard())
        self.assertEqual(client.send(b"done\r\n"), b"2 OK IDLE completed\r\n")

    def test_what_is_pending_comes_when_idle_begins(self) -> None:
        client = self.logged_in()
        client.send(b"1 SELECT INBOX\r\n")
        self.deliver()
        self.clock.advance(0.02)
        self.assertEqual(client.heard(), b"")
        self.assertIn(b"* 1 EXISTS\r\n", client.send(b"2 IDLE\r\n"))

    def test_commands_behind_done(self) -> None:
        client = self.idle()
        answer = client.send(b"DONE\r\n3 NOOP\r\n4 IDLE\r\nDONE\r\n5 NOOP\r\n")
        tagged = [line.split(b" ")[0] for line in answer.split(b"\r\n")[:-1]]
        self.assertEqual(tagged, [b"2", b"3", b"+", b"4", b"5"])

    def test_keep_alive_and_autologout(self) -> None:
        client = self.idle()
        self.clock.advance(119)
        self.assertEqual(client.heard(), b"")
        self.clock.advance(1)
        self.assertEqual(client.heard(), b"* OK Still here\r\n")
        self.clock.advance(ImapSettings().idle_timeout_s)
        self.assertIn(b"* BYE", client.heard())

    def test_anything_but_done_is_bad(self) -> None:
        client = self.idle()
        self.assertIn(b"2 BAD", client.send(b"3 NOOP\r\n"))
        self.assertIn(b"4 OK", client.send(b"4 NOOP\r\n"))

    def test_a_client_that_does_not_read_hears_all_later(self) -> None:
        client = self.idle()
        client.server.pauseProducing()
        self.deliver()
        self.clock.advance(0.02)
        self.assertEqual(client.heard(), b"")
        client.server.resumeProducing()
        self.assertIn(b"* 1 EXISTS\r\n", client.heard())

    def test_a_deleted_mailbox_ends_the_session(self) -> None:
        other = self.logged_in()
        other.send(b"1 CREATE x\r\n")
        client = self.logged_in()
        client.send(b"1 SELECT x\r\n2 IDLE\r\n")
        other.send(b"2 DELETE x\r\n")
        self.assertIn(b"* BYE [UNAVAILABLE]", client.heard())
        self.assertTrue(client.ended)


class FaultsTests(ImapCase):
    def test_a_bug_costs_one_command(self) -> None:
        client = self.logged_in()
        store = self.office.account()._opened()
        whole = type(store).status

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        self.patch(type(store), "status", broken)
        self.assertIn(
            b"1 NO [SERVERBUG]", client.send(b"1 STATUS INBOX (MESSAGES)\r\n")
        )
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.patch(type(store), "status", whole)
        self.assertIn(b"2 OK", client.send(b"2 STATUS INBOX (MESSAGES)\r\n"))

    def test_a_failing_disk_costs_one_command(self) -> None:
        client = self.logged_in()
        maildir = self.office.root / "anna@example.test" / "Maildir"
        cur = maildir / "cur"
        client.send(b"1 SELECT INBOX\r\n")
        self.assertTrue(cur.is_dir(), os.listdir(self.office.root))

        def broken(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        self.patch(os, "rename", broken)
        self.assertIn(b"2 NO [UNAVAILABLE]", client.send(b"2 RENAME Sent x\r\n"))
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertIn(b"3 OK", client.send(b"3 NOOP\r\n"))

    def test_drain(self) -> None:
        factory = self.factory()
        idle, busy = Client(factory), Client(factory)
        for client in (idle, busy):
            client.send(b"0 LOGIN anna secret\r\n")
        idle.send(b"1 IDLE\r\n")
        self.office.threads.writers.held = True
        busy.send(b"1 SELECT INBOX\r\n2 NOOP\r\n")
        drained = self.office.start(factory.drain())
        self.assertIn(b"* BYE [UNAVAILABLE]", idle.heard())
        self.assertNoResult(drained)
        self.office.threads.writers.held = False
        self.office.threads.writers.release()
        heard = busy.heard()
        self.assertIn(b"1 OK", heard)
        self.assertNotIn(b"2 OK", heard)
        self.assertTrue(heard.endswith(b"going down\r\n"))
        self.successResultOf(drained)


class WireLogTests(ImapCase):
    """Level debug shows what was said, but no password and nothing of a message."""

    def traced(self) -> str:
        return " | ".join(
            str(event["wire"]) for event in self.events if "wire" in event
        )

    def setUp(self) -> None:
        super().setUp()
        self.events: list[LogEvent] = []
        observer = cast(ILogObserver, self.events.append)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)

    def client(self) -> Client:
        factory = self.factory()
        factory.log_wire = True
        return Client(factory)

    def test_commands_and_responses(self) -> None:
        client = self.client()
        client.send(b"1 LOGIN anna secret\r\n2 SELECT {5+}\r\nINBOX\r\n3 XYZZY a\r\n")
        traced = self.traced()
        for text in (
            "S: * OK [CAPABILITY",
            "C: 1 LOGIN ...",
            "S: 1 OK [CAPABILITY",
            "C: 2 SELECT {5+}\r\nINBOX",
            "S: * 0 EXISTS | S: * 0 RECENT",
            "S: 2 OK [READ-WRITE]",
            "C: an unknown command",
        ):
            self.assertIn(text, traced)
        self.assertNotIn("secret", traced)

    def test_passwords(self) -> None:
        client = self.client()
        client.send(b"1 AUTHENTICATE PLAIN AHNlY3JldDEAc2VjcmV0\r\n")
        client.send(b"2 AUTHENTICATE LOGIN\r\nc2VjcmV0\r\nc2VjcmV0\r\n")
        client.send(b"c2VjcmV0 \r\nc2VjcmV0\r\nanna c2VjcmV0\r\n")
        client.send(b"3 LOGIN anna {6+}\r\nc2VjcmV0\r\n")
        client.send(b"3 LOGIN anna\0 c2VjcmV0\r\n")
        self.clock.advance(60)
        self.assertIn("C: 2 AUTHENTICATE ...", self.traced())
        self.assertNotIn("c2vj", self.traced().lower())
        self.assertNotIn("y3jl", self.traced().lower())

    def test_messages(self) -> None:
        client = self.client()
        client.send(b"1 LOGIN anna secret\r\n2 SELECT INBOX\r\n")
        client.send(b"3 APPEND INBOX {17+}\r\nA: hidden\r\n\r\nbody\r\n")
        client.send(b"4 FETCH 1 (ENVELOPE BODY[])\r\n5 STORE 1 FLAGS (key)\r\n")
        self.assertIn("C: a message of 17 octets", self.traced())
        self.assertIn("C: 4 FETCH 1 (ENVELOPE BODY[])", self.traced())
        self.assertIn("FLAGS (key \\Recent)", self.traced())
        self.assertNotIn("hidden", self.traced())
        self.assertNotIn("body", self.traced())
