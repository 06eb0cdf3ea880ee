"""``mailsrv list``: mailing lists, and who is on them."""

import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import get_args

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import InvalidAddress, parse, shown
from mailsrv.accounts.directory import (
    Group,
    Joining,
    MailingList,
    Posting,
    ReplyTo,
)
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
from mailsrv.lists.members import ListsTooNew, Members, State
from mailsrv.settings import Settings


@contextmanager
def opened_members(settings: Settings) -> Iterator[Members]:
    """The lists' database; errors in plain words. Call `opened` or `edit` before."""
    with closing(Members(settings.data / "lists.sqlite", time.time)) as members:
        try:
            yield members
        except (sqlite3.OperationalError, OSError, ListsTooNew) as error:
            raise click.ClickException(
                f"cannot use lists.sqlite in {settings.data}: {error}"
            ) from error


@click.group("list")
def list_group() -> None:
    """Mailing lists: one address for many, wherever they are."""


def _choices(words: object) -> click.Choice[str]:
    return click.Choice(get_args(words))


@list_group.command("create")
@click.argument("address")
@click.option("--owner", multiple=True, required=True, help="Who moderates it.")
@config_option
@json_option
def create(
    settings: Settings, address: str, owner: tuple[str, ...], as_json: bool
) -> None:
    """Make a mailing list. A group becomes one, and its members subscribe."""
    before = snapshot(settings).entries.get(_canonical(address))
    after = edit(settings, lambda d: edits.add_list(d, address, owner))
    found = edits.existing_list(after, address)
    if isinstance(before, Group):
        with opened_members(settings) as members:
            members.subscribe(found.name, before.members)
    print_one(_fields(found), as_json, f"{shown(found.name)} is a mailing list")


@list_group.command("set")
@click.argument("address")
@click.option("--title", help="What people call it.")
@click.option("--owner", multiple=True, help="Who moderates it, instead of before.")
@click.option("--posting", type=_choices(Posting), help="Who may post.")
@click.option(
    "--poster",
    multiple=True,
    help='Address that may always post, instead of before; "none": no one.',
)
@click.option("--subject-tag", help='Put before subjects, as "[Staff]"; empty: none.')
@click.option("--reply-to", type=_choices(ReplyTo), help="To whom replies go.")
@click.option("--joining", type=_choices(Joining), help="open: by mail, by anybody.")
@config_option
@json_option
def set_list(
    settings: Settings,
    address: str,
    title: str | None,
    owner: tuple[str, ...],
    posting: Posting | None,
    poster: tuple[str, ...],
    subject_tag: str | None,
    reply_to: ReplyTo | None,
    joining: Joining | None,
    as_json: bool,
) -> None:
    """Change a list; see docs/guide/lists for what each setting does."""
    posters = [p for p in poster if p.lower() != "none"] if poster else None
    after = edit(
        settings,
        lambda d: edits.set_list(
            d,
            address,
            owners=owner or None,
            title=title,
            posting=posting,
            posters=posters,
            subject_tag=subject_tag,
            reply_to=reply_to,
            joining=joining,
        ),
    )
    found = edits.existing_list(after, address)
    print_one(_fields(found), as_json, f"{shown(found.name)} is changed")


@list_group.command("show")
@click.argument("address")
@config_option
@json_option
def show(settings: Settings, address: str, as_json: bool) -> None:
    """Print a list's settings and how many are on it."""
    found = _existing(settings, address)
    with opened_members(settings) as members:
        states = [member.state for member in members.of_list(found.name)]
        held = len(members.waiting(found.name))
    counts = {str(state): states.count(state) for state in State}
    print_details({**_fields(found), **counts, "held": held}, as_json)


@list_group.command("list")
@config_option
@json_option
def list_lists(settings: Settings, as_json: bool) -> None:
    """Print all lists."""
    entries = snapshot(settings).entries.values()
    rows = [_fields(entry) for entry in entries if isinstance(entry, MailingList)]
    nothing = "no lists yet: mailsrv list create ADDRESS --owner ACCOUNT"
    print_table(rows, as_json, nothing)


