"""The client's side of SMTP and LMTP without I/O: replies in, events out.

`receive` octets and take `next_event` until it is NEED_DATA. A connection begins with
the greeting and comes by STARTTLS and AUTH, as far as wanted, to `Ready`; then each
`begin` is a transaction that ends in `Done`, with what the peer said to each
recipient. `Ended` comes last: close. RFC 5321, 2033 (LMTP), 1870 (SIZE), 2920
(PIPELINING), 3030 (CHUNKING), 3461 (DSN), 6152 (8BITMIME), 6531 (SMTPUTF8), 8689
(REQUIRETLS).
"""

from base64 import b64encode
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

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
from mailsrv.smtp.peer import Extensions, ReplyReader, StrangeReply
from mailsrv.smtp.reply import Reply


class Wait(Enum):
    NEED_DATA = "more octets are needed"


NEED_DATA: Final = Wait.NEED_DATA


class _Step(Enum):
    """What a reply is the answer to, with the seconds to wait for it.

    RFC 5321 section 4.5.3.2. A connection that is only to be left waits less.
    """

    GREETING = ("greeting", 300)
    EHLO = ("EHLO", 300)
    HELO = ("HELO", 300)
    STARTTLS = ("STARTTLS", 120)
    AUTH = ("AUTH", 120)
    MAIL = ("MAIL", 300)
    RCPT = ("RCPT", 300)
    DATA = ("DATA", 120)
    CONTENT = ("end of DATA", 600)
    NOTHING = ("end of no message", 600)  # a 354 that nobody wanted
    RSET = ("RSET", 20)
    QUIT = ("QUIT", 5)


BLOCK_TIMEOUT_S = 180  # RFC 5321 section 4.5.3.2.5: for the peer to take a block

STRANGE = Reply(451, "4.5.0", "The other server gave no proper reply")
LOST = Reply(451, "4.4.2", "The other server closed the connection")
TOO_SLOW = Reply(451, "4.4.2", "The other server did not answer in time")
NO_TLS = Reply(451, "4.7.10", "The other server offers no TLS, which is required")
NO_LOGIN = Reply(451, "4.7.0", "The other server offers no way to log in safely")
_LEFT = Reply(221, "2.0.0", "Left")

Tls = Literal["never", "may", "must"]


@dataclass(slots=True)
class _Transaction:
    """A message on its way, and what became of each recipient so far."""

    outgoing: Outgoing
    replies: dict[int, Reply] = field(default_factory=dict)  # by place, final ones
    asked: int = 0  # recipients that RCPT has been answered for
    accepted: deque[int] = field(default_factory=deque)  # and not settled since
    begun: bool = False  # MAIL was taken
    left_octets: int = 0  # of the content that BDAT has announced
    is_sent: bool = False  # all of the content

    def settle(self, reply: Reply) -> None:
        """Give all that have no final answer this one."""
        for place in range(len(self.outgoing.recipients)):
            self.replies.setdefault(place, reply)

    def done(self, *, uncertain: bool = False) -> Done:
        places = range(len(self.outgoing.recipients))
        replies = tuple(self.replies[place] for place in places)
        return Done(replies, uncertain, self.begun)


