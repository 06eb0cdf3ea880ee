"""Octets in, commands out: lines, literals, APPEND's message, limits."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap import grammar
from mailsrv.imap.engine import (
    CONTINUE,
    NEED_DATA,
    PAUSED,
    TLS_HELLO,
    Command,
    Event,
    ImapEngine,
    Line,
    Malformed,
    MessageData,
    MessageEnd,
    MessageLiteral,
    Overrun,
    Signal,
)
from mailsrv.imap.parser import Parser


def command(
    text: bytes, name: bytes, at: int, message: MessageLiteral | None = None
) -> Command:
    return Command(text.split(b" ")[0], name, Parser(text, at), message)


def events(engine: ImapEngine) -> list[Event]:
    """Take what there is, as a server would that runs each command at once."""
    found: list[Event] = []
    while (event := engine.next_event()) is not NEED_DATA:
        found.append(event)
        match event:
            case Command(message=MessageLiteral() as literal):
                engine.read_message(literal)
            case MessageEnd(message=MessageLiteral() as literal):
                engine.read_message(literal)
            case Command(name=b"IDLE"):
                engine.read_line()
            case Command() | Malformed() | Line() | MessageEnd():
                engine.resume()
            case Overrun() | Signal.PAUSED | Signal.TLS_HELLO:
                break
    return found


def all_events(wire: bytes, *, authenticated: bool = True) -> list[Event]:
    engine = ImapEngine()
    engine.authenticated = authenticated
    engine.receive(wire)
    return events(engine)


class CommandsTests(SynchronousTestCase):
    def test_commands(self) -> None:
        self.assertEqual(
            all_events(b"1 noop\r\na.2 uid Fetch 1 FLAGS\r\n"),
            [
                command(b"1 noop", b"NOOP", 6),
                command(b"a.2 uid Fetch 1 FLAGS", b"UID FETCH", 13),
            ],
        )

    def test_no_command(self) -> None:
        for wire, tag in (
            (b"\r\n", b"*"),
            (b"a\r\n", b"a"),
            (b"a \r\n", b"a"),
            (b"+ NOOP\r\n", b"*"),
            (b"a uid\r\n", b"a"),
            (b"%s NOOP\r\n" % (b"x" * 65), b"*"),
            (b"a NOOP\n", b"a"),
            (b"a NO\rOP\r\n", b"a"),
            (b"a NO\0OP\r\n", b"a"),
            (b"a LOGIN {1+}\r\n\0 b\r\n", b"a"),
        ):
            [event] = all_events(wire)
            assert isinstance(event, Malformed), wire
            self.assertEqual(event.tag, tag)

    def test_the_next_command_waits_for_resume(self) -> None:
        engine = ImapEngine()
        engine.receive(b"1 NOOP\r\n2 NOOP\r\n")
        self.assertIsInstance(engine.next_event(), Command)
        self.assertIs(engine.next_event(), PAUSED)
        engine.resume()
        self.assertEqual(engine.next_event(), command(b"2 NOOP", b"NOOP", 6))

    def test_tls_hello_on_a_clear_port(self) -> None:
        self.assertEqual(ImapEngine().next_event(), NEED_DATA)
        engine = ImapEngine()
        engine.receive(b"\x16\x03\x01\x02\x00\x01\x00")
        self.assertIs(engine.next_event(), TLS_HELLO)


class LiteralsTests(SynchronousTestCase):
    def test_a_synchronising_literal_is_asked_for(self) -> None:
        engine = ImapEngine()
        engine.receive(b"1 LOGIN {4}\r\n")
        self.assertIs(engine.next_event(), CONTINUE)
        self.assertIs(engine.next_event(), NEED_DATA)
        engine.receive(b"a\r\nb {3+}\r\nfoo\r\n")
        got = engine.next_event()
        assert isinstance(got, Command)
        parser = got.arguments
        parser.space()
        self.assertEqual(parser.astring(), b"a\r\nb")
        parser.space()
        self.assertEqual(parser.astring(), b"foo")
        parser.end()

    def test_the_message_of_append_is_not_collected(self) -> None:
        wire = b"1 append {5}\r\nINBOX (\\Seen) {6+}\r\nab\r\ncd\r\n2 NOOP\r\n"
        self.assertEqual(
            all_events(wire),
            [
                CONTINUE,
                command(
                    b"1 append {5}\r\nINBOX (\\Seen) ",
                    b"APPEND",
                    8,
                    MessageLiteral(6, False),
                ),
                MessageData(b"ab\r\ncd"),
                MessageEnd(b""),
                command(b"2 NOOP", b"NOOP", 6),
            ],
        )

    def test_text_after_the_message_is_told(self) -> None:
        wire = b"1 APPEND a {1}\r\nx y\r\n"
        self.assertEqual(all_events(wire)[1:], [MessageData(b"x"), MessageEnd(b" y")])

    def test_several_messages(self) -> None:
        wire = b"1 APPEND a UTF8 (~{1}\r\nx) (\\Seen) ~{1+}\r\ny {2}\r\n\r\n\r\n"
        first, *rest = all_events(wire)
        assert isinstance(first, Command)
        self.assertEqual(first.message, MessageLiteral(1, True, True))
        self.assertEqual(first.arguments.data, b"1 APPEND a UTF8 (")
        self.assertEqual(
            rest,
            [
                MessageData(b"x"),
                MessageEnd(b") (\\Seen) ", MessageLiteral(1, False, True)),
                MessageData(b"y"),
                MessageEnd(b" ", MessageLiteral(2, True)),
                MessageData(b"\r\n"),
                MessageEnd(b""),
            ],
        )

    def test_before_login_append_has_no_message(self) -> None:
        wire = b"1 APPEND a {9000}\r\n2 NOOP\r\n"
        self.assertEqual(
            all_events(wire, authenticated=False),
            [
                Malformed(b"1", "Literal too long", b"TOOBIG"),
                command(b"2 NOOP", b"NOOP", 6),
            ],
        )


class LimitsTests(SynchronousTestCase):
    def test_lines(self) -> None:
        for authenticated, most in (
            (False, grammar.MAX_LINE_BEFORE_LOGIN),
            (True, grammar.MAX_LINE),
        ):
            fits = b"1 " + b"x" * (most - 2)
            [event] = all_events(fits + b"\r\n", authenticated=authenticated)
            self.assertIsInstance(event, Command)
            [event] = all_events(fits + b"x\r\n", authenticated=authenticated)
            self.assertIsInstance(event, Overrun)
            [event] = all_events(fits + b"xxx", authenticated=authenticated)
            self.assertIsInstance(event, Overrun)

    def test_the_lines_of_a_command_are_limited_together(self) -> None:
        wire = b"1 LOGIN " + b"{0+}\r\n " * 10_000
        self.assertIsInstance(all_events(wire, authenticated=False)[-1], Overrun)

    def test_literals_of_a_command_are_limited_together(self) -> None:
        half = b"{5000+}\r\n" + b"x" * 5000
        wire = b"1 LOGIN " + half + b" " + half + b"\r\n"
        self.assertIsInstance(all_events(wire, authenticated=False)[-1], Overrun)
        self.assertIsInstance(all_events(wire)[-1], Command)

    def test_a_waiting_literal_over_the_limit_is_refused(self) -> None:
        [event] = all_events(b"1 SEARCH BODY {99999999999999999999}\r\n")
        self.assertEqual(event, Malformed(b"1", "Literal too long", b"TOOBIG"))

    def test_octet_by_octet_takes_linear_time(self) -> None:
        engine = ImapEngine()
        engine.authenticated = True
        for _ in range(grammar.MAX_LINE):
            engine.receive(b"x")
            self.assertIs(engine.next_event(), NEED_DATA)


WIRE = (
    b'1 LOGIN {4}\r\nanna "pa ss"\r\n2 IDLE\r\nDONE\r\n3 LIST "" {1+}\r\n*\r\n'
    b"4 APPEND INBOX {12}\r\nx: y\r\n\r\nabcd\r\n5 BAD\r\r\n6\r\n7 APPEND {2+}\r\nab"
    b" {0+}\r\n\r\n8 APPEND a {2+}\r\n\r\n ~{1}\r\n\0\r\n9 LOGOUT\r\n"
)


def joined(found: list[Event]) -> list[Event]:
    """Put the pieces of messages together: only their sum is promised."""
    whole: list[Event] = []
    for event in found:
        if isinstance(event, MessageData) and isinstance(whole[-1], MessageData):
            whole[-1] = MessageData(whole[-1].data + event.data)
        else:
            whole.append(event)
    return whole


class SplitsTests(SynchronousTestCase):
    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, len(WIRE)), max_size=12))
    def test_any_split_gives_same_events(self, cuts: list[int]) -> None:
        engine = ImapEngine()
        engine.authenticated = True
        got: list[Event] = []
        for start, end in pairwise([0, *sorted(cuts), len(WIRE)]):
            engine.receive(WIRE[start:end])
            got += events(engine)
        self.assertEqual(joined(got), all_events(WIRE))
        self.assertEqual(len(all_events(WIRE)), 18)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_octets_of_any_kind_never_raise(self, data: bytes) -> None:
        all_events(b"1 FETCH " + data + b"\r\n")
        all_events(data)
