"""Reads the arguments of one IMAP command (RFC 3501 section 9).

A `Parser` is a cursor over the whole command with its literals in place, as the
engine collected it. Each method takes one token or raises `ProtocolViolation`.
"""

import calendar
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field
from re import Match, Pattern
from typing import TypeVar

from mailsrv.imap import grammar
from mailsrv.imap.errors import ProtocolViolation, Refused
from mailsrv.imap.grammar import MAX_NUMBER, STAR, SequenceSet
from mailsrv.mailboxes.sequence import SAVED
from mailsrv.store import mutf7
from mailsrv.store.names import SEPARATOR, canonical

T = TypeVar("T")

# INTERNALDATE is a file's time: what ext4 can keep, the years 1901 to 2446.
EARLIEST_S = -(2**31)
LATEST_S = 2**34 - 2**31 - 1


@dataclass(slots=True)
class Parser:
    """The text of a command without its last CR LF, and how far it was read."""

    data: bytes
    at: int = 0
    utf8: bool = False  # names of mailboxes are in UTF-8, not in modified UTF-7
    extensions: set[bytes] = field(default_factory=set)  # of which there was syntax

    def at_end(self) -> bool:
        return self.at >= len(self.data)

    def end(self) -> None:
        """Check that nothing follows."""
        # Looser than RFC 3501: spaces at the end of a line are no error.
        if self.data[self.at :].strip(b" "):
            raise ProtocolViolation("Unexpected text after the arguments")

    def peek(self) -> bytes:
        """Return the next octet, b"" at the end."""
        return self.data[self.at : self.at + 1]

    def skip(self, token: bytes) -> bool:
        """Take `token` (upper case) if it comes next in any case; say whether."""
        end = self.at + len(token)
        if self.data[self.at : end].upper() != token:
            return False
        self.at = end
        return True

    def expect(self, token: bytes) -> None:
        if not self.skip(token):
            raise ProtocolViolation(f"Expected {token.decode('ascii')!r}")

    def uses(self, extension: bytes) -> None:
        """Note that what was read is of an extension, which may be switched off."""
        self.extensions.add(extension)

    def space(self) -> None:
        self.expect(b" ")

    def atom(self) -> bytes:
        return self.take(grammar.ATOM, "an atom").group()

    def keyword(self) -> bytes:
        """Take an atom that names something, in upper case."""
        return self.atom().upper()

    def number(self) -> int:
        value = int(self.take(grammar.NUMBER, "a number").group())
        if value > MAX_NUMBER:
            raise ProtocolViolation("Number over 32 bits")
        return value

    def number64(self) -> int:
        """Take a number64, or a mod-sequence-valzer (RFC 7162 section 7)."""
        value = int(self.take(grammar.NUMBER, "a number").group())
        if value > grammar.MAX_NUMBER64:
            raise ProtocolViolation("Number over 63 bits")
        return value

    def string(self) -> bytes:
        """Take a quoted string or a literal."""
        if self.peek() == b'"':
            quoted = self.take(grammar.QUOTED, "a quoted string").group(1)
            if self.utf8 and not _is_utf8(quoted):
                raise ProtocolViolation("Quoted string is not UTF-8")  # RFC 9755 3
            return grammar.ESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
        size = int(self.take(grammar.LITERAL, "a string").group(1))
        literal = self.data[self.at : self.at + size]
        self.at += size
        return literal

    def nstring(self) -> bytes | None:
        return None if self.skip(b"NIL") else self.string()

    def astring(self) -> bytes:
        if self.peek() in b'"{':
            return self.string()
        return self.take(grammar.ASTRING_ATOM, "an atom or a string").group()

    def mailbox(self) -> str:
        """Take the name of a mailbox; raise Refused if it is not coded as it should.

        INBOX comes in capitals, and without the separator at the end that
        Thunderbird sends for folders that hold others.
        """
        return mailbox_name(self.astring(), utf8=self.utf8)

    def list_mailbox(self) -> bytes:
        """Take a mailbox name that may have the wildcards ``%`` and ``*``."""
        if self.peek() in b'"{':
            return self.string()
        return self.take(grammar.LIST_ATOM, "a mailbox pattern").group()

    def sequence_set(self) -> SequenceSet:
        """Take a sequence-set; the meaning of its numbers is the mailbox's matter.

        ``$``, what SEARCH saved (RFC 5182), stands alone: ``SAVED``.
        """
        if self.skip(b"$"):
            self.uses(b"SEARCHRES")
            return SAVED
        text = self.take(grammar.SEQUENCE_SET, "a sequence set").group()
        ranges = []
        for part in text.split(b","):
            first, _, last = part.partition(b":")
            low = _seq_number(first)
            ranges.append((low, _seq_number(last) if last else low))
        return tuple(ranges)

    def known_set(self) -> SequenceSet:
        """Take a sequence-set of numbers that the client knows (RFC 7162 section 7)."""
        ranges = self.sequence_set()
        if any(min(pair) <= STAR for pair in ranges):
            raise ProtocolViolation("No * or $ in a set of what is known")
        return ranges

    def items(self, item: Callable[[], T], *, may_be_empty: bool = False) -> list[T]:
        """Take a parenthesised list, each member by `item`, one space between."""
        self.expect(b"(")
        if may_be_empty and self.skip(b")"):
            return []
        found = [item()]
        while not self.skip(b")"):
            self.space()
            found.append(item())
        return found

    def flag(self) -> bytes:
        """Take a flag or keyword; system flags come in their canonical spelling."""
        if not self.skip(b"\\"):
            return self.atom()
        name = b"\\" + self.atom()
        try:
            return grammar.SYSTEM_FLAGS[name.lower()]
        except KeyError:
            raise ProtocolViolation("No such system flag for a client") from None

    def flags(self) -> list[bytes]:
        """Take a flag-list."""
        return self.items(self.flag, may_be_empty=True)

    def date(self) -> datetime.date:
        """Take a SEARCH key's date, quoted or not."""
        quoted = self.skip(b'"')
        day, month, year = self.take(grammar.DATE, "a date").groups()
        if quoted:
            self.expect(b'"')
        try:
            return datetime.date(int(year), grammar.MONTHS[month.lower()], int(day))
        except (KeyError, ValueError):
            raise ProtocolViolation("No such date") from None

    def date_time(self) -> int:
        """Take APPEND's date-time; return seconds since 1970 in UTC."""
        found = self.take(grammar.DATE_TIME, "a date and time")
        day, month, year, hour, minute, second, sign, east_h, east_min = found.groups()
        try:
            local = datetime.datetime(
                int(year),
                grammar.MONTHS[month.lower()],
                int(day),
                int(hour),
                int(minute),
                min(int(second), 59),  # a leap second
            )
        except (KeyError, ValueError):
            raise ProtocolViolation("No such date and time") from None
        east_s = int(east_h) * 3600 + int(east_min) * 60
        utc = calendar.timegm(local.timetuple())
        utc = utc + east_s if sign == b"-" else utc - east_s
        return max(EARLIEST_S, min(utc, LATEST_S))

    def take(self, pattern: Pattern[bytes], what: str) -> Match[bytes]:
        """Take what `pattern` matches here; `what` names it in an error."""
        found = pattern.match(self.data, self.at)
        if found is None:
            raise ProtocolViolation(f"Expected {what}")
        self.at = found.end()
        return found


def mailbox_name(coded: bytes, *, utf8: bool = False) -> str:
    """Decode a mailbox name as a client spells it; raise Refused."""
    try:
        name = decoded_name(coded, utf8=utf8)
    except ValueError:
        kind = "UTF-8" if utf8 else "modified UTF-7"
        raise Refused(f"Mailbox name is no {kind}", b"CANNOT") from None
    return canonical(name.removesuffix(SEPARATOR))


def decoded_name(coded: bytes, *, utf8: bool) -> str:
    """Decode a name or a pattern of names; raise ValueError."""
    return coded.decode() if utf8 else mutf7.decode(coded)


def _is_utf8(octets: bytes) -> bool:
    try:
        octets.decode()
    except UnicodeDecodeError:
        return False
    return True


def _seq_number(text: bytes) -> int:
    if text == b"*":
        return STAR
    number = int(text)
    if number > MAX_NUMBER:
        raise ProtocolViolation("Number over 32 bits")
    return number
