"""APPEND, STORE, COPY, MOVE, EXPUNGE over a real Maildir."""

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher

from mailsrv.imap.commands.messages import MAX_BINARY
from mailsrv.settings import ImapSettings
from mailsrv.store.values import TooManyKeywords
from tests.imap.office import Client, ImapCase

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


class MessagesCase(ImapCase):
    def selected(self, messages: int = 3) -> Client:
        """Return a session with `messages` in INBOX, UIDs from 1, none \\Recent."""
        client = self.logged_in()
        for _ in range(messages):
            self.append(client, b"INBOX")
        client.send(b"1 SELECT INBOX\r\n2 SELECT INBOX\r\n")
        return client

    def append(self, client: Client, arguments: bytes) -> bytes:
        literal = b" {%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE)
        return client.send(b"1 APPEND " + arguments + literal)


class AppendTests(MessagesCase):
    def test_flags_and_date(self) -> None:
        client = self.selected(0)
        answer = self.append(client, b'INBOX (\\Seen $a) "17-Jul-1996 02:44:25 -0700"')
        self.assertRegex(answer, rb"\* 1 EXISTS\r\n(?s:.*)1 OK \[APPENDUID \d+ 1\]")
        self.assertIn(
            b'FETCH (INTERNALDATE "17-Jul-1996 09:44:25 +0000" FLAGS (\\Seen $a',
            client.send(b"2 FETCH 1 (INTERNALDATE FLAGS)\r\n"),
        )

    def test_a_synchronising_literal(self) -> None:
        client = self.selected(0)
        answer = client.send(b"1 APPEND INBOX {%d}\r\n" % len(MESSAGE))
        self.assertEqual(answer, b"+ OK\r\n")
        client.send(MESSAGE[:7])
        client.send(MESSAGE[7:])
        self.assertIn(b"1 OK [APPENDUID", client.send(b"\r\n"))
        self.assertIn(MESSAGE, client.send(b"2 FETCH 1 BODY.PEEK[]\r\n"))

    def test_bare_newlines_become_pairs(self) -> None:
        client = self.selected(0)
        client.send(b"1 APPEND INBOX {8+}\r\na: b\n\nc\n\r\n")
        self.assertIn(
            b"{11}\r\na: b\r\n\r\nc\r\n", client.send(b"2 FETCH 1 BODY.PEEK[]\r\n")
        )

    def test_never_a_continuation_for_what_is_refused(self) -> None:
        client = self.logged_in(ImapSettings(max_append_octets=1000))
        for arguments, answer in (
            (b"nowhere {10}", b"1 NO [TRYCREATE]"),
            (b"INBOX {1001}", b"1 NO [TOOBIG]"),
            (b"INBOX {0}", b"1 NO [CANNOT]"),
            (b"INBOX (\\Foo) {10}", b"1 BAD"),
            (b'INBOX "yesterday" {10}', b"1 BAD"),
            (b"INBOX", b"1 BAD"),
        ):
            heard = client.send(b"1 APPEND " + arguments + b"\r\n")
            self.assertTrue(heard.startswith(answer), heard)
            self.assertIn(b"2 OK", client.send(b"2 NOOP\r\n"))

    def test_a_refused_message_that_comes_is_read_away(self) -> None:
        client = self.logged_in(ImapSettings(max_append_octets=1000))
        for arguments, size in ((b"nowhere", 10), (b"INBOX", 3000), (b"INBOX (", 5)):
            message = b"2 LOGOUT\r\n" * (size // 10)
            literal = b" {%d+}\r\n%b\r\n" % (len(message), message)
            heard = client.send(b"1 APPEND " + arguments + literal + b"3 NOOP\r\n")
            self.assertIn(b"3 OK", heard)
            self.assertNotIn(b"2 OK", heard)

    def test_one_that_is_too_large_to_be_read_away_ends_the_session(self) -> None:
        client = self.logged_in()
        heard = client.send(b"1 APPEND INBOX {999999999999+}\r\nxx")
        self.assertIn(b"1 NO [TOOBIG]", heard)
        self.assertIn(b"* BYE [TOOBIG]", heard)
        self.assertTrue(client.ended)

    def test_too_many_keywords_do_not_cost_the_message(self) -> None:
        client = self.selected(0)
        keywords = b" ".join(b"k%d" % n for n in range(70))
        answer = self.append(client, b"INBOX (\\Seen %b)" % keywords)
        self.assertEqual(len(self.flushLoggedErrors(TooManyKeywords)), 1)
        # A refusal would have the client append it once more.
        self.assertIn(b"1 OK [APPENDUID", answer)
        self.assertIn(b"FLAGS (\\Seen ", client.send(b"2 FETCH 1 FLAGS\r\n"))

    def test_text_after_the_message_stores_nothing(self) -> None:
        client = self.selected(0)
        self.assertIn(b"1 BAD", client.send(b"1 APPEND INBOX {3+}\r\na\r\n x\r\n"))
        self.assertNotIn(b"EXISTS", client.send(b"2 NOOP\r\n"))

    def test_a_connection_lost_in_the_message_stores_nothing(self) -> None:
        client = self.logged_in()
        client.send(b"1 APPEND INBOX {100000+}\r\n" + b"x" * 99_999)
        client.lose()
        answer = self.logged_in().send(b"1 STATUS INBOX (MESSAGES)\r\n")
        self.assertIn(b"MESSAGES 0", answer)


class SeveralMessagesTests(MessagesCase):
    """MULTIAPPEND (RFC 3502), literal8 (RFC 3516), UTF8 (RFC 6855)."""

    def literals(self, count: int, options: bytes = b"") -> bytes:
        literal = b"%b {%d+}\r\n%b" % (options, len(MESSAGE), MESSAGE)
        return literal * count + b"\r\n"

    def test_all_at_once(self) -> None:
        client = self.selected(0)
        options = b' (\\Seen) "17-Jul-1996 02:44:25 -0700"'
        heard = client.send(b"1 APPEND INBOX" + self.literals(3, options))
        self.assertRegex(heard, rb"\* 3 EXISTS\r\n(?s:.*)1 OK \[APPENDUID \d+ 1:3\]")
        heard = client.send(b"2 FETCH 1:3 (FLAGS INTERNALDATE)\r\n")
        self.assertEqual(heard.count(b"\\Seen"), 3)
        self.assertEqual(heard.count(b"17-Jul-1996 09:44:25"), 3)

    def test_each_waits_for_its_turn(self) -> None:
        client = self.selected(0)
        size = len(MESSAGE)
        for part in (b"1 APPEND INBOX {%d}" % size, MESSAGE + b" (a) {%d}" % size):
            self.assertEqual(client.send(part + b"\r\n"), b"+ OK\r\n")
        heard = client.send(MESSAGE + b"\r\n")
        self.assertRegex(heard, rb"1 OK \[APPENDUID \d+ 1:2\]")

    def test_none_if_one_is_refused(self) -> None:
        client = self.logged_in(ImapSettings(max_append_octets=1000))
        first = b"1 APPEND INBOX" + self.literals(1)[:-2]
        for second, answer in (
            (b" {1001+}\r\n" + b"x" * 1001, b"1 NO [TOOBIG]"),
            (b" {0+}\r\n", b"1 NO [CANNOT]"),
            (b" (\\Foo) {1+}\r\nx", b"1 BAD"),
            (b" x", b"1 BAD"),
            (b" {1+}\r\nx" * 100, b"1 NO [LIMIT]"),
        ):
            heard = client.send(first + second + b"\r\n2 NOOP\r\n")
            self.assertTrue(heard.startswith(answer), (second, heard))
            self.assertIn(b"2 OK", heard)
        heard = client.send(first + b" {1001}\r\n")  # it waits, and meets the refusal
        self.assertIn(b"1 NO [TOOBIG]", heard)
        self.assertIn(b"MESSAGES 0", client.send(b"3 STATUS INBOX (MESSAGES)\r\n"))

    def test_large_ones_wait_in_files(self) -> None:
        client = self.selected(0)
        text = b"a: b\r\n\r\n" + b"x" * 400_000
        literals = b" {%d+}\r\n%b" % (len(text), text) * 6
        heard = client.send(b"1 APPEND INBOX" + literals[: len(literals) // 2])
        maildir = self.office.root / "anna@example.test" / "Maildir"
        self.assertTrue(list(maildir.glob("tmp/*")))
        heard = client.send(literals[len(literals) // 2 :] + b"\r\n")
        self.assertRegex(heard, rb"1 OK \[APPENDUID \d+ 1:6\]")
        heard = client.send(b"2 FETCH 1:* RFC822.SIZE\r\n")
        self.assertEqual(heard.count(b"RFC822.SIZE %d" % len(text)), 6)

    def test_disabled(self) -> None:
        client = self.logged_in(ImapSettings(disabled_extensions=["MULTIAPPEND"]))
        self.assertIn(b"1 BAD", client.send(b"1 APPEND INBOX" + self.literals(2)))

    def test_literal8(self) -> None:
        client = self.selected(0)
        for number, body in enumerate((b"a\0b\r\n", b"\n\r\r\n", b"plain\r\n"), 1):
            text = b"Content-Transfer-Encoding: binary\r\n\r\n" + body
            heard = client.send(b"1 APPEND INBOX ~{%d+}\r\n" % len(text) + text[:40])
            heard += client.send(text[40:] + b"\r\n")
            self.assertIn(b"1 OK [APPENDUID", heard)
            heard = client.send(b"2 FETCH %d BINARY.PEEK[1]\r\n" % number)
            self.assertIn(b"{%d}\r\n%b)" % (len(body), body), heard)
        heard = client.send(b"3 APPEND INBOX ~{%d}\r\n" % (MAX_BINARY + 1))
        self.assertIn(b"3 NO [TOOBIG]", heard)

    def test_utf8(self) -> None:
        client = self.selected(0)
        text = "a: ü\r\n\r\n".encode()
        utf8 = b" UTF8 (~{%d+}\r\n%b)" % (len(text), text)
        heard = client.send(b"1 APPEND INBOX" + utf8 + utf8 + b"\r\n")
        self.assertRegex(heard, rb"1 OK \[APPENDUID \d+ 1:2\]")
        for wrong in (utf8[:-1], utf8 + b")"):
            heard = client.send(b"2 APPEND INBOX" + wrong + b"\r\n")
            self.assertIn(b"2 BAD", heard, wrong)

    def test_the_limit_is_told(self) -> None:
        client = self.logged_in(ImapSettings(max_append_octets=70_000))
        self.assertIn(b" APPENDLIMIT=70000", client.send(b"1 CAPABILITY\r\n"))
        heard = client.send(b"2 STATUS INBOX (APPENDLIMIT)\r\n")
        self.assertIn(b"(APPENDLIMIT 70000)", heard)


class StoreTests(MessagesCase):
    def test_operations(self) -> None:
        client = self.selected(2)
        for command, flags in (
            (b"STORE 2 FLAGS (\\Seen a)", b"\\Seen a"),
            (
                b"UID STORE 2 +flags \\Flagged \\answered",
                b"\\Answered \\Flagged \\Seen a",
            ),
            (b"STORE 2 -FLAGS (A \\Seen)", b"\\Answered \\Flagged"),
            (b"STORE 2 -FLAGS (A)", b"\\Answered \\Flagged"),
            (b"STORE 2 FLAGS ()", b""),
        ):
            answer = client.send(b"3 %b\r\n" % command)
            self.assertIn(b"* 2 FETCH (UID 2 FLAGS (%b))\r\n" % flags, answer)
            self.assertIn(b"3 OK", answer)

    def test_silent(self) -> None:
        client, other = self.selected(1), self.selected(0)
        self.assertEqual(
            client.send(b"3 STORE 1 +FLAGS.SILENT (\\Seen)\r\n"),
            b"3 OK STORE completed\r\n",
        )
        self.assertIn(b"FLAGS (\\Seen)", other.send(b"3 NOOP\r\n"))

    def test_unknown_messages(self) -> None:
        client = self.selected(1)
        self.assertIn(b"3 BAD", client.send(b"3 STORE 2 FLAGS ()\r\n"))
        self.assertEqual(
            client.send(b"3 UID STORE 2 FLAGS ()\r\n"), b"3 OK UID STORE completed\r\n"
        )
        self.assertIn(b"3 BAD", client.send(b"3 STORE 1 FLAGS (\\Recent)\r\n"))


class ExpungeTests(MessagesCase):
    def test_expunge(self) -> None:
        client = self.selected()
        client.send(b"3 STORE 1,3 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(
            client.send(b"4 EXPUNGE\r\n"),
            b"* 3 EXPUNGE\r\n* 1 EXPUNGE\r\n4 OK EXPUNGE completed\r\n",
        )

    def test_uid_expunge(self) -> None:
        client = self.selected()
        client.send(b"3 STORE 1:2 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(
            client.send(b"4 UID EXPUNGE 2:3\r\n"),
            b"* 2 EXPUNGE\r\n4 OK UID EXPUNGE completed\r\n",
        )

    def test_close_and_unselect(self) -> None:
        client = self.selected()
        client.send(b"3 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(client.send(b"4 UNSELECT\r\n"), b"4 OK UNSELECT completed\r\n")
        self.assertIn(b"* 3 EXISTS", client.send(b"5 SELECT INBOX\r\n"))
        self.assertEqual(client.send(b"6 CLOSE\r\n"), b"6 OK CLOSE completed\r\n")
        self.assertIn(b"* 2 EXISTS", client.send(b"7 SELECT INBOX\r\n"))

    def test_held_back_while_numbers_are_in_use(self) -> None:
        client, other = self.selected(), self.selected(0)
        other.send(b"3 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n4 EXPUNGE\r\n")
        for command in (
            b"FETCH 2 FLAGS",
            b"UID FETCH 2 FLAGS",
            b"STORE 2 FLAGS ()",
            b"UID STORE 2 FLAGS ()",
            b"SEARCH ALL",
            b"UID SEARCH ALL",
        ):
            answer = client.send(b"5 %b\r\n" % command)
            self.assertIn(b"5 OK", answer)
            self.assertNotIn(b"EXPUNGE", answer)
        self.assertIn(b"* 2 FETCH", client.send(b"6 FETCH 2 UID\r\n"))
        self.assertEqual(
            client.send(b"7 NOOP\r\n"), b"* 1 EXPUNGE\r\n7 OK NOOP completed\r\n"
        )


class TransferTests(MessagesCase):
    def test_copy(self) -> None:
        client = self.selected()
        client.send(b"3 STORE 1 FLAGS.SILENT (\\Flagged kw)\r\n")
        self.assertRegex(
            client.send(b"4 COPY 1,3 Archive\r\n"), rb"^4 OK \[COPYUID \d+ 1,3 1:2\]"
        )
        client.send(b"5 SELECT Archive\r\n")
        self.assertIn(b"FLAGS (\\Flagged kw", client.send(b"6 FETCH 1 FLAGS\r\n"))

    def test_move(self) -> None:
        client = self.selected()
        self.assertRegex(
            client.send(b"4 UID MOVE 1,3 Archive\r\n"),
            rb"^\* OK \[COPYUID \d+ 1,3 1:2\] Moved.\r\n"
            rb"\* 3 EXPUNGE\r\n\* 1 EXPUNGE\r\n4 OK UID MOVE completed\r\n\Z",
        )

    def test_move_within_the_mailbox(self) -> None:
        client = self.selected(2)
        client.send(b"3 STORE 1 +FLAGS (\\Seen work)\r\n")
        self.assertRegex(
            client.send(b"4 MOVE 1 INBOX\r\n"),
            rb"^\* OK \[COPYUID \d+ 1 3\] Moved.\r\n"
            rb"\* 1 EXPUNGE\r\n\* 2 EXISTS\r\n(?:\* \d RECENT\r\n)?"
            rb"4 OK MOVE completed\r\n\Z",
        )
        self.assertIn(
            b"* 2 FETCH (UID 3 FLAGS (\\Seen work",
            client.send(b"5 FETCH 1:* (UID FLAGS)\r\n"),
        )

    def test_refused(self) -> None:
        client = self.selected(1)
        for command, answer in (
            (b"COPY 1 nowhere", b"3 NO [TRYCREATE]"),
            (b"MOVE 1 nowhere", b"3 NO [TRYCREATE]"),
            (b"COPY 2 Archive", b"3 BAD"),
            (b"UID COPY 2 Archive", b"3 OK UID COPY completed"),
            (b"UID MOVE 2 Archive", b"3 OK UID MOVE completed"),
        ):
            heard = client.send(b"3 %b\r\n" % command)
            self.assertTrue(heard.startswith(answer), heard)


class LogTests(MessagesCase):
    def test_who_took_mail_away(self) -> None:
        events: list[LogEvent] = []
        observer: ILogObserver = events.append  # type: ignore[assignment]
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        client = self.selected()
        client.send(b"2 MOVE 1 Trash\r\n")
        client.send(b"3 STORE 1:2 +FLAGS (\\Deleted)\r\n4 EXPUNGE\r\n5 EXPUNGE\r\n")
        client.send(b"6 CREATE a\r\n7 RENAME a b\r\n8 DELETE b\r\n")
        told = [
            (e["log_format"], e["mailbox"], e.get("uids"), e.get("target"))
            for e in events
            if "mailbox" in e
        ]
        self.assertEqual(
            told,
            [
                ("moved", "INBOX", "1", "Trash"),
                ("expunged", "INBOX", "2:3", None),
                ("mailbox renamed", "a", None, "b"),
                ("mailbox deleted", "b", None, None),
            ],
        )
