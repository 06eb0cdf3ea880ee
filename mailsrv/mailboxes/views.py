"""The open mailboxes of one account, and when to look at their folders again.

A folder is looked at soon after another program changed it. What the watcher sees
of our own work is not told apart by name: the look is put off by a second, and then
finds the times of the folders as the store remembers them, which costs no scan.

A view outlives its last session by a minute, since many clients make session after
session (webmail one for each click): to bring a view of 10,000 messages up to date
takes a thirtieth of what it takes to read it.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from mailsrv.mailboxes.view import MailboxView, SilentStore
from mailsrv.mailboxes.watch import Watch, Watcher
from mailsrv.store.names import directory
from mailsrv.store.values import Changes, MailboxState

_EVENT_DELAY_S = 0.02  # other programs' changes come in flocks
KEEP_S = 60.0  # a view without sessions; it takes 20 octets for each message
SETTLE_S = 1.1  # a folder's mtime tells all only after a second (STORE.md)


class Views:
    """One view for each mailbox that a session has selected."""

    def __init__(
        self,
        maildir: Path,
        watcher: Watcher,
        reactor: IReactorTime,
        *,
        busy: Callable[[], bool],
        look: Callable[[MailboxView], None],
        reread: Callable[[MailboxView], None],
    ) -> None:
        """`busy`: whether what is seen may be our own work; `look` is to sync the
        folder, `reread` to open it anew and call `adopt`.
        """
        self._maildir = maildir
        self._watcher = watcher
        self._reactor = reactor
        self._busy = busy
        self._look = look
        self._reread = reread
        self._views: dict[str, MailboxView] = {}
        self._watches: dict[MailboxView, Watch] = {}
        self._looks: dict[MailboxView, IDelayedCall] = {}
        self._parked: dict[MailboxView, IDelayedCall] = {}  # have no sessions

    def __iter__(self) -> Iterator[MailboxView]:
        return iter(list(self._views.values()))

    def watched(self, name: str) -> bool:
        """Return whether a session has the mailbox selected."""
        view = self._views.get(name)
        return view is not None and bool(view.sessions)

    def get(self, name: str) -> MailboxView | None:
        """Return the view of a mailbox, if there is one; it may be parked."""
        return self._views.get(name)

    def adopt(self, state: MailboxState) -> MailboxView:
        """Take in a mailbox that was read as a whole, and return its view."""
        view = self._views.get(state.name)
        if view is not None:
            view.stale = False
            self._apply(view, view.difference(state))
            return view
        view = self._views[state.name] = MailboxView.of(state)
        self._watch(view)
        return view

    def _watch(self, view: MailboxView) -> None:
        self._watches[view] = self._watcher.watch(
            directory(self._maildir, view.name), partial(self._changed, view)
        )

    def park(self, view: MailboxView) -> None:
        """The last session has left: keep the view for a while, not watched."""
        worthless = view.gone or view.stale or self._views.get(view.name) is not view
        self._forget(view)
        if worthless:
            self.drop(view)
        else:
            self._parked[view] = self._reactor.callLater(KEEP_S, self.drop, view)

    def resume(self, view: MailboxView) -> None:
        """A session comes, for which the view was brought up to date just now."""
        if end := self._parked.pop(view, None):
            end.cancel()
            self._watch(view)
            self.look_in(view, SETTLE_S)  # what has come between

    def apply(self, changes: Changes, silent: SilentStore | None) -> None:
        """Give committed changes to the view of their mailbox, if one is open."""
        view = self._views.get(changes.mailbox)
        if view is None or view.stale:
            return
        same = changes.uid_validity == view.uid_validity
        if changes.rebuilt and same:  # what happened before is not in them
            if view.sessions:
                self.reread(view)
            else:
                self.drop(view)
        else:
            self._apply(view, changes, silent)

    def reread(self, view: MailboxView) -> None:
        """Let changes pass until the mailbox was read anew."""
        view.stale = True
        self._reread(view)

    def rename(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Follow mailboxes to their new names."""
        for source, target in pairs:
            if view := self._views.pop(source, None):
                view.name = target
                self._views[target] = view

    def end(self, view: MailboxView) -> None:
        """Tell the sessions that the mailbox is gone."""
        view.end()
        self.drop(view)

    def drop(self, view: MailboxView) -> None:
        """Forget a view; the next SELECT makes another."""
        if self._views.get(view.name) is view:
            del self._views[view.name]
        self._forget(view)

    def _forget(self, view: MailboxView) -> None:
        """End what would come back to the view."""
        if (end := self._parked.pop(view, None)) and end.active():
            end.cancel()
        if watch := self._watches.pop(view, None):
            watch.stop()
        if look := self._looks.pop(view, None):
            look.cancel()

    def look_in(self, view: MailboxView, delay_s: float) -> None:
        """Look at the folder after a while; one look that is due is enough."""
        if view not in self._looks and self._views.get(view.name) is view:
            self._looks[view] = self._reactor.callLater(delay_s, self._due, view)

    def _apply(
        self, view: MailboxView, changes: Changes, silent: SilentStore | None = None
    ) -> None:
        view.apply(changes, silent)
        if view.gone:
            self.drop(view)

    def _changed(self, view: MailboxView) -> None:
        self.look_in(view, SETTLE_S if self._busy() else _EVENT_DELAY_S)

    def _due(self, view: MailboxView) -> None:
        del self._looks[view]
        self._look(view)
