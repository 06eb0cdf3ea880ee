"""Splits a client's octets into IMAP commands with their literals (RFC 3501, 7888).

Knows nothing of what a command means, but that the message of APPEND streams. After
each event but `Continue` it stays paused until it is told what comes next: a command
(`resume`), a line (`read_line`, for AUTHENTICATE and IDLE) or a message's octets.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, TypeAlias

from mailsrv.imap import grammar
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.parser import Parser


@dataclass(frozen=True, slots=True)
class MessageLiteral:
    """The announcement of a message of APPEND, whose octets were not read yet."""

    size_octets: int
    synchronising: bool
    binary: bool = False  # a literal8 (RFC 3516)


@dataclass(frozen=True, slots=True)
class Command:
    """A complete command, or an APPEND up to its message."""

    tag: bytes
    name: bytes  # upper case; "UID FETCH" and the like are one name
    arguments: Parser  # at the space after the name
    message: MessageLiteral | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """Something that is no command: answer BAD (or NO with `code`), go on."""

    tag: bytes  # b"*" if none could be read
    text: str
    code: bytes = b""


@dataclass(frozen=True, slots=True)
class Overrun:
    """The client exceeded a limit and what follows has no meaning: BYE, close."""

    text: str


@dataclass(frozen=True, slots=True)
class Line:
    """The line that `read_line` asked for, without CR LF."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MessageData:
    """Octets of APPEND's message."""

    data: bytes


@dataclass(frozen=True, slots=True)
class MessageEnd:
    """The message is complete, and its command if `message` is None.

    `rest` is what followed on the line: the arguments of the next message, which
    `read_message` reads (RFC 3502).
    """

    rest: bytes
    message: MessageLiteral | None = None


class Signal(Enum):
    """Events without content."""

    NEED_DATA = auto()
    PAUSED = auto()
    CONTINUE = auto()  # send a continuation request, then ask for the next event
    TLS_HELLO = auto()  # a client that speaks TLS to a clear port: close


NEED_DATA: Final = Signal.NEED_DATA
PAUSED: Final = Signal.PAUSED
CONTINUE: Final = Signal.CONTINUE
TLS_HELLO: Final = Signal.TLS_HELLO

Event: TypeAlias = (
    Command | Malformed | Overrun | Line | MessageData | MessageEnd | Signal
)


class _Reading(Enum):
    NOTHING = auto()
    COMMAND = auto()
    LITERAL = auto()
    LINE = auto()
    MESSAGE = auto()
    MESSAGE_END = auto()


