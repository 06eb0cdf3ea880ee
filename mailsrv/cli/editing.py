"""What the commands on accounts, aliases, groups and domains have in common."""

import json
import os
import pwd
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from mailsrv.accounts.addresses import InvalidAddress, shown
from mailsrv.accounts.database import AccountDatabase, DatabaseTooNew
from mailsrv.accounts.directory import Directory
from mailsrv.accounts.edits import EditRefused
from mailsrv.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
Fields = Mapping[str, Any]  # what is printed of one thing: a JSON object


def json_option(command: F) -> F:
    """Give a command the parameter ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


@contextmanager
def opened(settings: Settings) -> Iterator[AccountDatabase]:
    """The account database, as the user who owns the mail; errors in plain words."""
    become_mail_user(settings)
    database = AccountDatabase(settings.data / "accounts.sqlite")
    try:
        settings.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield database
    except (EditRefused, InvalidAddress, DatabaseTooNew) as error:
        raise click.ClickException(str(error)) from error
    except (PermissionError, sqlite3.OperationalError) as error:
        raise click.ClickException(
            f"cannot use {settings.data}: {error}. Run this command as root, or as the"
            " user who owns that folder"
        ) from error
    finally:
        database.close()


def edit(settings: Settings, change: Callable[[Directory], Directory]) -> Directory:
    """Change the directory; a running server sees it within a second."""
    with opened(settings) as database:
        return database.edit(change)


def snapshot(settings: Settings) -> Directory:
    """The directory as it is."""
    with opened(settings) as database:
        return database.snapshot()


def become_mail_user(settings: Settings) -> None:
    """Drop root for the server's user, who must own whatever is made.

    That is the `user` of the settings, or else the owner of the data: something
    else than the settings, such as systemd, may say as whom the server runs.
    """
    os.umask(0o077)
    if os.geteuid() != 0:
        return
    if settings.user is not None:
        try:
            user = pwd.getpwnam(settings.user)
        except KeyError:
            raise click.ClickException(
                f"there is no system user {settings.user}, named by the settings"
            ) from None
        uid, gid = user.pw_uid, user.pw_gid
    elif settings.data.exists():
        owner = settings.data.stat()
        uid, gid = owner.st_uid, owner.st_gid
    else:
        return
    if not settings.data.exists():
        settings.data.mkdir(mode=0o700, parents=True)
        os.chown(settings.data, uid, gid)
    if uid != 0:
        _become(uid, gid)


def _become(uid: int, gid: int) -> None:
    try:
        os.initgroups(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:  # a number without a name, as in a container
        os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)


def plain(text: str) -> str:
    """Return a text without what a terminal would obey.

    Strangers choose addresses, and what their servers say.
    """
    return "".join(c if c.isprintable() else "?" for c in text)


def json_text(value: object, indent: int | None = None) -> str:
    """Return JSON that a terminal may show as well as a program may read it."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text
    )


def print_one(fields: Fields, as_json: bool, sentence: str) -> None:
    """Say what was done; for programs, what the thing is now."""
    click.echo(json_text(fields) if as_json else sentence)


def print_details(fields: Fields, as_json: bool) -> None:
    """Everything about one thing."""
    if as_json:
        click.echo(json_text(fields))
        return
    width = max(map(len, fields))
    for name, value in fields.items():
        click.echo(f"{name.replace('_', ' '):{width}}  {_text(value)}")


def print_table(rows: Sequence[Fields], as_json: bool, nothing: str) -> None:
    """One line for each thing."""
    if as_json:
        click.echo(json_text(rows, indent=2))
        return
    if not rows:
        click.echo(nothing)
        return
    names = list(rows[0])
    lines = [[name.replace("_", " ") for name in names]]
    lines += [[_text(row[name]) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def names(addresses: Sequence[str]) -> list[str]:
    """Addresses for people."""
    return [shown(address) for address in addresses]


def _text(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case list() | tuple():
            return plain(", ".join(map(str, value))) or "-"
        case _:
            return plain(str(value))
