"""All commands by name, from their families' modules."""

from typing import Any

from mailsrv.imap.commands import (
    fetch,
    mailboxes,
    messages,
    search,
    select,
    session,
    sort,
)
from mailsrv.imap.commands.rule import Rule

# Any: each rule has arguments of its own type.
RULES: dict[bytes, Rule[Any]] = {
    **session.RULES,
    **select.RULES,
    **mailboxes.RULES,
    **messages.RULES,
    **fetch.RULES,
    **search.RULES,
    **sort.RULES,
}
