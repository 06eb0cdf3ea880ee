"""Writes what a server says (RFC 3501 sections 7 and 9)."""

import math
import time
from collections.abc import Iterable, Sequence
from functools import lru_cache

from mailsrv.imap import grammar
from mailsrv.store import mutf7

MAX_QUOTED = 1024  # octets; longer strings go out as literals
MAX_SPANS = 500  # in one VANISHED: a line of up to 10 KB

_TWO_DIGITS = [b"%02d" % number for number in range(60)]
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def literal(data: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(data), data)


def string(data: bytes) -> bytes:
    """Return `data` as a quoted string, as a literal where it cannot be one."""
    if len(data) > MAX_QUOTED or not data.isascii() or _unquotable(data):
        return literal(data)
    return _quoted(data)


def _quoted(data: bytes) -> bytes:
    return b'"%b"' % data.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


def _unquotable(data: bytes) -> bool:
    return b"\r" in data or b"\n" in data or b"\0" in data


def astring(data: bytes) -> bytes:
    """Return `data` bare if it can be an atom and is not NIL."""
    if grammar.ATOM.fullmatch(data) and data.upper() != b"NIL":
        return data
    return string(data)


def mailbox(name: str, *, utf8: bool = False) -> bytes:
    """Return a mailbox name in modified UTF-7, or in UTF-8 (RFC 9755 section 3)."""
    if not utf8:
        return astring(mutf7.encode(name))
    if name.isascii():
        return astring(name.encode("ascii"))
    return _quoted(name.encode())  # names hold no control characters


def text(words: str) -> bytes:
    """Return human text as it may stand in a response: one line of ASCII."""
    printable = (c if " " <= c <= "~" else "?" for c in words)
    return "".join(printable).encode("ascii")


def parenthesised(members: Iterable[bytes]) -> bytes:
    return b"(%b)" % b" ".join(members)


def date_time(utc_s: float) -> bytes:
    """Return a date-time, in UTC."""
    day, second = divmod(math.floor(utc_s), 86400)
    hour, minute, second = second // 3600, second // 60 % 60, second % 60
    return b'"%b %b:%b:%b +0000"' % (
        _date(day),
        _TWO_DIGITS[hour],
        _TWO_DIGITS[minute],
        _TWO_DIGITS[second],
    )


@lru_cache(1024)  # a mailbox has many messages of a day
def _date(day: int) -> bytes:
    t = time.gmtime(day * 86400)
    return b"%2d-%b-%04d" % (t.tm_mday, _MONTHS[t.tm_mon - 1], t.tm_year)


def uid_set(uids: Iterable[int]) -> bytes:
    """Return ascending or other UIDs as a set that keeps their order (RFC 4315)."""
    return sequence_set(spans(uids))


def spans(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Return `numbers` in their order, those that follow one another as a range."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1] = found[-1][0], number
        else:
            found.append((number, number))
    return found


def sequence_set(ranges: Iterable[tuple[int, int]]) -> bytes:
    return b",".join(b"%d" % a if a == b else b"%d:%d" % (a, b) for a, b in ranges)


def vanished(uids: Sequence[tuple[int, int]], *, earlier: bool = False) -> bytes:
    """Return VANISHED responses, of bounded length (RFC 7162 section 3.2.10)."""
    word = b"VANISHED (EARLIER)" if earlier else b"VANISHED"
    return b"".join(
        b"* %b %b\r\n" % (word, sequence_set(uids[at : at + MAX_SPANS]))
        for at in range(0, len(uids), MAX_SPANS)
    )
