"""The server's side of SMTP (RFC 5321) without I/O: octets in, events out.

`receive` octets, take `next_event` until it is NEED_DATA or PAUSED, and `send` the
reply to each command, which gives the octets to write. A command's reply is sent
before the next command is looked at, so replies keep their order under PIPELINING
(RFC 2920) however long a decision takes. Who may send what is decided elsewhere.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, get_args

from mailsrv.smtp import grammar
from mailsrv.smtp.content import ChunkReader, DataReader, Intake
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
    Reset,
    Settled,
    StartTls,
)
from mailsrv.smtp.reply import OK, Refused, Replies, Reply


class Wait(Enum):
    """Why there is no event."""

    NEED_DATA = "more octets are needed"
    PAUSED = "the last event has no reply yet"


NEED_DATA: Final = Wait.NEED_DATA
PAUSED: Final = Wait.PAUSED


# Where the server hears: from other servers (RFC 5321), from its own users, who log
# in first (RFC 6409), or from another program of this machine (LMTP, RFC 2033).
Role = Literal["mx", "submission", "lmtp"]
ROLES: tuple[Role, ...] = get_args(Role)


class State(Enum):
    """What the session has come to between two commands."""

    START = "no EHLO yet"
    READY = "no transaction"
    MAIL = "sender known, no recipient accepted"
    RCPT = "a recipient accepted"
    CHUNKS = "some of the message has come by BDAT"


@dataclass(frozen=True, slots=True)
class _Command:
    states: frozenset[State]  # where it is allowed; elsewhere 503
    parse: Callable[[bytes], Event]
    then: State | None = None  # the state after a 2yz; None leaves it


def _bare(event: Event) -> Callable[[bytes], Event]:
    """Parse a command without argument; a superfluous one is ignored."""
    return lambda argument: event


_ALWAYS = frozenset(State)
# RFC 5321 sections 4.1.1 and 4.1.4; STARTTLS: RFC 3207; AUTH: RFC 4954 section 4.
# BDAT (RFC 3030) is read in `_bdat`, since its chunk comes whatever the reply.
_COMMANDS = {
    b"EHLO": _Command(_ALWAYS, lambda a: grammar.hello(a, True), State.READY),
    b"HELO": _Command(_ALWAYS, lambda a: grammar.hello(a, False), State.READY),
    b"MAIL": _Command(frozenset({State.READY}), grammar.mail, State.MAIL),
    b"RCPT": _Command(frozenset({State.MAIL, State.RCPT}), grammar.rcpt, State.RCPT),
    b"DATA": _Command(frozenset({State.RCPT}), _bare(Data())),
    b"RSET": _Command(_ALWAYS, _bare(Reset())),
    b"STARTTLS": _Command(frozenset({State.READY}), _bare(StartTls()), State.START),
    b"AUTH": _Command(frozenset({State.READY}), grammar.auth),
    b"QUIT": _Command(_ALWAYS, _bare(Quit())),
    b"NOOP": _Command(_ALWAYS, _bare(Settled(OK))),
    b"VRFY": _Command(
        _ALWAYS,
        # RFC 5321 section 7.3: nobody is told which addresses there are.
        _bare(Settled(Reply(252, "2.0.0", "Send mail to find out"))),
    ),
    b"EXPN": _Command(
        _ALWAYS, _bare(Settled(Reply(502, "5.5.1", "Lists are not expanded here")))
    ),
    b"HELP": _Command(_ALWAYS, _bare(Settled(Reply(214, "2.0.0", "See RFC 5321")))),
}
# RFC 2033 section 4.1: LHLO, and neither HELO nor EHLO.
_LMTP_COMMANDS = {
    b"LHLO" if verb == b"EHLO" else verb: command
    for verb, command in _COMMANDS.items()
    if verb != b"HELO"
}
# A browser that was led here: its body would be read as commands.
_HTTP = frozenset({b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"CONNECT"})

# Octets of a command line with CRLF. RFC 5321 section 4.5.3.1.4 asks for 512, and
# the extensions add some 1,000 to MAIL (RFC 1870, 4954, 6531).
MAX_COMMAND_LINE = 2048
MAX_AUTH_LINE = 12288 + 32  # RFC 4954 section 4: base64 of 12288, and the command
MAX_UNKNOWN_COMMANDS = 8

_NO_HELLO = Reply(503, "5.5.1", "EHLO first")
_NO_LHLO = Reply(503, "5.5.1", "LHLO first")
_BAD_SEQUENCE = Reply(503, "5.5.1", "Bad sequence of commands")
_NO_RECIPIENTS = Reply(554, "5.5.1", "No valid recipients")
_NO_LMTP_RECIPIENTS = Reply(503, "5.5.1", "No valid recipients")
_UNKNOWN = Reply(500, "5.5.1", "Command unknown")
_BAD_LINE = Reply(500, "5.5.2", "Lines end with CR LF, and hold no other CR, LF, NUL")
_LONG_LINE = Reply(500, "5.5.2", "Line too long")
_LONG_AUTH_LINE = Reply(500, "5.5.6", "Line too long")  # RFC 4954 section 6
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors")
_TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients")
_NOT_OFFERED = Reply(502, "5.5.1", "Not offered here")
_TLS_IS_ON = Reply(503, "5.5.1", "TLS is on already")
_INJECTION = Reply(421, "4.7.0", "Nothing may follow STARTTLS before the handshake")
_TLS_FIRST = Reply(530, "5.7.0", "STARTTLS first")
_AUTH_NEEDS_TLS = Reply(538, "5.7.11", "STARTTLS first")
_REQUIRETLS_NEEDS_TLS = Reply(530, "5.7.10", "REQUIRETLS needs TLS: STARTTLS first")
_AUTH_FIRST = Reply(530, "5.7.0", "Log in first")
_AUTH_IS_DONE = Reply(503, "5.5.1", "You are logged in already")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a session offers and allows."""

    hostname: str
    role: Role
    starttls: bool  # there is a certificate
    clear_text_auth: bool  # AUTH without TLS
    max_message_octets: int
    max_recipients: int
    max_errors: int
    normalise: bool  # bare CR and LF in messages
    trusted: bool = False  # a device that submits without AUTH


