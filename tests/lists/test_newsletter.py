"""Newsletters: what each recipient gets, and that nobody gets it twice."""

from base64 import b64decode
from collections.abc import Mapping
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.bulk import Bulk, Progress
from mailsrv.lists.members import Members, State
from mailsrv.lists.newsletter import (
    MAX_OCTETS,
    Newsletter,
    NewsletterRefused,
)
from mailsrv.lists.recipients import ListRefused, Row, read
from mailsrv.lists.tokens import Purpose, Tokens

NEWS = "news@example.org"
BOTH = b"""\
From: =?utf-8?Q?Die_B=C3=A4ckerei?= <news@example.org>
To: everybody@example.org
Bcc: secret@example.org
Message-ID: <draft@laptop>
Subject: Brot, {{name}}!
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=x

--x
Content-Type: multipart/alternative; boundary=y

--y
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: 8bit

Gr\xfc\xdfe, {{name}} {{Name}}
{{unsubscribe}}
--y
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<style>p{color} a{{}} </style><p>Hallo {{name}}, <a href=3D"{{unsubscribe}}">ab</a>
--y--
--x
Content-Type: text/plain; name=a.txt
Content-Disposition: attachment; filename=a.txt

{{name}} stays
--x
Content-Type: image/png
Content-Transfer-Encoding: base64

iVBORw0KGgo=
--x--
"""


def simple(text: str = "Hi {{name}}", subject: str = "News") -> bytes:
    return f"Subject: {subject}\n\n{text}\n".encode()


