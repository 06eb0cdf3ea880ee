"""Whether a domain wants mail in its name to be refused that a list has changed.

RFC 7489 section 6.3: the policy stands in TXT of ``_dmarc.DOMAIN``, or of a domain
above it. Without a list of public suffixes all domains above are asked.
"""

from collections.abc import Iterable

from dns.rdtypes.ANY.TXT import TXT

from mailsrv.dns.resolver import DnsUnavailable, IResolver, NoSuchName

MAX_LABELS = 5  # of the domains that are asked
_STRICT = ("quarantine", "reject")


async def is_strict(resolver: IResolver, domain: str) -> bool:
    """Return whether the policy is quarantine or reject; True if nobody can say."""
    labels = domain.split(".")[-MAX_LABELS:]
    for first in range(len(labels) - 1):
        own = first == 0
        name = ".".join(labels[first:])
        try:
            found = await resolver.query(f"_dmarc.{name}", "TXT")
        except NoSuchName:
            continue
        except DnsUnavailable:
            return True
        texts = [b"".join(r.strings) for r in found.records if isinstance(r, TXT)]
        policy = _policy(texts, of_subdomain=not own)
        if policy is not None:
            return policy in _STRICT
    return False


def _policy(texts: Iterable[bytes], *, of_subdomain: bool) -> str | None:
    """Return the policy of a record; None: there is none."""
    for text in texts:
        tags: dict[str, str] = {}
        for part in text.decode("ascii", "replace").split(";"):
            name, equals, value = part.partition("=")
            if equals:
                tags.setdefault(name.strip().lower(), value.strip().lower())
        if tags.get("v") == "dmarc1":
            policy = tags.get("p", "none")
            return tags.get("sp", policy) if of_subdomain else policy
    return None