@dataclass(slots=True)
class Engine:
    """One session. Begins PAUSED: the first `send` is the greeting."""

    _profile: Profile
    tls: bool
    closing: bool = False  # nothing more is read; close when all is written
    authenticated: bool = False
    _state: State = State.START
    _buffer: bytes = b""
    _at: int = 0  # where in the buffer the next line begins
    _pending: Event | None = field(default_factory=lambda: Settled(OK))
    _then: State | None = None
    _in_auth: bool = False
    _skipping: bool = False  # the rest of a line that was too long
    _reader: DataReader | ChunkReader | None = None  # while content is read
    _chunks: ChunkReader | None = None
    _ended: bool = False  # the reader has found the end
    _recipients: int = 0
    _errors: int = 0
    _unknown: int = 0

    @property
    def buffered(self) -> int:
        """How many octets wait: while PAUSED, stop reading when there are many."""
        return len(self._buffer) - self._at

    @property
    def in_content(self) -> bool:
        """Whether a message is being read."""
        return self._reader is not None

    def receive(self, data: bytes) -> None:
        """Take octets from the peer."""
        if self.closing:
            return
        self._buffer = self._buffer[self._at :] + data if self.buffered else data
        self._at = 0

    def next_event(self) -> Event | Wait:
        """Return what comes next; all but Content and Close want a `send`."""
        if self._pending is not None:
            return PAUSED
        if self.closing:
            return NEED_DATA
        reader = self._reader
        event = self._next_content(reader) if reader else self._next_command()
        if event is None:
            if not self.buffered:
                self._buffer, self._at = b"", 0  # an idle session holds nothing
            return NEED_DATA
        if isinstance(event, Close):
            self.closing = True
        elif not isinstance(event, Content):
            self._pending = event
        return event

    def send(self, reply: Reply | Replies) -> bytes:
        """Settle the pending event with `reply`; return what to write."""
        event, self._pending = self._pending, None
        then, self._then = self._then, None
        if isinstance(reply, Replies):  # to the end of a message
            self._state = State.READY
            return reply.wire
        # RFC 5321 section 4.5.3.1.10: the peer sends to these in another transaction.
        if not reply.positive and reply is not _TOO_MANY_RECIPIENTS:
            self._errors += 1
            # Not a server of our own that hands on what others send.
            limited = self._profile.role != "lmtp"
            if limited and self._errors > self._profile.max_errors:
                reply = TOO_MANY_ERRORS
        if then is not None and reply.positive:
            self._state = then
        match event:
            case Data():
                if reply.code == 354:
                    self._reader = DataReader(self._intake())
                elif self.buffered:
                    # The peer did not wait: its message must not become commands.
                    self.closing = True
            case ChunkEnd():
                self._state = State.CHUNKS if reply.positive else State.READY
            case ContentEnd():
                self._state = State.READY
                if reply.positive:
                    self._errors = 0
            case StartTls() if reply.code == 220:
                # RFC 3207 section 4.2: what was said in clear text counts no more.
                self.tls, self.authenticated = True, False
            case Auth() | AuthResponse():
                self._in_auth = reply.code == 334
                self.authenticated = reply.code == 235
            case Mail():
                self._recipients = 0
            case Reset() if self._state is not State.START:
                self._state = State.READY
        if reply.code == 421 or isinstance(event, Quit):
            self.closing = True
        return reply.wire

    def hello_reply(self, hello: Hello, mechanisms: Iterable[str]) -> Reply:
        """Return what is offered, to answer EHLO or HELO with."""
        profile = self._profile
        lines = [profile.hostname]
        if hello.extended:
            lines += ["PIPELINING", f"SIZE {profile.max_message_octets}"]
            if profile.starttls and not self.tls:
                lines.append("STARTTLS")
            if profile.role == "submission" and self._may_authenticate():
                lines.append(f"AUTH {' '.join(mechanisms)}")
            lines += ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING", "DSN"]
            if self.tls:  # RFC 8689 section 2
                lines.append("REQUIRETLS")
            lines.append(f"LIMITS RCPTMAX={profile.max_recipients}")  # RFC 9422
        return Reply(250, "", "\n".join(lines))

    def _may_authenticate(self) -> bool:
        return self.tls or self._profile.clear_text_auth

    def _intake(self, refusal: Reply | None = None) -> Intake:
        profile = self._profile
        return Intake(profile.max_message_octets, profile.normalise, refusal=refusal)

    # Commands

    def _next_command(self) -> Event | None:
        if (
            self._buffer[self._at : self._at + 1] == b"\x16"
            and not self._in_auth
            and not self._skipping
        ):
            # No command begins so, but each record of a TLS handshake. Thunderbird
            # tries all ways at once and waits until each one has failed.
            return Close("a TLS hello on a clear port")
        try:
            line = self._line()
            if line is None:
                return None
            if not line.endswith(b"\r\n") or line.count(b"\r") > 1 or b"\0" in line:
                raise Refused(_BAD_LINE)
            if self._in_auth:
                return grammar.auth_response(line[:-2])
            return self._command(line[:-2])
        except Refused as refused:
            self._in_auth = False
            return Settled(refused.reply)

    def _line(self) -> bytes | None:
        """Return the next line with its LF, or refuse it once it has ended."""
        at, end = self._at, self._buffer.find(b"\n", self._at)
        limit = MAX_COMMAND_LINE
        if self._in_auth or self._buffer[at : at + 5].upper() == b"AUTH ":
            limit = MAX_AUTH_LINE
        if end < 0:
            if self._skipping or self.buffered > limit:
                self._skipping = True
                self._buffer = b""
                self._at = 0
            return None
        self._at = end + 1
        if self._skipping or self._at - at > limit:
            self._skipping = False
            raise Refused(_LONG_AUTH_LINE if self._in_auth else _LONG_LINE)
        return self._buffer[at : self._at]

    def _command(self, line: bytes) -> Event | None:
        verb, _, argument = line.partition(b" ")
        verb = verb.rstrip().upper()
        if verb == b"BDAT":
            return self._bdat(argument)
        lmtp = self._profile.role == "lmtp"
        command = (_LMTP_COMMANDS if lmtp else _COMMANDS).get(verb)
        if command is None:
            return self._unknown_command(verb)
        if self._state not in command.states:
            self.closing = verb == b"DATA" and self.buffered > 0  # see `send`
            raise Refused(self._out_of_place(verb))
        self._check_allowed(verb)
        event = command.parse(argument.lstrip())
        if isinstance(event, Mail) and event.require_tls and not self.tls:
            raise Refused(_REQUIRETLS_NEEDS_TLS)
        self._then = command.then
        return event

    def _unknown_command(self, verb: bytes) -> Event:
        if verb in _HTTP:
            return Close("HTTP")
        self._unknown += 1
        if self._unknown > MAX_UNKNOWN_COMMANDS:
            raise Refused(TOO_MANY_ERRORS)
        raise Refused(_UNKNOWN)

    def _out_of_place(self, verb: bytes) -> Reply:
        lmtp = self._profile.role == "lmtp"
        if self._state is State.START:
            return _NO_LHLO if lmtp else _NO_HELLO
        if self._state is State.MAIL and verb in (b"DATA", b"BDAT"):
            return _NO_LMTP_RECIPIENTS if lmtp else _NO_RECIPIENTS
        return _BAD_SEQUENCE

    def _check_allowed(self, verb: bytes) -> None:
        """Refuse what this session does not offer (yet)."""
        profile = self._profile
        match verb:
            case b"STARTTLS":
                if not profile.starttls:
                    raise Refused(_NOT_OFFERED)
                if self.tls:
                    raise Refused(_TLS_IS_ON)
                if self.buffered:  # CVE-2011-0411
                    raise Refused(_INJECTION)
            case b"AUTH":
                if profile.role != "submission":
                    raise Refused(_NOT_OFFERED)
                if not self._may_authenticate():
                    raise Refused(_AUTH_NEEDS_TLS)
                if self.authenticated:
                    raise Refused(_AUTH_IS_DONE)
            case b"MAIL" if profile.role == "submission" and not (
                self.authenticated or profile.trusted
            ):
                raise Refused(_AUTH_FIRST if self._may_authenticate() else _TLS_FIRST)
            case b"RCPT":
                self._recipients += 1
                if self._recipients > profile.max_recipients:
                    raise Refused(_TOO_MANY_RECIPIENTS)

    # Content

    def _bdat(self, argument: bytes) -> Event | None:
        """Begin a chunk. Out of place, it comes all the same and is thrown away."""
        try:
            size_octets, last = grammar.bdat(argument)
        except Refused:
            self.closing = True  # nobody knows where the chunk ends
            raise
        if self._state is State.RCPT:
            self._chunks = ChunkReader(self._intake())
        elif self._state is not State.CHUNKS or self._chunks is None:
            self._chunks = ChunkReader(self._intake(self._out_of_place(b"BDAT")))
        self._chunks.begin(size_octets, last)
        self._reader = self._chunks
        return self._next_content(self._reader)

    def _next_content(self, reader: DataReader | ChunkReader) -> Event | None:
        if not self._ended:
            data = self._buffer[self._at :]
            content, end = reader.feed(data)
            self._ended = end >= 0
            self._at = self._at + end if self._ended else len(self._buffer)
            if content:
                return Content(content)
        return self._content_end(reader) if self._ended else None

    def _content_end(self, reader: DataReader | ChunkReader) -> Event:
        self._reader = None
        self._ended = False
        intake = reader.intake
        if isinstance(reader, ChunkReader):
            if self._state not in (State.RCPT, State.CHUNKS) and intake.refusal:
                return Settled(intake.refusal)
            if not reader.last:
                return ChunkEnd(intake.refusal)
        return ContentEnd(intake.size_octets, intake.refusal)
