"""What somebody who tries log-in names is shown, and the log of them.

Pure. An unknown name looks and costs like that of some account, and always like that
of the same one: who asks again, or after a restart, learns nothing.
"""

import hashlib
import hmac

from mailsrv.accounts.addresses import InvalidAddress, fold, parse
from mailsrv.accounts.directory import Account, Directory


def stand_in(directory: Directory, login: str) -> Account | None:
    """The account whose hash an unknown name costs; None if there are no accounts.

    Accounts may have hashes of different schemes and costs: so unknown names take as
    long as known ones do, whatever the mixture is.
    """
    accounts = tuple(directory.accounts())
    if not accounts:
        return None
    name = full_name(directory, login)
    return accounts[_drawn(directory, f"stand-in {name}") % len(accounts)]


def full_name(directory: Directory, login: str) -> str:
    """What an unknown log-in name would be as the name of an account.

    An account is the same with and without its domain, so unknown names are too.
    """
    if "@" in login:
        try:
            return parse(login).canonical
        except InvalidAddress:
            return login
    local = fold(login)
    domains = tuple(directory.domains) or ("",)
    return f"{local}@{domains[_drawn(directory, local) % len(domains)]}"


def loggable(directory: Directory, login: str) -> str:
    """What the log shows of a refused log-in name: people type passwords there."""
    account = directory.login(login)
    if account is not None:
        return account.name
    try:
        address = parse(login)
    except InvalidAddress:
        return "?"
    # Passwords may hold an @, too.
    is_full = "." in address.domain or address.domain in directory.domains
    return address.canonical if is_full else "?"


def _drawn(directory: Directory, name: str) -> int:
    octets = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(hmac.digest(directory.probe_key, octets, hashlib.sha256))
