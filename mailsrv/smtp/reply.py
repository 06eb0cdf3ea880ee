"""Replies (RFC 5321 section 4.2) with enhanced status codes (RFC 3463).

Texts are for people and are written here or by the one who decides: never put a
peer's octets, a path or an exception's text into one.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply; the lines of `text` are divided by LF.

    The enhanced code is empty for the greeting, EHLO and 3yz replies, which have
    none (RFC 2034 section 4).
    """

    code: int
    enhanced_code: str
    text: str
    wire: bytes = field(init=False, repr=False, compare=False)
    positive: bool = field(init=False, repr=False, compare=False)  # done, or go on

    def __post_init__(self) -> None:
        before = f"{self.code}-"
        status = f"{self.enhanced_code} " if self.enhanced_code else ""
        lines = [before + status + line for line in self.text.split("\n")]
        lines[-1] = f"{self.code} {lines[-1][4:]}"
        wire = "".join(f"{line}\r\n" for line in lines).encode("ascii", "replace")
        object.__setattr__(self, "wire", wire)  # frozen, so the long way
        object.__setattr__(self, "positive", self.code < 400)


@dataclass(frozen=True, slots=True)
class Replies:
    """LMTP's answer to a message: a reply for each recipient (RFC 2033 section 4.2)."""

    each: tuple[Reply, ...]

    @property
    def wire(self) -> bytes:
        return b"".join(reply.wire for reply in self.each)


class Refused(Exception):
    """A command that is not done, with the reply that says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.code, reply.enhanced_code, reply.text)
        self.reply = reply


OK = Reply(250, "2.0.0", "Ok")
LOCAL_ERROR = Reply(451, "4.3.0", "Local error, please try again later")
