"""Address lists (RFC 5322 section 3.4), as people and machines write them.

Reads groups, comments, routes and the other obsolete forms, and gives its best
for what is none of these. One pass, no recursion; encoded words stay as they are.
"""

import re
from typing import NamedTuple

MAX_ADDRESSES = 1000  # of one list; those after them are dropped


class Address(NamedTuple):
    """One member of a list, in the four parts of an IMAP ENVELOPE.

    ``host`` None marks a group: its beginning with its name as ``mailbox``, its
    end without. An address without a domain has an empty host.
    """

    name: bytes | None
    route: bytes | None
    mailbox: bytes | None
    host: bytes | None


_GROUP_END = Address(None, None, None, None)

_ATOM = rb'[^\s"(),:;<>@\[\]\\]++'
# The two forms that nearly all mail has: Name <local@domain> and local@domain.
_COMMON = re.compile(
    rb'\s*+(?:(?:"([^"\\\n]*+)"\s*+|([^"(),:;<>@\[\]\\\n]*+))'
    rb"<(%b)@(%b)>|(%b)@(%b))\s*+(?:,|$)" % ((_ATOM,) * 4)
)
_TOKEN = re.compile(
    rb'\s++|"((?:[^"\\]++|\\.)*+)(?:"|\\?$)|(\[[^\]]*+\]?)|(%b)|(.)' % _ATOM, re.S
)
_SEPARATORS = re.compile(rb"[\s,;]++")
_IN_GROUP_SEPARATORS = re.compile(rb"[\s,]++")
_COMMENT_TOKEN = re.compile(rb"[^()\\]++|\\.?|[()]", re.S)
_ESCAPED = re.compile(rb"\\(.)", re.S)


def addresses(value: bytes) -> list[Address]:
    """Read the value of a From, To or like field, unfolded or not."""
    common = _COMMON.match(value)
    if common and common.end() == len(value):  # most lists have one member
        return [_common(common)]
    reader = _Reader(value)
    found = reader.found
    while reader.skip_separators() and len(found) < MAX_ADDRESSES:
        if common := _COMMON.match(value, reader.place):
            found.append(_common(common))
            reader.place = common.end()
        else:
            reader.read_uncommon()
    if reader.in_group:
        found.append(_GROUP_END)
    return found


def _common(found: re.Match[bytes]) -> Address:
    quoted, plain, angle_local, angle_host, local, host = found.groups()
    name = plain if quoted is None else quoted
    name = name.strip() if name else None
    return Address(name or None, None, angle_local or local, angle_host or host)


class _Reader:
    """Where in a list we are, and what has been found in it."""

    __slots__ = ("_value", "found", "in_group", "place")

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.place = 0
        self.found: list[Address] = []
        self.in_group = False

    def skip_separators(self) -> bool:
        """Pass over what separates members; return whether anything follows."""
        pattern = _IN_GROUP_SEPARATORS if self.in_group else _SEPARATORS
        passed = pattern.match(self._value, self.place)
        self.place = passed.end() if passed else self.place
        return self.place < len(self._value)

    def read_uncommon(self) -> None:
        """Read one member, or a group's beginning or end, token by token."""
        name: list[bytes] | None = None  # what stands before the angle
        words: list[bytes] = []  # what stands in it, or in place of it
        comment, closed = b"", False
        while token := _TOKEN.match(self._value, self.place):
            self.place = token.end()
            quoted, literal, atom, special = token.groups()
            in_angle = name is not None and not closed
            if special == b"(":
                comment = self._read_comment()
            elif special == b"," and not in_angle:
                break
            elif special == b";" and not in_angle:
                self._add(name, words, comment)
                if self.in_group:
                    self.found.append(_GROUP_END)
                self.in_group = False
                return
            elif special == b":" and name is None and words[:1] != [b"@"]:
                self._begin_group(words)
                return
            elif special == b"<" and name is None:
                name, words = words, []
            elif special == b">":
                closed = True
            elif not closed:
                if quoted is not None:
                    words.append(_unescape(quoted))
                elif piece := literal or atom or special:
                    words.append(piece)
        self._add(name, words, comment)

    def _begin_group(self, words: list[bytes]) -> None:
        if self.in_group:
            self.found.append(_GROUP_END)
        self.found.append(Address(None, None, b" ".join(words), None))
        self.in_group = True

    def _read_comment(self) -> bytes:
        depth, text = 1, []
        for token in _COMMENT_TOKEN.finditer(self._value, self.place):
            self.place = token.end()
            piece = token[0]
            depth += (piece == b"(") - (piece == b")")
            if not depth:
                break
            text.append(piece)
        return _unescape(b"".join(text)).strip()

    def _add(
        self, name: list[bytes] | None, words: list[bytes], comment: bytes
    ) -> None:
        if not words and not any(name or ()):
            return
        route = None
        if words[:1] == [b"@"] and b":" in words:  # <@a,@b:local@domain>
            end = words.index(b":")
            route, words = b"".join(words[:end]), words[end + 1 :]
        display = b" ".join(name or ()) or comment or None
        if b"@" in words:
            at = len(words) - 1 - words[::-1].index(b"@")
            mailbox, host = b"".join(words[:at]), b"".join(words[at + 1 :])
        else:
            mailbox, host = b" ".join(words), b""
        self.found.append(Address(display, route, mailbox, host))


def _unescape(text: bytes) -> bytes:
    return _ESCAPED.sub(rb"\1", text) if b"\\" in text else text
