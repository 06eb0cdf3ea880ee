"""``mailsrv verify``: hold the mail on disk against what is known of it."""

import time
from collections.abc import Callable
from typing import TypeVar

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import shown
from mailsrv.accounts.directory import Account
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import opened
from mailsrv.settings import Settings
from mailsrv.store.index import Connections, IndexUnavailable
from mailsrv.store.values import LockHeld
from mailsrv.store.verify import Verifier

T = TypeVar("T")

PATIENCE_S = 150.0  # a lock whose holder died on another host is free after 120 s


@click.command("verify")
@click.argument("addresses", metavar="[ACCOUNT]...", nargs=-1)
@click.option("--mend", is_flag=True, help="Mend what can be mended.")
@config_option
def verify(settings: Settings, addresses: tuple[str, ...], mend: bool) -> None:
    """Check files, UIDs and index of each ACCOUNT, or of all, against one another.

    The server may run meanwhile. Without --mend nothing is changed. The exit code
    is 1 if something is wrong and was not mended.
    """
    connections = Connections()
    left = 0
    with opened(settings) as database:
        directory = database.snapshot()
        accounts = [edits.existing_account(directory, name) for name in addresses]
        for account in accounts or list(directory.accounts()):
            left += _verify(settings, connections, account, mend)
    connections.close()
    if left:
        raise SystemExit(1)
    click.echo("All is well.")


def _verify(
    settings: Settings, connections: Connections, account: Account, mend: bool
) -> int:
    """Print what is wrong with an account; return how much of it is left."""
    root = settings.data / "mail" / account.folder
    verifier = Verifier(root, connections=connections, now=time.time)
    findings = patiently(verifier.check)
    for finding in findings:
        click.echo(f"{shown(account.name)}: {finding}")
    if not findings or not mend:
        return len(findings)
    patiently(verifier.mend)
    left = patiently(verifier.check)
    click.echo(f"{shown(account.name)}: mended, {len(left)} left")
    for finding in left:
        click.echo(f"{shown(account.name)}: left: {finding}")
    return len(left)


def patiently(call: Callable[[], T]) -> T:
    """Try again while another process works on the mailbox."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except LockHeld as held:
            if time.monotonic() > until:
                raise click.ClickException("a mailbox stays locked") from held
            time.sleep(held.retry_s)
        except IndexUnavailable as error:
            raise click.ClickException(f"cannot use the index: {error}") from error
