"""``mailsrv domain``, ``alias`` and ``group``: addresses that are no accounts."""

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import shown
from mailsrv.accounts.directory import Alias, Directory, Domain, Group
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import (
    Fields,
    edit,
    json_option,
    names,
    opened,
    print_details,
    print_one,
    print_table,
    snapshot,
)
from mailsrv.settings import Settings


@click.group("domain")
def domain_group() -> None:
    """Domains: whose mail is received here."""


@domain_group.command("add")
@click.argument("name")
@click.option(
    "--separators",
    default="+",
    show_default=True,
    help="Characters that begin a subaddress, as in anna+shop; empty: none do.",
)
@config_option
@json_option
def add_domain(settings: Settings, name: str, separators: str, as_json: bool) -> None:
    """Receive mail for a domain."""
    after = edit(settings, lambda d: edits.add_domain(d, name, separators))
    domain = edits.existing_domain(after, name)
    print_one(_domain(domain), as_json, f"{shown(domain.name)} is a domain of ours")


@domain_group.command("set")
@click.argument("name")
@click.option("--separators", help="Characters that begin a subaddress; empty: none.")
@click.option(
    "--catch-all", help='Address for mail to unknown names; "none": refuse it.'
)
@config_option
@json_option
def set_domain(
    settings: Settings,
    name: str,
    separators: str | None,
    catch_all: str | None,
    as_json: bool,
) -> None:
    """Change subaddresses or the catch-all address of a domain."""

    def change(directory: Directory) -> Directory:
        if separators is not None:
            directory = edits.set_separators(directory, name, separators)
        if catch_all is not None:
            target = None if catch_all.lower() == "none" else catch_all
            directory = edits.set_catch_all(directory, name, target)
        return directory

    domain = edits.existing_domain(edit(settings, change), name)
    print_one(_domain(domain), as_json, f"{shown(domain.name)} is changed")


@domain_group.command("list")
@config_option
@json_option
def list_domains(settings: Settings, as_json: bool) -> None:
    """Print all domains."""
    rows = [_domain(domain) for domain in snapshot(settings).domains.values()]
    print_table(rows, as_json, "no domains yet: mailsrv domain add NAME")


@domain_group.command("show")
@click.argument("name")
@config_option
@json_option
def show_domain(settings: Settings, name: str, as_json: bool) -> None:
    """Print a domain and its addresses."""
    with opened(settings) as database:
        directory = database.snapshot()
        domain = edits.existing_domain(directory, name)
    addresses = [
        name for name in directory.entries if name.rpartition("@")[2] == domain.name
    ]
    print_details({**_domain(domain), "addresses": names(addresses)}, as_json)


@domain_group.command("delete")
@click.argument("name")
@config_option
@json_option
def delete_domain(settings: Settings, name: str, as_json: bool) -> None:
    """Give up a domain that has no addresses left."""
    edit(settings, lambda d: edits.delete_domain(d, name))
    print_one({"domain": name}, as_json, f"{name} is no domain of ours any more")


@click.group("alias")
def alias_group() -> None:
    """Aliases: further addresses, which their targets may also send as."""


@alias_group.command("add")
@click.argument("address")
@click.argument("targets", nargs=-1, required=True)
@config_option
@json_option
def add_alias(
    settings: Settings, address: str, targets: tuple[str, ...], as_json: bool
) -> None:
    """Make an alias of TARGETS, or give an existing one further targets."""
    after = edit(settings, lambda d: edits.add_alias(d, address, targets))
    _print_entry(after, address, as_json)


@alias_group.command("list")
@config_option
@json_option
def list_aliases(settings: Settings, as_json: bool) -> None:
    """Print all aliases."""
    entries = snapshot(settings).entries.values()
    rows = [_entry(entry) for entry in entries if isinstance(entry, Alias)]
    print_table(rows, as_json, "no aliases yet: mailsrv alias add ADDRESS TARGET")


@alias_group.command("show")
@click.argument("address")
@config_option
@json_option
def show_alias(settings: Settings, address: str, as_json: bool) -> None:
    """Print an alias."""
    _show(settings, address, Alias, as_json)


@alias_group.command("delete")
@click.argument("address")
@click.argument("targets", nargs=-1)
@config_option
@json_option
def delete_alias(
    settings: Settings, address: str, targets: tuple[str, ...], as_json: bool
) -> None:
    """Delete an alias, or only some TARGETS of it."""
    _delete(settings, address, Alias, targets, as_json)


@click.group("group")
def group_group() -> None:
    """Groups: one address for many; only named accounts may send as it."""


@group_group.command("add")
@click.argument("address")
@click.argument("members", nargs=-1)
@click.option("--send-as", multiple=True, help="Account that may send as the group.")
@config_option
@json_option
def add_group(
    settings: Settings,
    address: str,
    members: tuple[str, ...],
    send_as: tuple[str, ...],
    as_json: bool,
) -> None:
    """Make a group of MEMBERS, or give an existing one further members."""
    after = edit(settings, lambda d: edits.add_group(d, address, members, send_as))
    _print_entry(after, address, as_json)


@group_group.command("list")
@config_option
@json_option
def list_groups(settings: Settings, as_json: bool) -> None:
    """Print all groups."""
    entries = snapshot(settings).entries.values()
    rows = [_entry(entry) for entry in entries if isinstance(entry, Group)]
    print_table(rows, as_json, "no groups yet: mailsrv group add ADDRESS MEMBER")


@group_group.command("show")
@click.argument("address")
@config_option
@json_option
def show_group(settings: Settings, address: str, as_json: bool) -> None:
    """Print a group."""
    _show(settings, address, Group, as_json)


@group_group.command("delete")
@click.argument("address")
@click.argument("members", nargs=-1)
@config_option
@json_option
def delete_group(
    settings: Settings, address: str, members: tuple[str, ...], as_json: bool
) -> None:
    """Delete a group, or only some MEMBERS of it."""
    _delete(settings, address, Group, members, as_json)


def _show(
    settings: Settings, address: str, kind: type[Alias | Group], as_json: bool
) -> None:
    with opened(settings) as database:
        entry = edits.existing(database.snapshot(), address, kind)
    print_details(_entry(entry), as_json)


def _delete(
    settings: Settings,
    address: str,
    kind: type[Alias | Group],
    members: tuple[str, ...],
    as_json: bool,
) -> None:
    def change(directory: Directory) -> Directory:
        edits.existing(directory, address, kind)
        if members:
            return edits.remove_from(directory, address, members)
        return edits.delete(directory, address, kind)

    after = edit(settings, change)
    if members:
        _print_entry(after, address, as_json)
    else:
        print_one({"address": address}, as_json, f"{address} is deleted")


def _print_entry(directory: Directory, address: str, as_json: bool) -> None:
    entry = edits.existing(directory, address)
    fields = _entry(entry)
    accounts = [account.name for account in directory.members(entry)]
    goes_to = ", ".join(names([*accounts, *directory.outside(entry)]))
    print_one(fields, as_json, f"mail for {fields['address']} goes to {goes_to}")


def _entry(entry: object) -> Fields:
    match entry:
        case Alias(name=name, targets=targets):
            return {"address": shown(name), "targets": names(targets)}
        case Group(name=name, members=members, send_as=send_as):
            return {
                "address": shown(name),
                "members": names(members),
                "send_as": names(send_as),
            }
        case _:
            raise AssertionError(entry)


def _domain(domain: Domain) -> Fields:
    return {
        "domain": shown(domain.name),
        "separators": domain.separators,
        "catch_all": domain.catch_all and shown(domain.catch_all),
    }
