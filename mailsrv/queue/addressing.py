"""From forward-paths of mail that the server writes itself to rows of the queue."""

from collections.abc import Sequence

from twisted.logger import Logger

from mailsrv.accounts.addresses import InvalidAddress
from mailsrv.queue.values import LIST, LOCAL, Recipient
from mailsrv.routing.router import (
    POSTMASTER,
    Destination,
    Local,
    Outside,
    Router,
    Unknown,
)

log = Logger()


class Addressing:
    """Asks the router, as RCPT does."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def recipients(
        self,
        message: str,
        forward_paths: Sequence[str],
        at_utc: float,
        notify: str = "",
        *,
        report: bool = False,
    ) -> tuple[Recipient, ...]:
        """Return the rows of a message. What leads nowhere is logged, and left out.

        A `report` to a sender who has no account (a program of this machine, most
        of the time) is for the postmaster: somebody has to learn of it.

        Raises `PluginFailed`, and what reading the database raises.
        """
        found: dict[tuple[str, str], Recipient] = {}
        for forward_path in forward_paths:
            try:
                destination = await self._router.resolve(forward_path)
            except InvalidAddress:
                destination = None
            if report and isinstance(destination, Unknown):
                postmaster = f"{POSTMASTER}@{domain_of(forward_path)}"
                destination = await self._router.resolve(postmaster)
            ways = _ways(destination)
            if not ways:
                log.warn(
                    "{transaction} is for {forward_path}, which leads nowhere",
                    transaction=message,
                    forward_path=forward_path,
                )
            for name, address in ways:
                found[name, address] = Recipient(
                    message,
                    address,
                    name,
                    at_utc,
                    notify=notify,
                    original=forward_path if forward_path != address else "",
                )
        return tuple(found.values())


def _ways(destination: Destination | None) -> list[tuple[str, str]]:
    """Return destinations, and the forward-paths there."""
    match destination:
        case Outside(address):
            return [(domain_of(address), address)]
        case Local():
            return [
                *((LOCAL, account.name) for account in destination.accounts),
                *((LIST, address) for address in destination.lists),
                *((domain_of(address), address) for address in destination.outside),
            ]
    return []


def domain_of(address: str) -> str:
    """Return the destination of an address elsewhere."""
    return address.rpartition("@")[2].lower()
