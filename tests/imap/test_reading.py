"""FETCH and SEARCH as a client meets them, over a real Maildir."""

from pathlib import Path
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts.directory import Account
from mailsrv.connections import ConnectionLimits
from mailsrv.imap.fetching import PIECE
from mailsrv.imap.server import ImapFactory
from mailsrv.settings import ImapSettings, TlsSettings
from tests.mailboxes.office import Office

SINGLE = b"Subject: %d\r\n\r\nbody %d\r\n"


class Client:
    """A logged-in client of one session."""

    def __init__(self, office: Office) -> None:
        self.office = office
        factory = ImapFactory(
            settings=ImapSettings(),
            tls_settings=TlsSettings(),
            tls=None,
            # Any: nobody logs in here.
            authenticator=cast(Any, None),
            mail_store=office.mail_store,
            connections=ConnectionLimits(max_all=9, max_per_address=9),
            reactor=office.clock,
        )
        self.transport = StringTransport(peerAddress=IPv4Address("TCP", "127.0.0.1", 9))
        self.protocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)
        assert self.protocol.session is not None
        self.session = self.protocol.session
        self.session.logged_in(Account("anna@example.test", "anna", "", None))
        self.read()

    def read(self) -> bytes:
        self.office.clock.advance(0)
        octets: bytes = self.transport.value()
        self.transport.clear()
        return octets

    def send(self, command: bytes) -> bytes:
        self.protocol.dataReceived(command + b"\r\n")
        return self.read()


class ReadingTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir(parents=True)
        self.office = Office(self, root)
        self.office.wait(self.office.account().mailboxes())

    def fill(self, count: int) -> None:
        for n in range(1, count + 1):
            self.office.append("INBOX", body=SINGLE % (n, n))

    def client(self, select: bytes = b"SELECT") -> Client:
        client = Client(self.office)
        self.assertIn(b"1 OK", client.send(b"1 " + select + b" INBOX"))
        return client

    def test_flags_of_all(self) -> None:
        self.fill(3)
        client = self.client()
        self.assertEqual(
            client.send(b"2 UID FETCH 1:* (FLAGS)"),
            b"* 1 FETCH (UID 1 FLAGS (\\Recent))\r\n"
            b"* 2 FETCH (UID 2 FLAGS (\\Recent))\r\n"
            b"* 3 FETCH (UID 3 FLAGS (\\Recent))\r\n"
            b"2 OK UID FETCH completed\r\n",
        )
        client.send(b"3 STORE 2 +FLAGS.SILENT (\\Flagged $Label1)")
        self.assertEqual(
            client.send(b"4 FETCH 2 FLAGS"),
            b"* 2 FETCH (FLAGS (\\Flagged $Label1 \\Recent))\r\n4 OK FETCH completed\r\n",
        )
        self.assertEqual(
            client.send(b"5 UID FETCH 9 FLAGS"), b"5 OK UID FETCH completed\r\n"
        )
        self.assertTrue(client.send(b"6 FETCH 4 FLAGS").startswith(b"6 BAD "))
        self.assertTrue(client.send(b"7 FETCH 1 NONSENSE").startswith(b"7 BAD "))

    def test_body_sets_seen_and_tells_it_once(self) -> None:
        self.fill(2)
        client = self.client()
        self.assertEqual(
            client.send(b"2 FETCH 1 BODY[TEXT]"),
            b"* 1 FETCH (BODY[TEXT] {8}\r\nbody 1\r\n FLAGS (\\Seen \\Recent))\r\n"
            b"2 OK FETCH completed\r\n",
        )
        self.assertEqual(
            client.send(b"3 FETCH 1 BODY[TEXT]"),
            b"* 1 FETCH (BODY[TEXT] {8}\r\nbody 1\r\n)\r\n3 OK FETCH completed\r\n",
        )
        self.assertNotIn(b"\\Seen", client.send(b"4 FETCH 2 (BODY.PEEK[] FLAGS)"))
        self.assertEqual(
            client.send(b"5 SEARCH SEEN"), b"* SEARCH 1\r\n5 OK SEARCH completed\r\n"
        )

    def test_examine_sets_nothing(self) -> None:
        self.fill(1)
        client = self.client(b"EXAMINE")
        self.assertNotIn(b"\\Seen", client.send(b"2 FETCH 1 (BODY[] FLAGS)"))
        self.assertEqual(
            client.send(b"3 SEARCH SEEN"), b"* SEARCH\r\n3 OK SEARCH completed\r\n"
        )

    def test_search_numbers(self) -> None:
        self.fill(4)
        client = self.client()
        client.send(b"2 STORE 1 +FLAGS (\\Deleted)")
        client.send(b"3 EXPUNGE")
        for command, answer in (
            (b'UID SEARCH OR SUBJECT 2 BODY "y 4"', b"* SEARCH 2 4"),
            (b"SEARCH UID 3:*", b"* SEARCH 2 3"),
            (b"UID SEARCH CHARSET UTF-8 BODY {1+}\r\n3", b"* SEARCH 3"),
        ):
            got = client.send(b"4 " + command)
            self.assertEqual(got.split(b"\r\n")[0], answer, command)
            self.assertIn(b"\r\n4 OK ", got)
        self.assertEqual(
            client.send(b"6 SEARCH CHARSET KOI8-R ALL"),
            b"6 NO [BADCHARSET (US-ASCII UTF-8)] Unknown charset\r\n",
        )

    def test_empty_mailbox(self) -> None:
        client = self.client()
        self.assertEqual(
            client.send(b"2 SEARCH *"), b"* SEARCH\r\n2 OK SEARCH completed\r\n"
        )
        self.assertEqual(
            client.send(b"3 UID FETCH 1:* (FLAGS)"), b"3 OK UID FETCH completed\r\n"
        )

    def test_slow_client_holds_the_answer_back(self) -> None:
        text = b"0123456789abcd\r\n" * 100_000
        self.office.append("INBOX", body=b"A: b\r\n\r\n" + text)
        client = self.client()
        client.protocol.pauseProducing()
        got = client.send(b"2 FETCH 1 BODY.PEEK[TEXT]")
        self.assertLess(len(got), 2 * PIECE)
        for _ in range(20):
            client.protocol.resumeProducing()
            client.protocol.pauseProducing()
            got += client.read()
        self.assertEqual(
            got,
            b"* 1 FETCH (BODY[TEXT] {%d}\r\n%b)\r\n2 OK FETCH completed\r\n"
            % (len(text), text),
        )

    def test_connection_lost_in_the_middle(self) -> None:
        self.office.append("INBOX", body=b"\r\n" + b"x" * 4 * PIECE)
        client = self.client()
        client.protocol.pauseProducing()
        client.send(b"2 FETCH 1 BODY[]")
        client.protocol.connectionLost()
        self.assertEqual(client.read(), b"")

    def test_vanished_message(self) -> None:
        self.fill(2)
        client = self.client()
        client.send(b"2 FETCH 1:2 BODYSTRUCTURE")
        for path in (self.office.root / "anna" / "Maildir").glob("*/*"):
            if path.is_file() and b"body 1" in path.read_bytes():
                path.unlink()
        self.assertEqual(
            client.send(b"3 FETCH 1:2 BODY.PEEK[TEXT]"),
            b"* 2 FETCH (BODY[TEXT] {8}\r\nbody 2\r\n)\r\n"
            b"3 NO [EXPUNGEISSUED] Some of the messages are gone\r\n",
        )
