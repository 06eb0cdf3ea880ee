"""SORT and THREAD as a client meets them, over a real Maildir."""

from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.parser import Parser
from mailsrv.imap.search_arguments import parse_sort, parse_thread
from mailsrv.settings import ImapExtension, ImapSettings
from mailsrv.store.values import Criterion
from tests.imap.test_reading import ReadingCase

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)
# From, To, Cc, subject, hours of the sent date after DAY (None: no Date), its zone.
MAILS: list[tuple[str, str, str, str, int | None, int]] = [
    ("Zoe <anna@a.test>", "x@a.test", "", "Lunch", 5, 0),
    ("Bob <carl@a.test>", "", "c@a.test", "re: lunch", 3, -8),
    ("anna@b.test", "Y@a.test", "b@a.test", "[list] Another", 4, 2),
    ("", "x@b.test", "", "", None, 0),
    ("Anna <ZACK@a.test>", "x@a.test", "C@b.test", "Fwd: another (fwd)", 4, -1),
]


def sent(mail: tuple[str, str, str, str, int | None, int]) -> float:
    if mail[4] is None:
        return datetime(2026, 3, 2, tzinfo=UTC).timestamp()  # its INTERNALDATE
    return (DAY + timedelta(hours=mail[4])).timestamp()


def octets(mail: tuple[str, str, str, str, int | None, int]) -> bytes:
    author, to, cc, subject, hours, east = mail
    lines = [f"From: {author}", f"To: {to}", f"Cc: {cc}", f"Subject: {subject}"]
    if hours is not None:
        zone = timezone(timedelta(hours=east))
        when = (DAY + timedelta(hours=hours)).astimezone(zone)
        lines.append(f"Date: {format_datetime(when)}")
    kept = [line for line in lines if not line.endswith(": ")]
    return "\r\n".join([*kept, "", "x" * len(subject)]).encode()


CONTENTS = [octets(mail) for mail in MAILS]
ANOTHER, LUNCH = "ANOTHER", "LUNCH"
VALUES: dict[str, list[str] | list[float]] = {
    "ARRIVAL": [5.0, 4.0, 3.0, 2.0, 1.0],
    "CC": ["", "C", "B", "", "C"],
    "DATE": [sent(mail) for mail in MAILS],
    "DISPLAYFROM": ["ZOE", "BOB", "ANNA@B.TEST", "", "ANNA"],
    "DISPLAYTO": ["X@A.TEST", "", "Y@A.TEST", "X@B.TEST", "X@A.TEST"],
    "FROM": ["ANNA", "CARL", "ANNA", "", "ZACK"],
    "SIZE": [float(len(content)) for content in CONTENTS],
    "SUBJECT": [LUNCH, LUNCH, ANOTHER, "", ANOTHER],
    "TO": ["X", "", "Y", "X", "X"],
}


class GrammarTests(ReadingCase):
    def test_sort(self) -> None:
        sort = parse_sort(Parser(b" (REVERSE date Subject) utf-8 ALL"))
        self.assertEqual(
            sort.criteria, (Criterion("sent_at", True), Criterion("subject"))
        )

    def test_wrong(self) -> None:
        for wire in (
            b" () UTF-8 ALL",
            b" (REVERSE) UTF-8 ALL",
            b" (REVERSE REVERSE DATE) UTF-8 ALL",
            b" (NONSENSE) UTF-8 ALL",
            b" (DATE) UTF-8",
            b" (DATE) ALL",
            b" DATE UTF-8 ALL",
            b" RETURN (DATE) UTF-8 ALL",
            b" (" + b"DATE " * 20 + b"DATE) UTF-8 ALL",
        ):
            self.assertRaises(ProtocolViolation, parse_sort, Parser(wire))
        for wire in (b"", b" REFERENCES", b" REFERENCES UTF-8", b" () UTF-8 ALL"):
            self.assertRaises(ProtocolViolation, parse_thread, Parser(wire))


