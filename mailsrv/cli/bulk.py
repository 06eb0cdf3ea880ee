"""``mailsrv bulk``: newsletters to many, each with his own fields, each once."""

import csv
import hashlib
import time
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from email.utils import formataddr
from pathlib import Path

import click

from mailsrv.accounts import edits
from mailsrv.accounts.addresses import InvalidAddress, parse, shown
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import json_option, opened, print_table
from mailsrv.cli.lists import opened_members
from mailsrv.cli.server_call import ServerAway, ServerCall
from mailsrv.lists import newsletter
from mailsrv.lists.members import Member, Members, Run, State
from mailsrv.lists.newsletter import BadTemplate, Template
from mailsrv.lists.post import unsubscribe_link
from mailsrv.lists.tokens import Purpose, Tokens
from mailsrv.mime.date import date_time
from mailsrv.queue.values import Priority
from mailsrv.routing.list_addresses import Command, write
from mailsrv.settings import Settings
from mailsrv.store import durable

COLUMNS = ("email", "address", "e-mail", "mail")  # that hold the address
MAX_OCTETS = 1024 * 1024  # of one message, as the server takes them
_AT_A_TIME = 100
_WANT_NONE = (State.UNSUBSCRIBED, State.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Row:
    """One recipient of the table."""

    address: str  # canonical
    values: dict[str, str]  # by lower-case column


@click.group("bulk")
def bulk_group() -> None:
    """Newsletters: one message to many, with fields filled in."""


@bulk_group.command("send")
@click.option("--from", "sender", required=True, help="An address of this server.")
@click.option("--name", default="", help="The sender's name, as recipients see it.")
@click.option(
    "--list",
    "table",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help='Recipients: CSV whose first line names the columns, one of them "email".',
)
@click.option("--rate", type=click.IntRange(1), help="Messages an hour at most.")
@click.option("--preview", is_flag=True, help="Print the first message; send nothing.")
@click.option("--again", is_flag=True, help="A new run of the same message.")
@click.argument("message", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@config_option
def send(
    settings: Settings,
    sender: str,
    name: str,
    table: Path,
    rate: int | None,
    preview: bool,
    again: bool,
    message: Path,
) -> None:
    """Send MESSAGE, a whole message (.eml), to all of a table.

    {{column}} in it stands for a recipient's value. Begun again after it was cut off,
    it goes on: nobody gets a second copy. Who has unsubscribed gets none.
    """
    with opened(settings) as database:
        entry = edits.existing(database.snapshot(), sender)
    octets = message.read_bytes()
    try:
        template = newsletter.read(octets)
    except BadTemplate as error:
        raise click.ClickException(f"{message} {error}") from error
    rows = _rows(table, template)
    key = hashlib.sha256(entry.name.encode() + b"\0" + octets).hexdigest()
    with opened_members(settings) as members:
        mailing = _Mailing(settings, entry.name, name, template, members)
        if preview:
            [(_, first)] = mailing.pairs(rows[:1])
            click.echo(mailing.written(rows[0], first, 0).decode("utf-8", "replace"))
            return
        run = _run(members, key, entry.name, template.subject, again=again)
        try:
            mailing.send(run, rows, rate)
        except ServerAway as away:
            raise click.ClickException(
                f"{away}. What was taken is safe: begin again to go on"
            ) from away


def _run(members: Members, key: str, sender: str, subject: str, *, again: bool) -> Run:
    """Return the run of this message: an earlier one goes on, unless `again`."""
    earlier = members.runs(key)
    if earlier and not again:
        when = date_time(earlier[-1].at_utc)
        click.echo(f"going on with the run of {when}", err=True)
        return earlier[-1]
    return members.begin_run(key, sender, subject)


def _rows(table: Path, template: Template) -> list[Row]:
    """Read the recipients, each address once."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            dialect = csv.Sniffer().sniff(file.read(64 * 1024), ",;\t")
            file.seek(0)
            reader = csv.DictReader(file, dialect=dialect)
            columns = [str(column).strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            lines = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise click.ClickException(f"{table} cannot be read: {error}") from error
    lower = [column.lower() for column in columns]
    column = next((columns[lower.index(c)] for c in COLUMNS if c in lower), None)
    if column is None:
        raise click.ClickException(f'{table} has no column "email"')
    if missing := template.missing(columns):
        raise click.ClickException(
            f"{table} has no column for {', '.join(missing)}, which the message needs"
        )
    found: dict[str, Row] = {}
    for number, line in enumerate(lines, 2):
        try:
            address = parse((line[column] or "").strip()).canonical
        except InvalidAddress as error:
            raise click.ClickException(f"{table}, line {number}: {error}") from error
        values = {str(k).lower(): str(v or "") for k, v in line.items() if k}
        found.setdefault(address, Row(address, values))
    if not found:
        raise click.ClickException(f"{table} has no recipients")
    return list(found.values())


class _Mailing:
    """One newsletter, on its way."""

    def __init__(
        self,
        settings: Settings,
        sender: str,
        name: str,
        template: Template,
        members: Members,
    ) -> None:
        self._settings = settings
        self._sender = sender
        self._name = name
        self._template = template
        self._members = members
        key = durable.secret(settings.data / "lists.secret")
        self._tokens = Tokens(key, time.time)

    def pairs(self, rows: Sequence[Row]) -> list[tuple[Row, Member]]:
        """Return the members behind rows."""
        found = self._members.contacts(self._sender, [row.address for row in rows])
        return list(zip(rows, found, strict=True))

    def send(self, run: Run, rows: Sequence[Row], rate: int | None) -> None:
        """Hand all to the queue. Raises ServerAway."""
        counts = {"sent": 0, "before": 0, "none": 0}
        with (
            ServerCall(self._settings.data) as server,
            click.progressbar(length=len(rows), label="handed over") as bar,
        ):
            for some in _batches(rows):
                pairs = self.pairs(some)
                sent = self._members.sent_to(run.id, [m.id for _, m in pairs])
                taken = []
                for row, member in pairs:
                    if member.state in _WANT_NONE:
                        counts["none"] += 1
                    elif member.id in sent:
                        counts["before"] += 1
                    else:
                        self._hand_over(server, run, row, member)
                        taken.append(member.id)
                        if rate is not None:
                            time.sleep(3600 / rate)
                    bar.update(1)
                self._members.note_sent(run.id, taken)
                counts["sent"] += len(taken)
        click.echo(
            f"{counts['sent']} handed over, {counts['before']} were before,"
            f" {counts['none']} want none: mailsrv bulk report"
        )

    def _hand_over(
        self, server: ServerCall, run: Run, row: Row, member: Member
    ) -> None:
        octets = self.written(row, member, run.id)
        if len(octets) > MAX_OCTETS:
            raise click.ClickException(f"the message has more than {MAX_OCTETS} octets")
        bounces = self._tokens.make(Purpose.BOUNCE, member.id)
        server.ask(
            {
                "do": "submit",
                "octets": b64encode(octets).decode(),
                "reverse_path": write(self._sender, Command.BOUNCES, bounces),
                "forward_paths": [row.address],
                "priority": Priority.BULK,
                # The queue takes this word one time, whatever happens here.
                "once": f"bulk {run.id} {member.id}",
            }
        )

    def written(self, row: Row, member: Member, run: int) -> bytes:
        """Return the message for one recipient."""
        token = self._tokens.make(Purpose.UNSUBSCRIBE, member.id)
        mail = write(self._sender, Command.UNSUBSCRIBE, token)
        base = self._settings.web.url
        header = [
            ("From", formataddr((self._name, self._sender))),
            ("To", row.address),
            ("Date", date_time(time.time())),
            ("Message-ID", f"<bulk.{run}.{member.id}@{self._settings.hostname}>"),
            ("Precedence", "bulk"),
        ]
        if base is None:
            header.append(("List-Unsubscribe", f"<mailto:{mail}>"))
        else:  # RFC 8058
            link = unsubscribe_link(base, token)
            header.append(("List-Unsubscribe", f"<{link}>, <mailto:{mail}>"))
            header.append(("List-Unsubscribe-Post", "List-Unsubscribe=One-Click"))
        try:
            return self._template.filled(row.values, header)
        except BadTemplate as error:
            raise click.ClickException(f"{row.address}: {error}") from error


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for first in range(0, len(rows), _AT_A_TIME):
        yield rows[first : first + _AT_A_TIME]


@bulk_group.command("report")
@click.option("--from", "sender", help="Of this sender alone.")
@config_option
@json_option
def report(settings: Settings, sender: str | None, as_json: bool) -> None:
    """Print what became of newsletters, the newest first."""
    name = None
    with opened(settings) as database:
        if sender is not None:
            name = edits.existing(database.snapshot(), sender).name
    with opened_members(settings) as members:
        rows = [
            {
                "run": count.run.id,
                "from": shown(count.run.sender),
                "subject": count.run.subject,
                "at": time.strftime("%Y-%m-%d %H:%M", time.localtime(count.run.at_utc)),
                "sent": count.accepted,
                "failed": count.bounced,
                "unsubscribed": count.unsubscribed,
            }
            for count in members.counts(name)
        ]
    print_table(rows, as_json, "no newsletters yet: mailsrv bulk send --help")
