"""``mailsrv queue``: what it says of rows, on a terminal and to programs."""

import json
import time
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from mailsrv.cli import queue as command
from mailsrv.queue.database import QueueDatabase
from mailsrv.queue.schema import MIGRATIONS
from mailsrv.queue.values import (
    LOCAL,
    Entry,
    Message,
    Recipient,
    Result,
    State,
)
from tests.cli.test_accounts import ANNA, SETTINGS, CommandCase
from tests.queue.values import answer, message, recipient

ROUTE = """
[[relay.route]]
recipient_domain = "far.test"
to = "smart.example:587"
"""
# A reverse-path may have letters that turn the rest of a line around.
TURNED = "\u202eanna@example.test"
ORDERS = "\x1b]0;evil\x07 \x9b31m \u202e"  # to a terminal


class QueueCommandCase(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.call("domain", "add", "example.test")
        self.rows = QueueDatabase(self.data / "queue.sqlite")
        self.addCleanup(self.rows.close)
        self.now = time.time()

    def have(
        self, *recipients: Recipient, sent: Message | None = None
    ) -> tuple[Recipient, ...]:
        """Put a message with these recipients into the queue."""
        sent = sent or message(arrived_at_utc=self.now - 60)
        new: Entry = (sent, tuple(replace(r, message=sent.id) for r in recipients))
        [(_, added)] = self.rows.write([new], ())[0]
        return added

    def queue(self, *arguments: str, ends: int = 0) -> str:
        return self.call("queue", *arguments, ends=ends)

    def sending(self, *ids: int) -> Any:
        """Have a server that runs, and sends to these rows. Any: as mock is typed."""
        return patch.object(command, "_sending", lambda settings: frozenset(ids))

    def words(self, address: str, *ids: int) -> str:
        with self.sending(*ids):
            return " ".join(self.queue("why", address).split())


class ListTests(QueueCommandCase):
    def test_nothing_reaches_the_terminal_that_it_would_obey(self) -> None:
        said = answer(451, ORDERS, peer=f"mx{ORDERS}", tls=ORDERS)
        odd = recipient(f"{ORDERS}@far.test", original=f'"{ORDERS}"@far.test')
        self.have(
            replace(odd, answer=said),
            sent=message(reverse_path=TURNED, account=ORDERS),
        )
        for arguments in (
            ("list",),
            ("show", "m1"),
            ("why", "far.test"),
            ("list", "--json"),
            ("show", "m1", "--json"),
        ):
            with self.sending():
                text = self.queue(*arguments)
            for character in set(text) - {"\n"}:
                self.assertTrue(character.isprintable(), (arguments, character))
        [row] = [json.loads(line) for line in text_lines(self.queue("list", "--json"))]
        self.assertEqual(row["answer"]["text"], ORDERS)
        self.assertEqual(row["sender"], TURNED)

    def test_what_is_settled_is_not_listed_unless_it_is_asked_for(self) -> None:
        waiting = recipient("a@far.test")
        self.have(
            waiting,
            recipient("b@far.test", state=State.DELIVERED, next_at_utc=None),
            recipient("c@far.test", state=State.HELD, next_at_utc=None),
        )
        listed = self.queue("list")
        self.assertNotIn("b@far.test", listed)
        for arguments in (("list", "m1"), ("list", "--state", "delivered")):
            self.assertIn("b@far.test", self.queue(*arguments), arguments)
        self.assertIn("c@far.test", listed)

    def test_filters_take_domains_as_people_write_them(self) -> None:
        self.have(recipient("J\u00d6RG@xn--mller-kva.example"))
        for arguments in (
            ("--destination", "M\u00fcller.example"),
            ("--destination", "XN--MLLER-KVA.EXAMPLE"),
            ("--recipient", "j\u00f6rg@M\u00dcLLER.example"),
            ("--recipient", "m\u00fcller.example"),
            ("--recipient", "J\u00f6r"),
            ("--sender", "Anna"),
        ):
            self.assertIn("m1", self.queue("list", *arguments), arguments)
        self.assertIn(
            "m\u00fcller.example", self.words("j\u00f6rg@m\u00fcller.example")
        )

    def test_reads_without_writing(self) -> None:
        """The server alone writes; a command must not wait for it, nor it for that."""
        self.have(recipient())
        self.rows._writer.execute("BEGIN IMMEDIATE")
        try:
            self.assertIn("m1", self.queue("list"))
        finally:
            self.rows._writer.execute("ROLLBACK")

    def test_rows_of_an_earlier_version_are_left_as_they_are(self) -> None:
        earlier = len(MIGRATIONS) - 1
        self.rows._writer.execute(f"PRAGMA user_version = {earlier}")
        self.assertIn("restart", self.queue("list", ends=1))
        [version] = self.rows._writer.execute("PRAGMA user_version").fetchone()
        self.assertEqual(version, earlier)

    def test_exit_codes(self) -> None:
        self.have(recipient(state=State.HELD, next_at_utc=None), recipient("b@x.test"))
        self.assertIn("no message", self.queue("show", "nothing", ends=1))
        self.assertIn("which ones", self.queue("hold", ends=2))
        self.assertIn("start it first", self.queue("hold", "m1", ends=1))

    def test_a_message_of_which_nothing_was_changed(self) -> None:
        class Server:
            def __init__(self, *_: object) -> None:
                self.done = 0

            def __enter__(self) -> "Server":
                return self

            def __exit__(self, *_: object) -> None: ...

            def ask(self, request: object) -> object:
                return {"done": 0, "busy": 0}

        with patch.object(command, "ServerCall", Server):
            self.assertIn("nothing of m9", self.queue("retry", "m9", ends=1))
            self.assertIn("0 recipients", self.queue("retry", "--all"))


class WhyTests(QueueCommandCase):
    def tried(self, **changes: Any) -> Recipient:
        # Any: fields of all types.
        said = answer(451, "Greylisted, come again", peer="mx.far.test [192.0.2.7]")
        plain = recipient("carl@far.test", attempts=2, answer=said)
        return replace(plain, next_at_utc=self.now + 600, **changes)

    def test_waits(self) -> None:
        self.have(self.tried())
        words = self.words("carl@far.test")
        for part in (
            "To carl@far.test, from anna@example.test, accepted 1 min ago (m1):",
            "It waits. It was tried 2 times at the mail servers of far.test; the next"
            " time is at",
            "The server mx.far.test [192.0.2.7] says: 451 4.0.0 Greylisted",
            "it goes back to the sender",
            "mailsrv queue retry m1",
        ):
            self.assertIn(part, words)

    def test_names_the_smarthost_that_was_tried(self) -> None:
        (self.folder / "mailsrv.toml").write_text(SETTINGS + ROUTE)
        self.have(self.tried())
        words = self.words("carl@far.test")
        self.assertIn("tried 2 times at the server smart.example:587", words)
        self.assertNotIn("mail servers of far.test", words)

    def test_names_a_socket(self) -> None:
        route = ROUTE.replace("smart.example:587", "lmtp:unix:/run/lists")
        (self.folder / "mailsrv.toml").write_text(SETTINGS + route)
        self.have(self.tried())
        self.assertIn("at the server at /run/lists", self.words("carl@far.test"))

    def test_mailbox(self) -> None:
        self.have(self.tried(destination=LOCAL))
        self.assertIn("tried 2 times at the mailbox", self.words("carl@far.test"))

    def test_not_tried_yet(self) -> None:
        self.have(recipient("carl@far.test"))
        self.assertIn("has not been tried yet", self.words("carl@far.test"))

    def test_its_turn_has_come(self) -> None:
        [row] = self.have(self.tried())
        self.rows.write((), [Result(row, State.WAITING, self.now - 5, None)])
        self.assertIn("it is its turn again", self.words("carl@far.test"))

    def test_being_sent(self) -> None:
        [row] = self.have(self.tried())
        words = self.words("carl@far.test", row.id)
        self.assertIn(
            "It is being sent at this moment, to the mail servers of far.test; it was"
            " tried 2 times before.",
            words,
        )
        self.assertNotIn("It waits", words)

    def test_server_that_does_not_run(self) -> None:
        self.have(self.tried())
        self.assertIn("The server does not run", self.queue("why", "carl@far.test"))

    def test_held(self) -> None:
        self.have(self.tried(state=State.HELD))
        words = self.words("carl@far.test")
        self.assertIn("An administrator holds it: mailsrv queue release", words)
        self.assertIn("Greylisted", words)
        self.assertNotIn("goes back", words)

    def test_settled_while_others_wait(self) -> None:
        said = answer(550, "No such person", peer="mx")
        # Any: fields of all types.
        states: tuple[tuple[dict[str, Any], str], ...] = (
            ({"state": State.DELIVERED}, "It was delivered"),
            ({"state": State.DROPPED}, "thrown it away"),
            ({"state": State.FAILED}, "for good, and the sender was told."),
            ({"state": State.FAILED, "notify": "NEVER"}, "nobody is to be told"),
        )
        for number, (changes, part) in enumerate(states):
            address = f"r{number}@far.test"
            one = recipient(address, next_at_utc=None, answer=said, **changes)
            self.have(one, recipient("x@y.test"), sent=message(f"m{number}"))
            self.assertIn(part, self.words(address))
        self.assertIn("550 5.0.0 No such person", self.words("r2@far.test"))

    def test_report(self) -> None:
        self.have(self.tried(), sent=message(reverse_path="", account=None))
        words = self.words("carl@far.test")
        self.assertIn("from this server itself (a report)", words)
        self.assertIn("it is given up", words)

    def test_address_itself_before_others_that_have_it_in_them(self) -> None:
        self.have(self.tried(), self.tried(forward_path="sub-carl@far.test"))
        self.assertNotIn("sub-carl", self.words("CARL@Far.test"))
        self.assertIn("sub-carl", self.words("carl"))

    def test_alias(self) -> None:
        self.have(self.tried(original="staff@example.test"))
        words = self.words("staff@example.test")
        self.assertIn("To carl@far.test (behind staff@example.test)", words)

    def test_sender(self) -> None:
        self.have(self.tried())
        self.assertIn("To carl@far.test", self.words("anna@example.test"))

    def test_nothing_waits(self) -> None:
        self.add(ANNA)
        for address in (ANNA, "carl@far.test"):
            words = self.words(address)
            self.assertIn(f"Nothing waits for or from {address}.", words)
            self.assertIn(f"mailsrv log trace {address}", words)

    def test_address_that_nobody_has(self) -> None:
        self.add(ANNA)
        words = self.words("ana@example.test")
        self.assertIn("Nobody here has the address ana@example.test", words)
        self.call("account", "disable", ANNA)
        self.assertIn("is disabled", self.words(ANNA))


def text_lines(text: str) -> list[str]:
    return text.strip().split("\n")
