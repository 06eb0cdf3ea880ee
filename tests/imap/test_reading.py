"""FETCH and SEARCH as a client meets them, over a real Maildir."""

from mailsrv.imap.fetching import PIECE
from tests.imap.office import Client, ImapCase

SINGLES = [b"Subject: %d\r\n\r\nbody %d\r\n" % (n, n) for n in range(1, 5)]


class Reader:
    """A client that sends whole commands."""

    def __init__(self, case: ImapCase, client: Client) -> None:
        self._case = case
        self._client = client
        self.server = client.server

    def send(self, command: bytes) -> bytes:
        self._client.server.dataReceived(command + b"\r\n")
        return self.heard()

    def heard(self) -> bytes:
        self._case.clock.advance(0)
        return self._client.heard()


class ReadingCase(ImapCase):
    """Has messages in INBOX, and clients that have selected it."""

    def fill(self, *messages: bytes) -> None:
        reader = Reader(self, self.logged_in())
        for message in messages:
            answer = reader.send(
                b"1 APPEND INBOX {%d+}\r\n%b" % (len(message), message)
            )
            self.assertIn(b"1 OK", answer)
        reader.send(b"2 LOGOUT")

    def reader(self, select: bytes = b"SELECT") -> Reader:
        reader = Reader(self, self.logged_in())
        self.assertIn(b"1 OK", reader.send(b"1 " + select + b" INBOX"))
        return reader


class ReadingTests(ReadingCase):
    def test_flags_of_all(self) -> None:
        self.fill(*SINGLES[:3])
        reader = self.reader()
        self.assertEqual(
            reader.send(b"2 UID FETCH 1:* (FLAGS)"),
            b"* 1 FETCH (UID 1 FLAGS (\\Recent))\r\n"
            b"* 2 FETCH (UID 2 FLAGS (\\Recent))\r\n"
            b"* 3 FETCH (UID 3 FLAGS (\\Recent))\r\n"
            b"2 OK UID FETCH completed\r\n",
        )
        reader.send(b"3 STORE 2 +FLAGS.SILENT (\\Flagged $Label1)")
        self.assertEqual(
            reader.send(b"4 FETCH 2 FLAGS"),
            b"* 2 FETCH (FLAGS (\\Flagged $Label1 \\Recent))\r\n"
            b"4 OK FETCH completed\r\n",
        )
        self.assertEqual(
            reader.send(b"5 UID FETCH 9 FLAGS"), b"5 OK UID FETCH completed\r\n"
        )
        self.assertTrue(reader.send(b"6 FETCH 4 FLAGS").startswith(b"6 BAD "))
        self.assertTrue(reader.send(b"7 FETCH 1 NONSENSE").startswith(b"7 BAD "))

    def test_body_sets_seen_and_tells_it_once(self) -> None:
        self.fill(*SINGLES[:2])
        reader = self.reader()
        self.assertEqual(
            reader.send(b"2 FETCH 1 BODY[TEXT]"),
            b"* 1 FETCH (BODY[TEXT] {8}\r\nbody 1\r\n FLAGS (\\Seen \\Recent))\r\n"
            b"2 OK FETCH completed\r\n",
        )
        self.assertEqual(
            reader.send(b"3 FETCH 1 BODY[TEXT]"),
            b"* 1 FETCH (BODY[TEXT] {8}\r\nbody 1\r\n)\r\n3 OK FETCH completed\r\n",
        )
        self.assertNotIn(b"\\Seen", reader.send(b"4 FETCH 2 (BODY.PEEK[] FLAGS)"))
        self.assertEqual(
            reader.send(b"5 SEARCH SEEN"), b"* SEARCH 1\r\n5 OK SEARCH completed\r\n"
        )

    def test_examine_sets_nothing(self) -> None:
        self.fill(*SINGLES[:1])
        reader = self.reader(b"EXAMINE")
        self.assertNotIn(b"\\Seen", reader.send(b"2 FETCH 1 (BODY[] FLAGS)"))
        self.assertEqual(
            reader.send(b"3 SEARCH SEEN"), b"* SEARCH\r\n3 OK SEARCH completed\r\n"
        )

    def test_search_numbers(self) -> None:
        self.fill(*SINGLES)
        reader = self.reader()
        reader.send(b"2 STORE 1 +FLAGS (\\Deleted)")
        reader.send(b"3 EXPUNGE")
        for command, answer in (
            (b'UID SEARCH OR SUBJECT 2 BODY "y 4"', b"* SEARCH 2 4"),
            (b"SEARCH UID 3:*", b"* SEARCH 2 3"),
            (b"UID SEARCH CHARSET UTF-8 BODY {1+}\r\n3", b"* SEARCH 3"),
        ):
            got = reader.send(b"4 " + command)
            self.assertEqual(got.split(b"\r\n")[0], answer, command)
            self.assertIn(b"\r\n4 OK ", got)
        self.assertEqual(
            reader.send(b"6 SEARCH CHARSET X-NONE ALL"),
            b"6 NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset\r\n",
        )

    def test_empty_mailbox(self) -> None:
        reader = self.reader()
        self.assertEqual(
            reader.send(b"2 SEARCH *"), b"* SEARCH\r\n2 OK SEARCH completed\r\n"
        )
        self.assertEqual(
            reader.send(b"3 UID FETCH 1:* (FLAGS)"), b"3 OK UID FETCH completed\r\n"
        )

    def test_slow_client_holds_the_answer_back(self) -> None:
        text = b"0123456789abcd\r\n" * 100_000
        self.fill(b"A: b\r\n\r\n" + text)
        reader = self.reader()
        reader.server.pauseProducing()
        got = reader.send(b"2 FETCH 1 BODY.PEEK[TEXT]")
        self.assertLess(len(got), 2 * PIECE)
        for _ in range(20):
            reader.server.resumeProducing()
            reader.server.pauseProducing()
            got += reader.heard()
        self.assertEqual(
            got,
            b"* 1 FETCH (BODY[TEXT] {%d}\r\n%b)\r\n2 OK FETCH completed\r\n"
            % (len(text), text),
        )

    def test_connection_lost_in_the_middle(self) -> None:
        self.fill(b"\r\n" + b"x" * 4 * PIECE)
        reader = self.reader()
        reader.server.pauseProducing()
        reader.send(b"2 FETCH 1 BODY[]")
        reader.server.connectionLost()
        self.assertEqual(reader.heard(), b"")

    def test_vanished_message(self) -> None:
        self.fill(*SINGLES[:2])
        reader = self.reader()
        reader.send(b"2 FETCH 1:2 BODYSTRUCTURE")
        for path in (self.office.root / "anna@example.test" / "Maildir").glob("*/*"):
            if path.is_file() and b"body 1" in path.read_bytes():
                path.unlink()
        self.assertEqual(
            reader.send(b"3 FETCH 1:2 BODY.PEEK[TEXT]"),
            b"* 2 FETCH (BODY[TEXT] {8}\r\nbody 2\r\n)\r\n"
            b"3 OK [EXPUNGEISSUED] FETCH completed\r\n",
        )