class SortTests(ReadingCase):
    def setUp(self) -> None:
        super().setUp()
        client = self.logged_in()
        for n, content in enumerate(CONTENTS):
            date = b'" %d-Mar-2026 00:00:00 +0000"' % (5 - n)
            command = b"1 APPEND INBOX %b {%d+}\r\n%b\r\n"
            self.assertIn(b"1 OK", client.send(command % (date, len(content), content)))
        self.client = self.reader()
        # UIDs are told apart from numbers.
        self.client.send(b"2 STORE 1 +FLAGS (\\Deleted)")

    def numbers(self, command: bytes) -> list[int]:
        line, end = self.client.send(b"3 " + command).split(b"\r\n")[:2]
        self.assertTrue(end.startswith(b"3 OK"), end)
        self.assertTrue(line.startswith(b"* SORT"), line)
        return [int(number) for number in line.split()[2:]]

    def test_each_criterion(self) -> None:
        for name, values in VALUES.items():
            expected = sorted(range(1, 6), key=lambda n: (values[n - 1], n))
            found = self.numbers(b"SORT (%b) US-ASCII ALL" % name.encode())
            self.assertEqual(found, expected, name)

    def test_any_criteria(self) -> None:
        @settings(max_examples=50, deadline=None)
        @given(
            st.lists(
                st.tuples(st.booleans(), st.sampled_from(sorted(VALUES))), min_size=1
            )
        )
        def check(criteria: list[tuple[bool, str]]) -> None:
            criteria = criteria[:20]
            expected = list(range(1, 6))
            for reverse, name in reversed(criteria):
                values = VALUES[name]
                expected.sort(key=lambda n, v=values: v[n - 1], reverse=reverse)  # type: ignore[misc]  # a lambda's default
            words = [("REVERSE " if r else "") + name for r, name in criteria]
            command = f"UID SORT ({' '.join(words)}) UTF-8 ALL".encode()
            self.assertEqual(self.numbers(command), expected, command)

        check()

    def test_what_is_sought(self) -> None:
        self.assertEqual(
            self.numbers(b"SORT (SUBJECT) UTF-8 1:3 SUBJECT lunch"), [1, 2]
        )
        self.assertEqual(self.numbers(b"SORT (SUBJECT) UTF-8 SUBJECT nothing"), [])
        self.client.send(b"4 EXPUNGE")
        self.assertEqual(
            self.numbers(b"UID SORT (REVERSE FROM) UTF-8 ALL"), [5, 2, 3, 4]
        )
        self.assertEqual(self.numbers(b"SORT (REVERSE FROM) UTF-8 ALL"), [4, 1, 2, 3])

    def test_extended(self) -> None:
        self.assertEqual(
            self.client.send(b"3 UID SORT RETURN () (ARRIVAL) UTF-8 2:5"),
            b'* ESEARCH (TAG "3") UID ALL 5,4,3,2\r\n3 OK UID SORT completed\r\n',
        )
        self.assertEqual(
            self.client.send(b"3 SORT RETURN (MIN MAX COUNT) (ARRIVAL) UTF-8 2:5"),
            b'* ESEARCH (TAG "3") MIN 5 MAX 2 COUNT 4\r\n3 OK SORT completed\r\n',
        )
        self.client.send(b"3 SORT RETURN (SAVE MIN) (ARRIVAL) UTF-8 2:5")
        self.assertIn(b"* 5 FETCH", self.client.send(b"3 FETCH $ UID"))
        self.assertRegex(
            self.client.send(b"3 SORT (ARRIVAL) UTF-8 2:3 MODSEQ 1"),
            rb"\* SORT 3 2 \(MODSEQ \d+\)\r\n3 OK",
        )

    def test_messages_of_which_nothing_is_ready(self) -> None:
        maildir = self.office.root / "anna@example.test" / "Maildir"
        for n in (1, 2):
            content = f"Subject: {3 - n}\nMessage-ID: <{n}@x>\nReferences: <2@x>\n\n"
            (maildir / "cur" / f"200000000{n}.other:2,").write_text(content)
        self.office.ahead_s = 5.0
        self.client.send(b"3 CHECK")
        self.assertEqual(self.numbers(b"SORT (SUBJECT) UTF-8 6:*"), [7, 6])
        self.assertIn(b"(7 6)", self.client.send(b"3 THREAD REFERENCES UTF-8 6:*"))

    def test_wrong(self) -> None:
        for command, answer in (
            (b"SORT (DATE) X-NONE ALL", b"3 NO [BADCHARSET"),
            (b"THREAD REFERENCES X-NONE ALL", b"3 NO [BADCHARSET"),
            (b"THREAD NONSENSE UTF-8 ALL", b"3 BAD"),
        ):
            self.assertTrue(self.client.send(b"3 " + command).startswith(answer))

    def test_threads(self) -> None:
        for command, answer in (
            (b"THREAD REFERENCES UTF-8 ALL", b"(3 5)(1 2)(4)"),
            (b"UID THREAD orderedsubject US-ASCII ALL", b"(2 1)(3 5)(4)"),
            (b"THREAD REFERENCES UTF-8 2:3", b"(2)(3)"),
        ):
            self.assertEqual(
                self.client.send(b"3 " + command).split(b"\r\n")[0],
                b"* THREAD " + answer,
            )
        self.assertEqual(
            self.client.send(b"3 UID THREAD REFERENCES UTF-8 SUBJECT nothing"),
            b"* THREAD\r\n3 OK UID THREAD completed\r\n",
        )

    def test_what_is_switched_off(self) -> None:
        off: list[ImapExtension] = ["SORT", "ESEARCH", "THREAD=REFERENCES"]
        client = self.logged_in(ImapSettings(disabled_extensions=off))
        words = set(client.send(b"1 CAPABILITY\r\n").split())
        gone = (
            *(word.encode() for word in off),
            b"ESORT",
            b"SORT=DISPLAY",
            b"SEARCHRES",
        )
        self.assertEqual(words.intersection(gone), set())
        self.assertIn(b"THREAD=ORDEREDSUBJECT", words)
        client.send(b"2 SELECT INBOX\r\n")
        for command in (
            b"SORT (DATE) UTF-8 ALL",
            b"THREAD REFERENCES UTF-8 ALL",
            b"SEARCH RETURN () ALL",
        ):
            self.assertIn(b"3 BAD", client.send(b"3 " + command + b"\r\n"), command)
        self.assertIn(b"3 OK", client.send(b"3 THREAD ORDEREDSUBJECT UTF-8 ALL\r\n"))
        client.send(b"4 ENABLE IMAP4rev2\r\n")
        self.assertIn(b"* ESEARCH", client.send(b"5 SEARCH RETURN (SAVE ALL) ALL\r\n"))
