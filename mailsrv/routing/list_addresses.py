"""The addresses of a mailing list: LIST@, LIST-subscribe@, LIST-bounces+TOKEN@, ...

RFC 2142 section 7 names LIST-request. Bounces and unsubscriptions with a token also
reach other entries, since newsletters are sent in the name of accounts too. Pure;
whether a token is good is for `mailsrv.lists` to say.
"""

from dataclasses import dataclass
from enum import StrEnum

from mailsrv.accounts.addresses import Address
from mailsrv.accounts.directory import Directory, MailingList


class Command(StrEnum):
    """What a message to the address does; the word stands in the address."""

    POST = ""
    OWNER = "owner"
    REQUEST = "request"  # read by people: the same as owner
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    CONFIRM = "confirm"
    BOUNCES = "bounces"
    APPROVE = "approve"
    REJECT = "reject"


TO_PEOPLE = (Command.OWNER, Command.REQUEST)
_NEED_TOKEN = (Command.CONFIRM, Command.BOUNCES, Command.APPROVE, Command.REJECT)
_OF_ALL_ENTRIES = (Command.BOUNCES, Command.UNSUBSCRIBE)


@dataclass(frozen=True, slots=True)
class ListAddress:
    """What an address asks of which list."""

    name: str  # of the list, or of another entry for bounces and unsubscriptions
    command: Command
    token: str = ""


def find(directory: Directory, address: Address) -> ListAddress | None:
    """Return what an address means to a list; None: it is none of a list.

    An entry that was made under the whole name comes first.
    """
    name = address.canonical
    if isinstance(directory.entries.get(name), MailingList):
        return ListAddress(name, Command.POST)
    if name in directory.entries:
        return None
    local, _, token = address.local.lower().partition("+")
    base, _, word = local.rpartition("-")
    if not base or not word or word not in Command.__members__.values():
        return None
    owner = Address(base, address.domain).canonical
    entry = directory.entries.get(owner)
    command = Command(word)
    if entry is None or (command in _NEED_TOKEN and not token):
        return None
    if not isinstance(entry, MailingList) and not (
        token and command in _OF_ALL_ENTRIES
    ):
        return None
    return ListAddress(owner, command, token)


def write(name: str, command: Command, token: str = "") -> str:
    """Return the address of a list's command."""
    local, _, domain = name.rpartition("@")
    return f"{local}-{command}{'+' * bool(token)}{token}@{domain}"
