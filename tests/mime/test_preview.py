"""What PREVIEW shows of sound and of odd messages."""

import base64

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.preview import MAX_CHARACTERS, preview
from mailsrv.mime.structure import parse

ALTERNATIVE = (
    b"Content-Type: multipart/alternative; boundary=b\n\n--b\n"
    b"Content-Type: text/html\n\n<p>from html</p>\n--b\n\n%b\n--b--\n"
)
MIXED = b"Content-Type: multipart/mixed; boundary=b\n\n--b\n%b\n--b\n\nwords\n--b--\n"
HTML = b"Content-Type: text/html; charset=utf-8\n\n"
UTF8 = b"Content-Type: text/plain; charset=utf-8\n\n"

SHOWN = [
    (b"Subject: s\n\nHello\n\n  Anna,\r\n\tit is late.\n", "Hello Anna, it is late."),
    (b"Subject: s\n\n", ""),
    (b"Subject: s", ""),
    (b"\n> asked\n> twice\n\nanswered\n", "answered"),
    (b"\n> only\n> quoted\n", "> only > quoted"),
    (
        HTML + b"<style>p {x}</style><p>T<b>om</b> &amp; J&eacute;r<br>x",
        "Tom & J\xe9r x",
    ),
    (ALTERNATIVE % b"from plain", "from plain"),
    (ALTERNATIVE % b" \n", "from html"),
    (MIXED % b"Content-Disposition: attachment; filename=a.txt\n\nno", "words"),
    (MIXED % b"Content-Type: text/calendar\n\nBEGIN:VCALENDAR", "words"),
    (MIXED % b"Content-Type: message/rfc822\n\nSubject: x\n\ninner", "words"),
    (MIXED.replace(b"mixed", b"encrypted") % b"\nsecret", ""),
    (b"Content-Type: application/pdf\n\n%PDF", ""),
    # What newsletters write behind their first words.
    (HTML + b"Sale" + b"&#847;&zwnj;&nbsp;&#8199;&shy;" * 50 + b" now", "Sale now"),
    (
        UTF8 + "\u0646\u200c\u0627 \u200d\xad e\xadmail\0".encode(),
        "\u0646\u200c\u0627 email",
    ),
    # What says something only far behind.
    (b"\n" + b"> quoted words\n" * 300 + b"answered\n", "answered"),
    (HTML + b"<style>" + b"p {x} " * 3000 + b"</style><p>words", "words"),
    (HTML + b"<p>one<img src='data:" + b"x" * 9000 + b"'> two", "one two"),
    (UTF8 + b"x" * 300, "x" * 200),
    (UTF8 + b"x" * 199 + "e\u0301 more".encode(), "x" * 199),
]


class PreviewTests(SynchronousTestCase):
    def test_shown(self) -> None:
        for content, text in SHOWN:
            self.assertEqual(preview(parse(content), content), text, content)

    def test_encodings(self) -> None:
        head = b"Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: "
        text = "Gr\xfc\xdfe aus K\xf6ln " * 1000
        content = head + b"base64\n\n" + base64.encodebytes(text.encode())
        self.assertTrue(text.startswith(preview(parse(content), content)[:-1]))

    @settings(max_examples=50, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [
                    b"\n",
                    b"--b\n",
                    b"--b--",
                    b"Content-Type: multipart/alternative; boundary=b\n",
                    b"Content-Type: text/html; charset=utf-7\n",
                    b"Content-Transfer-Encoding: base64\n",
                    b"<p",
                    b"+2AA-",
                    b">",
                    b"\xff\0",
                    "\u0301".encode() * 150,
                ]
            ),
            max_size=30,
        ).map(b"".join)
    )
    def test_any_octets_have_a_preview(self, content: bytes) -> None:
        self.assertLessEqual(len(preview(parse(content), content)), MAX_CHARACTERS)
