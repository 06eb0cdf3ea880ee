"""The Date field (RFC 5322 section 3.3; obsolete forms are read as well)."""

import re
import time
from datetime import date
from typing import NamedTuple

_MONTHS = {
    name: number
    for number, name in enumerate(
        (b"jan feb mar apr may jun jul aug sep oct nov dec").split(), 1
    )
}
_DAY_NAMES = "Mon Tue Wed Thu Fri Sat Sun".split()
_MONTH_NAMES = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_DATE = re.compile(
    rb"(\d{1,2})[\s-]+([A-Za-z]{3})[a-z]*[\s-]+(\d{2,4})"
    rb"(?:\s+(\d{1,2}):(\d{1,2})(?::(\d{1,2}))?\s*([+-]\d{4}|[A-Za-z]{1,3})?)?"
)
# RFC 5322 section 4.3; other names, and single letters, mean no known zone.
_ZONES = {b"EDT": -4, b"EST": -5, b"CDT": -5, b"CST": -6}
_ZONES |= {b"MDT": -6, b"MST": -7, b"PDT": -7, b"PST": -8}

_EPOCH = date(1970, 1, 1).toordinal()
_MAX_DATE = 200  # octets of the field that are looked at


class SentDate(NamedTuple):
    """When a message says it was sent.

    ``day`` is the day in the sender's own zone, counted from 1970-01-01: what
    SEARCH SENTON compares. ``at_utc`` is in seconds from there.
    """

    at_utc: int
    day: int


def sent_date(value: bytes) -> SentDate | None:
    """Read an unfolded Date value; None if there is no date in it."""
    found = _DATE.search(value[:_MAX_DATE])
    if found is None:
        return None
    year = int(found[3])
    if len(found[3]) < 4:  # RFC 5322 section 4.3, obs-year
        year += 2000 if len(found[3]) == 2 and year < 50 else 1900
    if year < 1900:  # RFC 5322 section 3.3
        return None
    try:
        month = _MONTHS[found[2].lower()]
        day = date(year, month, int(found[1])).toordinal() - _EPOCH
    except (KeyError, ValueError):
        return None
    # RFC 5256 section 2.2: an invalid time is midnight, an invalid zone UTC.
    hour, minute, second = (int(found[i] or 0) for i in (4, 5, 6))
    if hour > 23 or minute > 59 or second > 60:
        hour = minute = second = 0
    local = day * 86400 + hour * 3600 + minute * 60 + second
    return SentDate(local - _zone(found[7] or b""), day)


def _zone(zone: bytes) -> int:
    if zone[:1] in (b"+", b"-"):
        hours, minutes = int(zone[1:3]), int(zone[3:])
        if hours > 23 or minutes > 59:
            return 0
        seconds = hours * 3600 + minutes * 60
        return -seconds if zone[:1] == b"-" else seconds
    return _ZONES.get(zone.upper(), 0) * 3600


def date_time(at_utc: float) -> str:
    """Write a time as RFC 5322 section 3.3 does, in the local zone."""
    there = time.localtime(at_utc)
    offset = there.tm_gmtoff // 60
    sign = "-" if offset < 0 else "+"
    hours, minutes = divmod(abs(offset), 60)
    return (
        f"{_DAY_NAMES[there.tm_wday]}, {there.tm_mday} {_MONTH_NAMES[there.tm_mon - 1]}"
        f" {there.tm_year} {there.tm_hour:02}:{there.tm_min:02}:{there.tm_sec:02}"
        f" {sign}{hours:02}{minutes:02}"
    )
