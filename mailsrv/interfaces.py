"""Every interface that a plugin may provide or use, with its contract."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from zope.interface import Interface

if TYPE_CHECKING:  # the values that are passed; their modules import this one
    from mailsrv.accounts.directory import Directory


class IAccountDatabase(Interface):
    """Keeps the directory of domains, accounts, aliases and groups.

    Methods block and may be called from any thread.
    """

    def snapshot() -> Directory:
        """Read the whole directory, as of one moment."""

    def version() -> object:
        """Return a value that differs after every change, by whomever; cheap."""

    def edit(change: Callable[[Directory], Directory]) -> Directory:
        """Replace the directory by what `change` makes of it and return that.

        One durable transaction: no other edit comes between, and when `change`
        raises nothing has happened. See `mailsrv.accounts.edits`.
        """
