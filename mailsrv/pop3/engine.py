"""POP3 commands out of octets (RFC 1939, 2449, 2595, 5034, 6856).

Pure. What is allowed in which state stands in `COMMANDS`. The server takes one event
at a time and asks for the next when it has answered: this is all that pipelining
(RFC 2449 section 6.6) needs. Messages and replies are in `maildrop` and `format`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

# RFC 2449 section 4 has 255 for commands; RFC 5034 section 4 allows more for SASL, and
# clients send initial responses in one line with AUTH whatever their length.
MAX_LINE = 8192
# Octets that may wait while a command is answered: beyond, the server stops reading.
MAX_BUFFERED = 64 * 1024
MAX_DIGITS = 10  # of a message number

TLS_HANDSHAKE = 0x16  # first octet of a TLS record, RFC 8446 section 5.1


class State(Enum):
    """RFC 1939 section 3; UPDATE is the end of QUIT."""

    AUTHORIZATION = auto()
    SASL = auto()  # the next line is a response, not a command
    TRANSACTION = auto()


@dataclass(frozen=True, slots=True)
class Command:
    """A command that is allowed here and has the arguments that it needs."""

    verb: str
    numbers: tuple[int, ...] = ()
    text: str = field(default="", repr=False)  # may be a password


@dataclass(frozen=True, slots=True)
class Response:
    """A line of a SASL exchange."""

    line: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that is no command here: answer ``-ERR`` and go on."""

    text: str


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """Answer ``-ERR`` and close: where the next command begins is unknown."""


@dataclass(frozen=True, slots=True)
class TlsHello:
    """The client speaks TLS on a port for clear text: close at once."""


Event = Command | Response | Rejected | LineTooLong | TlsHello


class _WrongArguments(Exception):
    """The command does not take these."""


_Arguments = tuple[tuple[int, ...], str]


def _nothing(rest: str) -> _Arguments:
    # Looser than RFC 1939 section 3: some clients leave spaces at the end.
    if rest.strip(" "):
        raise _WrongArguments
    return (), ""


def _text(rest: str) -> _Arguments:
    """All of it: log-in names and passwords may hold spaces."""
    if not rest:
        raise _WrongArguments
    return (), rest


def _optional_text(rest: str) -> _Arguments:
    return (), rest.strip(" ")


def _numbers(least: int, most: int) -> Callable[[str], _Arguments]:
    def parse(rest: str) -> _Arguments:
        words = rest.split()
        if not least <= len(words) <= most:
            raise _WrongArguments
        for word in words:
            if len(word) > MAX_DIGITS or not (word.isascii() and word.isdigit()):
                raise _WrongArguments
        return tuple(map(int, words)), ""

    return parse


_BEFORE, _AFTER = (State.AUTHORIZATION,), (State.TRANSACTION,)
_ANY = _BEFORE + _AFTER
COMMANDS: Mapping[str, tuple[tuple[State, ...], Callable[[str], _Arguments]]] = {
    "CAPA": (_ANY, _nothing),
    "LANG": (_ANY, _optional_text),
    "NOOP": (_AFTER, _nothing),
    "QUIT": (_ANY, _nothing),
    "STLS": (_BEFORE, _nothing),
    "UTF8": (_BEFORE, _nothing),
    "USER": (_BEFORE, _text),
    "PASS": (_BEFORE, _text),
    "AUTH": (_BEFORE, _optional_text),
    "STAT": (_AFTER, _nothing),
    "LIST": (_AFTER, _numbers(0, 1)),
    "UIDL": (_AFTER, _numbers(0, 1)),
    "RETR": (_AFTER, _numbers(1, 1)),
    "DELE": (_AFTER, _numbers(1, 1)),
    "TOP": (_AFTER, _numbers(2, 2)),
    "RSET": (_AFTER, _nothing),
}


class Pop3Engine:
    """Splits what is received into events; the server sets `state`."""

    def __init__(self) -> None:
        self.state = State.AUTHORIZATION
        self._buffer = bytearray()
        self._searched = 0  # octets of the buffer known to hold no line end
        self._is_first = True

    @property
    def buffered_octets(self) -> int:
        """What waits; STLS with anything behind it must close the connection."""
        return len(self._buffer)

    def receive(self, data: bytes) -> None:
        """Add what came from the client."""
        self._buffer += data

    def next_event(self) -> Event | None:
        """The next event; None: more data is needed. Call it when all is answered."""
        if self._is_first and self._buffer:
            self._is_first = False
            if self._buffer[0] == TLS_HANDSHAKE:
                return TlsHello()
        # Looser than RFC 1939 section 3: scripts and people end lines by LF alone.
        end = self._buffer.find(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            return LineTooLong() if len(self._buffer) > MAX_LINE else None
        line = bytes(self._buffer[:end]).removesuffix(b"\r")
        del self._buffer[: end + 1]
        self._searched = 0
        if len(line) > MAX_LINE:
            return LineTooLong()
        return self._parse(line)

    def _parse(self, line: bytes) -> Event:
        if self.state is State.SASL:
            return Response(line)
        try:
            word, _, rest = line.decode().partition(" ")
        except UnicodeDecodeError:
            return Rejected("Not UTF-8")
        verb = word.upper()
        if verb not in COMMANDS or "\0" in rest:
            return Rejected("Unknown command")
        states, arguments = COMMANDS[verb]
        if self.state not in states:
            when = "before" if self.state is State.TRANSACTION else "after"
            return Rejected(f"{verb} is for {when} the log-in")
        try:
            numbers, text = arguments(rest)
        except _WrongArguments:
            return Rejected(f"Wrong arguments of {verb}")
        return Command(verb, numbers, text)
