"""Times for people: "2 h", "14:05", "Mon 14:05"."""

import time

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ago(at_utc: float, now_utc: float) -> str:
    """Return how long ago, or until, a time is, in its largest unit."""
    seconds = abs(now_utc - at_utc)
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def at(at_utc: float, now_utc: float) -> str:
    """Return a time in the local zone, with its day if that is not today."""
    there, today = time.localtime(at_utc), time.localtime(now_utc)
    if there[:3] == today[:3]:
        return time.strftime("%H:%M:%S", there)
    return time.strftime("%Y-%m-%d %H:%M", there)
