"""What other programs may ask of the queue."""

import json
import sqlite3
from base64 import b64encode
from typing import Any

from twisted.internet.testing import StringTransport

from mailsrv.queue.control import MAX_LINE, Control, _Session
from mailsrv.queue.database import Filter
from mailsrv.queue.values import State
from tests.queue.office import ANNA, QueueCase
from tests.queue.values import rows


class ControlTests(QueueCase):
    def setUp(self) -> None:
        super().setUp()
        control = Control(self.queue, self.clock.seconds, self.clock)
        self.control = control
        self.transport = StringTransport()
        self.session = _Session(control)
        self.session.makeConnection(self.transport)

    def ask(self, request: object) -> Any:
        # Any: an answer of any kind.
        return self.said(json.dumps(request).encode() + b"\n")[0]

    def said(self, octets: bytes) -> list[Any]:
        self.session.dataReceived(octets)
        self.settle()
        lines = self.transport.value().splitlines()
        self.transport.clear()
        return [json.loads(line) for line in lines]

    def states(self) -> dict[str, str]:
        found = rows(self.queue.database, Filter())
        return {r.forward_path: str(r.state) for r in found}

    def waiting(self, *addresses: str) -> None:
        self.send(*addresses)
        while self.far.waiting:
            self.far.answer(451)
            self.settle()

    def test_hold_and_release(self) -> None:
        self.waiting("a@far.test", "b@near.test")
        answer = self.ask({"do": "hold", "where": {"recipient": "A@FAR"}})
        self.assertEqual(answer, {"done": 1, "busy": 0})
        self.assertEqual(
            self.states(), {"a@far.test": "held", "b@near.test": "waiting"}
        )
        self.clock.advance(100)
        self.settle()
        [(parcel, _)] = self.far.waiting
        self.assertEqual(parcel.destination, "near.test")
        self.ask({"do": "release", "where": {"state": "held"}})
        self.assertEqual(self.far.waiting[-1][0].destination, "far.test")

    def test_retry(self) -> None:
        self.waiting("a@far.test")
        self.ask({"do": "retry", "all": True})
        self.assertEqual(len(self.far.waiting), 1)

    def test_what_is_being_sent_is_left_alone(self) -> None:
        self.send("a@far.test")
        answer = self.ask({"do": "drop", "all": True})
        self.assertEqual(answer, {"done": 0, "busy": 1})
        self.far.answer(250)
        self.settle()
        self.assertEqual(self.states(), {})

    def test_what_is_being_sent_is_told(self) -> None:
        self.assertEqual(self.ask({"do": "sending"}), {"rows": []})
        self.waiting("a@far.test")
        self.send("b@far.test")
        [row] = rows(self.queue.database, Filter(recipient="b@far.test"))
        self.assertEqual(self.ask({"do": "sending"}), {"rows": [row.id]})

    def test_drop_tells_nobody(self) -> None:
        self.waiting("a@far.test", "b@near.test")
        self.ask({"do": "drop", "where": {"destination": "far.test"}})
        self.assertEqual(self.states()["a@far.test"], "dropped")
        self.ask({"do": "drop", "where": {"destination": "near.test"}})
        self.assertEqual(
            (self.states(), self.mails(), self.spool_files()), ({}, [], [])
        )

    def test_bounce_tells_the_sender(self) -> None:
        self.waiting("a@far.test", "b@far.test", "c@near.test")
        self.ask({"do": "bounce", "where": {"sender": "anna"}})
        [octets] = self.mails()
        for name in (b"a@far.test", b"b@far.test", b"c@near.test"):
            self.assertIn(name, octets)
        self.assertEqual(self.states(), {})

    def test_many(self) -> None:
        for number in range(5):
            self.waiting(*(f"r{n}@far{number}.test" for n in range(100)))
        self.assertEqual(
            self.ask({"do": "hold", "all": True}), {"done": 500, "busy": 0}
        )
        self.assertEqual(self.queue.database.counts(), {State.HELD: 500})

    def test_submit(self) -> None:
        request = {
            "do": "submit",
            "octets": b64encode(b"Subject: x\n\ntext\n").decode(),
            "reverse_path": ANNA,
            "forward_paths": ["a@far.test"],
            "priority": 2,
            "once": "run:a",
        }
        self.assertTrue(self.ask(request)["id"])
        self.assertEqual(self.ask(request), {"id": ""})
        self.assertEqual(len(self.far.carried), 1)

    def test_submit_all(self) -> None:
        messages = [
            {
                "octets": b64encode(b"Subject: x\n\ntext\n").decode(),
                "reverse_path": ANNA,
                "forward_paths": [f"{n}@far.test"],
                "once": f"run:{n}",
            }
            for n in range(3)
        ]
        first = {"do": "submit-all", "messages": messages[:2]}
        self.assertEqual(list(map(bool, self.ask(first)["ids"])), [True, True])
        # One that is wrong is said, and the others are taken.
        bad = {"do": "submit-all", "messages": [{}, *messages]}
        self.assertIn("error", self.ask(bad))
        again = {"do": "submit-all", "messages": messages}
        self.assertEqual(self.ask(again), {"ids": ["", "", ""]})
        self.assertEqual(len(self.far.carried), 3)

    def test_requests_keep_their_order(self) -> None:
        self.waiting("a@far.test")
        hold, release = (
            json.dumps({"do": do, "all": True}).encode() + b"\n"
            for do in ("hold", "release")
        )
        answers = self.said(hold + release + hold + b"{}\n")
        self.assertEqual([a.get("done") for a in answers], [1, 1, 0, None])

    def test_nonsense(self) -> None:
        for octets in (
            b"\n",
            b"[]\n",
            b"\xff\n",
            b"[" * 10_000 + b"\n",
            b'{"do": "explode"}\n',
            b'{"do": ["hold"]}\n',
            b'{"do": "hold"}\n',
            b'{"do": "hold", "where": {}}\n',
            b'{"do": "hold", "where": {"state": "odd"}}\n',
            b'{"do": "hold", "where": {"nothing": "x"}}\n',
            b'{"do": "hold", "where": {"sender": 3}}\n',
            b'{"do": "submit"}\n',
            b'{"do": "submit-all"}\n',
            b'{"do": "submit-all", "messages": [1]}\n',
            b'{"do": "submit-all", "messages": [' + b"{}," * 50 + b"{}]}\n",
            b'{"do": "submit", "octets": "?", "forward_paths": []}\n',
        ):
            [answer] = self.said(octets)
            self.assertEqual(list(answer), ["error"], octets)

    def test_server_that_stops(self) -> None:
        """Its rows are closed while an admin's command goes on: no bug to log."""
        self.wait(self.control.stop())

        async def closed(*arguments: object) -> object:
            raise sqlite3.ProgrammingError("Cannot operate on a closed database.")

        self.queue.last_row = closed  # type: ignore[assignment,method-assign]
        answer = self.ask({"do": "hold", "all": True})
        self.assertEqual(answer, {"error": "the server stops"})

    def test_line_without_end(self) -> None:
        self.session.dataReceived(b"x" * (MAX_LINE + 1))
        self.assertTrue(self.transport.disconnecting)
