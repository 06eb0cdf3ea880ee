"""Dovecot as a judge of SEARCH, SORT and THREAD: both answer alike, or we know why.

Each message in which two answers differ must fall under one of `DIFFERENCES`, which
docs/reference/dovecot.rst explains.
"""

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.imap.format import uid_set
from mailsrv.mime.address import addresses
from mailsrv.mime.date import sent_date
from mailsrv.mime.envelope import FIELDS, collect
from mailsrv.mime.header import fields
from tests.clients.oracle_mail import Oracle, kept_mail, made_mail
from tests.clients.server import ROOT

DATE_KEYS = ("ON", "BEFORE", "SINCE")
TEXT_KEYS = (
    *("SUBJECT", "FROM", "TO", "CC", "BCC", "BODY", "TEXT"),
    *("HEADER Subject", "HEADER Message-ID", "HEADER References", "HEADER X-Inner"),
)
TEXTS = (
    *("lunch", "LUNCH (fwd)", "grüße", "GRÜSSE", "日本", "jörg", "Müller", "example"),
    *("anna@", "words", "hidden", "first part", "inner subject", "inner body", "perl"),
    *("preamble", "epilogue", "attached", "köln", "ein langes Wort", "shown", "the"),
    *("re:", "[list]", "boundary", "multipart", "two blanks", "over lines", "<m1"),
    *("in an unknown", "not base64", "noat", "zebra", "_under", "relay.test"),
)
KEYS = (
    *("ALL", "SEEN", "UNSEEN", "ANSWERED", "KEYWORD x", "UNKEYWORD x", "1:20", "*"),
    *("UID 5:7,3", "NOT UID 5:*", "LARGER 3000", "SMALLER 200", "NOT SMALLER 3000"),
    *("OR SEEN LARGER 3000", "NOT (SEEN SMALLER 300)", "YOUNGER 100", "OLDER 100"),
    *(
        f"{prefix}{key} {day}"
        for prefix in ("", "SENT")
        for key in DATE_KEYS
        for day in ("2-Mar-2026", "3-Mar-2026", "1-Jan-2000", "15-Nov-2023")
    ),
    *('HEADER Date ""', 'HEADER To ""', 'HEADER Cc ""', 'HEADER Subject ""'),
    *('HEADER References ""', 'HEADER X-None ""', 'SUBJECT ""', 'BODY ""', 'TEXT ""'),
)
CRITERIA = (
    *("ARRIVAL", "CC", "DATE", "FROM", "SIZE", "SUBJECT", "TO", "DISPLAYFROM"),
    *("DISPLAYTO", "REVERSE DATE", "SUBJECT REVERSE DATE", "REVERSE FROM SIZE"),
)


@dataclass(frozen=True)
class Mail:
    """A message, as far as it counts for what is disputed."""

    octets: bytes

    @cached_property
    def header(self) -> bytes:
        return self.octets.partition(b"\n\n")[0] + b"\n"

    @cached_property
    def names(self) -> list[bytes]:
        return [name.lower() for name, _ in fields(self.header)]

    @cached_property
    def values(self) -> dict[bytes, bytes]:
        return collect(fields(self.header))

    def has(self, pattern: bytes) -> bool:
        return re.search(pattern, self.octets, re.I | re.M) is not None

    @cached_property
    def is_repeated(self) -> bool:
        wanted = FIELDS | {b"references"}
        return any(self.names.count(name) > 1 for name in wanted & set(self.names))

    @cached_property
    def date_is_odd(self) -> bool:
        return re.search(rb"24:61|9:5:7", self.values.get(b"date", b"")) is not None

    @cached_property
    def has_no_date(self) -> bool:
        return sent_date(self.values.get(b"date", b"")) is None

    @cached_property
    def addresses_are_odd(self) -> bool:
        """Whether what is no address stands first in a list, or in angles."""
        for name in (b"from", b"to", b"cc", b"bcc"):
            value = self.values.get(name, b"").strip()
            if re.search(rb"<[^<>]*(?:\s[^<>]*>|$)", value):
                return True
            if value and not self._is_address(value):
                return True
        return False

    def _is_address(self, value: bytes) -> bool:
        first = addresses(value)[:1]
        return (
            bool(first)
            and first[0].host != b""
            and b" " not in (first[0].mailbox or b"")
        )

    @cached_property
    def subject_is_odd(self) -> bool:
        value = self.values.get(b"subject", b"")
        return b"x-unknown" in value or not value.isascii()