@list_group.command("delete")
@click.argument("address")
@config_option
@json_option
def delete(settings: Settings, address: str, as_json: bool) -> None:
    """Delete a list and forget its members, and who has unsubscribed."""
    found = _existing(settings, address)
    edit(settings, lambda d: edits.delete(d, address, MailingList))
    with opened_members(settings) as members:
        members.forget(found.name)
    print_one({"address": found.name}, as_json, f"{address} is deleted")


@list_group.command("members")
@click.argument("address")
@click.option("--state", type=click.Choice([*State]), help="Only these.")
@config_option
@json_option
def list_members(
    settings: Settings, address: str, state: str | None, as_json: bool
) -> None:
    """Print who is on a list."""
    found = _existing(settings, address)
    states = [State(state)] if state else []
    with opened_members(settings) as members:
        rows = [
            {
                "address": shown(member.address),
                "state": str(member.state),
                "since": time.strftime("%Y-%m-%d", time.localtime(member.since_utc)),
            }
            for member in members.of_list(found.name, *states)
        ]
    print_table(rows, as_json, f"nobody: mailsrv list subscribe {address} MEMBER")


@list_group.command("subscribe")
@click.argument("address")
@click.argument("member", nargs=-1)
@click.option(
    "--file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help='One address a line; "-": standard input.',
)
@click.option("--again", is_flag=True, help="Also who has unsubscribed before.")
@config_option
@json_option
def subscribe(
    settings: Settings,
    address: str,
    member: tuple[str, ...],
    file: Path | None,
    again: bool,
    as_json: bool,
) -> None:
    """Make members of addresses, which need not be of this server."""
    wanted = _addresses([*member, *(_lines(file) if file else ())])
    found = _existing(settings, address)
    with opened_members(settings) as members:
        new, left_out = members.subscribe(found.name, wanted, again=again)
    for other in left_out:
        click.echo(f"{shown(other)} has unsubscribed: --again subscribes it", err=True)
    fields = {"subscribed": names(new), "left_out": names(left_out)}
    print_one(fields, as_json, f"{len(new)} new on {shown(found.name)}")


@list_group.command("unsubscribe")
@click.argument("address")
@click.argument("member", nargs=-1, required=True)
@click.option("--forget", is_flag=True, help="Keep no note that it wants no mail.")
@config_option
@json_option
def unsubscribe(
    settings: Settings,
    address: str,
    member: tuple[str, ...],
    forget: bool,
    as_json: bool,
) -> None:
    """Take members off a list, or recipients off a newsletter's sender."""
    wanted = _addresses(member)
    with opened(settings) as database:
        name = edits.existing(database.snapshot(), address).name
    with opened_members(settings) as members:
        for one in wanted:
            if not members.unsubscribe(name, one) and not forget:
                raise click.ClickException(f"{shown(one)} is not on {shown(name)}")
            if forget:
                members.forget(name, one)
    fields = {"unsubscribed": names(wanted)}
    print_one(fields, as_json, f"{len(wanted)} off {shown(name)}")


def _existing(settings: Settings, address: str) -> MailingList:
    with opened(settings) as database:
        return edits.existing_list(database.snapshot(), address)


def _canonical(address: str) -> str:
    try:
        return parse(address).canonical
    except InvalidAddress as error:
        raise click.ClickException(str(error)) from error


def _addresses(texts: list[str] | tuple[str, ...]) -> list[str]:
    if not texts:
        raise click.ClickException("no address is given")
    return list(dict.fromkeys(map(_canonical, texts)))


def _lines(file: Path) -> list[str]:
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{file}: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _fields(found: MailingList) -> Fields:
    return {
        "address": shown(found.name),
        "title": found.title,
        "owners": names(found.owners),
        "posting": found.posting,
        "posters": names(found.posters),
        "subject_tag": found.subject_tag,
        "reply_to": found.reply_to,
        "joining": found.joining,
    }
