"""``mailsrv dkim``: the keys that sign outgoing mail, and their DNS records."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import canonical_domain
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import json_option, opened, print_details, print_table
from mailsrv.settings import Settings
from mailsrv.trust.dkim_keys import KEYS_FOLDER, Key, KeyFolder, KeysRefused, State

_USES = {
    State.NEXT: "publish it now; it signs after mailsrv dkim rotate --switch",
    State.ACTIVE: "signs outgoing mail",
    State.RETIRED: "signs no more; may go a week after the switch",
}


@click.group("dkim")
def dkim_group() -> None:
    """Keys that sign outgoing mail (DKIM), and what to put into the DNS."""


@dkim_group.command("make")
@click.argument("domain")
@config_option
@json_option
def make(settings: Settings, domain: str, as_json: bool) -> None:
    """Make the keys of a domain; mail from it is signed from now on.

    Put the records that are printed into the domain's DNS at once.
    """
    with _keys(settings, domain, ours=True) as (folder, name):
        made = folder.make(name, State.ACTIVE, time.time())
        _print(folder, name, made, as_json)


@dkim_group.command("show")
@click.argument("domain", required=False)
@config_option
@json_option
def show(settings: Settings, domain: str | None, as_json: bool) -> None:
    """Print a domain's DNS records; without DOMAIN, which keys there are."""
    if domain is not None:
        with _keys(settings, domain) as (folder, name):
            _print(folder, name, folder.keys(name), as_json)
        return
    with _folder(settings) as folder:
        rows = [
            {
                "domain": name,
                "selector": key.selector,
                "algorithm": str(key.algorithm),
                "state": str(key.state),
                "made": _date(key),
            }
            for name in folder.domains()
            for key in folder.keys(name)
        ]
        print_table(rows, as_json, "no keys yet: mailsrv dkim make DOMAIN")


@dkim_group.command("rotate")
@click.argument("domain")
@click.option("--switch", is_flag=True, help="Sign with the next keys from now on.")
@config_option
@json_option
def rotate(settings: Settings, domain: str, switch: bool, as_json: bool) -> None:
    """Make the next keys of a domain, or switch to them.

    First without --switch: put the new records into the DNS and wait until they are
    seen everywhere, a day perhaps. Then with it.
    """
    with _keys(settings, domain) as (folder, name):
        if switch:
            keys = folder.switch(name)
        else:
            keys = folder.make(name, State.NEXT, time.time())
        _print(folder, name, keys, as_json)


@dkim_group.command("remove")
@click.argument("domain")
@click.argument("selector", required=False)
@click.option("--all", "remove_all", is_flag=True, help="All keys: sign no more.")
@config_option
@json_option
def remove(
    settings: Settings,
    domain: str,
    selector: str | None,
    remove_all: bool,
    as_json: bool,
) -> None:
    """Delete a key that signs no more, or all keys of a domain."""
    if (selector is None) is not remove_all:
        raise click.UsageError("name a SELECTOR, or say --all")
    with _keys(settings, domain) as (folder, name):
        gone = folder.remove(name, selector)
    names = [f"{key.selector}._domainkey.{name}" for key in gone]
    if as_json:
        print_details({"domain": name, "removed": names}, as_json)
        return
    for record in names:
        click.echo(f"deleted; its record may be taken out of the DNS: {record}")


@contextmanager
def _folder(settings: Settings) -> Iterator[KeyFolder]:
    """The keys, as the user who owns the mail; errors in plain words."""
    with opened(settings):
        try:
            yield KeyFolder(settings.data / KEYS_FOLDER)
        except KeysRefused as error:
            raise click.ClickException(str(error)) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            folder = settings.data / KEYS_FOLDER
            raise click.ClickException(f"cannot use {folder}: {error}") from error


@contextmanager
def _keys(
    settings: Settings, domain: str, *, ours: bool = False
) -> Iterator[tuple[KeyFolder, str]]:
    """The keys, and the domain's canonical name; `ours`: mail is received for it."""
    with opened(settings) as database:
        name = canonical_domain(domain)
        if name.startswith("["):
            raise click.ClickException(f"{domain} is no domain name")
        if ours:
            edits.existing_domain(database.snapshot(), name)
    with _folder(settings) as folder:
        yield folder, name


def _print(folder: KeyFolder, domain: str, keys: Sequence[Key], as_json: bool) -> None:
    """Print keys with their records: for zone files, or for programs."""
    if not keys:
        raise KeysRefused(f"{domain} has no keys: mailsrv dkim make {domain}")
    rows = []
    for key in keys:
        record = folder.record(domain, key)
        if not as_json:
            click.echo(f"; {key.algorithm}, {key.state}: {_USES[key.state]}")
            click.echo(record.zone_line)
        fields = {
            "domain": domain,
            "selector": key.selector,
            "algorithm": str(key.algorithm),
            "state": str(key.state),
            "made": _date(key),
            "name": record.name,
            "type": "TXT",
            "value": record.value,
            "zone": record.zone_line,
        }
        rows.append(fields)
    if as_json:
        print_table(rows, as_json, "")


def _date(key: Key) -> str:
    return datetime.fromtimestamp(key.made_at_utc, UTC).date().isoformat()
