"""The base subject of RFC 5256 section 2.1."""

import re
import time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.subject import base_subject

SUBJECTS = [
    ("plain", "plain", False),
    ("  two\t \r\n blanks ", "two blanks", False),
    ("Re: x", "x", True),
    ("re[2]: x", "x", True),
    ("RE [q] : Fwd:fw: x", "x", True),
    ("[list] Re: [list] x (fwd) (FWD)", "x", True),
    ("[a] [b] x", "x", False),
    ("[a][b]", "[b]", False),
    ("[fwd: [fwd: x]]", "x", True),
    ("[fwd: x] y", "y", False),
    ("[a] [fwd: x [y]]", "x [y]", True),
    ("refuse", "refuse", False),
    ("fwdd: x", "fwdd: x", False),
    ("AW: x", "AW: x", False),  # translations of "re" are not taken off
    ("Re: (fwd)", "", True),
    ("[fwd:]", "", True),
    ("", "", False),
]
SLOW = ["[a]", "[fwd:", "re:", "(fwd)", "re [", "[fwd: re:", "[x", " [a", "re[a]"]

_BLOB = r"\[[^\[\]]*\] *"


def literal(subject: str) -> tuple[str, bool]:
    """The steps of the RFC, one after another."""
    text, is_reply = re.sub("[ \t\r\n]+", " ", subject), False
    while True:
        while found := re.search(r"(\(fwd\)| )\Z", text, re.I):  # step 2
            is_reply |= found[1] != " "
            text = text[: found.start()]
        while True:  # steps 3 to 5
            if found := re.match(
                rf"(?:{_BLOB})*(?:re|fwd?) *(?:{_BLOB})?:", text, re.I
            ):
                is_reply = True
            elif not (found := re.match(" ", text)):
                found = re.match(_BLOB, text)
                if not found or found.end() == len(text):
                    break
            text = text[found.end() :]
        if not re.fullmatch(r"\[fwd:.*\]", text, re.I | re.S):  # step 6
            return text, is_reply
        text, is_reply = text[5:-1], True


class SubjectTests(SynchronousTestCase):
    def test_examples(self) -> None:
        for subject, text, is_reply in SUBJECTS:
            self.assertEqual(base_subject(subject), (text, is_reply), subject)

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(["re", "FW", "fwd", "[", "]", ":", " ", "(fwd)", "[fwd:"])
            | st.sampled_from("x[]:"),
            max_size=14,
        ).map("".join)
    )
    def test_it_is_what_the_steps_give(self, subject: str) -> None:
        self.assertEqual(base_subject(subject), literal(subject))

    def test_time_is_linear(self) -> None:
        start = time.process_time()
        for piece in SLOW:
            base_subject(piece * 40_000)
            base_subject(piece * 40_000 + "]" * 40_000)
        self.assertLess(time.process_time() - start, 5.0)
