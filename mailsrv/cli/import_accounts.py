"""``mailsrv account import``: accounts and passwords out of Dovecot's passwd-file."""

from collections.abc import Sequence
from pathlib import Path

import click

from mailsrv.accounts import edits, passwd_file
from mailsrv.accounts.addresses import shown
from mailsrv.accounts.directory import Account, Directory
from mailsrv.accounts.edits import EditRefused
from mailsrv.accounts.passwd_file import Imported, Wrong
from mailsrv.accounts.schemes import scheme
from mailsrv.cli.accounts import make_folders
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import json_option, opened, print_table
from mailsrv.settings import Settings


@click.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--domain", help="The domain of users that are written without one.")
@click.option("--dry-run", is_flag=True, help="Check all, and change nothing.")
@config_option
@json_option
def import_accounts(
    settings: Settings, file: Path, domain: str | None, dry_run: bool, as_json: bool
) -> None:
    """Make the accounts of FILE, a passwd-file of Dovecot, with their passwords.

    All of them or, if a line is wrong, none. Accounts that exist stay as they are. The
    domains have to exist. A password is hashed anew at its owner's next log-in.
    """
    # As who was called: the file belongs to root, the database to the mail's user.
    lines = list(passwd_file.read(file.read_bytes(), domain))
    with opened(settings) as database:
        before = database.snapshot()
        _, wrong = _added(before, lines)
        if wrong:
            raise click.ClickException(
                "nothing was imported\n"
                + "\n".join(f"{file}:{each.line}: {each.problem}" for each in wrong)
            )
        after = before
        if not dry_run:
            # Of that moment: somebody else may have added one since.
            after = database.edit(lambda directory: _added(directory, lines)[0])
        new = [
            each
            for each in lines
            if isinstance(each, Imported) and each.address not in before.entries
        ]
        for each in new if not dry_run else ():
            make_folders(settings, edits.existing_account(after, each.address))
    _print(lines, {each.address for each in new}, dry_run, as_json)


def _added(
    directory: Directory, lines: Sequence[Imported | Wrong]
) -> tuple[Directory, list[Wrong]]:
    """The directory with the accounts that it lacks, and what is wrong with others."""
    wrong: list[Wrong] = []
    for each in lines:
        if isinstance(each, Wrong):
            wrong.append(each)
        elif not isinstance(directory.entries.get(each.address), Account):
            try:
                directory = edits.add_account(
                    directory, each.address, each.password_hash, each.quota_octets
                )
            except EditRefused as error:
                wrong.append(Wrong(each.line, str(error)))
    return directory, wrong


def _print(
    lines: Sequence[Imported | Wrong], new: set[str], dry_run: bool, as_json: bool
) -> None:
    done = "would be imported" if dry_run else "imported"
    rows = [
        {
            "address": shown(each.address),
            "password": scheme(each.password_hash),
            "quota_octets": each.quota_octets,
            "account": done if each.address in new else "exists already",
        }
        for each in lines
        if isinstance(each, Imported)
    ]
    print_table(rows, as_json, "the file holds no accounts")
