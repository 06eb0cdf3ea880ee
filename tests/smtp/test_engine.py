"""The SMTP engine by octets: order, states, content, limits, smuggling."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp.engine import (
    MAX_AUTH_LINE,
    MAX_COMMAND_LINE,
    MAX_UNKNOWN_COMMANDS,
    NEED_DATA,
    PAUSED,
    ROLES,
    Engine,
    Profile,
    Role,
    Wait,
)
from mailsrv.smtp.events import (
    Auth,
    AuthResponse,
    ChunkEnd,
    Close,
    Content,
    ContentEnd,
    Data,
    Event,
    Hello,
    Mail,
    Quit,
    Rcpt,
    Reset,
    Settled,
    StartTls,
)
from mailsrv.smtp.reply import OK, Reply


def profile(
    role: Role = "mx",
    *,
    starttls: bool = True,
    max_message_octets: int = 1000,
    max_recipients: int = 5,
    max_errors: int = 50,
    normalise: bool = False,
) -> Profile:
    return Profile(
        hostname="mail.example.test",
        role=role,
        starttls=starttls,
        clear_text_auth=False,
        max_message_octets=max_message_octets,
        max_recipients=max_recipients,
        max_errors=max_errors,
        normalise=normalise,
    )


def decide(event: Event) -> Reply:
    """Say yes to everything that is well formed."""
    match event:
        case Data():
            return Reply(354, "", "Go on")
        case StartTls():
            return Reply(220, "2.0.0", "Go on")
        case Auth() | AuthResponse():
            return Reply(235, "2.7.0", "Welcome")
        case Settled(reply):
            return reply
        case Quit():
            return Reply(221, "2.0.0", "Bye")
        case ChunkEnd(refusal) | ContentEnd(_, refusal) if refusal:
            return refusal
    return OK


class Driver:
    """Runs an engine with `decide`; keeps events (content joined) and codes."""

    def __init__(self, a_profile: Profile | None = None, *, tls: bool = False) -> None:
        self.engine = Engine(a_profile or profile(), tls)
        self.engine.send(Reply(220, "", "mail.example.test ESMTP"))
        self.events: list[Event] = []
        self.content = b""
        self.codes: list[int] = []
        self.wire = b""

    def feed(self, *reads: bytes) -> "Driver":
        for data in reads:
            self.engine.receive(data)
            while not isinstance(event := self.engine.next_event(), Wait):
                if isinstance(event, Content):
                    self.content += event.octets
                    continue
                self.events.append(event)
                if not isinstance(event, Close):
                    reply = decide(event)
                    if isinstance(event, Hello):
                        reply = self.engine.hello_reply(event, ("PLAIN", "LOGIN"))
                    wire = self.engine.send(reply)
                    self.wire += wire
                    self.codes.append(int(wire[:3]))
        return self

    def transaction(self, recipients: int = 1) -> "Driver":
        return self.feed(
            b"EHLO a\r\nMAIL FROM:<a@b.test>\r\n"
            + b"RCPT TO:<c@d.test>\r\n" * recipients
        )

    def last(self, count: int = 1) -> list[int]:
        return self.codes[-count:]


def cut(wire: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(min(c, len(wire)) for c in cuts), len(wire)]
    return [wire[a:b] for a, b in pairwise(edges)]


# Everything the engine reads differently, in one session.
LONG = (
    b"EHLO client.test\r\nNOOP\r\nMAIL FROM:<a@b.test> SIZE=10\r\n"
    b"RCPT TO:<c@d.test>\r\nDATA\r\n..one\r\n.two\r\n\r\nthree\r\n.\r\n"
    b"nonsense\r\nBDAT 6\r\nstray!MAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\n"
    b"BDAT 7\r\nfour\r\n.BDAT 0\r\nBDAT 2 LAST\r\n\r\n"
    + b"NOOP "
    + b"x" * 3000
    + b"\r\nRSET\r\n"
    b"MAIL FROM:<a@b.test>\r\nRCPT TO:<c@d.test>\r\nDATA\r\n.\r\nQUIT\r\n"
)


class SplitTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, len(LONG)), max_size=40))
    def test_any_split_gives_same_events(self, cuts: list[int]) -> None:
        whole = Driver().feed(LONG)
        split = Driver().feed(*cut(LONG, cuts))
        self.assertEqual(split.events, whole.events)
        self.assertEqual(split.content, whole.content)
        self.assertEqual(split.wire, whole.wire)

    def test_each_octet_alone(self) -> None:
        whole = Driver().feed(LONG)
        split = Driver().feed(*cut(LONG, range(len(LONG))))
        self.assertEqual((split.events, split.content), (whole.events, whole.content))
        self.assertEqual(whole.content, b".one\r\ntwo\r\n\r\nthree\r\nfour\r\n.\r\n")

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a"]), max_size=20),
        st.lists(st.integers(0, 60), max_size=8),
        st.booleans(),
    )
    def test_any_split_of_newlines_and_dots(
        self, parts: list[bytes], cuts: list[int], normalise: bool
    ) -> None:
        wire = b"".join(parts) + b"\r\n.\r\n"
        drivers = []
        for reads in ([wire], cut(wire, cuts)):
            driver = Driver(profile(normalise=normalise)).transaction()
            drivers.append(driver.feed(b"DATA\r\n", *reads))
        one, other = drivers
        self.assertEqual(one.events, other.events)
        if normalise or one.last() == [250]:
            self.assertEqual(one.content, other.content)

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([b"\r\n", b".", b"..", b"a"]), max_size=20))
    def test_dot_stuffing_round_trip(self, parts: list[bytes]) -> None:
        message = b"".join(parts) + b"\r\n"
        lines = message.split(b"\r\n")
        stuffed = b"\r\n".join(b"." + s if s[:1] == b"." else s for s in lines)
        driver = Driver().transaction().feed(b"DATA\r\n" + stuffed + b".\r\n")
        self.assertEqual((driver.content, driver.last()), (message, [250]))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
    def test_noise_never_raises(self, noise: bytes, cuts: list[int]) -> None:
        for role in ROLES:
            Driver(profile(role)).feed(*cut(noise, cuts))
            Driver(profile(role)).transaction().feed(*cut(noise, cuts))


class OrderTests(SynchronousTestCase):
    def test_paused_until_each_reply_is_sent(self) -> None:
        engine = Engine(profile(), False)
        self.assertIs(engine.next_event(), PAUSED)  # the greeting
        engine.send(Reply(220, "", "mail.example.test"))
        self.assertIs(engine.next_event(), NEED_DATA)
        engine.receive(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\n")
        for expected in (Hello("a", True), Mail("", 0, False), Rcpt("c@d.test")):
            self.assertEqual(engine.next_event(), expected)
            self.assertIs(engine.next_event(), PAUSED)
            engine.send(OK)
        self.assertIs(engine.next_event(), NEED_DATA)

    def test_refused_commands_do_not_move_the_state(self) -> None:
        engine = Engine(profile(), False)
        engine.send(Reply(220, "", "mail.example.test"))
        no = Reply(550, "5.7.1", "No")
        engine.receive(b"EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\n")
        engine.next_event()
        engine.send(OK)
        engine.next_event()
        engine.send(no)
        self.assertEqual(
            engine.next_event(),
            Settled(Reply(503, "5.5.1", "Bad sequence of commands")),
        )

    def test_bad_sequences(self) -> None:
        for wire, codes in (
            (b"MAIL FROM:<>\r\n", [503]),
            (b"STARTTLS\r\n", [503]),
            (b"RSET\r\nMAIL FROM:<>\r\n", [250, 503]),
            (b"EHLO a\r\nRCPT TO:<c@d.test>\r\n", [250, 503]),
            (b"EHLO a\r\nDATA\r\n", [250, 503]),
            (b"EHLO a\r\nMAIL FROM:<>\r\nDATA\r\n", [250, 250, 554]),
            (b"EHLO a\r\nMAIL FROM:<>\r\nMAIL FROM:<>\r\n", [250, 250, 503]),
            (b"EHLO a\r\nMAIL FROM:<>\r\nSTARTTLS\r\n", [250, 250, 503]),
            (b"EHLO a\r\nMAIL FROM:<>\r\nEHLO a\r\nRCPT TO:<c@d.t>\r\n", [250] * 3),
        ):
            got = Driver().feed(wire).codes
            self.assertEqual(got[: len(codes)], codes, wire)
        self.assertEqual(got[-1], 503)

    def test_commands_of_any_time(self) -> None:
        driver = Driver().feed(
            b"NOOP\r\nnoop x\r\nHELP\r\nVRFY a\r\nEXPN a\r\nRSET\r\nQUIT\r\nNOOP\r\n"
        )
        self.assertEqual(driver.codes, [250, 250, 214, 252, 502, 250, 221])
        self.assertTrue(driver.engine.closing)

    def test_message_that_did_not_wait_for_354_is_not_run_as_commands(self) -> None:
        driver = Driver().feed(b"EHLO a\r\nMAIL FROM:<>\r\nDATA\r\nRSET\r\n.\r\n")
        self.assertEqual(driver.codes, [250, 250, 554])
        # The refusal was the engine's own, with more octets behind it.
        self.assertTrue(driver.engine.closing)

    def test_limits_offered_and_kept(self) -> None:
        driver = Driver().transaction(7)
        self.assertEqual(driver.last(7), [250] * 5 + [452] * 2)
        self.assertIn(b"LIMITS RCPTMAX=5\r\n", driver.wire)
        driver.feed(b"RSET\r\nMAIL FROM:<>\r\nRCPT TO:<c@d.test>\r\n")
        self.assertEqual(driver.last(3), [250] * 3)

    def test_recipients_over_the_limit_do_not_cost_the_others_the_message(self) -> None:
        driver = Driver(profile(max_errors=2)).transaction(9)
        driver.feed(b"DATA\r\n", b".\r\n")
        self.assertEqual(driver.last(6), [452] * 4 + [354, 250])

    def test_errors_end_the_session(self) -> None:
        driver = Driver(profile(max_errors=2)).feed(b"EXPN a\r\n" * 9)
        self.assertEqual(driver.codes, [502, 502, 421])

    def test_unknown_commands_end_the_session(self) -> None:
        driver = Driver().feed(b"XYZZY\r\n" * 99)
        self.assertEqual(driver.codes, [500] * MAX_UNKNOWN_COMMANDS + [421])

    def test_accepted_message_forgives_errors(self) -> None:
        driver = Driver(profile(max_errors=2)).feed(b"EXPN a\r\n" * 2)
        driver.transaction().feed(b"DATA\r\n", b".\r\n", b"EXPN a\r\n" * 3)
        self.assertEqual(driver.last(3), [502, 502, 421])


class LineTests(SynchronousTestCase):
    def test_other_newlines_in_commands_are_refused(self) -> None:
        for wire in (b"NOOP\n", b"NO\rOP\r\n", b"NOOP\r\r\n", b"NO\0OP\r\n"):
            self.assertEqual(Driver().feed(wire).codes, [500], wire)

    def test_longest_line(self) -> None:
        longest = b"NOOP " + b"x" * (MAX_COMMAND_LINE - 7) + b"\r\n"
        self.assertEqual(Driver().feed(longest).codes, [250])
        self.assertEqual(Driver().feed(b"x" + longest).codes, [500])

    def test_endless_line_is_not_kept(self) -> None:
        driver = Driver()
        for _ in range(10):
            driver.feed(b"x" * 65536)
            self.assertLessEqual(driver.engine.buffered, MAX_COMMAND_LINE)
        self.assertEqual(driver.feed(b"\r\nNOOP\r\n").codes, [500, 250])

    def test_auth_may_be_longer(self) -> None:
        auth = b"EHLO a\r\nAUTH PLAIN " + b"A" * 12288 + b"\r\n"
        self.assertEqual(
            Driver(profile("submission"), tls=True).feed(auth).last(), [235]
        )
        auth = b"EHLO a\r\nAUTH PLAIN " + b"A" * MAX_AUTH_LINE + b"\r\n"
        self.assertEqual(
            Driver(profile("submission"), tls=True).feed(auth).last(), [500]
        )

    def test_auth_that_is_too_long_has_a_code_of_its_own(self) -> None:
        # RFC 4954 section 6.
        long = b"\r\n500 5.5.6 Line too long\r\n"
        driver = Driver(profile("submission"), tls=True)
        driver.feed(b"EHLO a\r\nAUTH PLAIN " + b"A" * 12289 + b"\r\n")
        self.assertTrue(driver.wire.endswith(long))
        for octets in (12289, MAX_AUTH_LINE):
            engine = Driver(profile("submission"), tls=True).feed(b"EHLO a\r\n").engine
            engine.receive(b"AUTH PLAIN\r\n")
            self.assertIsInstance(engine.next_event(), Auth)
            engine.send(Reply(334, "", ""))
            engine.receive(b"A" * octets + b"\r\n")
            event = engine.next_event()
            assert isinstance(event, Settled), event
            self.assertTrue(long.endswith(event.reply.wire))

    def test_tls_hello_and_http_close_at_once(self) -> None:
        for wire in (b"\x16", b"\x16\x03\x01\x02\0", b"GET / HTTP/1.1\r\n"):
            driver = Driver().feed(wire)
            self.assertIsInstance(driver.events[-1], Close)
            self.assertEqual(driver.codes, [])
            self.assertTrue(driver.engine.closing)


class TlsAndAuthTests(SynchronousTestCase):
    def test_octets_behind_starttls_close(self) -> None:
        driver = Driver().feed(b"EHLO a\r\nSTARTTLS\r\nRSET\r\n")
        self.assertEqual(driver.codes, [250, 421])
        self.assertTrue(driver.engine.closing)

    def test_starttls_forgets_the_session(self) -> None:
        driver = Driver(profile("submission")).feed(b"EHLO a\r\n", b"STARTTLS\r\n")
        self.assertIn(b"250-STARTTLS\r\n", driver.wire)
        self.assertNotIn(b"AUTH", driver.wire)
        driver.feed(b"MAIL FROM:<>\r\nEHLO a\r\n")
        self.assertEqual(driver.codes, [250, 220, 503, 250])

    def test_what_is_offered(self) -> None:
        engine = Engine(profile("submission"), True)
        reply = engine.hello_reply(Hello("a", True), ("PLAIN", "LOGIN"))
        self.assertEqual(
            reply.wire,
            b"250-mail.example.test\r\n250-PIPELINING\r\n250-SIZE 1000\r\n"
            b"250-AUTH PLAIN LOGIN\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n"
            b"250-ENHANCEDSTATUSCODES\r\n250-CHUNKING\r\n250-DSN\r\n"
            b"250-REQUIRETLS\r\n250 LIMITS RCPTMAX=5\r\n",
        )
        self.assertEqual(
            engine.hello_reply(Hello("a", False), ()).wire, b"250 mail.example.test\r\n"
        )

    def test_submission_wants_tls_then_auth(self) -> None:
        driver = Driver(profile("submission")).feed(
            b"EHLO a\r\nMAIL FROM:<>\r\nAUTH PLAIN AAAA\r\n", b"STARTTLS\r\n"
        )
        driver.feed(b"EHLO a\r\nMAIL FROM:<>\r\nAUTH PLAIN AAAA\r\nAUTH PLAIN\r\n")
        driver.feed(b"MAIL FROM:<>\r\n")
        self.assertEqual(driver.codes, [250, 530, 538, 220, 250, 530, 235, 503, 250])

    def test_mx_has_no_auth(self) -> None:
        driver = Driver(tls=True).feed(b"EHLO a\r\nAUTH PLAIN AAAA\r\n")
        self.assertEqual(driver.codes, [250, 502])

    def exchange(self, wire: bytes) -> tuple[list[Event], bytes]:
        """Answer AUTH with a 334, then feed `wire`."""
        engine = Engine(profile("submission"), True)
        engine.send(Reply(220, "", "x"))
        engine.receive(b"EHLO a\r\nAUTH LOGIN\r\n" + wire)
        engine.next_event()
        engine.send(OK)
        engine.next_event()
        engine.send(Reply(334, "", "VXNlcm5hbWU6"))
        events: list[Event] = []
        out = b""
        while not isinstance(event := engine.next_event(), Wait):
            events.append(event)
            out += engine.send(decide(event))
        return events, out

    def test_responses(self) -> None:
        events, _ = self.exchange(b"YW5uYQ==\r\nNOOP\r\n")
        self.assertEqual(events, [AuthResponse(b"anna"), Settled(OK)])
        events, _ = self.exchange(b"\r\n")
        self.assertEqual(events, [AuthResponse(b"")])

    def test_cancelled_or_broken_exchange_ends(self) -> None:
        for wire in (b"*\r\n", b"!!\r\n", b"A\r\n", b"\x16\r\n"):
            _, out = self.exchange(wire + b"NOOP\r\n")
            self.assertRegex(out, rb"^501 [^\r]*\r\n250 2.0.0 Ok\r\n$")


class ContentTests(SynchronousTestCase):
    def data(self, wire: bytes, *, normalise: bool = False) -> Driver:
        driver = Driver(profile(normalise=normalise)).transaction().feed(b"DATA\r\n")
        return driver.feed(wire)

    # (wire, whether it stands for a line end in some other server's eyes)
    SMUGGLING = (
        b"\n.\n",
        b"\n.\r\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\n.\r",
        b"\r.\n",
        b"\r\n.\r\r\n",
        b"\r\n\r.\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n.\0\r\n",
        b"\r\n. \r\n",
        b"\r\n\0.\r\n",
    )

    def test_nothing_else_ends_a_message(self) -> None:
        for variant in self.SMUGGLING:
            for normalise in (False, True):
                driver = self.data(
                    b"Subject: a\r\n\r\nb" + variant + b"MAIL FROM:<evil@b.test>\r\n"
                    b"RCPT TO:<c@d.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n",
                    normalise=normalise,
                )
                self.assertEqual(driver.last(), [354], variant)
                driver.feed(b".\r\nNOOP\r\n")
                lonely = variant.replace(b"\r\n", b"")
                refused = not normalise and (b"\r" in lonely or b"\n" in lonely)
                self.assertEqual(
                    driver.last(2), [554 if refused else 250, 250], variant
                )
                if normalise:
                    rest = driver.content.replace(b"\r\n", b"")
                    self.assertNotIn(b"\r", rest)
                    self.assertNotIn(b"\n", rest)

    def test_refused_content_is_not_let_through(self) -> None:
        driver = self.data(b"a\r\n\nb\r\n")
        before = driver.content
        driver.feed(b"more\r\n", b".\r\n")
        self.assertEqual((driver.content, driver.last()), (before, [554]))

    def test_normalised_newlines(self) -> None:
        driver = self.data(b"a\nb\rc\r\r\nd\r\n.\r\n", normalise=True)
        self.assertEqual(driver.content, b"a\r\nb\r\nc\r\nd\r\n")

    def test_size_before_and_during_data(self) -> None:
        driver = self.data(b"x" * 998 + b"\r\n.\r\n")
        self.assertEqual(driver.last(), [250])
        self.assertEqual(driver.events[-1], ContentEnd(1000, None))
        driver = self.data(
            b"x" * 999 + b"\r\n",
        )
        driver.feed(b"x" * 99999, b"\r\n.\r\nNOOP\r\n")
        self.assertEqual(driver.last(2), [552, 250])

    def test_long_lines_and_many_octets_are_not_kept(self) -> None:
        driver = self.data(b"")
        for _ in range(5):
            driver.feed(b"x" * 65536)
            self.assertEqual(driver.engine.buffered, 0)

    def test_bdat(self) -> None:
        driver = (
            Driver().transaction().feed(b"BDAT 3\r\na\r\rBDAT 2\r\n\r\nBDAT 0 LAST\r\n")
        )
        self.assertEqual(driver.last(3), [554, 503, 503])
        driver = (
            Driver()
            .transaction()
            .feed(b"BDAT 2\r\na\rBDAT 4\r\n\n.\r\nbdat 2 last\r\n\r\nNOOP\r\n")
        )
        self.assertEqual(driver.content, b"a\r\n.\r\n\r\n")
        self.assertEqual(driver.last(4), [250] * 4)
        self.assertEqual(driver.events[-2], ContentEnd(8, None))

    def test_bdat_0_last(self) -> None:
        driver = Driver().transaction().feed(b"BDAT 0 LAST\r\n")
        self.assertEqual(driver.events[-1], ContentEnd(0, None))
        self.assertEqual(driver.feed(b"BDAT 0 LAST\r\n").last(), [503])

    def test_bare_newlines_in_bdat(self) -> None:
        for chunk in (b"a\n", b"a\rb", b"ab\r"):
            wire = b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(chunk), chunk)
            self.assertEqual(Driver().transaction().feed(wire).last(2), [554, 250])

    def test_chunk_out_of_place_is_thrown_away(self) -> None:
        for before in (b"", b"EHLO a\r\n", b"EHLO a\r\nMAIL FROM:<>\r\n"):
            driver = Driver().feed(before + b"BDAT 6\r\nNOOP\r\nNOOP\r\n")
            self.assertIn(driver.codes[-2], (503, 554))
            self.assertEqual(driver.last(), [250])
            self.assertEqual(driver.content, b"")

    def test_bdat_and_data_do_not_mix(self) -> None:
        driver = Driver().transaction().feed(b"BDAT 1\r\naDATA\r\nRCPT TO:<c@d.t>\r\n")
        self.assertEqual(driver.last(2), [250, 503])

    def test_bdat_too_big(self) -> None:
        driver = (
            Driver()
            .transaction()
            .feed(b"BDAT 600\r\n" + b"x" * 600 + b"BDAT 600\r\n" + b"x" * 600)
        )
        self.assertEqual(driver.last(2), [250, 552])
        self.assertEqual(
            driver.feed(b"BDAT 2 LAST\r\n\r\nRSET\r\n").last(2), [503, 250]
        )

    def test_bdat_without_a_size_closes(self) -> None:
        for line in (b"BDAT\r\n", b"BDAT x\r\n", b"BDAT 1 2\r\n", b"BDAT -1\r\n"):
            driver = Driver().transaction().feed(line + b"NOOP\r\n")
            self.assertEqual(driver.last(), [501])
            self.assertTrue(driver.engine.closing)

    def test_reset_in_the_middle_of_chunks(self) -> None:
        driver = Driver().transaction().feed(b"BDAT 1\r\naRSET\r\n")
        self.assertIsInstance(driver.events[-1], Reset)
        self.assertEqual(driver.feed(b"BDAT 1 LAST\r\na").last(), [503])
