"""Log lines: their fields, their order, and that nobody can fake one."""

import json
from typing import Any

from twisted.logger import Logger, LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.logs import LineObserver, json_line, text_line
from mailsrv.settings import LogSettings


def event(log_format: str, **fields: Any) -> dict[str, Any]:
    # Any: what events hold.
    return {
        "log_time": 0.0,
        "log_level": LogLevel.info,
        "log_namespace": "mailsrv.smtp",
        "log_format": log_format,
        **fields,
    }


class TextTests(SynchronousTestCase):
    def test_a_line(self) -> None:
        line = text_line(
            event("took {size_octets} octets", session="ab", size_octets=5, peer="::1")
        )
        self.assertEqual(
            line,
            "1970-01-01T00:00:00.000Z info mailsrv.smtp session=ab peer=::1"
            " took 5 octets",
        )

    def test_fields_not_in_the_message_follow_it(self) -> None:
        line = text_line(event("login failed", user="a b", elapsed_s=0.123456789))
        self.assertTrue(line.endswith('login failed user="a b" elapsed_s=0.123457'))

    def test_what_a_message_is_found_by_is_always_a_field(self) -> None:
        line = text_line(
            event("{forward_path}: {state}", forward_path="a@b.test", state="delivered")
        )
        self.assertTrue(line.endswith(" a@b.test: delivered forward_path=a@b.test"))

    def test_nobody_can_begin_a_line_or_end_a_quotation(self) -> None:
        evil = 'x"\r\n1970-01-01 info \x1b[2J\u202e\u2028\ud800 peer=192.0.2.9'
        line = text_line(event("hello {name}", user=evil, name=evil, peer="192.0.2.1"))
        self.assertEqual(len(line.splitlines()), 1)
        self.assertTrue(line.isprintable())
        self.assertNotIn('x"', line.partition("user=")[2])
        self.assertLess(line.index("peer=192.0.2.1"), line.index("peer=192.0.2.9"))

    def test_octets_and_objects(self) -> None:
        line = text_line(event("m", verb=b"\xffA", thing=object()))
        self.assertTrue(line.endswith("m verb=\\xffA"))

    def test_a_failure_has_its_traceback(self) -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            failure = Failure()
        lines = text_line(event("broken", log_failure=failure)).splitlines()
        self.assertTrue(all(line.startswith("\t") for line in lines[1:]))
        self.assertIn("ZeroDivisionError", lines[-1])
        row = json.loads(json_line(event("broken", log_failure=failure)))
        self.assertIn("ZeroDivisionError", row["traceback"])


class JsonTests(SynchronousTestCase):
    def test_a_line(self) -> None:
        line = json_line(event("took {n}", n=5, user="ü\n"))
        self.assertTrue(line.isascii())
        self.assertEqual(
            json.loads(line),
            {
                "time": "1970-01-01T00:00:00.000Z",
                "level": "info",
                "namespace": "mailsrv.smtp",
                "message": "took 5",
                "n": 5,
                "user": "ü\n",
            },
        )


class LineObserverTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lines: list[str] = []
        self.observer = LineObserver(
            lambda line, priority: self.lines.append(line), LogSettings(level="warn")
        )
        self.log = Logger("test", observer=self.observer)

    def test_the_level_is_the_least(self) -> None:
        self.log.info("one")
        self.log.warn("two")
        self.log.error("three")
        self.assertEqual([line.split()[-1] for line in self.lines], ["two", "three"])

    def test_settings_may_be_replaced(self) -> None:
        self.observer.settings = LogSettings(level="debug", format="json")
        self.log.debug("now")
        self.assertEqual(json.loads(self.lines[0])["message"], "now")
