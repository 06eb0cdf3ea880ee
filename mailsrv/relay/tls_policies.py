"""The domains of ``[[relay.tls_policy]]``, as the queue names them.

One that is written in another way would never be found, and its mail would go without
what the admin wants.
"""

from collections.abc import Iterator, Sequence

import attrs

from mailsrv.accounts.addresses import InvalidAddress, canonical_domain
from mailsrv.relay.routes import Wrong
from mailsrv.settings import RelayTlsPolicy

_BELOW = "*."


def canonical(settings: Sequence[RelayTlsPolicy]) -> list[RelayTlsPolicy]:
    """Return settings, which `problems` has looked at, with A-labels in lower case."""
    return [
        attrs.evolve(one, domains=[_canonical(domain) for domain in one.domains])
        for one in settings
    ]


def _canonical(domain: str) -> str:
    """Return one domain's form. Raises `InvalidAddress`."""
    below = _BELOW * domain.startswith(_BELOW)
    found = canonical_domain(domain.removeprefix(_BELOW))
    if found.startswith("["):
        raise InvalidAddress(f"{domain!r} is an address")
    return below + found


def problems(settings: Sequence[RelayTlsPolicy]) -> Iterator[Wrong]:
    """What keeps the domains from being found, by ``[[relay.tls_policy]]`` number."""
    numbers: dict[str, int] = {}
    for number, policy in enumerate(settings, 1):
        key = f"relay.tls_policy[{number}].domains"
        if not policy.domains:
            yield key, "is empty", 'domains, such as "example.net"'
        for domain in policy.domains:
            try:
                found = _canonical(domain)
            except InvalidAddress as error:
                allowed = '"example.net", or "*.example.net" for all below it'
                yield key, str(error), allowed
                continue
            if numbers.setdefault(found, number) != number:
                wrong = f'"{domain}" stands in table {numbers[found]} as well'
                yield key, wrong, "each domain in one table"
