"""A change listener that writes the log of what became of messages."""

from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import Change
from mailsrv.imap.format import uid_set
from mailsrv.interfaces import IChangeListener, IPluginServices


@implementer(IChangeListener)
class Audit:
    """Logs which messages came into a mailbox, got other flags and went, by UID."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        # Any: values of TOML.
        if options:
            raise ValueError(f"{', '.join(options)}: there are no options")
        self._log = services.log

    def changed(self, change: Change) -> None:
        if change.rebuilt:
            self._log.info(
                "{mailbox} is indexed anew", mailbox=change.mailbox, user=change.account
            )
        for what, uids in (
            ("added", change.added),
            ("flagged", change.flagged),
            ("expunged", change.expunged),
        ):
            if uids:
                self._log.info(
                    "{what} {count} in {mailbox}",
                    what=what,
                    count=len(uids),
                    mailbox=change.mailbox,
                    user=change.account,
                    uids=uid_set(uids).decode(),
                )


audit = Plugin("audit", Audit)
