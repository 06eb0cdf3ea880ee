"""A newsletter: one message, with fields that are filled in for each recipient. Pure.

``{{name}}`` in the subject or a text stands for the column ``name`` of the recipients'
file; in HTML what is filled in is text, never markup.
"""

import hashlib
import html
import quopri
import re
from collections.abc import Callable, Mapping
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from typing import cast

from mailsrv.lists import post
from mailsrv.lists.post import Post, field_lines
from mailsrv.mime import encoded_words
from mailsrv.mime.date import date_time

MAX_OCTETS = 1024 * 1024
LINK = "unsubscribe"  # the field with the way to get no more
_FIELD = re.compile(
    r"\{\{\s{0,9}([A-Za-z_](?:[A-Za-z0-9_ -]{0,60}[A-Za-z0-9_-])?)\s{0,9}\}\}"
)
_SET_HERE = (  # what each copy has of its own, and what would tell of others
    *("From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "Sender"),
    *("Return-Path", "Received", "DKIM-Signature", "Precedence", "List-Id"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "MIME-Version"),
)
_POLICY = SMTP.clone(refold_source="none")

Values = Mapping[str, str]


class NewsletterRefused(Exception):
    """It cannot be sent; the text says why."""


class Newsletter:
    """A message and where its fields are."""

    def __init__(self, octets: bytes, sender: str, name: str = "") -> None:
        """`sender`: canonical, the address in From; `name`: instead of the message's.

        Raises NewsletterRefused.
        """
        if len(octets) > MAX_OCTETS:
            raise NewsletterRefused(
                f"is longer than {MAX_OCTETS // 1024} KiB: put pictures on the web"
            )
        self.key = hashlib.sha256(f"{sender}\n".encode() + octets).hexdigest()
        self.sender = sender
        message = message_from_bytes(octets, policy=_POLICY)
        # By our own reader: the email package loses what is not ASCII there.
        header = post.read(octets.partition(b"\n\n")[0].partition(b"\n\r\n")[0])
        self.subject = " ".join(post.subject(header).split())
        self._from = _author(header, sender, name)
        if not self.subject:
            raise NewsletterRefused(
                "has no Subject: is it a whole message with its header?"
            )
        for name in _SET_HERE:
            del message[name]
        self._message = message
        self._texts = [
            (part, text)
            for part in message.walk()
            if (text := _text(part)) is not None and _FIELD.search(text)
        ]
        for part, _ in self._texts:
            _make_utf8(part)
        texts = [self.subject, *(text for _, text in self._texts)]
        self.fields = {m[1].lower() for text in texts for m in _FIELD.finditer(text)}

    def check(self, columns: frozenset[str]) -> None:
        """Raise NewsletterRefused for fields that are no columns."""
        if unknown := sorted(self.fields - columns - {LINK}):
            raise NewsletterRefused(
                f"needs {', '.join(unknown)}, and the list has no column for it;"
                f" there are {', '.join(sorted(columns))}"
            )

    def copy(
        self, address: str, values: Values, own: bytes, message_id: str, now_utc: float
    ) -> bytes:
        """Return one recipient's message, with CRLF; `own`: more header fields."""
        for part, text in self._texts:
            is_html = part.get_content_subtype() == "html"
            filled = _filled(text, values, html.escape if is_html else str)
            part.set_payload(quopri.encodestring(filled.encode()).decode("ascii"))
        subject = " ".join(_filled(self.subject, values, str).split())
        header = field_lines(
            [
                ("Date", date_time(now_utc)),
                ("From", self._from),
                ("To", f"<{address}>"),
                ("Subject", encoded_words.text(subject)),
                ("Message-ID", f"<{message_id}>"),
                ("Precedence", "bulk"),
                ("List-Id", f"<{self.sender.replace('@', '.')}>"),
                ("MIME-Version", "1.0"),
            ]
        )
        return header + own + self._message.as_bytes()


def _filled(text: str, values: Values, escape: Callable[[str], str]) -> str:
    return _FIELD.sub(lambda found: escape(values[found[1].lower()]), text)


def _author(header: Post, sender: str, name: str) -> str:
    """Return From, with the name that the message has for the sender, if any."""
    if not name:
        found, address = header.author
        name = found if address == sender else ""
    return f"{encoded_words.phrase(' '.join(name.split()))} <{sender}>".strip()


def _make_utf8(part: EmailMessage) -> None:
    """Have the header say how `copy` writes the text."""
    del part["Content-Transfer-Encoding"]
    part["Content-Transfer-Encoding"] = "quoted-printable"
    if "Content-Type" in part:
        part.set_param("charset", "utf-8", replace=True)
    else:
        part["Content-Type"] = 'text/plain; charset="utf-8"'


def _text(part: EmailMessage) -> str | None:
    """Return the text of a part that people read."""
    if part.get_content_maintype() != "text" or part.is_attachment():
        return None
    octets = cast(bytes, part.get_payload(decode=True))
    charset = part.get_content_charset("utf-8")
    try:
        return octets.decode("utf-8" if charset == "us-ascii" else charset)
    except (LookupError, UnicodeDecodeError) as error:
        raise NewsletterRefused(f"has a text that is not {charset}") from error
