"""Lines to commands, whatever pieces they come in."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.pop3.engine import (
    MAX_LINE,
    Command,
    Event,
    LineTooLong,
    Pop3Engine,
    Rejected,
    Response,
    State,
    TlsHello,
)


def events(*pieces: bytes, state: State = State.TRANSACTION) -> list[Event]:
    engine = Pop3Engine()
    engine.state = state
    found: list[Event] = []
    for piece in pieces:
        engine.receive(piece)
        while (event := engine.next_event()) is not None:
            found.append(event)
            if isinstance(event, LineTooLong):
                return found
    return found


class EngineTests(SynchronousTestCase):
    def test_commands(self) -> None:
        for line, command in (
            (b"STAT", Command("STAT")),
            (b"stat  ", Command("STAT")),
            (b"LIST", Command("LIST")),
            (b"LIST 2", Command("LIST", (2,))),
            (b"uidl 2", Command("UIDL", (2,))),
            (b"RETR 1", Command("RETR", (1,))),
            (b"RETR  0001 ", Command("RETR", (1,))),
            (b"TOP 1 0", Command("TOP", (1, 0))),
            (b"LANG", Command("LANG")),
            (b"LANG *", Command("LANG", (), "*")),
        ):
            self.assertEqual(events(line + b"\r\n"), [command], line)

    def test_commands_before_the_log_in(self) -> None:
        for line, command in (
            (b"USER anna b", Command("USER", (), "anna b")),
            ("user jörg".encode(), Command("USER", (), "jörg")),
            (b"PASS  a b ", Command("PASS", (), " a b ")),
            (b"AUTH", Command("AUTH")),
            (b"AUTH  PLAIN AGE=", Command("AUTH", (), "PLAIN AGE=")),
        ):
            found = events(line + b"\r\n", state=State.AUTHORIZATION)
            self.assertEqual(found, [command], line)

    def test_rejected(self) -> None:
        for line in (
            b"",
            b"XTND",
            b"STAT 1",
            b"RETR",
            b"RETR x",
            b"RETR -1",
            b"RETR \xc2\xb2",
            b"RETR 12345678901",
            b"RETR 1 2",
            b"TOP 1",
            b"USER anna",
            b"LANG \0",
            b"\xff",
        ):
            [event] = events(line + b"\r\n")
            self.assertIsInstance(event, Rejected, line)

    def test_transaction_commands_wait_for_the_log_in(self) -> None:
        for line in (b"STAT", b"RETR 1", b"DELE 1", b"NOOP", b"PASS"):
            [event] = events(line + b"\r\n", state=State.AUTHORIZATION)
            self.assertIsInstance(event, Rejected, line)

    def test_line_feed_alone(self) -> None:
        self.assertEqual(events(b"NOOP\nSTAT\r\n"), [Command("NOOP"), Command("STAT")])

    def test_sasl_response(self) -> None:
        self.assertEqual(events(b"AGE=\r\n", state=State.SASL), [Response(b"AGE=")])

    def test_state_may_change_between_pipelined_commands(self) -> None:
        engine = Pop3Engine()
        engine.receive(b"PASS x\r\nSTAT\r\n")
        self.assertEqual(engine.next_event(), Command("PASS", (), "x"))
        engine.state = State.TRANSACTION
        self.assertEqual(engine.next_event(), Command("STAT"))
        self.assertIsNone(engine.next_event())

    def test_long_line(self) -> None:
        longest = b"USER " + b"a" * (MAX_LINE - 5)
        [event] = events(longest + b"\r\n", state=State.AUTHORIZATION)
        self.assertIsInstance(event, Command)
        self.assertEqual(events(longest + b"aaa\r\n"), [LineTooLong()])
        self.assertEqual(events(longest + b"aaa"), [LineTooLong()])

    def test_tls_hello(self) -> None:
        self.assertEqual(events(b"\x16\x03\x01")[:1], [TlsHello()])
        self.assertEqual(
            events(b"NOOP\r\n", b"\x16\r\n")[1:2], [Rejected("Unknown command")]
        )

    def test_passwords_are_not_shown(self) -> None:
        self.assertNotIn("secret", repr(Command("PASS", (), "secret")))
        self.assertNotIn("secret", repr(Response(b"secret")))

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.integers(0, 60), max_size=5))
    def test_any_split_gives_same_events(self, cuts: list[int]) -> None:
        wire = b"noop\r\nLIST 1\nTOP 1 10\r\n\xff\r\nRETR x\r\nUSER a\r\nQUIT\r\nSTA"
        edges = [0, *sorted(cuts), len(wire)]
        pieces = [wire[a:b] for a, b in pairwise(edges)]
        self.assertEqual(events(*pieces), events(wire))

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200), st.sampled_from(list(State)))
    def test_any_octets_are_events(self, data: bytes, state: State) -> None:
        events(data, state=state)
