"""A post as it comes, and the header with which it goes to the members.

The body stays as it is, and so do all fields that came, but for what the list sets
itself: a member's signature stays good if the list has no subject tag. Pure; lines
end with CRLF here.
"""

import re
from dataclasses import dataclass

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.directory import MailingList
from mailsrv.mime import encoded_words
from mailsrv.mime.address import addresses
from mailsrv.mime.header import decode, unfold
from mailsrv.routing.list_addresses import Command, write

_FIELD = re.compile(rb"([!-9;-~]++)[ \t]*+:((?:[^\n]*+\n)(?:[ \t][^\n]*+\n)*+)")
_SIGNED_BY = re.compile(rb"(?:^|;)\s*+d\s*+=\s*+([^\s;]++)")
_LIST_ID = re.compile(rb"<([^<>\s]++)>\s*+$")
# RFC 2369 and RFC 2919: a message has each once, from the list that sends it last.
_SET_BY_LIST = frozenset(
    b"list-id list-help list-subscribe list-unsubscribe list-unsubscribe-post"
    b" list-post list-owner list-archive precedence return-path x-loop".split()
)


@dataclass(frozen=True, slots=True)
class Post:
    """The fields of a message that a list goes by."""

    fields: tuple[tuple[bytes, bytes], ...]  # lower-case name, the whole field

    def all(self, name: bytes) -> list[bytes]:
        """The unfolded values of the fields so named."""
        return [
            unfold(raw.partition(b":")[2])
            for found, raw in self.fields
            if found == name
        ]

    def first(self, name: bytes) -> bytes:
        """The value of the first field so named, or nothing."""
        return next(iter(self.all(name)), b"")

    @property
    def author(self) -> tuple[str, str]:
        """Name and canonical address of the one author; empty if it is not plain."""
        values = self.all(b"from")
        found = [a for v in values for a in addresses(v) if a.host is not None]
        if len(found) != 1:
            return "", ""
        name, _, local, host = found[0]
        text = (local or b"") + b"@" + (host or b"")
        try:
            address = parse(text.decode("utf-8", "replace")).canonical
        except InvalidAddress:
            return "", ""
        return decode(name or b""), address

    @property
    def is_automatic(self) -> bool:
        """Whether a program sent it: a list neither passes it on nor answers.

        RFC 3834 section 2, and what was usual before it.
        """
        auto = self.first(b"auto-submitted").lower().partition(b";")[0].strip()
        if auto not in (b"", b"no"):
            return True
        precedence = self.first(b"precedence").lower()
        if precedence in (b"bulk", b"junk", b"auto_reply"):
            return True
        named = {name for name, _ in self.fields}
        if named & {b"x-autoreply", b"x-autorespond", b"x-autoresponse"}:
            return True
        kind = self.first(b"content-type").lower()
        return kind.startswith((b"multipart/report", b"message/delivery-status"))

    @property
    def is_answer(self) -> bool:
        """Whether it is one of a program to another message.

        What a program writes by itself (RFC 3834 section 5: auto-generated) is a post
        like others.
        """
        auto = self.first(b"auto-submitted").lower().partition(b";")[0].strip()
        return self.is_automatic and auto != b"auto-generated"

    def has_passed(self, name: str) -> bool:
        """Whether the list has seen it before (RFC 2919 section 6)."""
        mine = list_id(name).encode()
        found = [_LIST_ID.search(value) for value in self.all(b"list-id")]
        if any(match and match[1].lower() == mine for match in found):
            return True
        address = name.encode()
        return any(v.strip().lower() == address for v in self.all(b"x-loop"))

    def is_signed_by(self, domain: str) -> bool:
        """Whether a signature claims the author's domain, or one above it.

        RFC 7489 section 3.1.1, relaxed; whether it is good is not looked at.
        """
        for value in self.all(b"dkim-signature"):
            found = _SIGNED_BY.search(value)
            signer = found[1].decode("ascii", "replace").lower() if found else ""
            if signer and f".{domain}".endswith(f".{signer}"):
                return True
        return False


def read(header: bytes) -> Post:
    """Read a header block. What is no field is dropped."""
    block = header if header.endswith(b"\n") else header + b"\r\n"
    return Post(tuple((m[1].lower(), m[0]) for m in _FIELD.finditer(block)))


