"""The base subject (RFC 5256 section 2.1): what a message and its replies share."""

import re
from typing import NamedTuple

_BLANKS = re.compile(r"[ \t\r\n]++")
_BLOB = r"\[[^\[\]]*+\] *+"
_BLOBS = re.compile(rf"(?:{_BLOB})++")
_REPLY = re.compile(rf"(?:{_BLOB})*+(?:re|fwd?+) *+(?:{_BLOB})?+:", re.IGNORECASE)


class BaseSubject(NamedTuple):
    text: str
    is_reply: bool  # or a forward: a mark of these was taken off


def base_subject(subject: str) -> BaseSubject:
    """Take a decoded subject's prefixes and trailers off, in linear time."""
    text = _BLANKS.sub(" ", subject)
    start, end = 0, len(text)
    is_reply = False
    while True:
        # Step 2 and the blanks of step 3.
        while start < end and text[end - 1] == " ":
            end -= 1
        while start < end and text[start] == " ":
            start += 1
        if text[max(start, end - 5) : end].lower() == "(fwd)":
            end -= 5
            is_reply = True
        elif found := _REPLY.match(text, start, end):
            start = found.end()
            is_reply = True
        elif (after := _after_blobs(text, start, end)) > start:
            start = after
        elif (
            text[start : start + 5].lower() == "[fwd:"
            and text[end - 1] == "]"
            and end - start > 5
        ):
            start, end = start + 5, end - 1
            is_reply = True
        else:
            return BaseSubject(text[start:end], is_reply)


def _after_blobs(text: str, start: int, end: int) -> int:
    """Return where the bracketed words end (step 4): all, but the last if alone."""
    found = _BLOBS.match(text, start, end)
    if found is None:
        return start
    # All at once: one by one the next step would look at each of them again.
    return found.end() if found.end() < end else text.rindex("[", start, end)
