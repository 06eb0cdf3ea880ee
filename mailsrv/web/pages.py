"""What the pages say: links of lists and newsletters. Pure.

Opening a link changes nothing, since programs open links as well (RFC 8058 section 1);
the button, or a mail program's one click (section 3.1), does.
"""

import hashlib
from base64 import b64encode
from collections.abc import Awaitable
from dataclasses import dataclass, field
from html import escape
from typing import Protocol

from mailsrv.accounts.addresses import shown
from mailsrv.lists.members import Member
from mailsrv.lists.tokens import Purpose

MAX_TOKEN = 64

_STYLE = (
    "body{font:1.1em/1.5 sans-serif;max-width:32em;margin:4em auto;padding:0 1em}"
    "button{font:inherit;padding:.5em 1.5em}"
)
_STYLE_HASH = b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
# The address of a page is as good as a password: it goes nowhere else.
HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}';"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Robots-Tag": "noindex",
}


class Lists(Protocol):
    """What the pages do; see `lists.carrier.ListCarrier`."""

    def named_by(self, purpose: Purpose, token: str) -> Awaitable[Member | None]: ...

    def unsubscribe(self, token: str) -> Awaitable[Member | None]: ...

    def confirm(self, token: str) -> Awaitable[bool]: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a page."""

    status: int
    title: str
    body: str  # HTML
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def octets(self) -> bytes:
        return (
            '<!DOCTYPE html><html lang="en"><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width">'
            f"<title>{self.title}</title><style>{_STYLE}</style>"
            f"<h1>{self.title}</h1>{self.body}</html>\n"
        ).encode()


NOT_FOUND = Answer(404, "Nothing here", "<p>The link is not complete.</p>")
FAILED = Answer(500, "That did not work", "<p>Please try again later.</p>")
_METHODS = ("GET", "HEAD", "POST")
_BAD_METHOD = Answer(405, "Not allowed", "", {"Allow": ", ".join(_METHODS)})
_BAD_TOKEN = Answer(
    404, "The link does not work", "<p>It is not complete, or its time is over.</p>"
)


def place(path: bytes) -> str:
    """Return what a path may be called in the log: without its token."""
    word = path.split(b"/")[1:2]
    return word[0].decode() if word and word[0] in (b"unsubscribe", b"confirm") else ""


async def answer(lists: Lists, method: str, path: bytes) -> Answer:
    """Do what a request asks."""
    which = place(path)
    token = path.removeprefix(f"/{which}/".encode())
    if not which or not token.isascii() or len(token) > MAX_TOKEN:
        return NOT_FOUND
    if method not in _METHODS:
        return _BAD_METHOD
    purpose = Purpose(which)
    member = await lists.named_by(purpose, token.decode())
    if member is None:
        return _BAD_TOKEN
    if method != "POST":
        return _question(purpose, member)
    return await _do(lists, purpose, token.decode(), member)


async def _do(lists: Lists, purpose: Purpose, token: str, member: Member) -> Answer:
    if purpose is Purpose.CONFIRM:
        if not await lists.confirm(token):
            return _BAD_TOKEN
        return Answer(
            200, "Welcome", _said("{address} gets mail of {list} now.", member)
        )
    if await lists.unsubscribe(token) is None:
        return _BAD_TOKEN
    return Answer(200, "Done", _said("{address} gets no more mail of {list}.", member))


def _question(purpose: Purpose, member: Member) -> Answer:
    if purpose is Purpose.CONFIRM:
        title, text, button = "Subscribe?", "{address} would get mail of {list}.", "Yes"
        value = ""
    else:
        title, button = "Unsubscribe?", "Unsubscribe"
        text = "{address} would get no more mail of {list}."
        value = '<input type="hidden" name="List-Unsubscribe" value="One-Click">'
    form = f'<form method="post">{value}<button>{button}</button></form>'
    return Answer(200, title, _said(text, member) + form)


def _said(text: str, member: Member) -> str:
    address, name = escape(shown(member.address)), escape(shown(member.list))
    return f"<p>{text.format(address=f'<b>{address}</b>', list=f'<b>{name}</b>')}</p>"
