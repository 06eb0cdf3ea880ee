"""What a server that we send to says: its replies, and what EHLO tells of it.

Peers are hostile or broken: every length is bounded, and what is no reply of
RFC 5321 section 4.2 is `StrangeReply`.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailsrv.smtp.reply import Reply

# RFC 5321 section 4.5.3.1.5 has 512; some say more about why they refuse.
MAX_REPLY_LINE = 4096
MAX_REPLY_LINES = 200  # EHLO of the most talkative has some 30
MAX_KEPT_TEXT = 2000  # characters of a reply that log, queue and DSN see

_LINE = re.compile(rb"([2-5][0-9]{2})(?:([ -])(.*))?", re.DOTALL)
_ENHANCED = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +|$)")  # RFC 3463
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


class StrangeReply(Exception):
    """What the peer said is no reply: nothing that it says can be trusted now."""


@dataclass(slots=True)
class ReplyReader:
    """Cuts octets into replies."""

    _buffer: bytearray = field(default_factory=bytearray)
    _scanned: int = 0  # octets of the buffer that have no LF
    _code: bytes = b""  # of the reply whose first lines are read
    _lines: list[str] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, not even the beginning of a reply."""
        return not self._buffer and not self._lines

    def receive(self, data: bytes) -> None:
        self._buffer += data

    def next_reply(self) -> Reply | None:
        """Return the next whole reply; None while there is none."""
        while (line := self._line()) is not None:
            found = _LINE.fullmatch(line)
            if found is None or (self._code and found[1] != self._code):
                raise StrangeReply
            if len(self._lines) == MAX_REPLY_LINES:
                raise StrangeReply
            self._lines.append((found[3] or b"").decode("utf-8", "replace"))
            self._code = found[1]
            if found[2] != b"-":
                reply = _reply(int(self._code), self._lines)
                self._code, self._lines = b"", []
                return reply
        return None

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\n", self._scanned)
        if max(end, len(self._buffer) if end < 0 else 0) > MAX_REPLY_LINE:
            raise StrangeReply
        if end < 0:
            self._scanned = len(self._buffer)
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._scanned = 0
        # Looser than RFC 5321 section 2.3.8: a bare LF ends a reply as well.
        return line.removesuffix(b"\r")


def _reply(code: int, lines: list[str]) -> Reply:
    """Take the enhanced code off each line (RFC 2034 section 4)."""
    enhanced, texts = "", []
    for line in lines:
        text = _UNPRINTABLE.sub("?", line)
        if found := _ENHANCED.match(text):
            # One whose class is not the reply's says nothing.
            if found[1][0] == str(code)[0]:
                enhanced = enhanced or found[1]
                text = text[found.end() :]
        texts.append(text)
    return Reply(code, enhanced, "\n".join(texts)[:MAX_KEPT_TEXT])


@dataclass(frozen=True, slots=True)
class Extensions:
    """What the peer offers, by EHLO's answer (RFC 5321 section 4.1.1.1)."""

    arguments: "dict[str, tuple[str, ...]]" = field(default_factory=dict)

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Extensions":
        """Read the lines behind the first one, which names the peer."""
        found: dict[str, tuple[str, ...]] = {}
        for line in lines:
            # "AUTH=PLAIN": so old servers wrote it for old clients.
            keyword, *arguments = line.replace("AUTH=", "AUTH ", 1).split()[:50] or [""]
            if keyword:
                name = keyword.upper()
                found[name] = found.get(name, ()) + tuple(arguments)
        return cls(found)

    def __contains__(self, keyword: str) -> bool:
        return keyword in self.arguments

    @property
    def max_octets(self) -> int | None:
        """The largest message it takes, if it says so (RFC 1870 section 4)."""
        size = next(iter(self.arguments.get("SIZE", ())), "")
        if not size.isdecimal() or len(size) > 20:
            return None
        return int(size) or None

    @property
    def mechanisms(self) -> frozenset[str]:
        return frozenset(name.upper() for name in self.arguments.get("AUTH", ()))
