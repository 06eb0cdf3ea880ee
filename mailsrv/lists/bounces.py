"""Reads reports on deliveries: did a member's copy fail for good (RFC 3464)?

Two fields of each recipient count, Action and Status. What is no report has no
answer here. Linear in the size of the message. Pure.
"""

import re
from enum import Enum

from mailsrv.mime.header import fields, unfold
from mailsrv.mime.structure import Part, parse
from mailsrv.mime.transfer import decoded

MAX_REPORT_OCTETS = 64 * 1024  # of the part that programs read

_BLANK_LINE = re.compile(rb"\r?\n[ \t]*+\r?\n")
_STATUS = re.compile(rb"\s*+([245])\.(\d{1,3})\.(\d{1,3})")


class Bounce(Enum):
    """What a report says of the copy of one member."""

    HARD = "failed for good"
    SOFT = "delayed, or failed for reasons that pass"
    NONE = "no failure"


# RFC 3463: of the failures for good these are not the address's fault, but that of
# the moment or the message: a full mailbox, a size, a loop, an end of the retries.
_PASSING = {(2, 2), (2, 3), (3, 4), (4, 6), (4, 7)}
_POLICY = 7  # section 3.8: refused for what it is, or whom it came from


def read(content: bytes) -> Bounce | None:
    """Return the worst that a message reports; None: it is no report."""
    report = _report(parse(content))
    if report is None:
        return None
    body = content[report.body : report.end][:MAX_REPORT_OCTETS]
    worst = Bounce.NONE
    # RFC 3464 section 2.1: fields of the message, then a group for each recipient.
    for group in _BLANK_LINE.split(decoded(body, report.encoding)):
        found = _of_recipient(group)
        if found is Bounce.HARD:
            return found
        if found is Bounce.SOFT:
            worst = found
    return worst


def _report(root: Part) -> Part | None:
    if root.type != b"multipart" or root.subtype != b"report":
        return None
    for part in root.parts:
        if part.type == b"message" and part.subtype in (
            b"delivery-status",
            b"global-delivery-status",  # RFC 6533
        ):
            return part
    return None


def _of_recipient(group: bytes) -> Bounce:
    values = {name.lower(): unfold(raw) for name, raw in fields(group.lstrip(b"\r\n"))}
    action = values.get(b"action", b"").strip().lower()
    if action == b"delayed":
        return Bounce.SOFT
    if action != b"failed":
        return Bounce.NONE
    status = _STATUS.match(values.get(b"status", b""))
    if status is None:
        return Bounce.SOFT
    detail = int(status[2]), int(status[3])
    passes = status[1] != b"5" or detail in _PASSING or detail[0] == _POLICY
    return Bounce.SOFT if passes else Bounce.HARD
