"""A newsletter's message for one recipient: a template with his fields filled in. Pure.

``{{name}}`` stands for the column ``name`` of the recipients' table, in the subject and
other header fields and in texts; in HTML what is filled in is escaped.
"""

import copy
import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.errors import MessageError
from email.message import EmailMessage

_FIELD = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_ -]{0,60})\s*\}\}")
# These are set for each copy.
_OWN = (
    *("From", "To", "Cc", "Bcc", "Date", "Message-ID", "Sender", "Return-Path"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "Precedence", "DKIM-Signature"),
)


class BadTemplate(Exception):
    """The template cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class Template:
    """A message whose fields are not filled in yet."""

    message: EmailMessage
    fields: frozenset[str]  # columns that it needs, lower case

    def missing(self, columns: Iterable[str]) -> list[str]:
        """Return the fields that no column has."""
        return sorted(self.fields - {column.lower() for column in columns})

    @property
    def subject(self) -> str:
        return str(self.message["Subject"] or "")

    def filled(
        self, values: Mapping[str, str], header: Iterable[tuple[str, str]]
    ) -> bytes:
        """Return the message with `values` by lower-case column, CRLF line ends.

        `header`: fields of this copy alone. Raises `BadTemplate`.
        """
        message = copy.deepcopy(self.message)
        try:
            for name, value in message.items():
                if _FIELD.search(str(value)):
                    filled = " ".join(_fill(str(value), values).split())
                    message.replace_header(name, filled)
            for part in message.walk():
                _fill_part(part, values)
            for name, value in header:
                message[name] = value
            return message.as_bytes(policy=policy.SMTP)
        except (MessageError, ValueError, LookupError) as error:
            raise BadTemplate(f"cannot be filled in: {error}") from error


def read(octets: bytes) -> Template:
    """Read a template, a whole message. Raises `BadTemplate`."""
    message = message_from_bytes(octets, policy=policy.default)
    if not isinstance(message, EmailMessage) or not message["Subject"]:
        raise BadTemplate("has no Subject: is it a whole message with its header?")
    found = {name for value in message.values() for name in _names(str(value))}
    try:
        for part in message.walk():
            if part.get_content_maintype() == "text":
                found |= set(_names(part.get_content()))
    except (LookupError, ValueError) as error:
        raise BadTemplate(f"has a text that cannot be read: {error}") from error
    for name in _OWN:
        del message[name]
    return Template(message, frozenset(found))


def _names(text: str) -> list[str]:
    return [name.strip().lower() for name in _FIELD.findall(text)]


def _fill(text: str, values: Mapping[str, str], *, escape: bool = False) -> str:
    def value(found: re.Match[str]) -> str:
        filled = values.get(found[1].strip().lower(), "")
        return html.escape(filled) if escape else filled

    return _FIELD.sub(value, text)


def _fill_part(part: EmailMessage, values: Mapping[str, str]) -> None:
    if part.get_content_maintype() != "text":
        return
    text = part.get_content()
    if not _FIELD.search(text):
        return
    subtype = part.get_content_subtype()
    disposition = part.get("Content-Disposition")
    filled = _fill(text, values, escape=subtype == "html")
    part.set_content(filled, subtype=subtype, cte="quoted-printable")
    if disposition is not None and "Content-Disposition" not in part:
        part["Content-Disposition"] = str(disposition)