class ClientEngine:
    """One connection, from its greeting on."""

    def __init__(
        self,
        *,
        hostname: str,
        tls: Tls,
        lmtp: bool = False,
        login: Login | None = None,
    ) -> None:
        """`hostname` is our name for EHLO; LOGIN and PLAIN are sent over TLS only."""
        self.extensions = Extensions()
        self.peer_name = ""  # as it calls itself in its greeting
        self.tls_active = False
        self.lacks_tls = False  # it was wanted, and the peer has none
        self._hostname = hostname
        self._tls: Tls = tls
        self._lmtp = lmtp
        self._login = login
        self._reader = ReplyReader()
        self._waiting: deque[_Step] = deque((_Step.GREETING,))
        self._events: deque[Event] = deque()
        self._transaction: _Transaction | None = None
        self._in_content = False
        self._stuffs_dots = False
        self._line_start = True
        self._auth: deque[bytes] = deque()  # answers that AUTH still asks for
        self._ended = False

    # What the caller does

    @property
    def timeout_s(self) -> int:
        """How long to wait for what is due now."""
        if self._in_content:
            return BLOCK_TIMEOUT_S
        return self._waiting[0].value[1] if self._waiting else 0

    def receive(self, data: bytes) -> None:
        if not self._ended:
            self._reader.receive(data)

    def next_event(self) -> Event | Wait:
        while not self._events:
            # An answer that comes before the end of a message is read after it.
            if self._ended or self._in_content or not self._waiting:
                return NEED_DATA
            try:
                reply = self._reader.next_reply()
            except StrangeReply:
                self._end(STRANGE)
                continue
            if reply is None:
                return NEED_DATA
            self._answered(self._waiting.popleft(), reply)
        return self._events.popleft()

    def tls_on(self) -> None:
        """The handshake is done: what was said before counts no more."""
        self.tls_active = True
        self._hello(_Step.EHLO)

    def begin(self, outgoing: Outgoing) -> None:
        """Begin a transaction. Raises `Lacking`."""
        self._check(outgoing)
        self._transaction = _Transaction(outgoing)
        self._say(self._mail(outgoing), _Step.MAIL)
        if "PIPELINING" in self.extensions:
            for recipient in outgoing.recipients:
                self._say(self._rcpt(recipient), _Step.RCPT)
            if "CHUNKING" not in self.extensions:
                self._say("DATA", _Step.DATA)

    def content(self, octets: bytes) -> bytes:
        """Return how to write the next octets of the content, which has CRLF."""
        if not self._stuffs_dots:
            transaction = self._running()
            if len(octets) > transaction.left_octets:
                # More would be read as commands.
                raise AssertionError("the content is larger than was announced")
            transaction.left_octets -= len(octets)
            return octets
        stuffed = octets.replace(b"\n.", b"\n..")
        if self._line_start and octets[:1] == b".":
            stuffed = b"." + stuffed
        if octets:
            self._line_start = octets[-1:] == b"\n"
        return stuffed

    def content_end(self) -> None:
        """All of the message was given to `content`."""
        transaction = self._running()
        if transaction.left_octets:
            raise AssertionError("the content is smaller than was announced")
        self._in_content = False
        transaction.is_sent = True
        if self._stuffs_dots:
            self._events.append(Send(b".\r\n" if self._line_start else b"\r\n.\r\n"))
        count = len(transaction.accepted) if self._lmtp else 1
        self._waiting.extend([_Step.CONTENT] * count)

    def quit(self) -> None:
        """Leave; `Ended` follows."""
        self._say("QUIT", _Step.QUIT)

    def lost(self, why: Reply = LOST) -> None:
        """The connection is gone, or given up. What the peer said still counts."""
        in_content, self._in_content = self._in_content, False
        if in_content:
            self._waiting.append(_Step.CONTENT)
        while not self._ended and self._waiting:
            try:
                reply = self._reader.next_reply()
            except StrangeReply:
                reply = None
            if reply is None or (in_content and reply.positive):
                self._end(why)  # nobody takes half a message
            else:
                self._answered(self._waiting.popleft(), reply)
        if not self._ended:
            self._end(why)
        self._events = deque(e for e in self._events if isinstance(e, Done | Ended))

    # What the peer answers

    def _answered(self, step: _Step, reply: Reply) -> None:
        if reply.code == 421 and step is not _Step.QUIT:
            self._end(reply)  # RFC 5321 section 3.8: at any time
            return
        match step:
            case _Step.GREETING:
                self._greeted(reply)
            case _Step.EHLO | _Step.HELO:
                self._introduced(step, reply)
            case _Step.STARTTLS:
                self._may_start_tls(reply)
            case _Step.AUTH:
                self._log_in(reply)
            case _Step.MAIL:
                self._mail_answered(reply)
            case _Step.RCPT:
                self._rcpt_answered(reply)
            case _Step.DATA:
                self._data_answered(reply)
            case _Step.CONTENT:
                self._content_answered(reply)
            case _Step.NOTHING | _Step.RSET:
                self._finish()
            case _Step.QUIT:
                self._end(_LEFT)

    def _greeted(self, reply: Reply) -> None:
        if reply.code == 220:
            self.peer_name = (reply.text.split() or [""])[0]
            self._hello(_Step.EHLO)
        else:
            self._end(_negative(reply))

    def _hello(self, step: _Step) -> None:
        verb = "LHLO" if self._lmtp else step.value[0]
        self._say(f"{verb} {self._hostname}", step)

    def _introduced(self, step: _Step, reply: Reply) -> None:
        if reply.code == 250:
            lines = reply.text.split("\n")[1:] if step is _Step.EHLO else []
            self.extensions = Extensions.read(lines)
            self._secure()
        elif step is _Step.EHLO and reply.code >= 500 and not self._lmtp:
            self._hello(_Step.HELO)  # RFC 5321 section 3.2
        else:
            self._end(_negative(reply))

    def _secure(self) -> None:
        if self._tls == "never" or self.tls_active:
            self._identify()
        elif "STARTTLS" in self.extensions:
            self._say("STARTTLS", _Step.STARTTLS)
        else:
            self._without_tls(NO_TLS)

    def _may_start_tls(self, reply: Reply) -> None:
        if reply.code != 220:
            self._without_tls(reply)
        elif not self._reader.is_empty:
            # What came in clear would seem to come out of TLS (CVE-2011-0411).
            self._end(STRANGE)
        else:
            self._events.append(StartTls())

    def _without_tls(self, reply: Reply) -> None:
        self.lacks_tls = True
        if self._tls == "must":
            # Not for ever, whatever the peer says: a certificate may be renewed.
            self._end(Reply(451, "4.7.10", reply.text))
        else:
            self._identify()

    def _identify(self) -> None:
        if self._login is None:
            self._events.append(Ready())
            return
        name, password = self._login.name.encode(), self._login.password.encode()
        mechanisms = self.extensions.mechanisms if self.tls_active else frozenset()
        if "PLAIN" in mechanisms:
            initial = b64encode(b"\0%b\0%b" % (name, password)).decode()
            self._say(f"AUTH PLAIN {initial}", _Step.AUTH)
        elif "LOGIN" in mechanisms:
            self._auth = deque((name, password))
            self._say("AUTH LOGIN", _Step.AUTH)
        else:
            self._end(NO_LOGIN)

    def _log_in(self, reply: Reply) -> None:
        if reply.code == 334 and self._auth:
            self._say(b64encode(self._auth.popleft()).decode(), _Step.AUTH)
        elif reply.code == 235:
            self._events.append(Ready())
        else:
            # Never for good, as RFC 4954 section 6 has it: somebody will set the
            # right password, and mail can wait for that.
            self._end(Reply(454, "4.7.0", reply.text))

    def _mail_answered(self, reply: Reply) -> None:
        transaction = self._running()
        if _is_done(reply):
            transaction.begun = True
        else:
            # What was pipelined behind it will be refused as well.
            transaction.settle(_negative(reply))
        self._next()

    def _rcpt_answered(self, reply: Reply) -> None:
        transaction = self._running()
        place, transaction.asked = transaction.asked, transaction.asked + 1
        if _is_done(reply):
            if place not in transaction.replies:
                transaction.accepted.append(place)
        elif _is_one_too_many(reply) and transaction.accepted:
            later = Reply(452, "4.5.3", reply.text)
            transaction.replies.setdefault(place, later)
        else:
            transaction.replies.setdefault(place, _negative(reply))
        self._next()

    def _next(self) -> None:
        """Say what comes after an answer, if it has not been said already."""
        if self._waiting:
            return
        transaction = self._running()
        recipients = transaction.outgoing.recipients
        if len(transaction.replies) == len(recipients):
            self._say("RSET", _Step.RSET)
        elif transaction.asked < len(recipients):
            self._say(self._rcpt(recipients[transaction.asked]), _Step.RCPT)
        elif "CHUNKING" in self.extensions:
            transaction.left_octets = transaction.outgoing.size_octets
            self._say(f"BDAT {transaction.left_octets} LAST")
            self._begin_content(stuffs_dots=False)
        else:
            self._say("DATA", _Step.DATA)

    def _data_answered(self, reply: Reply) -> None:
        transaction = self._running()
        if reply.code != 354:
            transaction.settle(_negative(reply))
            self._say("RSET", _Step.RSET)
        elif transaction.accepted:
            self._begin_content(stuffs_dots=True)
        else:
            # RFC 2920 section 3.1: DATA was pipelined, and nobody wants it now.
            self._say(".", _Step.NOTHING)

    def _begin_content(self, *, stuffs_dots: bool) -> None:
        self._in_content = self._line_start = True
        self._stuffs_dots = stuffs_dots
        self._events.append(SendContent())

    def _content_answered(self, reply: Reply) -> None:
        transaction = self._running()
        final = reply if _is_done(reply) else _negative(reply)
        if self._lmtp:  # RFC 2033 section 4.2
            transaction.replies[transaction.accepted.popleft()] = final
        else:
            transaction.settle(final)
        if not self._waiting:
            self._finish()

    def _finish(self) -> None:
        done, self._transaction = self._running().done(), None
        self._events.append(done)
        self._events.append(Ready())

    def _end(self, reply: Reply) -> None:
        """End for `reply`, which is also that of all recipients that have none."""
        self._ended = True
        self._waiting.clear()
        if (transaction := self._transaction) is not None:
            uncertain = transaction.is_sent and reply in (LOST, TOO_SLOW, STRANGE)
            transaction.settle(reply)
            self._events.append(transaction.done(uncertain=uncertain))
            self._transaction = None
        self._events.append(Ended(reply))

    # What is said

    def _say(self, line: str, step: _Step | None = None) -> None:
        if "\r" in line or "\n" in line:
            raise AssertionError("an address was not checked")
        self._events.append(Send(line.encode() + b"\r\n"))
        if step is not None:
            self._waiting.append(step)

    def _running(self) -> _Transaction:
        if self._transaction is None:
            raise AssertionError("no transaction was begun")
        return self._transaction

    def _check(self, outgoing: Outgoing) -> None:
        for needed, extension in (
            (outgoing.eight_bit, "8BITMIME"),
            (outgoing.smtputf8, "SMTPUTF8"),
            (outgoing.require_tls, "REQUIRETLS"),
        ):
            if needed and extension not in self.extensions:
                raise Lacking(extension)
        most = self.extensions.max_octets
        if most is not None and outgoing.size_octets > most:
            raise Lacking("SIZE")

    def _mail(self, outgoing: Outgoing) -> str:
        words = [f"MAIL FROM:<{outgoing.reverse_path}>"]
        if "SIZE" in self.extensions:
            words.append(f"SIZE={outgoing.size_octets}")
        if outgoing.eight_bit:
            words.append("BODY=8BITMIME")
        if outgoing.smtputf8:
            words.append("SMTPUTF8")
        if outgoing.require_tls:
            words.append("REQUIRETLS")
        if "DSN" in self.extensions:
            words += [f"RET={outgoing.ret}"] if outgoing.ret else []
            # Of no client that keeps to RFC 3461 section 4.4 it is more than ASCII.
            sound = outgoing.smtputf8 or outgoing.envid.isascii()
            words += [f"ENVID={outgoing.envid}"] if outgoing.envid and sound else []
        return " ".join(words)

    def _rcpt(self, recipient: OutgoingRecipient) -> str:
        orcpt = recipient.orcpt
        if not self._running().outgoing.smtputf8:
            # RFC 6533 section 3: utf-8-addr-xtext.
            orcpt = "".join(c if c.isascii() else f"\\x{{{ord(c):02X}}}" for c in orcpt)
        words = [f"RCPT TO:<{recipient.forward_path}>"]
        if "DSN" in self.extensions:
            words += [f"NOTIFY={recipient.notify}"] if recipient.notify else []
            words += [f"ORCPT={orcpt}"] if orcpt else []
        return " ".join(words)


def _is_done(reply: Reply) -> bool:
    return 200 <= reply.code < 300


def _is_one_too_many(reply: Reply) -> bool:
    """RFC 5321 section 4.5.3.1.10: 552 may mean 452, unless it says what it means."""
    return reply.code == 552 and reply.enhanced_code in ("", "5.5.3")


def _negative(reply: Reply) -> Reply:
    """Return a reply that refuses; one that makes no sense here is temporary."""
    return reply if reply.code >= 400 else STRANGE
