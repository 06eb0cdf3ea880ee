"""``mailsrv log trace``: what is found of a message, in text and in JSON."""

import bz2
import gzip
import json
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path

from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.cli.log_lines import events, parse
from mailsrv.cli.main import main
from mailsrv.logs import json_line, text_line

ANNA, BEN, CARA = (f"{name}@example.test" for name in ("anna", "ben", "cara"))


def event(message: str, **fields: str) -> dict[str, object]:
    return {
        "log_format": message,
        "log_level": LogLevel.info,
        "log_namespace": "mailsrv.smtp.session",
        "log_time": 1_800_000_000.0,
        **fields,
    }


# Two sessions; the first one has two transactions, the second one the same message.
LOG = [
    event("login", session="s1", peer="192.0.2.1", user=ANNA),
    event(
        "{command} refused: No such user here",
        command="RCPT",
        session="s1",
        peer="192.0.2.1",
        transaction="t1",
        forward_path="nobody@example.test",
    ),
    event(
        "message accepted",
        session="s1",
        peer="192.0.2.1",
        transaction="t1",
        message_id="<one@example.test>",
        reverse_path=ANNA,
        forward_paths=f"{BEN} {CARA}",
    ),
    event(
        "message accepted",
        session="s1",
        peer="192.0.2.1",
        transaction="t2",
        message_id="<two@example.test> transaction=t1",
        reverse_path=ANNA,
        forward_paths="jörg@example.test",
    ),
    event(
        "message accepted",
        session="s2",
        peer="192.0.2.2",
        transaction="t3",
        message_id="<one@example.test>",
        reverse_path="",
        forward_paths="dora@example.test",
    ),
    event("closed: HTTP", session="s3", peer="192.0.2.3"),
]
# An alias leads elsewhere, and the report on that.
REPORTED = [
    event(
        "message accepted",
        session="s4",
        transaction="t4",
        message_id="<four@example.test>",
        reverse_path="zoe@else.test",
        forward_paths="sales@example.test",
    ),
    event(
        "{forward_path}: {state}",
        transaction="t4",
        reverse_path="SRS0=x@example.test",
        forward_path="Jörg@far.test",
        state="failed",
    ),
    event(
        "{kind} report for {transaction}",
        kind="failed",
        transaction="t4",
        report="r1",
        message_id="<t4.1.failed@mail.example.test>",
        forward_path="zoe@else.test",
    ),
    event(
        "{forward_path}: {state}",
        transaction="r1",
        reverse_path="",
        forward_path="zoe@else.test",
        state="delivered",
    ),
    event(
        "message accepted",
        session="s5",
        transaction="t5",
        message_id='<"a b"@else.test>',
        reverse_path='"a b"@else.test',
        forward_paths=f'{BEN} "c d"@example.test {ANNA}',
    ),
]


class TraceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def trace(
        self,
        wanted: str,
        *options: str,
        as_json: bool = False,
        log: Sequence[Mapping[str, object]] = LOG,
    ) -> Result:
        write = json_line if as_json else text_line
        file = self.folder / "log"
        file.write_text("".join(write(dict(row)) + "\n" for row in log))
        command = ["log", "trace", wanted, "--file", str(file), *options]
        return CliRunner().invoke(main, command)

    def found(self, wanted: str, as_json: bool = False) -> list[str]:
        """Return session and transaction of each line that is shown."""
        result = self.trace(wanted, "--json", as_json=as_json)
        self.assertEqual(result.exit_code, 0, result.output)
        rows = map(json.loads, result.output.splitlines())
        return [f"{row['session']} {row.get('transaction', '-')}" for row in rows]

    def test_what_is_found(self) -> None:
        one = ["s1 -", "s1 t1", "s1 t1", "s2 t3"]
        for as_json in (False, True):
            for wanted, lines in (
                ("<one@example.test>", one),
                ("ONE@example.test", one),
                ("t1", one),
                ("t2", ["s1 -", "s1 t2"]),
                ("s2", one),
                (CARA, ["s1 -", "s1 t1", "s1 t1"]),
                ("Nobody@example.test", ["s1 -", "s1 t1", "s1 t1"]),
                ("jörg@example.test", ["s1 -", "s1 t2"]),
                ("s3", ["s3 -"]),
            ):
                self.assertEqual(self.found(wanted, as_json), lines, wanted)

    def test_reports_and_what_goes_elsewhere(self) -> None:
        life = ["t4", "t4", "t4 r1", "r1"]
        for as_json in (False, True):
            for wanted, lines in (
                ("four@example.test", life),
                ("t4", life),
                ("jÖrg@far.test", life),
                ("zoe@else.test", life),
                ("r1", life),
                ("<t4.1.failed@mail.example.test>", life),
                ('"c d"@example.test', ["t5"]),
                ('<"A b"@else.test>', ["t5"]),
                (ANNA, ["t5"]),
            ):
                result = self.trace(wanted, "--json", as_json=as_json, log=REPORTED)
                rows = map(json.loads, result.output.splitlines())
                found = [
                    f"{row['transaction']} {row.get('report', '')}".rstrip()
                    for row in rows
                ]
                self.assertEqual(found, lines, (wanted, as_json))

    def test_copies_of_a_list(self) -> None:
        post, copies = "1a.5e.1", "1a.5e.1.news@example.test"
        report = "1b.queue.3"
        log = [
            event("message accepted", transaction=post, forward_paths="news@a.test"),
            event("{forward_path}: sent", transaction=copies, forward_path=BEN),
            event("report", transaction=copies, report=report, forward_path=ANNA),
            event("{forward_path}: sent", transaction=report, forward_path=ANNA),
            event("message accepted", transaction="1a.5e.2", forward_paths=CARA),
        ]
        for as_json in (False, True):
            for wanted in (post, copies, BEN, "news@a.test", report):
                result = self.trace(wanted, "--json", as_json=as_json, log=log)
                rows = map(json.loads, result.output.splitlines())
                found = [row["transaction"] for row in rows]
                self.assertEqual(found, [post, copies, copies, report], wanted)

    def test_nothing_is_asked(self) -> None:
        for wanted in ("", "<>", " "):
            result = self.trace(wanted)
            self.assertEqual(result.exit_code, 2)
            self.assertNotIn("session", result.output)

    def test_packed_files(self) -> None:
        octets = "".join(text_line(row) + "\n" for row in LOG).encode()
        plain = self.trace("t1").output
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            file = self.folder / "packed"
            file.write_bytes(pack(octets))
            command = ["log", "trace", "t1", "--file", str(file)]
            self.assertEqual(CliRunner().invoke(main, command).output, plain)
            file.write_bytes(pack(octets)[:-20])
            result = CliRunner().invoke(main, command)
            self.assertEqual(result.exit_code, 1)
            self.assertIn("packed cannot be read", result.output)

    def test_as_it_stands(self) -> None:
        output = self.trace("one@example.test").output
        lines = [text_line(LOG[n]) for n in (0, 1, 2)] + ["", text_line(LOG[4])]
        self.assertEqual(output.splitlines(), lines)

    def test_nothing_found(self) -> None:
        result = self.trace("example.test")
        self.assertEqual(result.exit_code, 1)
        self.assertIn("the log has nothing of example.test", result.output)

    def test_several_files_and_standard_input(self) -> None:
        lines = [text_line(row) + "\n" for row in LOG]
        old, new = self.folder / "old.gz", self.folder / "new"
        old.write_bytes(gzip.compress("".join(lines[:2]).encode()))
        new.write_text("".join(lines[2:]))
        by_files = CliRunner().invoke(
            main, ["log", "trace", "t1", "--file", str(old), "--file", str(new)]
        )
        by_input = CliRunner().invoke(
            main, ["log", "trace", "t1", "--file", "-"], input="".join(lines)
        )
        self.assertEqual(by_files.output, by_input.output)
        self.assertEqual(by_files.output.count("session=s1"), 3)


class LineTests(SynchronousTestCase):
    def test_what_stands_before_and_after(self) -> None:
        line = text_line(event("login", session="s1"))
        text = f"Nov 25 02:00:00 mail mailsrv: {line}\n\tTraceback\n\tend\n"
        self.assertEqual(list(events([*text.splitlines(True), "x\n"])), [text, "x\n"])
        self.assertEqual(parse(text).get("session"), "s1")

    @settings(max_examples=50, deadline=None)
    @given(
        st.dictionaries(
            st.sampled_from(["peer", "session", "user", "message_id"]),
            st.text(
                st.characters(exclude_characters='"', exclude_categories=("C", "Z")),
                min_size=1,
                max_size=20,
            ),
        )
    )
    def test_round_trip(self, fields: Mapping[str, str]) -> None:
        line = text_line(event("m", **fields))
        self.assertEqual(dict(parse(line).fields), dict(fields), line)
        row = json.loads(json_line(event("m", **fields)))
        self.assertEqual(dict(parse(json.dumps(row)).fields), row)
