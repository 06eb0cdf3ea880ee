"""``mailsrv bulk``: newsletters, one message to many with fields filled in."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import parse, shown
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import json_option, opened, print_one, print_table
from mailsrv.cli.lists import opened_members
from mailsrv.cli.server_call import ServerAway, ServerCall
from mailsrv.lists.bulk import Bulk, Progress
from mailsrv.lists.newsletter import Newsletter, NewsletterRefused
from mailsrv.lists.recipients import ListRefused, Recipients, Row, read
from mailsrv.lists.tokens import Tokens
from mailsrv.queue.control import MAX_MESSAGES
from mailsrv.settings import Settings
from mailsrv.store import durable

SHOWN_BAD_ROWS = 5
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group("bulk")
def bulk_group() -> None:
    """Newsletters: one message to many, with fields filled in for each."""


@bulk_group.command("send")
@click.option("--from", "sender", required=True, help="Address here that sends it.")
@click.option("--name", default="", help="The sender's name, as recipients see it.")
@click.option(
    "--list", "file", type=_FILE, required=True, help="CSV with a column email."
)
@click.argument("message", type=_FILE)
@click.option("--rate", type=click.IntRange(1), help="Copies an hour at most.")
@click.option("--preview", metavar="ADDRESS", help="Print this copy, and send none.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent, and send none.")
@click.option("--again", is_flag=True, help="Also to who has got this newsletter.")
@config_option
@json_option
def send(
    settings: Settings,
    sender: str,
    name: str,
    file: Path,
    message: Path,
    rate: int | None,
    preview: str | None,
    dry_run: bool,
    again: bool,
    as_json: bool,
) -> None:
    """Send MESSAGE, a mail as a file (.eml), to all who are in a CSV file.

    {{name}} in its subject and texts becomes what the column name says,
    {{unsubscribe}} a link. Run it again if it was cut: nobody gets a second copy.
    """
    recipients, octets = _recipients(file), _read(message)  # before root is dropped
    with opened(settings) as database:
        sender = edits.existing(database.snapshot(), sender).name
    with opened_members(settings) as members:
        try:
            newsletter = Newsletter(octets, sender, name)
            newsletter.check(recipients.columns)
        except NewsletterRefused as refused:
            raise click.ClickException(f"{message} {refused}") from refused
        key = durable.secret(settings.data / "lists.secret")
        bulk = Bulk(
            newsletter,
            members,
            Tokens(key, time.time),
            settings.web.url,
            settings.hostname,
            time.time,
        )
        for bad in recipients.bad[:SHOWN_BAD_ROWS]:
            click.echo(f"{file}, {bad}", err=True)
        if preview is not None:
            sys.stdout.buffer.write(bulk.preview(_row(recipients, preview)))
            return
        if dry_run:
            done = bulk.foreseen(recipients.rows, again=again)
        else:
            done = _send(settings, bulk, recipients.rows, again, rate)
    fields = {
        "subject": bulk.newsletter.subject,
        "sent": done.sent,
        "before": done.before,
        "unwanted": done.unwanted,
        "twice": recipients.twice,
        "bad": len(recipients.bad),
    }
    print_one(fields, as_json, _sentence(done, recipients, dry_run=dry_run))


def _send(
    settings: Settings, bulk: Bulk, rows: Sequence[Row], again: bool, rate: int | None
) -> Progress:
    run = bulk.run(again=again)
    done, began = Progress(), time.monotonic()
    at_a_time = MAX_MESSAGES if rate is None else min(MAX_MESSAGES, rate // 3600 + 1)
    try:
        with (
            ServerCall(settings.data) as server,
            click.progressbar(
                length=len(rows), label="Sending", file=sys.stderr
            ) as bar,
        ):
            for step in bulk.send(run, rows, server.ask, at_a_time):
                done += step
                bar.update(step.rows)
                if rate is not None and done.rows < len(rows):
                    ahead_s = done.sent * 3600 / rate - (time.monotonic() - began)
                    time.sleep(max(0.0, ahead_s))
    except ServerAway as away:
        raise click.ClickException(
            f"{away}\n{done.sent} are sent. Run the same command again to go on:"
            " nobody gets a second copy"
        ) from away
    return done


def _sentence(done: Progress, recipients: Recipients, *, dry_run: bool) -> str:
    parts = [f"{done.sent} {'would be sent' if dry_run else 'sent'}"]
    if done.before:
        parts.append(
            f"{done.before} had it already, or do not exist here"
            " (--again sends it once more)"
        )
    if done.unwanted:
        parts.append(f"{done.unwanted} want no mail, or their mail fails")
    if recipients.twice:
        parts.append(f"{recipients.twice} rows again")
    if recipients.bad:
        parts.append(f"{len(recipients.bad)} rows without an address")
    return ", ".join(parts)


@bulk_group.command("report")
@click.option("--from", "sender", help="Of this sender alone.")
@config_option
@json_option
def report(settings: Settings, sender: str | None, as_json: bool) -> None:
    """Print what became of newsletters, the last one first."""
    with opened(settings) as database:
        if sender is not None:
            sender = edits.existing(database.snapshot(), sender).name
    with opened_members(settings) as members:
        rows = [
            {
                "at": time.strftime("%Y-%m-%d %H:%M", time.localtime(count.run.at_utc)),
                "from": shown(count.run.sender),
                "subject": count.run.subject,
                "sent": count.accepted,
                "failed": count.bounced,
                "unsubscribed": count.unsubscribed,
            }
            for count in members.counts(sender)
        ]
    print_table(rows, as_json, "no newsletter was sent yet: mailsrv bulk send --help")


def _recipients(file: Path) -> Recipients:
    octets = _read(file)
    try:
        return read(octets.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise click.ClickException(f"{file} is not UTF-8: save it as such") from error
    except ListRefused as refused:
        raise click.ClickException(f"{file} {refused}") from refused


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file}: {error.strerror}") from error


def _row(recipients: Recipients, address: str) -> Row:
    for row in recipients.rows:
        if row.address == parse(address).canonical:
            return row
    raise click.ClickException(f"{address} is not on the list")
