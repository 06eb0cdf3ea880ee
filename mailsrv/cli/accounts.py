"""``mailsrv account``: people's accounts, their passwords and their mail folders."""

import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any, get_args

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import shown
from mailsrv.accounts.directory import Account, Directory, Group
from mailsrv.accounts.passwords import hash_password, new_keys
from mailsrv.accounts.schemes import scheme
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
from mailsrv.settings import ImapExtension, Settings
from mailsrv.store.folders import ensure_defaults

# A running server has seen by then that the account is gone: it has ended its
# sessions and delivers nothing more to the folder that is moved.
SETTLE_S = 2.0

_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_SIZE = re.compile(r"(\d{1,15})\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


class _Quota(click.ParamType[int | None]):
    """Octets, with a unit if wished; ``none`` is no limit."""

    name = "size"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        # Any: click hands over a text, or what this made of it before.
        if value is None or isinstance(value, int):
            return value
        if value.lower() == "none":
            return None
        size = _SIZE.fullmatch(value.strip())
        if size is None or int(size[1]) == 0:
            self.fail(f"{value!r} is no size: write 500M, 5G or none", param, ctx)
        return int(size[1]) * _UNITS[size[2].upper()]


class _Words(click.ParamType[tuple[str, ...]]):
    """Extensions that can be switched off, with spaces between; ``none`` is none."""

    name = "words"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        # Any: click hands over a text, or what this made of it before.
        if isinstance(value, tuple):
            return value
        words = tuple(value.upper().split())
        if words == ("NONE",):
            return ()
        if unknown := [word for word in words if word not in get_args(ImapExtension)]:
            known = ", ".join(get_args(ImapExtension))
            self.fail(f"{unknown[0]} cannot be switched off, but {known}", param, ctx)
        return words


_password_option = click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of the standard input.",
)


@click.group("account")
def account_group() -> None:
    """Accounts: who has mail here and may log in."""


@account_group.command("add")
@click.argument("address")
@click.option("--quota", type=_Quota(), help="Limit of its mail, such as 5G.")
@_password_option
@config_option
@json_option
def add(
    settings: Settings,
    address: str,
    quota: int | None,
    password_stdin: bool,
    as_json: bool,
) -> None:
    """Make an account with ADDRESS, its folders, and a password that is asked for."""
    with opened(settings) as database:
        # What cannot be is said before anybody types a password.
        edits.add_account(database.snapshot(), address, "")
        password = _password(password_stdin)
        hashed = hash_password(password, settings.login)
        keys = new_keys(password, settings.login)
        after = database.edit(
            lambda d: edits.add_account(d, address, hashed, quota, keys)
        )
        account = edits.existing_account(after, address)
        maildir = make_folders(settings, account)
    print_one(
        _fields(settings, account),
        as_json,
        f"{shown(account.name)} is ready, with its mail in {maildir}",
    )


@account_group.command("list")
@config_option
@json_option
def list_(settings: Settings, as_json: bool) -> None:
    """Print all accounts."""
    rows = [
        {
            "address": shown(account.name),
            "enabled": account.enabled,
            "quota_octets": account.quota_octets,
            "disabled_extensions": account.disabled_extensions,
            "files_sent": account.files_sent,
            "password": scheme(account.password_hash),
            "scram": account.scram_keys is not None,
        }
        for account in snapshot(settings).accounts()
    ]
    print_table(rows, as_json, "no accounts yet: mailsrv account add ADDRESS")


@account_group.command("show")
@click.argument("address")
@config_option
@json_option
def show(settings: Settings, address: str, as_json: bool) -> None:
    """Print an account, and what else reaches it."""
    with opened(settings) as database:
        directory = database.snapshot()
        account = edits.existing_account(directory, address)
    others = [
        entry
        for entry in directory.entries.values()
        if not isinstance(entry, Account) and account in directory.members(entry)
    ]
    groups = [e.name for e in others if isinstance(e, Group)]
    aliases = [e.name for e in others if not isinstance(e, Group)]
    print_details(
        {
            **_fields(settings, account),
            "aliases": names(aliases),
            "groups": names(groups),
        },
        as_json,
    )


@account_group.command("passwd")
@click.argument("address")
@_password_option
@config_option
@json_option
def passwd(
    settings: Settings, address: str, password_stdin: bool, as_json: bool
) -> None:
    """Give an account another password. Sessions that are open go on."""
    with opened(settings) as database:
        edits.existing_account(database.snapshot(), address)
        password = _password(password_stdin)
        hashed = hash_password(password, settings.login)
        keys = new_keys(password, settings.login)
        after = database.edit(
            lambda d: edits.set_password_hash(d, address, hashed, keys)
        )
    _print(settings, after, address, as_json, "has a new password")


@account_group.command("disable")
@click.argument("address")
@config_option
@json_option
def disable(settings: Settings, address: str, as_json: bool) -> None:
    """Close an account: no log-in, and mail to it is refused. Its mail stays."""
    after = edit(settings, lambda d: edits.set_enabled(d, address, False))
    _print(settings, after, address, as_json, "is disabled")