class NewsletterTests(SynchronousTestCase):
    def copy(self, octets: bytes, **values: str) -> EmailMessage:
        newsletter = Newsletter(octets, NEWS)
        filled = newsletter.copy("b@far.test", values, b"X-Own: 1\r\n", "id@here", 0.0)
        self.assertNotIn(b"\n", filled.replace(b"\r\n", b""))
        return message_from_bytes(filled, policy=default)

    def test_fields_are_filled_in_where_people_read(self) -> None:
        found = self.copy(BOTH, name="Zoë <b>&", unsubscribe="https://x/u")
        self.assertEqual(found["Subject"], "Brot, Zoë <b>&!")
        parts = [part for part in found.walk() if not part.is_multipart()]
        plain, html, attached, picture = parts
        self.assertEqual(plain.get_content(), "Grüße, Zoë <b>& Zoë <b>&\r\nhttps://x/u")
        self.assertIn("Hallo Zoë &lt;b&gt;&amp;, ", html.get_content())
        self.assertIn("p{color} a{{}} ", html.get_content())
        self.assertIn('href="https://x/u"', html.get_content())
        self.assertIn("{{name}} stays", attached.get_content())
        self.assertEqual(picture.get_content(), b"\x89PNG\r\n\x1a\n")

    def test_header_is_of_this_copy_alone(self) -> None:
        found = self.copy(BOTH, name="", unsubscribe="")
        self.assertEqual(found["From"], "Die Bäckerei <news@example.org>")
        self.assertEqual(found["To"], "b@far.test")
        self.assertEqual(found["Message-ID"], "<id@here>")
        self.assertEqual(found["X-Own"], "1")
        self.assertEqual(found["Precedence"], "bulk")
        self.assertIsNone(found["Bcc"])
        self.assertEqual(len(found.get_all("Subject") or ()), 1)
        self.assertEqual(len(found.get_all("MIME-Version") or ()), 1)

    def test_from_is_the_sender_whatever_the_file_says(self) -> None:
        octets = b"From: Boss <boss@else.test>\n" + simple()
        self.assertEqual(self.copy(octets, name="")["From"], "news@example.org")

    def test_name_of_the_sender(self) -> None:
        copy = Newsletter(BOTH, NEWS, "The Shöp").copy(
            "b@far.test", {"name": "", "unsubscribe": ""}, b"", "1@x", 0.0
        )
        found = message_from_bytes(copy, policy=default)
        self.assertEqual(found["From"], "The Shöp <news@example.org>")

    def test_header_in_eight_bits(self) -> None:
        """As an editor writes it, in UTF-8 or not."""
        text = "From: Bäcker <news@example.org>\nSubject: Grüße\n\nx\n"
        for charset in ("utf-8", "iso-8859-1"):
            copy = Newsletter(text.encode(charset), NEWS).copy(
                "ben@example.net", {}, b"", "1@x", 0.0
            )
            read = message_from_bytes(copy, policy=default)
            self.assertEqual(read["Subject"], "Grüße", charset)
            self.assertEqual(read["From"], "Bäcker <news@example.org>", charset)

    def test_columns_as_spreadsheets_name_them(self) -> None:
        found = self.copy(simple("Dear {{ First Name }}!"), **{"first name": "Ann"})
        self.assertIn("Dear Ann!", found.get_content())

    def test_no_value_makes_a_header_field(self) -> None:
        octets = simple(subject="Hi {{name}}")
        found = self.copy(octets, name="x\r\nBcc: a@b.test\r\n\r\nbody")
        self.assertEqual(found["Subject"], "Hi x Bcc: a@b.test body")
        self.assertIsNone(found["Bcc"])

    def test_values_are_not_filled_in_again(self) -> None:
        found = self.copy(simple("{{name}}"), name="{{secret}}")
        self.assertIn("{{secret}}", found.get_content())

    def test_one_copy_leaves_nothing_in_the_next(self) -> None:
        newsletter = Newsletter(simple(), NEWS)
        first = newsletter.copy("a@far.test", {"name": "Ann"}, b"", "1@x", 0.0)
        second = newsletter.copy("b@far.test", {"name": "Bo"}, b"", "2@x", 0.0)
        self.assertIn(b"Hi Ann", first)
        self.assertIn(b"Hi Bo", second)
        self.assertNotIn(b"Ann", second)
        self.assertEqual(second.count(b"Content-Transfer-Encoding"), 1)

    def test_unknown_fields_are_refused(self) -> None:
        newsletter = Newsletter(simple("{{nmae}} {{unsubscribe}}"), NEWS)
        with self.assertRaisesRegex(NewsletterRefused, "needs nmae.*email, name"):
            newsletter.check(frozenset(("email", "name")))
        newsletter.check(frozenset(("email", "nmae")))

    def test_what_cannot_be_sent(self) -> None:
        for octets, why in (
            (b"\nno header", "no Subject"),
            (b"Subject: x\n\n" + b"x" * MAX_OCTETS, "longer"),
            (b"Subject: x\nContent-Type: text/plain; charset=utf-8\n\n\xff", "utf-8"),
            (b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nx", "klingon"),
        ):
            with self.assertRaisesRegex(NewsletterRefused, why):
                Newsletter(octets, NEWS)

    @settings(max_examples=50, deadline=None)
    @given(st.binary(max_size=200))
    def test_any_file_is_read_or_refused(self, octets: bytes) -> None:
        try:
            newsletter = Newsletter(b"Subject: x\n" + octets, NEWS)
            values = dict.fromkeys(newsletter.fields, "v")
            newsletter.copy("a@far.test", values, b"", "1@x", 0.0)
        except NewsletterRefused:
            pass


class RecipientsTests(SynchronousTestCase):
    def test_spreadsheets(self) -> None:
        for text in (
            "Name,E-Mail\nAnn,A@Far.Test\n",
            'Name;email\r\n"Ann";a@far.test\r\n\r\n',
            "name\taddress\nAnn\ta@far.test",
        ):
            found = read(text)
            (row,) = found.rows
            self.assertEqual(row.address, "a@far.test")
            self.assertEqual(row.values["name"], "Ann")
            self.assertEqual(found.bad, ())

    def test_odd_first_lines(self) -> None:
        for text in (
            "sep=;\r\nemail;name\r\na@b.c;Anna\r\n",  # Excel's own
            '"sep=;"\nemail;name\na@b.c;Anna\n',
            "\r\n \r\nemail;name\r\na@b.c;Anna\r\n",
            "email;name;Plz, Ort, Land\na@b.c;Anna;x\n",
            '"Name";"E-Mail";"Street, No.; City"\r"Anna";"a@b.c";"x"\r',
            "a@b.c;Anna, Berta, Carla\n",
        ):
            [row] = read(text).rows
            self.assertEqual(row.address, "a@b.c", text)
            self.assertTrue(
                row.values.get("name", row.values.get("column2", "")).startswith("Anna")
            )

    def test_quote_that_is_not_closed(self) -> None:
        """It would swallow the rows behind it."""
        for text in (
            'email,name\na@b.c,"Anna\nd@e.f,Bob\ng@h.i,"Carl"\n',
            'email,name\na@b.c,"Anna\nd@e.f,Bob\n',
        ):
            with self.assertRaises(ListRefused):
                read(text)
        [row] = read('email,size\na@b.c,5" and 7"\n').rows
        self.assertEqual(row.values["size"], '5" and 7"')

    def test_plain_addresses(self) -> None:
        found = read("a@far.test\nb@far.test\n")
        self.assertEqual([r.address for r in found.rows], ["a@far.test", "b@far.test"])
        self.assertIn("email", found.columns)

    def test_doubles_and_rows_without_an_address(self) -> None:
        found = read("email,name\na@far.test,1\nnobody,2\nA@FAR.test,3\nb@far.test\n")
        self.assertEqual([r.values["name"] for r in found.rows], ["1", ""])
        self.assertEqual(found.twice, 1)
        self.assertEqual(found.bad, ("row 3: 'nobody' is no address",))

    def test_no_list(self) -> None:
        for text in ("", "\n\n", "name,town\nAnn,Ulm\n", "email\n"):
            with self.assertRaises(ListRefused):
                read(text)


class Cut(Exception):
    """The server went away."""


class BulkTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        self.members = Members(folder / "lists.sqlite", lambda: 1e9)
        self.addCleanup(self.members.close)
        self.tokens = Tokens(b"k" * 32, lambda: 1e9)
        self.bulk = self.of(simple())
        self.rows = [
            Row(f"{n}@far.test", {"name": str(n), "email": f"{n}@far.test"})
            for n in range(7)
        ]
        self.taken: dict[str, dict[str, Any]] = {}
        self.cut_after = 1000
        self.lose_answer = False

    def of(self, octets: bytes, base_url: str | None = "https://x") -> Bulk:
        newsletter = Newsletter(octets, NEWS)
        return Bulk(
            newsletter, self.members, self.tokens, base_url, "here", lambda: 1e9
        )

    # Any: values of JSON.
    def call(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Take as the queue does: with one `once` one time."""
        self.cut_after -= 1
        if self.cut_after < 0:
            raise Cut
        ids = []
        for message in request["messages"]:
            new = message["once"] not in self.taken
            self.taken.setdefault(message["once"], message)
            ids.append("id" if new else "")
        if self.lose_answer:
            raise Cut
        return {"ids": ids}

    def send(self, *, again: bool = False) -> Progress:
        run = self.bulk.run(again=again)
        return sum(self.bulk.send(run, self.rows, self.call, 2), Progress())

    def forward_paths(self) -> list[str]:
        return [message["forward_paths"][0] for message in self.taken.values()]

    def test_each_gets_its_copy(self) -> None:
        self.assertEqual(self.send(), Progress(sent=7))
        everybody = [row.address for row in self.rows]
        self.assertEqual(self.forward_paths(), everybody)
        message = list(self.taken.values())[3]
        content = b64decode(message["octets"])
        self.assertIn(b"Hi 3", content)
        self.assertIn(b"List-Unsubscribe-Post: List-Unsubscribe=One-Click", content)
        token = message["reverse_path"].partition("+")[2].partition("@")[0]
        row = self.tokens.read(Purpose.BOUNCE, token)
        member = self.members.get(row)
        assert member is not None
        self.assertEqual((member.list, member.address), (NEWS, "3@far.test"))

    def test_cut_run_goes_on(self) -> None:
        self.cut_after = 2
        self.assertRaises(Cut, self.send)
        self.assertEqual(len(self.taken), 4)
        self.cut_after = 1000
        self.assertEqual(self.send(), Progress(sent=3, before=4))
        self.assertEqual(len(self.forward_paths()), 7)

    def test_answer_lost_with_the_server(self) -> None:
        self.lose_answer = True
        self.assertRaises(Cut, self.send)
        self.lose_answer = False
        self.assertEqual(self.send(), Progress(sent=5, before=2))
        self.assertEqual(len(set(self.forward_paths())), 7)
        self.assertEqual(len(self.taken), 7)

    def test_again_is_another_run(self) -> None:
        self.send()
        self.assertEqual(self.send(), Progress(before=7))
        self.assertEqual(self.send(again=True), Progress(sent=7))

    def test_who_wants_none_gets_none(self) -> None:
        first, second = self.members.contacts(NEWS, ["0@far.test", "1@far.test"])
        self.members.set_state(first.id, State.UNSUBSCRIBED)
        self.members.set_state(second.id, State.SUSPENDED)
        foreseen = self.bulk.foreseen(self.rows, again=False)
        self.assertEqual(foreseen, Progress(sent=5, unwanted=2))
        self.assertEqual(self.send(), foreseen)
        self.assertNotIn("0@far.test", self.forward_paths())
        after = self.bulk.foreseen(self.rows, again=False)
        self.assertEqual(after, Progress(before=5, unwanted=2))

    def test_without_pages_the_way_out_is_mail(self) -> None:
        self.bulk = self.of(simple("{{unsubscribe}}"), None)
        self.send()
        content = b64decode(next(iter(self.taken.values()))["octets"])
        self.assertIn(b"List-Unsubscribe: <mailto:news-unsubscribe+", content)
        self.assertIn(b"\r\nmailto:news-unsubscribe+", content.replace(b"=\r\n", b""))

    def test_preview_has_no_token_that_works(self) -> None:
        preview = self.bulk.preview(self.rows[0])
        self.assertIn(b"Hi 0", preview)
        self.assertEqual(self.members.of_list(NEWS), [])
