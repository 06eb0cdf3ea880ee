"""Taking our own deliveries into the index, without a scan.

One lock, one append to the uidlist and one commit for all that wait; the ready
bytes follow in a transaction that is not synced.
"""

import os
from collections.abc import Sequence

from mailsrv.store import maildir
from mailsrv.store.content import Unfilled, fill
from mailsrv.store.index import Box, save_box, transaction
from mailsrv.store.maildir import Entry
from mailsrv.store.sync import (
    Arrival,
    Folder,
    adopt,
    append,
    insert,
    is_known,
    uidlist_in_step,
)
from mailsrv.store.values import Delivered

MAX_SUMMARISED_OCTETS = 1024 * 1024  # larger mail is filled when it is asked for


def ingest(folder: Folder, delivered: Sequence[Delivered]) -> None:
    """Give UIDs to what was delivered, durably.

    What a sync took in already, or another program moved or removed, is passed
    over. Raises LockHeld, and then has changed nothing.
    """
    uidlist = folder.uidlist(None)
    with uidlist.lock:
        box = folder.box()
        if box is None or not uidlist_in_step(folder, box):
            adopt(folder, uidlist, (), with_cur=True)
            return
        uidlist.mark = box.mark
        arrivals = [a for d in delivered if (a := _arrival(folder, box, d))]
        if not arrivals:
            return
        append(folder, uidlist, arrivals, box.uid_next)
        with transaction(folder.connection):
            box = folder.known_box()
            insert(folder, box, arrivals)
            box.mark = uidlist.mark
            save_box(folder.connection, box)
    fill(
        folder.connection,
        folder.directory,
        [
            Unfilled(a.entry, a.content)
            for a in arrivals
            if a.size_octets <= MAX_SUMMARISED_OCTETS
        ],
    )


def _arrival(folder: Folder, box: Box, delivered: Delivered) -> Arrival | None:
    entry = Entry(delivered.name, delivered.in_new)
    if not os.path.lexists(maildir.path_of(folder.directory, entry)):
        return None  # moved or removed: sync will tell
    if is_known(folder.connection, box, delivered.base):
        return None
    return Arrival(
        entry,
        delivered.base,
        delivered.flags,
        delivered.size_octets,
        True,
        delivered.internal_date,
    )
