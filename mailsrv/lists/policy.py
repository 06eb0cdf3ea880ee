"""Refuses in SMTP who may not post, so that nobody has to be answered later."""

from collections.abc import Callable

from zope.interface import implementer

from mailsrv.accounts.addresses import InvalidAddress, parse
from mailsrv.accounts.directory import Directory, MailingList
from mailsrv.doors.values import ACCEPT, Decision, Recipient, Reject
from mailsrv.interfaces import IRecipientPolicy
from mailsrv.lists.members import Members, State
from mailsrv.lists.posting import may_post
from mailsrv.routing import list_addresses
from mailsrv.routing.list_addresses import Command
from mailsrv.threads import Pool

_NOT_YOU = Reject("Only those who may post to this list can write to it", 550, "5.7.1")
_NO_REPORTS = Reject("Reports are not for this list", 550, "5.7.1")


@implementer(IRecipientPolicy)
class ListPosting:
    """Looks at the reverse-path; From is looked at when the post is passed on."""

    def __init__(
        self, members: Members, directory: Callable[[], Directory], reading: Pool
    ) -> None:
        self._members = members
        self._directory = directory
        self._reading = reading

    async def recipient(self, recipient: Recipient) -> Decision:
        directory = self._directory()
        try:
            to = list_addresses.find(directory, parse(recipient.forward_path))
        except InvalidAddress:
            return ACCEPT
        if to is None or to.command is not Command.POST:
            return ACCEPT
        mailing = directory.entries.get(to.name)
        if not isinstance(mailing, MailingList) or mailing.posting == "moderated":
            return ACCEPT
        try:
            author = parse(recipient.sender.reverse_path).canonical
        except InvalidAddress:
            return _NO_REPORTS
        member = await self._reading.run(lambda: self._members.find(to.name, author))
        is_member = member is not None and member.state is State.SUBSCRIBED
        return ACCEPT if may_post(mailing, author, is_member=is_member) else _NOT_YOU