def list_id(name: str) -> str:
    """Return the identifier of a list (RFC 2919 section 3)."""
    return name.replace("@", ".")


def tagged(subject: str, tag: str) -> str | None:
    """Return a subject with the tag put before it; None: it is there."""
    if not tag or tag.lower() in subject.lower():
        return None
    return f"{tag} {subject}".rstrip()


def subject(post: Post) -> str:
    """Return the subject as text."""
    return decode(post.first(b"subject"))


def changes_signed(post: Post, mailing: MailingList) -> bool:
    """Whether what the list changes is what signatures cover."""
    return tagged(subject(post), mailing.subject_tag) is not None or (
        mailing.reply_to == "list"
    )


def distributed(post: Post, mailing: MailingList, *, rewrite_from: bool) -> bytes:
    """Return the header fields for the members, without those of each one's own.

    With `rewrite_from` the list is the author and replies go to the true one.
    """
    away = set(_SET_BY_LIST)
    added = _list_fields(mailing)
    if (text := tagged(subject(post), mailing.subject_tag)) is not None:
        away.add(b"subject")
        added.append(("Subject", encoded_words.text(text)))
    author_name, author = post.author
    reply_to: str | None = None
    if mailing.reply_to == "list":
        reply_to = mailing.name
    elif rewrite_from and not post.all(b"reply-to"):
        reply_to = f"{encoded_words.phrase(author_name)} <{author}>".strip()
    if reply_to is not None:
        away.add(b"reply-to")
        added.append(("Reply-To", reply_to))
    if rewrite_from:
        away |= {b"from", b"sender"}
        via = f"{author_name or author.partition('@')[0]} via {shown_title(mailing)}"
        added.append(("From", f"{encoded_words.phrase(via)}\r\n <{mailing.name}>"))
        added.append(("X-Original-From", f"<{author}>"))
    kept = b"".join(raw for name, raw in post.fields if name not in away)
    return field_lines(added) + kept


def shown_title(mailing: MailingList) -> str:
    """What people call the list."""
    return mailing.title or mailing.name.partition("@")[0]


def _list_fields(mailing: MailingList) -> list[tuple[str, str]]:
    name = mailing.name
    title = encoded_words.phrase(mailing.title)
    added = [
        ("List-Id", f"{title} <{list_id(name)}>".strip()),
        ("List-Help", f"<mailto:{write(name, Command.REQUEST)}>"),
        ("List-Owner", f"<mailto:{write(name, Command.OWNER)}>"),
        ("Precedence", "list"),
        ("X-Loop", name),
    ]
    # RFC 2369 section 3.4: NO where nobody may post.
    post = "NO" if mailing.posting == "announce" else f"<mailto:{name}>"
    added.append(("List-Post", post))
    if mailing.joining == "open":
        subscribe = write(name, Command.SUBSCRIBE)
        added.append(("List-Subscribe", f"<mailto:{subscribe}>"))
    return added


def unsubscribe_fields(name: str, token: str, base_url: str | None) -> bytes:
    """Return one member's List-Unsubscribe, with one click (RFC 8058) if on the web."""
    mail = f"<mailto:{write(name, Command.UNSUBSCRIBE, token)}>"
    if base_url is None:
        return field_lines([("List-Unsubscribe", mail)])
    link = f"<{unsubscribe_link(base_url, token)}>"
    # A client takes the first that it can: the link needs no mail program.
    return field_lines(
        [
            ("List-Unsubscribe", f"{link},\r\n {mail}"),
            ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"),
        ]
    )


def unsubscribe_link(base_url: str, token: str) -> str:
    """Return the address of the page that takes a member off."""
    return f"{base_url.rstrip('/')}/unsubscribe/{token}"


def confirm_link(base_url: str, token: str) -> str:
    """Return the address of the page that confirms a subscription."""
    return f"{base_url.rstrip('/')}/confirm/{token}"


def field_lines(added: list[tuple[str, str]]) -> bytes:
    """Return header fields as octets."""
    return "".join(f"{name}: {value}\r\n" for name, value in added).encode()
