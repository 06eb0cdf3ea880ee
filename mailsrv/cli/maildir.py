"""``mailsrv maildir``: moving Maildirs from Dovecot and back."""

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import click

from mailsrv.accounts import edits
from mailsrv.cli.config import config_option, load
from mailsrv.cli.editing import json_option, opened
from mailsrv.cli.verify import patiently
from mailsrv.service import DEFAULT_FILE
from mailsrv.settings import Settings
from mailsrv.store.compatibility import Report, check
from mailsrv.store.export import Exported, Exporter, TargetExists
from mailsrv.store.index import Connections
from mailsrv.store.pop3_uidl import compiled
from mailsrv.store.verify import Verifier


@click.group("maildir")
def maildir_group() -> None:
    """Move Maildirs from Dovecot and back."""


@maildir_group.command("check")
@click.argument("what", metavar="PATH|ADDRESS")
@click.option(
    "--config",
    "-c",
    "file",
    type=click.Path(path_type=Path),
    default=str(DEFAULT_FILE),
    envvar="MAILSRV_CONFIG",
    show_default=True,
    help="The settings file; needed for an ADDRESS.",
)
@json_option
def check_command(what: str, file: Path, as_json: bool) -> None:
    """Say whether Dovecot and mailsrv read a Maildir alike.

    PATH is a Maildir, from Dovecot for example; ADDRESS is an account here, whose
    index is looked at as well. Nothing is changed. The exit code is 1 if UIDs,
    POP3 ids, flags, keywords, subscriptions or messages would not be the same.
    """
    if os.sep in what or os.path.isdir(what):
        path = Path(what)
        report = check(path)
    else:
        path, report = _check_account(load(file), what)
    click.echo(_json(path, report) if as_json else _text(path, report))
    if report.wrong:
        raise SystemExit(1)


def _check_account(settings: Settings, address: str) -> tuple[Path, Report]:
    root = _root_of(settings, address)
    report = check(root / "Maildir")
    connections = Connections()
    verifier = Verifier(root, connections=connections, now=time.time)
    known = set(report.wrong)
    report.wrong += [f for f in patiently(verifier.check) if f not in known]
    connections.close()
    return root / "Maildir", report


def _root_of(settings: Settings, address: str) -> Path:
    """The folder of an account; from here on this is the user who owns it."""
    with opened(settings) as database:
        account = edits.existing_account(database.snapshot(), address)
    return settings.data / "mail" / account.folder


def _text(path: Path, report: Report) -> str:
    lines = [f"note: {finding}" for finding in report.notes]
    lines += [f"wrong: {finding}" for finding in report.wrong]
    what = f"{report.messages} messages in {report.mailboxes} mailboxes of {path}"
    if report.wrong:
        lines.append(f"{what}: Dovecot and mailsrv do not show the same.")
    else:
        lines.append(f"{what}: Dovecot and mailsrv show the same.")
    return "\n".join(lines)


def _json(path: Path, report: Report) -> str:
    fields = {"path": str(path), **asdict(report)}
    return json.dumps(fields, ensure_ascii=False, indent=2)


@maildir_group.command("export")
@click.argument("address")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--copy",
    is_flag=True,
    help="Copy all messages, for another user: no hard links.",
)
@config_option
@json_option
def export_command(
    settings: Settings, address: str, target: Path, copy: bool, as_json: bool
) -> None:
    """Copy the Maildir of ADDRESS to TARGET, for Dovecot.

    With the same UIDs, UIDVALIDITYs, POP3 ids, flags, keywords, subscriptions. The
    server may run meanwhile; what comes later is not in the copy. Messages are hard
    links where that can be, so TARGET must keep its owner: to give it to another
    user, use --copy.
    """
    root = _root_of(settings, address)
    connections = Connections()
    exporter = Exporter(
        root,
        target.absolute(),
        connections=connections,
        now=time.time,
        make_uidl=compiled(settings.store.pop3_uidl_format),
        link=not copy,
    )
    try:
        done = patiently(exporter.run)
    except (TargetExists, OSError) as error:
        raise click.ClickException(str(error)) from error
    finally:
        connections.close()
    click.echo(_exported_json(target, done) if as_json else _exported(target, done))


def _exported(target: Path, done: Exported) -> str:
    lines = [f"note: {note}" for note in done.notes]
    count = done.linked + done.copied
    lines.append(
        f"{count} messages of {done.mailboxes} mailboxes are in {target}"
        f" ({done.linked} of them hard links)."
    )
    if done.linked:
        lines.append("Do not change its owner: that would change the server's files.")
    return "\n".join(lines)


def _exported_json(target: Path, done: Exported) -> str:
    fields = {"path": str(target), **asdict(done)}
    return json.dumps(fields, ensure_ascii=False, indent=2)
