"""Reports on deliveries (RFC 3464): which are called for, and what they say. Pure.

Who asked for what: RFC 3461. With addresses or headers of more than ASCII: RFC 6533.
What comes from peers and clients is never trusted to be well formed, nor short.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mailsrv.mime import encoded_words
from mailsrv.mime.date import date_time
from mailsrv.queue import report_parts, report_text
from mailsrv.queue.report_parts import MAX_WHOLE_OCTETS, Original
from mailsrv.queue.report_text import SUBJECTS, Fate, Kind
from mailsrv.queue.values import (
    ALIAS,
    LIST,
    LOCAL,
    Answer,
    Message,
    Recipient,
    Result,
    State,
)

_UNSAFE = re.compile("[^A-Za-z0-9.]+")
DEFAULT_NOTIFY = "FAILURE,DELAY"  # RFC 3461 section 4.1 leaves DELAY to us
_ASKED_BY = {Kind.FAILED: "FAILURE", Kind.DELAYED: "DELAY"}  # others: SUCCESS


def called_for(message: Message, result: Result) -> Kind | None:
    """Say what the sender is to be told of a result; None: nothing."""
    recipient = result.recipient
    if not _reverse_path(message, recipient):
        return None  # RFC 3461 section 6: never a report on a report
    kind = _kind(result)
    if kind is None:
        return None
    asked = (recipient.notify or DEFAULT_NOTIFY).upper().split(",")
    return kind if _ASKED_BY.get(kind, "SUCCESS") in asked else None


def grouped(
    message: Message, results: Sequence[Result]
) -> list[tuple[Kind, list[Result]]]:
    """Put together what one report each can tell: of one kind, to one reverse-path."""
    groups: dict[tuple[Kind, str], list[Result]] = {}
    for result in results:
        if (kind := called_for(message, result)) is not None:
            told = _reverse_path(message, result.recipient)
            groups.setdefault((kind, told), []).append(result)
    return [(kind, group) for (kind, _), group in groups.items()]


def returns_whole(message: Message, kind: Kind) -> bool:
    """Whether the whole message goes back, not its header alone.

    RFC 3461 section 4.3: if the sender asked for it, and only with a failure. RFC 8689
    section 5: never of a message with REQUIRETLS.
    """
    is_asked = message.ret.upper() == "FULL" and kind is Kind.FAILED
    is_asked = is_asked and not message.require_tls
    return is_asked and message.size_octets <= MAX_WHOLE_OCTETS


def _kind(result: Result) -> Kind | None:
    if result.state is State.FAILED:
        return Kind.FAILED
    if result.state is State.WAITING and result.warned:
        return Kind.DELAYED
    if result.state is not State.DELIVERED:
        return None
    if result.recipient.destination == ALIAS:
        return Kind.EXPANDED  # RFC 3461 section 5.2.7.3
    if result.answer is not None and result.answer.relayed:
        return Kind.RELAYED
    # RFC 3461 section 5.2.7.1: to a list is delivered. A peer that knows DSN reports
    # the rest of the way itself.
    is_here = result.recipient.destination in (LOCAL, LIST)
    return Kind.DELIVERED if is_here else None


def _reverse_path(message: Message, recipient: Recipient) -> str:
    own = recipient.reverse_path
    return message.reverse_path if own is None else own


@dataclass(frozen=True, slots=True)
class Report:
    """A message for the queue; its own reverse-path is empty."""

    octets: bytes  # whole, with CRLF
    forward_path: str
    message_id: str


@dataclass(frozen=True, slots=True)
class Reporter:
    """Writes reports in the name of this server."""

    hostname: str
    is_own: Callable[[str], bool]  # whether a domain is one of ours

    def report(
        self,
        message: Message,
        results: Sequence[Result],
        kind: Kind,
        original: bytes,
        *,
        now_utc: float,
        ends_at_utc: float,
    ) -> Report:
        """Write one report on results of one kind and reverse-path (see `grouped`).

        `original` is the message's header block as it was sent, or all of the message
        where `returns_whole` says so; LF or CRLF. At `ends_at_utc` the queue gives up.
        """
        found = report_parts.read_original(original)
        # Who wrote from elsewhere to an alias here is not told where it leads, nor to
        # how many.
        every = [_fate(result, hides=message.account is None) for result in results]
        fates = [*{fate.address: fate for fate in every}.values()]
        told = _reverse_path(message, results[0].recipient)
        is_utf8 = message.smtputf8 or not (
            (told + message.reverse_path).isascii()
            and all(fate.address.isascii() for fate in fates)
        )
        parts = (
            self._for_people(message, kind, fates, found, ends_at_utc),
            self._for_programs(message, kind, fates, ends_at_utc, is_utf8=is_utf8),
            _returned(message, kind, found, is_utf8=is_utf8),
        )
        recipient = results[0].recipient
        # An id may hold a list's address.
        name = _UNSAFE.sub("-", f"{message.id}.{recipient.id}.{int(now_utc)}.{kind}")
        id = f"<{name}@{self.hostname}>"
        fields = self._fields(message, kind, recipient, found, now_utc, id)
        return Report(report_parts.multipart(fields, parts), told, id)

    def _for_people(
        self,
        message: Message,
        kind: Kind,
        fates: list[Fate],
        original: Original,
        ends_at_utc: float,
    ) -> bytes:
        text = report_text.text(
            kind,
            fates,
            hostname=self.hostname,
            subject=original.subject,
            arrived_at_utc=message.arrived_at_utc,
            ends_at_utc=ends_at_utc,
            queue_id=message.id,
        )
        content = text.encode("utf-8", "replace")
        return report_parts.part("text/plain; charset=utf-8", content, "Report")

    def _for_programs(
        self,
        message: Message,
        kind: Kind,
        fates: list[Fate],
        ends_at_utc: float,
        *,
        is_utf8: bool,
    ) -> bytes:
        until = ends_at_utc if kind is Kind.DELAYED else None
        groups = [report_parts.of_message(message, self.hostname)]
        groups += [
            report_parts.of_recipient(kind, fate, until, is_utf8=is_utf8)
            for fate in fates
        ]
        name = f"message/{'global-' if is_utf8 else ''}delivery-status"
        content = "\n".join(groups).encode("utf-8", "replace")
        return report_parts.part(name, content, "Delivery status")

    def _fields(
        self,
        message: Message,
        kind: Kind,
        recipient: Recipient,
        original: Original,
        now_utc: float,
        message_id: str,
    ) -> list[str]:
        told = _reverse_path(message, recipient)
        # In a domain of ours, so that the report is signed and can be answered.
        near = (told, recipient.original, recipient.forward_path)
        domains = [address.rpartition("@")[2] for address in near]
        domain = next(filter(self.is_own, domains), self.hostname)
        subject = f"{SUBJECTS[kind]}: {original.subject}".rstrip(": ")
        fields = [
            f"Date: {date_time(now_utc)}",
            f"From: Mail Delivery System <postmaster@{domain}>",
            # The sender, where the reverse-path is an address of ours for them.
            f"To: <{message.reverse_path or told}>",
            f"Subject: {encoded_words.text(subject)}",
            f"Message-ID: {message_id}",
            "Auto-Submitted: auto-replied",  # RFC 3834 section 5
        ]
        if original.message_id:
            fields.append(f"In-Reply-To: {original.message_id}")
            references = "\n ".join((*original.references, original.message_id))
            fields.append(f"References: {references}")
        return fields


def _fate(result: Result, *, hides: bool) -> Fate:
    """Return what the sender may know.

    RFC 3461 section 5.2.7.4: an address that an alias leads to may be confidential, and
    what the other server says would name it.
    """
    recipient = result.recipient
    answer = result.answer or recipient.answer
    if not (recipient.original and hides):
        named = recipient.original
        return Fate(recipient.forward_path, answer, recipient.orcpt, named)
    if answer is not None:
        answer = Answer(answer.code, answer.enhanced_code, "", answer.at_utc)
    return Fate(recipient.original, answer, recipient.orcpt, is_hidden=True)


def _returned(
    message: Message, kind: Kind, original: Original, *, is_utf8: bool
) -> bytes:
    """Write the part that gives the message back, or its header."""
    if returns_whole(message, kind):
        name = f"message/{'global' if is_utf8 else 'rfc822'}"
        whole = original.header + b"\n\n" + original.body
        return report_parts.part(name, whole, "Your message")
    name = "message/global-headers" if is_utf8 else "text/rfc822-headers"
    shown = report_parts.header_shown(original.header)
    return report_parts.part(name, shown, "Header of your message")
