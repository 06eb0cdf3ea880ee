"""Dovecot as a judge of FETCH: both answer alike, or we know why.

Sizes, octets and header fields of every message are the same. Envelopes, structures
and parts are, unless one of `DIFFERENCES` holds, which docs/reference/dovecot.rst
explains.
"""

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.clients.broken_mime import broken_mime
from tests.clients.fetch_answer import Value, fetch
from tests.clients.oracle_mail import Oracle, kept_mail, made_mail
from tests.clients.server import ROOT

OCTETS = (
    *("RFC822.SIZE", "BODY.PEEK[]", "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]"),
    *("BODY.PEEK[HEADER.FIELDS (FROM SUBJECT CONTENT-TYPE X-OWN RECEIVED)]",),
    # Not a piece of TEXT: Dovecot closes the connection over some of these messages.
    *("BODY.PEEK[]<10.100>", "RFC822.HEADER"),
)
DISPUTED = (
    *("ENVELOPE", "BODYSTRUCTURE", "BODY", "BODY.PEEK[HEADER.FIELDS.NOT (FROM)]"),
    *(
        f"BODY.PEEK[{part}{section}]"
        for part in ("1", "2", "1.1", "1.2", "2.1", "1.1.1")
        for section in ("", ".MIME", ".HEADER", ".TEXT", ".HEADER.FIELDS (SUBJECT)")
    ),
)
_TYPE = re.compile(rb"^[ \t]*content-type:[ \t]*((?:[^\r\n]|\r?\n[ \t])*)", re.I | re.M)
_GOOD_TYPE = re.compile(rb"[\w.+-]+/[\w.+-]+ *(;|$)")
_BOUNDARY = re.compile(rb'boundary=("[^"\n]*"|[^\s;]+)')
_ODD_VALUE = re.compile(
    rb"^content-[\w-]+:(?:[^\n]*(?:\(|;;|[;:=] *$|=;|=a b|charset$|\*)|\s*\n| *;)"
    rb"|^content-language|^content-transfer-encoding: (?:a b|x)|[\x80-\xff]",
    re.I | re.M,
)
_COUNTED = re.compile(rb"from|to|cc|bcc|subject|date|sender|reply-to|.*-id|.*-reply-to")

Rule = Callable[[str, bytes, Value, Value], bool]
"""Of the item, the message with LF lines, our answer, Dovecot's."""


def repeated(item: str, mail: bytes, _ours: Value, _theirs: Value) -> bool:
    names = re.findall(rb"^([\w-]+):", _header(mail).lower(), re.M)
    fields = [name for name in names if _COUNTED.fullmatch(name)]
    return item == "ENVELOPE" and len(fields) > len(set(fields))


def boundaries(_item: str, mail: bytes, _ours: Value, _theirs: Value) -> bool:
    """Whether a line begins with a boundary and then goes on."""
    found = {boundary.strip(b'"') for boundary in _BOUNDARY.findall(mail)} - {b""}
    return any(
        line.startswith(boundary) and line[len(boundary) :].strip() not in (b"", b"--")
        for line in re.findall(rb"^--(.*)", mail, re.M)
        for boundary in found
    )


def types(_item: str, mail: bytes, _ours: Value, _theirs: Value) -> bool:
    """Whether a type is none, or a multipart one has no boundary."""
    return any(
        not _GOOD_TYPE.match(value)
        or (value.startswith(b"multipart/") and not _BOUNDARY.search(value))
        or b'boundary=""' in value
        for value in (value.strip().lower() for value in _TYPE.findall(mail))
    )


def _header(mail: bytes) -> bytes:
    return (b"\n" + mail).partition(b"\n\n")[0]


# By the words that docs/reference/dovecot.rst has for it.
DIFFERENCES: dict[str, Rule] = {
    "Odd addresses": lambda item, mail, ours, theirs: (
        item == "ENVELOPE"
        and (
            any(word in repr(theirs) for word in ("MISSING_", "SYNTAX_ERROR"))
            or re.search(rb"^[\w-]+:[^\n]*\(", _header(mail), re.M) is not None
        )
    ),
    "Repeated fields": repeated,
    "No MIME-Version": lambda item, mail, ours, theirs: (
        item in ("BODY", "BODYSTRUCTURE")
        and (
            b"\nmime-version:" not in _header(mail).lower()
            or mail.lower().count(b"\nmime-version:")
            < len(re.findall(rb"message/rfc822|/digest", mail))
        )
    ),
    "Types that are none": types,
    "Boundaries that go on": boundaries,
    "Ends in a row": lambda item, mail, ours, theirs: (
        re.search(rb"--[ \t]*\n--", mail) is not None
    ),
    "Odd parameters": lambda item, mail, ours, theirs: (
        item in ("BODY", "BODYSTRUCTURE") and _ODD_VALUE.search(mail) is not None
    ),
    "Parts that are not there": lambda item, mail, ours, theirs: (
        re.search(r"\[\d\.\d", item) is not None and ours in (b"", None)
    ),
    "Lines that are no fields": lambda item, mail, ours, theirs: (
        "FIELDS.NOT" in item
        and re.search(rb"^(?![\w-]+[ \t]*:|[ \t])|\A[ \t]", _header(mail)[1:], re.M)
        is not None
    ),
    "Header without an end": lambda item, mail, ours, theirs: (
        "FIELDS.NOT" in item and b"\n\n" not in b"\n" + mail
    ),
}


def normal(value: Value) -> Value:
    """Without case, and with one blank for several: both are right."""
    if isinstance(value, list):
        return [normal(each) for each in value]
    return re.sub(rb"\s+", b" ", value).strip().lower() if value else value


class OracleTests(SynchronousTestCase):
    def test_both_answer_alike(self) -> None:
        real = kept_mail(40)
        mails = [*broken_mime(400), *made_mail(150), *real]
        temporary = tempfile.TemporaryDirectory(prefix="mailsrv-")
        self.addCleanup(temporary.cleanup)
        self.oracle = Oracle(Path(temporary.name), mails)
        self.addCleanup(self.oracle.stop)
        self.oracle.start()
        for item in OCTETS:
            ours, theirs = self.ask(item)
            self.assertEqual(ours, theirs, item)
            self.assertEqual(len(ours), len(mails))
        wrong, alike = [], 0
        for item in DISPUTED:
            ours, theirs = self.ask(item)
            for number, mail in enumerate(mails, 1):
                one, other = ours.get(number), theirs.get(number)
                if normal(one) == normal(other):
                    alike += 1
                    continue
                lines = mail.replace(b"\r\n", b"\n")
                if not any(r(item, lines, one, other) for r in DIFFERENCES.values()):
                    wrong.append((item, mail, one, other))
        self.assertEqual(wrong[:3], [], len(wrong))
        self.assertGreater(alike, len(mails) * len(DISPUTED) * 0.8)

    def ask(self, item: str) -> tuple[dict[int, Value], dict[int, Value]]:
        return fetch(self.oracle.ours, item), fetch(self.oracle.dovecot, item)

    def test_each_difference_is_explained(self) -> None:
        page = (ROOT / "docs" / "reference" / "dovecot.rst").read_text()
        for name in DIFFERENCES:
            self.assertIn(f"\n{name}\n   ", page)
