"""What is left to do for an alias of several members: to tell the sender.

The members have rows of their own, without SUCCESS (RFC 3461 section 5.2.7.3): who
asked for it hears once that the message went on to them.
"""

from collections.abc import Callable

from mailsrv.queue.carrying import Outcome, Parcel
from mailsrv.queue.values import ALIAS, Answer


class AliasCarrier:
    """The carrier of `ALIAS`; a forward-path is the address that the sender named."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now

    def route(self, reverse_path: str, destination: str) -> str:
        return ALIAS

    async def carry(self, parcel: Parcel) -> Outcome:
        answer = Answer(250, "2.0.0", "Passed on to all members", self._now())
        return Outcome((answer,) * len(parcel.recipients))
