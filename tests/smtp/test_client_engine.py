"""The client's engine by what a peer says: order, extensions, every way to end."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp import engine as server
from mailsrv.smtp.client_engine import (
    LOST,
    NEED_DATA,
    NO_LOGIN,
    NO_TLS,
    STRANGE,
    TOO_SLOW,
    ClientEngine,
    Tls,
)
from mailsrv.smtp.events import (
    Content,
    ContentEnd,
    Data,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Settled,
)
from mailsrv.smtp.outgoing import (
    Done,
    Ended,
    Event,
    Lacking,
    Login,
    Outgoing,
    OutgoingRecipient,
    Ready,
    Send,
    SendContent,
    StartTls,
)
from mailsrv.smtp.peer import MAX_REPLY_LINE, MAX_REPLY_LINES
from mailsrv.smtp.reply import OK, Replies, Reply

CONTENT = b"Subject: x\r\n\r\n.dot\r\n..two\r\nend\r\n"
STUFFED = b"Subject: x\r\n\r\n..dot\r\n...two\r\nend\r\n.\r\n"


def outgoing(*forward_paths: str, eight_bit: bool = False, **options: bool) -> Outgoing:
    recipients = tuple(
        OutgoingRecipient(path) for path in forward_paths or ("b@else.test",)
    )
    return Outgoing(
        "a@example.test",
        recipients,
        len(CONTENT),
        eight_bit,
        options.get("smtputf8", False),
        require_tls=options.get("require_tls", False),
    )


class Driver:
    """A client whose peer says what the test wants; keeps what is said and told."""

    def __init__(
        self,
        *extensions: str,
        tls: Tls = "never",
        lmtp: bool = False,
        login: Login | None = None,
        greet: bool = True,
    ) -> None:
        self.engine = ClientEngine(
            hostname="mail.example.test", tls=tls, lmtp=lmtp, login=login
        )
        self.sent = b""
        self.told: list[Event] = []
        self.content = CONTENT
        if greet:
            self.hears(b"220 else.test\r\n")
            self.hears(ehlo(*extensions))

    def hears(self, *reads: bytes) -> "Driver":
        for octets in reads:
            self.engine.receive(octets)
            self.run()
        return self

    def run(self) -> None:
        while (event := self.engine.next_event()) is not NEED_DATA:
            match event:
                case Send(octets):
                    self.sent += octets
                case SendContent():
                    for at in range(0, len(self.content), 7):
                        piece = self.content[at : at + 7]
                        self.sent += self.engine.content(piece)
                    self.engine.content_end()
                case StartTls():
                    self.told.append(event)
                    self.engine.tls_on()
                case Done() | Ready() | Ended():
                    self.told.append(event)

    def begins(self, *forward_paths: str) -> "Driver":
        self.said()
        self.told.clear()
        self.engine.begin(outgoing(*forward_paths))
        self.run()
        return self

    def said(self) -> bytes:
        sent, self.sent = self.sent, b""
        return sent

    @property
    def codes(self) -> list[int]:
        """What became of each recipient of the one transaction."""
        [done] = [event for event in self.told if isinstance(event, Done)]
        return [reply.code for reply in done.replies]


def ehlo(*extensions: str) -> bytes:
    lines = ["else.test", *extensions]
    wire = "".join(f"250-{line}\r\n" for line in lines[:-1])
    return f"{wire}250 {lines[-1]}\r\n".encode()


class ConnectionTests(SynchronousTestCase):
    def test_hello(self) -> None:
        driver = Driver("PIPELINING", "SIZE 1000", "AUTH=PLAIN LOGIN")
        self.assertEqual(driver.said(), b"EHLO mail.example.test\r\n")
        self.assertEqual(driver.told, [Ready()])
        self.assertEqual(driver.engine.extensions.max_octets, 1000)
        self.assertEqual(driver.engine.peer_name, "else.test")
        self.assertEqual(driver.engine.extensions.mechanisms, {"PLAIN", "LOGIN"})

    def test_helo(self) -> None:
        driver = Driver(greet=False).hears(b"220-hello\r\n220 you\r\n")
        driver.hears(b"502 5.5.1 What?\r\n", b"250 else.test\r\n")
        self.assertEqual(
            driver.said(), b"EHLO mail.example.test\r\nHELO mail.example.test\r\n"
        )
        self.assertEqual(driver.told, [Ready()])

    def test_who_does_not_greet(self) -> None:
        for wire, reply in (
            (b"554 5.7.1 Go away\r\n", Reply(554, "5.7.1", "Go away")),
            (b"421 4.7.0 Busy\r\n", Reply(421, "4.7.0", "Busy")),
            (b"250 Hm\r\n", STRANGE),
            (b"SSH-2.0-x\r\n", STRANGE),
            (b"220-a\r\n250 b\r\n", STRANGE),
            (b"220-a\r\n" * (MAX_REPLY_LINES + 1), STRANGE),
            (b"220 " + b"x" * MAX_REPLY_LINE, STRANGE),
        ):
            driver = Driver(greet=False).hears(wire)
            self.assertEqual(driver.told, [Ended(reply)], wire[:20])

    def test_starttls(self) -> None:
        driver = Driver("STARTTLS", tls="must").hears(b"220 Go\r\n")
        self.assertEqual(driver.told, [StartTls()])
        driver.hears(ehlo("SIZE"))
        self.assertEqual(driver.told, [StartTls(), Ready()])
        self.assertTrue(
            driver.said().endswith(b"STARTTLS\r\nEHLO mail.example.test\r\n")
        )
        self.assertNotIn("STARTTLS", driver.engine.extensions)

    def test_without_starttls(self) -> None:
        self.assertEqual(Driver(tls="must").told, [Ended(NO_TLS)])
        self.assertEqual(Driver(tls="may").told, [Ready()])
        refused = b"454 4.7.0 No key\r\n"
        self.assertEqual(Driver("STARTTLS", tls="may").hears(refused).told, [Ready()])
        [ended] = Driver("STARTTLS", tls="must").hears(refused).told
        self.assertEqual(ended, Ended(Reply(451, "4.7.10", "No key")))
        injected = Driver("STARTTLS", tls="may").hears(b"220 Go\r\n250 x\r\n")
        self.assertEqual(injected.told, [Ended(STRANGE)])

    def test_login(self) -> None:
        login = Login("anna", "secret")
        for offered, dialogue in (
            ("AUTH LOGIN PLAIN", [b"AUTH PLAIN AGFubmEAc2VjcmV0\r\n"]),
            ("AUTH LOGIN", [b"AUTH LOGIN\r\n", b"YW5uYQ==\r\n", b"c2VjcmV0\r\n"]),
        ):
            driver = Driver("STARTTLS", tls="must", login=login)
            driver.hears(b"220 Go\r\n")
            driver.said()
            driver.hears(ehlo(offered))
            for line in dialogue[:-1]:
                self.assertEqual(driver.said(), line)
                driver.hears(b"334 VXNlcm5hbWU6\r\n")
            self.assertEqual(driver.said(), dialogue[-1])
            driver.hears(b"235 2.7.0 Welcome\r\n")
            self.assertEqual(driver.told, [StartTls(), Ready()])
        self.assertEqual(Driver("AUTH PLAIN", login=login).told, [Ended(NO_LOGIN)])
        driver = Driver("STARTTLS", tls="must", login=login).hears(b"220 Go\r\n")
        driver.hears(ehlo("AUTH PLAIN"), b"535 5.7.8 No\r\n")
        self.assertEqual(driver.told[-1], Ended(Reply(454, "4.7.0", "No")))

    def test_quit(self) -> None:
        driver = Driver()
        driver.engine.quit()
        driver.hears(b"221 Bye\r\n")
        self.assertEqual(driver.told[-1], Ended(Reply(221, "2.0.0", "Left")))


class TransactionTests(SynchronousTestCase):
    def test_one_by_one(self) -> None:
        driver = Driver().begins("b@else.test", "c@else.test")
        for said, reply in (
            (b"MAIL FROM:<a@example.test>\r\n", b"250 Ok\r\n"),
            (b"RCPT TO:<b@else.test>\r\n", b"550 5.1.1 Who?\r\n"),
            (b"RCPT TO:<c@else.test>\r\n", b"251 Will forward\r\n"),
            (b"DATA\r\n", b"354 Go\r\n"),
            (STUFFED, b"250 2.0.0 Queued as\r\n"),
        ):
            self.assertEqual(driver.said(), said)
            driver.hears(reply)
        replies = (Reply(550, "5.1.1", "Who?"), Reply(250, "2.0.0", "Queued as"))
        self.assertEqual(driver.told, [Done(replies), Ready()])

    def test_pipelining(self) -> None:
        driver = Driver("PIPELINING").begins("b@else.test", "c@else.test")
        self.assertEqual(
            driver.said(),
            b"MAIL FROM:<a@example.test>\r\nRCPT TO:<b@else.test>\r\n"
            b"RCPT TO:<c@else.test>\r\nDATA\r\n",
        )
        driver.hears(b"250 Ok\r\n250 Ok\r\n450 4.2.1 Later\r\n354 Go\r\n")
        self.assertEqual(driver.said(), STUFFED)
        self.assertEqual(driver.hears(b"250 Ok\r\n").codes, [250, 450])

    def test_data_that_nobody_wants(self) -> None:
        driver = Driver("PIPELINING").begins()
        driver.said()
        driver.hears(b"250 Ok\r\n550 No\r\n354 Go\r\n")
        self.assertEqual(driver.said(), b".\r\n")
        self.assertEqual(driver.hears(b"554 None\r\n").codes, [550])
        driver.begins().hears(b"450 No\r\n503 No\r\n503 No\r\n")
        self.assertTrue(driver.said().endswith(b"RSET\r\n"))
        self.assertEqual(driver.hears(b"250 Ok\r\n").codes, [450])

    def test_chunking(self) -> None:
        driver = Driver("PIPELINING", "CHUNKING").begins()
        self.assertNotIn(b"DATA", driver.said())
        driver.hears(b"250 Ok\r\n250 Ok\r\n")
        self.assertEqual(driver.said(), b"BDAT %d LAST\r\n" % len(CONTENT) + CONTENT)
        self.assertEqual(driver.hears(b"250 Ok\r\n").codes, [250])
        driver.begins().hears(b"250 Ok\r\n550 No\r\n")
        self.assertTrue(driver.said().endswith(b"\r\nRSET\r\n"))

    def test_lmtp(self) -> None:
        driver = Driver("PIPELINING", lmtp=True)
        self.assertEqual(driver.said(), b"LHLO mail.example.test\r\n")
        driver.begins("b@else.test", "c@else.test", "d@else.test")
        driver.hears(b"250 Ok\r\n250 Ok\r\n550 No\r\n250 Ok\r\n354 Go\r\n")
        driver.hears(b"452 Full\r\n", b"250 Ok\r\n")
        self.assertEqual(driver.codes, [452, 550, 250])

    def test_what_the_peer_lacks(self) -> None:
        for message, extension in (
            (outgoing(eight_bit=True), "8BITMIME"),
            (outgoing(smtputf8=True), "SMTPUTF8"),
            (outgoing(require_tls=True), "REQUIRETLS"),
            (outgoing(), "SIZE"),
        ):
            driver = Driver("SIZE 10")
            driver.said()
            lacking = self.assertRaises(Lacking, driver.engine.begin, message)
            self.assertEqual(lacking.extension, extension)
            driver.run()
            self.assertEqual(driver.said(), b"")

    def test_parameters(self) -> None:
        driver = Driver("SIZE", "8BITMIME", "DSN", "SMTPUTF8")
        driver.said()
        driver.engine.begin(
            Outgoing(
                "",
                (OutgoingRecipient("ö@else.test", "NEVER", "utf-8;x"),),
                9,
                True,
                True,
                "HDRS",
                "e1",
            )
        )
        driver.hears(b"250 Ok\r\n")
        self.assertEqual(
            driver.said().decode(),
            "MAIL FROM:<> SIZE=9 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=e1\r\n"
            "RCPT TO:<ö@else.test> NOTIFY=NEVER ORCPT=utf-8;x\r\n",
        )

    def test_parameters_have_no_more_than_ascii_without_smtputf8(self) -> None:
        driver = Driver("DSN")
        driver.said()
        to = OutgoingRecipient("o@else.test", "", "utf-8;\u00f6\U0001f600@x.test")
        driver.engine.begin(Outgoing("", (to,), 9, False, False, "", "\u00f6"))
        driver.hears(b"250 Ok\r\n")
        self.assertEqual(
            driver.said(),
            b"MAIL FROM:<>\r\n"
            b"RCPT TO:<o@else.test> ORCPT=utf-8;\\x{F6}\\x{1F600}@x.test\r\n",
        )

    def test_too_many_recipients(self) -> None:
        driver = Driver("PIPELINING").begins("b@else.test", "c@else.test")
        driver.hears(b"250 Ok\r\n250 Ok\r\n552 Enough\r\n354 Go\r\n250 Ok\r\n")
        self.assertEqual(driver.codes, [250, 452])
        # A full mailbox is one, whatever its place.
        driver.begins("b@else.test", "c@else.test")
        driver.hears(b"250 Ok\r\n250 Ok\r\n552 5.2.2 Full\r\n354 Go\r\n250 Ok\r\n")
        self.assertEqual(driver.codes, [250, 552])

    def test_whether_the_transaction_was_begun(self) -> None:
        for wire, begun in (
            (b"451 Later\r\n503 No\r\n503 No\r\n250 Ok\r\n", False),
            (b"421 Bye\r\n", False),
            (b"250 Ok\r\n450 No\r\n503 No\r\n250 Ok\r\n", True),
        ):
            driver = Driver("PIPELINING").begins().hears(wire)
            [done] = [event for event in driver.told if isinstance(event, Done)]
            self.assertIs(done.begun, begun, wire)

    def test_content_of_another_size(self) -> None:
        for content in (CONTENT + b"x", CONTENT[:-1]):
            driver = Driver("CHUNKING").begins()
            driver.content = content
            driver.hears(b"250 Ok\r\n")
            self.assertRaises(AssertionError, driver.hears, b"250 Ok\r\n")
            self.assertNotIn(CONTENT + b"x", driver.said())

    def test_421_at_any_time(self) -> None:
        wire = b"250 Ok\r\n" * 3 + b"354 Go\r\n"
        for count in range(5):
            driver = Driver("PIPELINING").begins("b@else.test", "c@else.test")
            replies = wire.splitlines(True)[:count]
            driver.hears(*replies, b"421 4.3.2 Bye\r\n")
            self.assertEqual(driver.codes, [421, 421])
            self.assertEqual(driver.told[-1], Ended(Reply(421, "4.3.2", "Bye")))

    def test_lost(self) -> None:
        driver = Driver("PIPELINING").begins("b@else.test", "c@else.test")
        driver.hears(b"250 Ok\r\n550 No\r\n250 Ok\r\n354 Go\r\n")
        driver.engine.lost()
        driver.run()
        no = Reply(550, "", "No")
        self.assertEqual(driver.told, [Done((no, LOST), True), Ended(LOST)])
        driver = Driver("PIPELINING").begins()
        driver.engine.lost(TOO_SLOW)
        driver.run()
        self.assertEqual(driver.told, [Done((TOO_SLOW,), begun=False), Ended(TOO_SLOW)])

    def test_answer_before_the_end_of_the_message(self) -> None:
        driver = Driver().begins()
        driver.hears(b"250 Ok\r\n", b"250 Ok\r\n")
        driver.engine.receive(b"354 Go\r\n552 5.3.4 Too big\r\n")
        while not isinstance(driver.engine.next_event(), SendContent):
            pass
        self.assertEqual(driver.engine.next_event(), NEED_DATA)
        driver.engine.lost()
        driver.run()
        self.assertEqual(driver.codes, [552])


class PropertyTests(SynchronousTestCase):
    LINES = (
        *(b"250 Ok\r\n", b"354 Go\r\n", b"550 5.1.1 No\r\n", b"421 Bye\r\n"),
        *(b"250-a\r\n", b"220 x\r\n", b"451 Later\r\n", b"\r\n", b"99 x\r\n"),
        *(b"334 \r\n", b"235 Hi\r\n", b"250\r\n", b"\xff\0\r\n", b"250 8BITMIME\r\n"),
    )

    @settings(max_examples=50, deadline=None)
    @given(
        st.booleans(),
        st.sampled_from(["never", "may", "must"]),
        st.sets(st.sampled_from(["PIPELINING", "CHUNKING", "STARTTLS", "DSN"])),
        st.lists(st.sampled_from(LINES), max_size=30),
    )
    def test_every_recipient_gets_an_answer(
        self, lmtp: bool, tls: Tls, offered: set[str], lines: list[bytes]
    ) -> None:
        driver = Driver(*offered, lmtp=lmtp, tls=tls)
        begun = 0
        for line in lines:
            if driver.told[-1:] == [Ready()]:
                driver.told.pop()
                driver.engine.begin(outgoing("b@else.test", "c@else.test"))
                begun += 1
            driver.hears(line)
        driver.engine.lost()
        driver.run()
        done = [event for event in driver.told if isinstance(event, Done)]
        self.assertEqual(len(done), begun)
        self.assertTrue(all(len(event.replies) == 2 for event in done))
        self.assertEqual([type(e) for e in driver.told].count(Ended), 1)
        self.assertIsInstance(driver.told[-1], Ended)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.sampled_from([b".", b"..", b"a", b"", b"\xff"])),
        st.lists(st.integers(0, 60), max_size=5),
        st.sampled_from(["mx", "lmtp"]),
        st.booleans(),
    )
    def test_our_own_server_gets_what_was_sent(
        self, lines: list[bytes], cuts: list[int], role: server.Role, chunking: bool
    ) -> None:
        content = b"".join(line + b"\r\n" for line in lines)
        got, codes = exchange(cut(content, cuts), role, chunking)
        self.assertEqual((got, codes), (content, [250, 250]))


def cut(wire: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    return [wire[a:b] for a, b in pairwise(edges)]


def exchange(
    pieces: list[bytes], role: server.Role, chunking: bool
) -> tuple[bytes, list[int]]:
    """Send pieces of content by both engines; return what came and the codes."""
    profile = server.Profile(
        hostname="else.test",
        role=role,
        starttls=False,
        clear_text_auth=False,
        max_message_octets=1000,
        max_recipients=5,
        max_errors=5,
        normalise=False,
    )
    peer = server.Engine(profile, False)
    client = ClientEngine(hostname="a", tls="never", lmtp=role == "lmtp")
    client.receive(peer.send(Reply(220, "", "else.test")))
    got, done = b"", None
    message = Outgoing(
        "",
        (OutgoingRecipient("b@else.test"), OutgoingRecipient("c@else.test")),
        sum(map(len, pieces)),
        True,
        False,
    )
    while done is None:
        said = b""
        while (event := client.next_event()) is not NEED_DATA:
            match event:
                case Ready() if done is None:
                    client.begin(message)
                case Send(octets):
                    said += octets
                case SendContent():
                    said += b"".join(map(client.content, pieces))
                    client.content_end()
                case Done():
                    done = event
                    break
        peer.receive(said)
        while not isinstance(heard := peer.next_event(), server.Wait):
            if isinstance(heard, Content):
                got += heard.octets
            elif isinstance(heard, Hello):
                offers = peer.send(peer.hello_reply(heard, ()))
                client.receive(offers if chunking else offers.replace(b"CHUNK", b"X"))
            elif isinstance(heard, ContentEnd) and role == "lmtp":
                client.receive(peer.send(Replies((OK, OK))))
            elif isinstance(heard, Data):
                client.receive(peer.send(Reply(354, "", "Go")))
            elif isinstance(heard, Settled):
                client.receive(peer.send(heard.reply))
            else:
                assert isinstance(heard, Mail | Rcpt | ContentEnd | Quit), heard
                client.receive(peer.send(OK))
    return got, [reply.code for reply in done.replies]
