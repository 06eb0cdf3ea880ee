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
from mailsrv.routing.router import Local, resolve
from mailsrv.threads import Pool

_NOT_YOU = Reject("Only those who may post to this list can write to it", 550, "5.7.1")
_LOG_IN = Reject(
    "Log in to write to this list in the name of this domain", 550, "5.7.1"
)
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
            if self._is_forged(directory, recipient):
                return _LOG_IN
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

    def _is_forged(self, directory: Directory, recipient: Recipient) -> bool:
        """Whether another server sends to a list, maybe by an alias, in our name.

        Raises `InvalidAddress`.
        """
        sender = recipient.sender
        domain = sender.reverse_path.rpartition("@")[2].lower()
        # Over LMTP comes what the server before this one has asked for its log-in.
        if sender.service != "mx" or domain not in directory.domains:
            return False
        found = resolve(directory, recipient.forward_path)
        return isinstance(found, Local) and any(
            _asks_who_posts(directory, address) for address in found.lists
        )


def _asks_who_posts(directory: Directory, address: str) -> bool:
    to = list_addresses.find(directory, parse(address))
    if to is None or to.command is not Command.POST:
        return False
    mailing = directory.entries.get(to.name)
    return isinstance(mailing, MailingList) and mailing.posting != "anyone"