@account_group.command("enable")
@click.argument("address")
@config_option
@json_option
def enable(settings: Settings, address: str, as_json: bool) -> None:
    """Open a disabled account again."""
    after = edit(settings, lambda d: edits.set_enabled(d, address, True))
    _print(settings, after, address, as_json, "is enabled")


@account_group.command("quota")
@click.argument("address")
@click.argument("size", type=_Quota())
@config_option
@json_option
def quota(settings: Settings, address: str, size: int | None, as_json: bool) -> None:
    """Limit the mail of an account to SIZE, such as 5G; "none" lifts the limit."""
    after = edit(settings, lambda d: edits.set_quota(d, address, size))
    limit = "no limit" if size is None else f"a limit of {size} octets"
    _print(settings, after, address, as_json, f"has {limit}")


@account_group.command("set")
@click.argument("address")
@click.option(
    "--disabled-extensions",
    type=_Words(),
    help="Words of IMAP's CAPABILITY that are not offered to the account's mail"
    ' programs, such as "COMPRESS=DEFLATE SORT"; "none": offer all.',
)
@click.option(
    "--files-sent/--no-files-sent",
    default=None,
    help="File what the account sends in its Sent folder. One copy is kept if its mail"
    " program files it as well.",
)
@config_option
@json_option
def set_(
    settings: Settings,
    address: str,
    disabled_extensions: tuple[str, ...] | None,
    files_sent: bool | None,
    as_json: bool,
) -> None:
    """Change how an account's mail programs are served, from their next log-in on."""

    def change(directory: Directory) -> Directory:
        if disabled_extensions is not None:
            directory = edits.set_disabled_extensions(
                directory, address, disabled_extensions
            )
        if files_sent is not None:
            directory = edits.set_files_sent(directory, address, files_sent)
        return directory

    _print(settings, edit(settings, change), address, as_json, "is changed")


@account_group.command("delete")
@click.argument("address")
@click.option("--purge", is_flag=True, help="Delete its mail as well, for good.")
@config_option
@json_option
def delete(settings: Settings, address: str, purge: bool, as_json: bool) -> None:
    """Delete an account. Its mail is moved to the folder "deleted" of the data."""
    gone: list[Account] = []

    def change(directory: Directory) -> Directory:
        account = edits.existing_account(directory, address)
        gone[:] = [account]
        return edits.delete(directory, account.name, Account)

    with opened(settings) as database:
        database.edit(change)
        time.sleep(SETTLE_S)
        kept = _move_away(settings.data, gone[0].folder)
        if purge and kept is not None:
            shutil.rmtree(kept)
            kept = None
    mail = "its mail is deleted" if kept is None else f"its mail is kept in {kept}"
    print_one(
        {"address": shown(gone[0].name), "kept": kept and str(kept)},
        as_json,
        f"{shown(gone[0].name)} is deleted, {mail}",
    )


def _password(from_stdin: bool) -> str:
    """Never an argument: those are seen by every user of the machine."""
    if from_stdin:
        try:
            password = sys.stdin.buffer.readline().decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise click.ClickException("the password is not in UTF-8") from None
    else:
        password = str(
            click.prompt(
                "Password", hide_input=True, confirmation_prompt=True, err=True
            )
        )
    if not password:
        raise click.ClickException("an empty password is none: give another one")
    return password


def make_folders(settings: Settings, account: Account) -> Path:
    """Make INBOX and the folders that clients look for at their first log-in."""
    maildir = settings.data / "mail" / account.folder / "Maildir"
    maildir.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ensure_defaults(maildir)
    return maildir


def _move_away(data: Path, folder: str) -> Path | None:
    """Move an account's mail to ``deleted/``: a new account of its name gets none."""
    mail = data / "mail" / folder
    if not mail.exists():
        return None
    deleted = data / "deleted"
    deleted.mkdir(mode=0o700, exist_ok=True)
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    kept = deleted / f"{folder}-{when}"
    number = 1
    while kept.exists():
        number += 1
        kept = deleted / f"{folder}-{when}-{number}"
    return mail.rename(kept)


def _fields(settings: Settings, account: Account) -> Fields:
    return {
        "address": shown(account.name),
        "login": shown(account.name),
        "enabled": account.enabled,
        "quota_octets": account.quota_octets,
        "disabled_extensions": account.disabled_extensions,
        "files_sent": account.files_sent,
        "password": scheme(account.password_hash),
        "scram": account.scram_keys is not None,
        "maildir": str(settings.data / "mail" / account.folder / "Maildir"),
    }


def _print(
    settings: Settings, directory: Directory, address: str, as_json: bool, what: str
) -> None:
    account = edits.existing_account(directory, address)
    print_one(_fields(settings, account), as_json, f"{shown(account.name)} {what}")
