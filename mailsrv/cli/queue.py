"""``mailsrv queue``: what waits to be sent, why, and what to do about it."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from mailsrv.accounts.addresses import shown
from mailsrv.cli.config import config_option
from mailsrv.cli.editing import (
    Fields,
    become_mail_user,
    json_option,
    json_text,
    print_details,
    print_table,
    snapshot,
)
from mailsrv.cli.queue_why import not_here, said_in_words
from mailsrv.cli.server_call import ServerAway, ServerCall
from mailsrv.cli.times import ago, at
from mailsrv.queue.admin import ACTIONS, Action
from mailsrv.queue.database import Filter, QueueDatabase, QueueUnavailable
from mailsrv.queue.report_text import said
from mailsrv.queue.values import Message, Recipient, State
from mailsrv.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

MAX_ROWS = 100  # unless more are asked for
_WATCH_S = 2.0


@click.group("queue")
def queue_group() -> None:
    """See and change what waits to be sent."""


def _filters(command: F) -> F:
    """Give a command the parameter ``wanted``: which recipients are meant."""
    for name, help in (
        ("sender", "Part of the sender's address or account."),
        ("recipient", "Part of the recipient's address."),
        ("destination", 'The recipient\'s domain; "local" and "list" are here.'),
        ("reason", "Part of what the last answer said."),
    ):
        command = click.option(f"--{name}", default="", help=help)(command)
    states = click.Choice([state.value for state in State])
    return click.option("--state", type=states, default=None)(command)


def _filter(message: str, **options: Any) -> Filter:
    # Any: what click hands over of the options of _filters.
    state = options.pop("state")
    return Filter(message, state=None if state is None else State(state), **options)


@contextmanager
def _opened(settings: Settings) -> Iterator[QueueDatabase]:
    """The rows, to read: the server may write them meanwhile."""
    become_mail_user(settings)
    path = settings.data / "queue.sqlite"
    if not path.exists():
        raise click.ClickException(f"there is no {path}: the server has not run yet")
    try:
        database = QueueDatabase(path, owner=False)
    except (QueueUnavailable, OSError, sqlite3.Error) as error:
        raise click.ClickException(f"cannot read {path}: {error}") from error
    try:
        yield database
    except sqlite3.Error as error:
        raise click.ClickException(f"cannot read {path}: {error}") from error
    finally:
        database.close()


def _sending(settings: Settings) -> frozenset[int] | None:
    """Return the ids of rows that are being sent to; None: the server is down."""
    try:
        with ServerCall(settings.data) as server:
            return frozenset(server.ask({"do": "sending"})["rows"])
    except ServerAway:
        return None


@queue_group.command("list")
@click.argument("message", metavar="[ID]", default="")
@_filters
@click.option("--limit", default=MAX_ROWS, show_default=True, help="0: all.")
@config_option
@json_option
def list_rows(
    settings: Settings, message: str, limit: int, as_json: bool, **options: Any
) -> None:
    """Print recipients that mail waits for, the oldest first.

    With an ID or a --state also those for whom nothing is left to do, as long as
    others of their message wait.
    """
    wanted = _filter(message, **options)
    settled = bool(message or wanted.state)
    with _opened(settings) as database:
        rows = database.find(wanted, limit + 1 if limit else -1, settled=settled)
    more = bool(limit) and len(rows) > limit
    rows = rows[:limit] if limit else rows
    if as_json:
        for message_, recipient in rows:
            click.echo(json_text(_fields(message_, recipient)))
        return
    now = time.time()
    print_table([_line(m, r, now) for m, r in rows], False, "nothing waits")
    if more:
        click.echo(f"... and more: --limit 0 prints all, filters fewer ({limit} shown)")


def _line(message: Message, recipient: Recipient, now: float) -> Fields:
    answer = recipient.answer
    next_at = recipient.next_at_utc
    return {
        "id": message.id,
        "since": ago(message.arrived_at_utc, now),
        "from": shown(message.reverse_path) or "(report)",
        "to": shown(recipient.forward_path),
        "state": str(recipient.state),
        "tries": recipient.attempts,
        "next": "-" if next_at is None else at(next_at, now),
        "reason": "" if answer is None else said(answer)[:100],
    }


def _fields(message: Message, recipient: Recipient) -> Fields:
    """Everything of a row, for programs."""
    answer = recipient.answer
    return {
        "id": message.id,
        "sender": message.reverse_path,
        "account": message.account,
        "arrived_at_utc": message.arrived_at_utc,
        "priority": message.priority.name.lower(),
        "size_octets": message.size_octets,
        "recipient": recipient.forward_path,
        "original": recipient.original or recipient.forward_path,
        "destination": recipient.destination,
        "state": str(recipient.state),
        "attempts": recipient.attempts,
        "next_at_utc": recipient.next_at_utc,
        "warned": recipient.warned,
        "answer": None
        if answer is None
        else {
            "code": answer.code,
            "enhanced_code": answer.enhanced_code,
            "text": answer.text,
            "at_utc": answer.at_utc,
            "peer": answer.peer,
            "tls": answer.tls,
        },
    }


@queue_group.command("show")
@click.argument("message", metavar="ID")
@config_option
@json_option
def show(settings: Settings, message: str, as_json: bool) -> None:
    """Print all of a message: its recipients, answers, and how TLS was."""
    with _opened(settings) as database:
        rows = database.find(Filter(message))
    if not rows:
        raise click.ClickException(f"there is no message {message} in the queue")
    if as_json:
        fields = [_fields(m, r) for m, r in rows]
        click.echo(json_text(fields, indent=2))
        return
    now, found = time.time(), rows[0][0]
    print_details(
        {
            "message": found.id,
            "from": shown(found.reverse_path) or "(report)",
            "account": found.account,
            "accepted": f"{at(found.arrived_at_utc, now)}, "
            f"{ago(found.arrived_at_utc, now)} ago",
            "size": f"{found.size_octets} octets",
            "priority": found.priority.name.lower(),
            "requires TLS": found.require_tls,
        },
        False,
    )
    for _, recipient in rows:
        click.echo()
        print_details(_details(recipient, now), False)


def _details(recipient: Recipient, now: float) -> Fields:
    answer, next_at = recipient.answer, recipient.next_at_utc
    return {
        "to": shown(recipient.forward_path),
        **({"named": shown(recipient.original)} if recipient.original else {}),
        "state": str(recipient.state),
        "tries": recipient.attempts,
        "next": None if next_at is None else at(next_at, now),
        "answer": None if answer is None else said(answer),
        "said by": answer and answer.peer,
        "at": answer and at(answer.at_utc, now),
        "TLS": answer and (answer.tls or "none"),
        "sender warned": recipient.warned,
    }


@queue_group.command("why")
@click.argument("address")
@config_option
def why(settings: Settings, address: str) -> None:
    """Say in plain words why mail to or from ADDRESS has not arrived."""
    address = address.strip("<>")
    with _opened(settings) as database:
        rows = _exactly(address, database.find(Filter(recipient=address), MAX_ROWS))
        if not rows:
            rows = database.find(Filter(sender=address), MAX_ROWS)
    if not rows and (words := not_here(address, snapshot(settings))):
        click.echo(words)
        return
    sending = _sending(settings)
    click.echo(said_in_words(address, rows, settings, time.time(), sending))


def _exactly(
    address: str, rows: list[tuple[Message, Recipient]]
) -> list[tuple[Message, Recipient]]:
    """Return those for the address itself, if there are any."""
    wanted = shown(address).lower()
    exact = [
        (message, recipient)
        for message, recipient in rows
        if wanted
        in (shown(a).lower() for a in (recipient.forward_path, recipient.original))
    ]
    return exact or rows


@queue_group.command("watch")
@_filters
@config_option
@json_option
def watch(settings: Settings, as_json: bool, **options: Any) -> None:
    """Print the queue again and again, until Ctrl-C."""
    wanted = _filter("", **options)
    with _opened(settings) as database:
        while True:
            counts = {str(state): n for state, n in database.counts().items()}
            rows = database.find(wanted, 20, settled=wanted.state is not None)
            if as_json:
                shown_rows = [_fields(m, r) for m, r in rows]
                click.echo(json_text({"counts": counts, "rows": shown_rows}))
            else:
                click.clear()
                now = time.time()
                total = ", ".join(f"{n} {state}" for state, n in counts.items())
                click.echo(f"{time.strftime('%H:%M:%S')}  {total or 'nothing waits'}\n")
                print_table([_line(m, r, now) for m, r in rows], False, "")
            time.sleep(_WATCH_S)


def _change(action: Action, help: str) -> None:
    """Make the command of an action."""

    @queue_group.command(action, help=help)
    @click.argument("message", metavar="[ID]", default="")
    @_filters
    @click.option("--all", "every", is_flag=True, help="All that waits.")
    @config_option
    @json_option
    def command(
        settings: Settings, message: str, every: bool, as_json: bool, **options: Any
    ) -> None:
        where = {"message": message, **{k: v for k, v in options.items() if v}}
        if not any(where.values()) and not every:
            raise click.UsageError("which ones? An ID, a filter, or --all")
        become_mail_user(settings)
        request = {"do": action, "where": where, "all": every}
        try:
            with ServerCall(settings.data) as server:
                answer = server.ask(request)
        except ServerAway as away:
            raise click.ClickException(str(away)) from away
        if as_json:
            click.echo(json.dumps(answer))
        else:
            click.echo(f"{action}: {answer['done']} recipients")
        if answer["busy"] and not as_json:
            click.echo(f"{answer['busy']} are being sent to just now: left as they are")
        if message and not answer["done"] and not answer["busy"]:
            raise click.ClickException(
                f"nothing of {message} waits for that: mailsrv queue show {message}"
            )


_HELP = {
    "retry": "Try to send at once.",
    "hold": "Keep from being sent, until it is released.",
    "release": "Send what was held.",
    "drop": "Throw away. Nobody is told.",
    "bounce": "Send back to the sender, with a report.",
}
for _action in ACTIONS:
    _change(_action, _HELP[_action])