class ImapEngine:
    """One connection's input. `authenticated` raises the limits."""

    __slots__ = (
        "_buffer",
        "_command",
        "_left",
        "_literals",
        "_reading",
        "_scanned",
        "authenticated",
    )

    def __init__(self) -> None:
        self.authenticated = False
        self._buffer = bytearray()
        self._command = bytearray()  # what was read of a command with literals
        self._literals = 0  # octets of the command's literals
        self._left = 0  # octets still to come of the literal being read
        self._scanned = 0  # octets of the buffer that have no LF
        self._reading = _Reading.COMMAND

    @property
    def buffered_octets(self) -> int:
        return len(self._buffer)

    @property
    def reads_message(self) -> bool:
        """Whether the octets to come are of APPEND's message."""
        return self._reading is _Reading.MESSAGE

    def receive(self, data: bytes) -> None:
        """Add octets of the client. The caller bounds what it adds while paused."""
        self._buffer += data

    def take_buffered(self) -> bytes:
        """Take away what was received and not read."""
        octets, self._buffer = bytes(self._buffer), bytearray()
        self._scanned = 0
        return octets

    def resume(self) -> None:
        """Read the next command."""
        self._reading = _Reading.COMMAND
        self._command = bytearray()
        self._literals = 0

    def read_line(self) -> None:
        """Read one line that is no command."""
        self._reading = _Reading.LINE

    def read_message(self, literal: MessageLiteral) -> None:
        """Read a message of APPEND, wanted or not.

        The caller has sent the continuation request of a synchronising literal.
        """
        self._left = literal.size_octets
        self._reading = _Reading.MESSAGE

    def next_event(self) -> Event:
        while True:
            match self._reading:
                case _Reading.NOTHING:
                    return PAUSED
                case _Reading.LITERAL:
                    if not self._take_literal():
                        return NEED_DATA
                case _Reading.MESSAGE:
                    if self._left:
                        return self._take_message()
                    self._reading = _Reading.MESSAGE_END
                case _:
                    if (event := self._take_line()) is not None:
                        return event

    def _take_line(self) -> Event | None:
        """Take one line; None if a literal of a command follows without waiting."""
        if self._buffer[:1] == b"\x16" and not self._command:
            return TLS_HELLO  # no tag starts so
        room = self._room()
        end = self._buffer.find(b"\n", self._scanned)
        if end < 0:
            self._scanned = len(self._buffer)
            return NEED_DATA if self._scanned <= room else Overrun("Line too long")
        self._scanned = 0
        if end >= room + 2:
            return Overrun("Line too long")
        line = bytes(self._buffer[:end])
        self._drop(end + 1)
        if not line.endswith(b"\r") or b"\r" in line[:-1] or b"\0" in line:
            # RFC 3501 section 2.2: lines end with CR LF; section 9: no NUL.
            if line.rstrip(b"\r").endswith(b"+}"):
                # RFC 7888 section 3: what may be a literal is not to be taken for
                # commands; it is mail of others, perhaps.
                return Overrun("Literal after a malformed line")
            self._command += line
            return self._malformed("Bare CR, bare LF or NUL in a command")
        line = line[:-1]
        match self._reading:
            case _Reading.COMMAND:
                return self._command_line(line)
            case _Reading.LINE:
                self._reading = _Reading.NOTHING
                return Line(line)
            case _:
                return self._message_end(line)

    def _room(self) -> int:
        """Octets that the line being read may have."""
        if not self.authenticated:
            most = grammar.MAX_LINE_BEFORE_LOGIN
        else:
            most = grammar.MAX_LINE
        return most - (len(self._command) - self._literals)

    def _command_line(self, line: bytes) -> Event | None:
        self._command += line
        marker = grammar.MARKER.search(line, max(0, len(line) - 24))
        if marker is None:
            return self._whole_command(None)
        if self.authenticated and grammar.APPEND.match(self._command):
            del self._command[-len(marker.group()) :]
            return self._whole_command(_message(marker))
        return self._begin_literal(int(marker.group(2)), not marker.group(3))

    def _whole_command(self, message: MessageLiteral | None) -> Event:
        text = bytes(self._command)
        self._command = bytearray()
        self._reading = _Reading.NOTHING
        return _split(text, message)

    def _begin_literal(self, size: int, waits: bool) -> Event | None:
        most = grammar.MAX_LITERALS
        if not self.authenticated:
            most = grammar.MAX_LITERALS_BEFORE_LOGIN
        if self._literals + size > most:
            if not waits:
                # RFC 7888 section 4: closing is allowed, reading it is not wise.
                return Overrun("Literal too long")
            return self._malformed("Literal too long", b"TOOBIG")
        self._command += b"\r\n"
        self._literals += size
        self._left = size
        self._reading = _Reading.LITERAL
        return CONTINUE if waits else None

    def _malformed(self, text: str, code: bytes = b"") -> Malformed:
        self._reading = _Reading.NOTHING
        return Malformed(_tag(self._command), text, code)

    def _take_literal(self) -> bool:
        if len(self._buffer) < self._left:
            return False
        self._command += self._buffer[: self._left]
        self._drop(self._left)
        self._reading = _Reading.COMMAND
        return True

    def _take_message(self) -> Event:
        if not self._buffer:
            return NEED_DATA
        data = bytes(self._buffer[: self._left])
        self._drop(len(data))
        self._left -= len(data)
        return MessageData(data)

    def _message_end(self, line: bytes) -> Event:
        self._reading = _Reading.NOTHING
        marker = grammar.MARKER.search(line, max(0, len(line) - 24))
        if marker is None:
            return MessageEnd(line)
        return MessageEnd(line[: marker.start()], _message(marker))

    def _drop(self, octets: int) -> None:
        if octets == len(self._buffer):
            self._buffer = bytearray()  # gives a large one's memory back
        else:
            del self._buffer[:octets]


def _message(marker: re.Match[bytes]) -> MessageLiteral:
    return MessageLiteral(int(marker[2]), not marker[3], marker[1] == b"~")


def _tag(text: bytes | bytearray) -> bytes:
    """Return the command's tag, ``*`` if it has none (RFC 3501 section 7.1.3)."""
    found = grammar.TAG.match(text)
    if found is None or len(found.group()) > grammar.MAX_TAG:
        return b"*"
    return bytes(found.group())


def _split(text: bytes, message: MessageLiteral | None) -> Command | Malformed:
    """Part a command into tag, name and arguments."""
    tag = _tag(text)
    if tag == b"*":
        return Malformed(tag, "Expected a tag")
    parser = Parser(text, len(tag))
    try:
        parser.space()
        name = parser.keyword()
        if name == b"UID":
            parser.space()
            name += b" " + parser.keyword()
    except ProtocolViolation:
        return Malformed(tag, "Expected a command")
    if b"\0" in text:  # of a literal
        return Malformed(tag, "NUL in a command")
    return Command(tag, name, parser, message)
