"""``mailsrv account app-password``: further passwords, for one program each."""

import time
from typing import get_args

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import shown
from mailsrv.accounts.app_passwords import digest_of
from mailsrv.accounts.directory import AppScope
from mailsrv.accounts.passwords import random_password
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import edit, json_option, print_one, print_table, snapshot
from mailsrv.settings import Settings

_DAY_S = 86400


@click.group("app-password")
def app_password_group() -> None:
    """Passwords for one device or program each, which may only send if you like."""


@app_password_group.command("add")
@click.argument("address")
@click.argument("label")
@click.option(
    "--scope",
    type=click.Choice(get_args(AppScope)),
    default="all",
    show_default=True,
    help="send: it may submit mail, and read none.",
)
@click.option(
    "--max-per-hour",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Messages that it may send in an hour.",
)
@click.option("--days", type=click.IntRange(1), help="It ends after so many days.")
@config_option
@json_option
def add(
    settings: Settings,
    address: str,
    label: str,
    scope: AppScope,
    max_per_hour: int,
    days: int | None,
    as_json: bool,
) -> None:
    """Make a password for LABEL, such as "printer", and print it: once."""
    password = random_password()
    ends = None if days is None else time.time() + days * _DAY_S
    edit(
        settings,
        lambda d: edits.add_app_password(
            d,
            address,
            label,
            digest_of(password),
            scope=scope,
            max_messages_per_hour=max_per_hour,
            ends_at_utc=ends,
        ),
    )
    fields = {"address": address, "label": label, "scope": scope, "password": password}
    print_one(fields, as_json, f"{label}: {password}")


@app_password_group.command("list")
@click.argument("address")
@config_option
@json_option
def list_them(settings: Settings, address: str, as_json: bool) -> None:
    """Print the app passwords of an account, without the passwords."""
    account = edits.existing_account(snapshot(settings), address)
    rows = [
        {
            "label": app.label,
            "scope": app.scope,
            "max_per_hour": app.max_messages_per_hour,
            "ends": app.ends_at_utc
            and time.strftime("%Y-%m-%d", time.localtime(app.ends_at_utc)),
        }
        for app in account.app_passwords
    ]
    print_table(rows, as_json, f"{shown(account.name)} has none")


@app_password_group.command("remove")
@click.argument("address")
@click.argument("label")
@config_option
@json_option
def remove(settings: Settings, address: str, label: str, as_json: bool) -> None:
    """Take an app password away. Its sessions end within a second."""
    edit(settings, lambda d: edits.remove_app_password(d, address, label))
    print_one({"address": address, "label": label}, as_json, f"{label} is removed")