Rule = Callable[[str, Mail], bool]  # of a search key and a message


def of(*keys: str) -> Callable[[str], bool]:
    return lambda key: key.startswith(keys)


is_text = of("BODY", "TEXT")
is_header = of("SUBJECT", "FROM", "TO", "CC", "BCC", "HEADER", "TEXT")

# By the words that docs/reference/dovecot.rst has for it.
DIFFERENCES: dict[str, Rule] = {
    "Repeated fields": lambda key, mail: of("SENT")(key) and mail.is_repeated,
    "No date": lambda key, mail: of("SENT")(key) and mail.has_no_date,
    "Odd dates": lambda key, mail: of("SENT")(key) and mail.date_is_odd,
    "HTML": lambda key, mail: is_text(key) and mail.has(rb"<html|text/html"),
    "Attached messages": lambda key, mail: (
        of("BODY")(key) and mail.has(rb"message/rfc822")
    ),
    "No boundary": lambda key, mail: (
        is_text(key)
        and mail.has(rb"^content-type:\s*multipart/")
        and not mail.has(rb"^\s*content-type:[^\n]*(\n[ \t][^\n]*)*boundary")
    ),
    "Blanks": lambda key, mail: (is_text(key) or is_header(key)) and " " in text(key),
    "Odd addresses": lambda key, mail: (
        of("FROM", "TO", "CC", "BCC")(key) and mail.addresses_are_odd
    ),
    "Unknown charsets": lambda key, mail: (
        (is_text(key) or is_header(key))
        and (not mail.octets.isascii() or mail.has(rb"x-unknown|nonsense"))
    ),
    "Case": lambda key, mail: not text(key).isascii(),
}


def text(key: str) -> str:
    """Return what a key looks for."""
    return found[1] if (found := re.search('"(.*)"', key)) else ""


def keys() -> Iterator[str]:
    yield from KEYS
    for key in TEXT_KEYS:
        for sought in TEXTS:
            yield f'{key} "{sought}"'


class OracleTests(SynchronousTestCase):
    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-")
        self.addCleanup(temporary.cleanup)
        made, kept = made_mail(), kept_mail()
        self.mails = [Mail(octets) for octets in (*made, *kept)]
        self.oracle = Oracle(Path(temporary.name), [mail.octets for mail in self.mails])
        self.addCleanup(self.oracle.stop)
        self.oracle.start()

    def test_search(self) -> None:
        wrong, used = [], set()
        for key in keys():
            ours, theirs = (
                {int(number) for number in answer.split()[2:]}
                for answer in self.oracle.ask(f"SEARCH CHARSET UTF-8 {key}")
            )
            for number in ours ^ theirs:
                mail = self.mails[number - 1]
                rules = [name for name, rule in DIFFERENCES.items() if rule(key, mail)]
                used.update(rules)
                if not rules:
                    wrong.append((key, number, "ours" if number in ours else "theirs"))
        self.assertEqual(wrong[:20], [], f"{len(wrong)} in all")
        self.assertEqual(used, set(DIFFERENCES), "a difference that is none any more")

    def test_sort_and_thread(self) -> None:
        agreed = [
            number
            for number, mail in enumerate(self.mails, 1)
            if not (mail.is_repeated or mail.date_is_odd)
            and not (mail.addresses_are_odd or mail.subject_is_odd)
        ]
        self.assertGreater(len(agreed), 100)
        for what in (
            *(f"SORT ({criteria})" for criteria in CRITERIA),
            *("THREAD REFERENCES", "THREAD ORDEREDSUBJECT"),
        ):
            for numbers in (agreed, agreed[::3], agreed[:100]):
                command = f"UID {what} UTF-8 UID {uid_set(numbers).decode()}"
                ours, theirs = self.oracle.ask(command)
                self.assertEqual(ours, theirs, what)


class DocumentTests(SynchronousTestCase):
    def test_differences_are_documented(self) -> None:
        page = (ROOT / "docs" / "reference" / "dovecot.rst").read_text()
        for name in DIFFERENCES:
            self.assertIn(f"\n{name}\n   ", page)
