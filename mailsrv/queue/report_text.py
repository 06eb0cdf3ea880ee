"""What a report says to people: what has happened, why, and what to do.

Plain words for whoever wrote the message; the other server's own words follow them.
"""

import textwrap
from dataclasses import dataclass
from enum import StrEnum

from mailsrv.accounts.addresses import shown
from mailsrv.mime.date import date_time
from mailsrv.queue.values import Answer

MAX_TEXT = 1000  # characters of a peer's reply that are shown
_WIDTH = 72


class Kind(StrEnum):
    """What has become of a recipient: the Action field (RFC 3464 section 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    DELIVERED = "delivered"
    RELAYED = "relayed"  # to a server that will not tell us more
    EXPANDED = "expanded"  # an alias, to its members


@dataclass(frozen=True, slots=True)
class Fate:
    """A recipient as the reader of the report may see it."""

    address: str
    answer: Answer | None
    orcpt: str = ""  # RFC 3461 section 4.2
    named: str = ""  # by the sender, if an alias of this name has led to the address
    is_hidden: bool = False  # the address is an alias; where it leads is not told


SUBJECTS = {
    Kind.FAILED: "Not delivered",
    Kind.DELAYED: "Not delivered yet",
    Kind.DELIVERED: "Delivered",
    Kind.RELAYED: "Passed on",
    Kind.EXPANDED: "Passed on",
}
_BEGINNINGS = {
    Kind.FAILED: "Your message has not been delivered to",
    Kind.DELAYED: "Your message has not been delivered yet to",
    Kind.DELIVERED: "Your message has been delivered to",
    Kind.RELAYED: "Your message has been handed over, on its way to",
    Kind.EXPANDED: "Your message has been passed on to all who are behind",
}
_ENDS = {
    Kind.FAILED: "No further attempt will be made. If the message still matters, send"
    " it again once the cause is mended, or tell the person in another way.",
    Kind.DELAYED: "You need not do anything, and need not send it again. Further"
    " attempts are made until {until}. If none succeeds, you will be told.",
    Kind.DELIVERED: "You get this confirmation because it was asked for when the"
    " message was sent. It does not say that anybody has read the message.",
    Kind.RELAYED: "You get this confirmation because it was asked for when the message"
    " was sent. The next server on the way does not confirm deliveries, so there will"
    " be no further confirmation. If it fails later, you should be told.",
    Kind.EXPANDED: "You get this confirmation because it was asked for when the message"
    " was sent. There is none for each person behind the address.",
}

# By subject and detail of the enhanced code (RFC 3463, RFC 7372 and others of its
# registry): why, and what to do. Of an unknown detail its subject's sentence.
_UNKNOWN = (
    "The address does not exist there. Please check its spelling. If it is right, the"
    " person may have another address by now: ask in another way."
)
_NO_DOMAIN = (
    "There is no server that takes mail for this domain. Please check what stands"
    " behind the @."
)
_UNREACHABLE = (
    "The server that takes mail for this address could not be reached, or broke off."
    " Mostly such a fault is on the other side and passes by itself."
)
_REFUSED = (
    "The other server refuses the message by its rules. What it says below may name"
    " the reason; please show it to your administrator, or to the other side's."
)
_UNPROVEN = (
    "The other server does not believe that the message comes from your domain. Please"
    " show this report to your administrator: SPF, DKIM or DMARC need to be looked at."
)
_NOT_SAFE = (
    "The message was to go only over a protected connection, and there was none to the"
    " other server."
)
_REASONS = {
    (1, None): _UNKNOWN,
    (1, 2): _NO_DOMAIN,
    (1, 8): "The other server does not accept you, the sender, as an address. Please"
    " show this report to your administrator.",
    (1, 10): "This domain says that it takes no mail at all. Please check what stands"
    " behind the @.",
    (2, None): "The mailbox does not take the message. Please ask the person in another"
    " way.",
    (2, 1): "The mailbox is closed or no longer used. Please ask the person in another"
    " way for the address to use.",
    (2, 2): "The mailbox is full. The person needs to make room: please tell them in"
    " another way, and send it again later.",
    (2, 3): "The message is too big for this mailbox. Please send large files in"
    " another way, or in smaller parts.",
    (3, None): "The other server cannot take the message.",
    (3, 4): "The message is too big for the other server. Please send large files in"
    " another way, or in smaller parts.",
    (4, None): _UNREACHABLE,
    (4, 6): "The message went round in circles between servers. Please show this report"
    " to your administrator: a forwarding leads back to itself.",
    (4, 7): "The message was on its way for too long.",
    (6, None): "The other server cannot take the message as it is written.",
    (6, 7): "The address or the message has letters that the other server cannot take"
    " (it has no SMTPUTF8). Please ask the person for an address in plain letters.",
    (7, None): _REFUSED,
    (7, 10): _NOT_SAFE,
    (7, 20): _UNPROVEN,
    (7, 21): _UNPROVEN,
    (7, 22): _UNPROVEN,
    (7, 23): _UNPROVEN,
    (7, 25): "The other server does not accept mail from our server's address. Please"
    " show this report to your administrator: its name in the DNS needs to be set.",
    (7, 26): _UNPROVEN,
    (7, 27): "The other server does not accept mail from a domain that takes none"
    " itself. Please show this report to your administrator.",
    (7, 30): _NOT_SAFE,
}
_OVER = "All attempts have failed, and the time for this message is over. "
_ELSE = "The other server does not take the message."
_ELSE_DELAYED = "The other server does not take the message for now."
_LATER = "The other server asks us to try again later. That is often so, and passes."


_BEHIND = (
    "Mail to this address is passed on to another one, whose server does not take the"
    " message. Please ask the person in another way."
)


def reason(kind: Kind, answer: Answer) -> str:
    """Say in plain words why a recipient has no mail yet, and what to do."""
    parts = answer.enhanced_code.split(".")
    otherwise = _ELSE if kind is Kind.FAILED else _ELSE_DELAYED
    if len(parts) != 3 or not all(p.isascii() and p.isdigit() for p in parts):
        return otherwise
    subject, detail = int(parts[1][:3]), int(parts[2][:3])
    if kind is Kind.DELAYED and subject in (0, 1, 6, 7):
        # Greylisting; nothing of it says yet that an address is wrong.
        return _LATER
    found = _REASONS.get((subject, detail)) or _REASONS.get((subject, None))
    is_over = kind is Kind.FAILED and not answer.permanent
    return (_OVER if is_over else "") + (found or otherwise)


def text(
    kind: Kind,
    fates: list[Fate],
    *,
    hostname: str,
    subject: str,
    arrived_at_utc: float,
    ends_at_utc: float,
    queue_id: str,
) -> str:
    """Return the part of a report that people read; lines end with LF."""
    blocks = [f"This is a message from the mail server {hostname}."]
    blocks.append(f"{_BEGINNINGS[kind]}:")
    blocks += [_of_recipient(kind, fate) for fate in fates]
    about = f"Subject:  {subject or '(none)'}\nSent:     {date_time(arrived_at_utc)}"
    blocks.append(f"{about}\nNumber:   {queue_id}")
    blocks.append(wrapped(_ENDS[kind].format(until=date_time(ends_at_utc))))
    return "\n\n".join(blocks) + "\n"


def _of_recipient(kind: Kind, fate: Fate) -> str:
    led = f" (behind {shown(fate.named)})" if fate.named else ""
    lines = [f"  {shown(fate.address)}{led}"]
    answer = fate.answer
    if kind in (Kind.FAILED, Kind.DELAYED) and answer is not None:
        hides = fate.is_hidden and kind is Kind.FAILED
        why = _BEHIND if hides else reason(kind, answer)
        lines.append(wrapped(why, "      "))
        if answer.peer:
            lines.append(wrapped(f"The server {answer.peer} says:", "      "))
        else:
            lines.append("      In detail:")
        lines.append(wrapped(said(answer), "        "))
    return "\n".join(lines)


def said(answer: Answer) -> str:
    """Return an answer on one line, without what could confuse a reader."""
    text = "".join(c if c.isprintable() else " " for c in answer.text[:MAX_TEXT])
    words = f"{answer.code} {answer.enhanced_code} {text}".split()
    return " ".join(words)


def wrapped(text: str, indent: str = "", width: int = _WIDTH) -> str:
    """Return a text in lines; an address is not broken."""
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
