"""All that the index keeps of a message, made in one pass over its octets."""

from dataclasses import dataclass

from mailsrv.mime.bodystructure import body_and_bodystructure
from mailsrv.mime.date import SentDate, sent_date
from mailsrv.mime.message_id import thread_root
from mailsrv.mime.nstring import string
from mailsrv.mime.preview import preview
from mailsrv.mime.served import Content, LineCounter
from mailsrv.mime.sort_keys import SortKeys, sort_keys
from mailsrv.mime.structure import dump, parse


@dataclass(frozen=True, slots=True)
class Summary:
    """Ready wire bytes and numbers of one message."""

    file_octets: int
    size_octets: int  # RFC822.SIZE: as served, with CRLF
    envelope: bytes
    repeats: bool  # see `envelope.repeats`
    body: bytes
    bodystructure: bytes
    structure: bytes  # for `structure.load`: finds sections without the file
    checkpoints: bytes  # for `served.seek`; empty up to 64 KiB
    sent: SentDate | None
    preview: bytes
    thread_root: bytes | None  # message id, without brackets
    sort_keys: SortKeys


def summary(content: Content) -> Summary:
    """Compute the summary. Never raises for any content; linear time."""
    counter = LineCounter(content)
    root = parse(content, counter)
    body, bodystructure = body_and_bodystructure(root)
    return Summary(
        file_octets=len(content),
        size_octets=root.served_end,
        envelope=root.envelope,
        repeats=root.repeats,
        body=body,
        bodystructure=bodystructure,
        structure=dump(root),
        checkpoints=counter.checkpoints(),
        sent=sent_date(root.fields.get(b"date", b"")),
        preview=string(preview(root, content).encode("utf-8", "replace")),
        thread_root=thread_root(root.fields),
        sort_keys=sort_keys(root.fields),
    )
