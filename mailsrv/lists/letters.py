"""What a list writes to people itself: questions, answers and notices. Pure."""

from dataclasses import dataclass

from mailsrv.accounts.addresses import shown
from mailsrv.accounts.directory import MailingList
from mailsrv.lists.post import field_lines, shown_title
from mailsrv.mime import encoded_words
from mailsrv.mime.date import date_time
from mailsrv.routing.list_addresses import Command, write

MAX_SUBJECT = 200  # characters that an owner is shown
_QUESTION = """\
Somebody, probably you, wants this address to be on the mailing list
{title} <{name}>.

To confirm, answer this message, without changing anything{link}.

If it was not you, do nothing: you will not hear of it again.
"""
_WELCOME = """\
You are on the mailing list {title} <{name}> now.

To leave it, write to {leave}
"""
_LEAVE = """\
Somebody, probably you, wants this address to be taken off the mailing list
{title} <{name}>.

To confirm, answer this message, without changing anything{link}.

If it was not you, do nothing.
"""
_GOODBYE = """\
You are no longer on the mailing list {title} <{name}>.
"""
_HELD = """\
A message to the list {title} <{name}> waits for you:

  From:    {author}
  Subject: {subject}

To have it sent to the members, write to
{approve}
To throw it away, write to
{reject}
An empty message is enough. Without an answer it is thrown away in {days} days.
"""
_SUSPENDED = """\
Mail of the list {title} <{name}> to {member} has failed for good on several
days, so the address gets no more of it. When it works again:

  mailsrv list subscribe {name} {member}
"""


@dataclass(frozen=True, slots=True)
class Letter:
    """A message of a list's own."""

    octets: bytes  # whole, with LF
    forward_path: str


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes in the name of a list."""

    mailing: MailingList
    hostname: str
    now_utc: float

    def question(self, address: str, token: str, link: str | None) -> Letter:
        """Ask whether an address wants to be on the list."""
        confirm = write(self.mailing.name, Command.CONFIRM, token)
        also = f", or open\n{link}" if link else ""
        text = self._text(_QUESTION, link=also)
        return self._letter(address, "Please confirm", text, confirm, token)

    def welcome(self, address: str, token: str) -> Letter:
        leave = write(self.mailing.name, Command.UNSUBSCRIBE, token)
        text = self._text(_WELCOME, leave=leave)
        return self._letter(address, "Welcome", text, leave, f"welcome.{token}")

    def leave(self, address: str, token: str, link: str | None) -> Letter:
        """Ask whether an address wants to be off the list."""
        leave = write(self.mailing.name, Command.UNSUBSCRIBE, token)
        also = f", or open\n{link}" if link else ""
        text = self._text(_LEAVE, link=also)
        return self._letter(address, "Please confirm", text, leave, f"leave.{token}")

    def goodbye(self, address: str, key: str) -> Letter:
        owner = write(self.mailing.name, Command.OWNER)
        text = self._text(_GOODBYE)
        return self._letter(address, "You have left the list", text, owner, key)

    def held(
        self, author: str, subject: str, token: str, days: int, number: int
    ) -> Letter:
        """Tell the owners of a post that waits."""
        text = self._text(
            _HELD,
            author=shown(author) if author else "(not plain)",
            # On one line: what comes encoded may have line ends.
            subject=" ".join(subject.split())[:MAX_SUBJECT],
            approve=write(self.mailing.name, Command.APPROVE, token),
            reject=write(self.mailing.name, Command.REJECT, token),
            days=str(days),
        )
        owner = write(self.mailing.name, Command.OWNER)
        return self._letter(owner, "A message waits", text, owner, f"held.{number}")

    def suspended(self, member: str, row: int) -> Letter:
        """Tell the owners of a member whose address is dead."""
        text = self._text(_SUSPENDED, member=shown(member))
        owner = write(self.mailing.name, Command.OWNER)
        return self._letter(
            owner, "An address does not work", text, owner, f"suspended.{row}"
        )

    def _text(self, template: str, **values: str) -> str:
        mailing = self.mailing
        return template.format(
            title=shown_title(mailing), name=shown(mailing.name), **values
        )

    def _letter(
        self, address: str, subject: str, text: str, reply_to: str, key: str
    ) -> Letter:
        title = shown_title(self.mailing)
        owner = write(self.mailing.name, Command.OWNER)
        header = field_lines(
            [
                ("Date", date_time(self.now_utc)),
                ("From", f"{encoded_words.phrase(title)} <{owner}>"),
                ("To", f"<{address}>"),
                ("Reply-To", f"<{reply_to}>"),
                ("Subject", encoded_words.text(f"[{title}] {subject}")),
                ("Message-ID", f"<{key}.{int(self.now_utc)}@{self.hostname}>"),
                ("Auto-Submitted", "auto-replied"),  # RFC 3834 section 3.1.7
                ("MIME-Version", "1.0"),
                ("Content-Type", "text/plain; charset=utf-8"),
                ("Content-Transfer-Encoding", "8bit"),
            ]
        )
        return Letter(header.replace(b"\r\n", b"\n") + b"\n" + text.encode(), address)
