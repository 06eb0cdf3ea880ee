"""A newsletter's template, filled in."""

from email import message_from_bytes, policy
from email.message import EmailMessage

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.lists.newsletter import BadTemplate, read


def template(
    text: str = "Dear {{Name}},\n", html: str = "<p>Dear {{ name }}</p>"
) -> bytes:
    message = EmailMessage()
    message["Subject"] = "News for {{name}}"
    message["From"] = "somebody@else.test"
    message["DKIM-Signature"] = "old"
    message.set_content(text)
    message.add_alternative(html, subtype="html")
    message.add_attachment(b"{{name}}", maintype="image", subtype="png", filename="x")
    return message.as_bytes()


class TemplateTests(SynchronousTestCase):
    def filled(self, octets: bytes, **values: str) -> EmailMessage:
        found = read(octets).filled(values, [("From", "Shop <shop@example.test>")])
        self.assertNotIn(b"\n", found.replace(b"\r\n", b""))
        message = message_from_bytes(found, policy=policy.default)
        assert isinstance(message, EmailMessage)
        return message

    def test_header_text_and_html(self) -> None:
        message = self.filled(template(), name="Zoë <b>")
        self.assertEqual(message["Subject"], "News for Zoë <b>")
        self.assertEqual(message.get_all("From"), ["Shop <shop@example.test>"])
        self.assertNotIn("DKIM-Signature", message)
        text = message.get_body(("plain",))
        html = message.get_body(("html",))
        assert text is not None
        assert html is not None
        self.assertEqual(text.get_content(), "Dear Zoë <b>,\r\n")
        self.assertEqual(html.get_content().strip(), "<p>Dear Zoë &lt;b&gt;</p>")
        [attached] = message.iter_attachments()
        self.assertEqual(attached.get_content(), b"{{name}}")

    def test_value_cannot_make_header_fields(self) -> None:
        message = self.filled(template(), name="x\r\nBcc: victim@else.test")
        self.assertNotIn("Bcc", message)

    def test_what_is_missing(self) -> None:
        found = read(template("{{city}} {{no field}}", ""))
        self.assertEqual(found.missing(["Name", "CITY"]), ["no field"])

    def test_what_is_no_message(self) -> None:
        for octets in (b"", b"just a text\n", b"From: x\n\nno subject\n"):
            self.assertRaises(BadTemplate, read, octets)

    def test_braces_that_are_none_of_ours(self) -> None:
        message = self.filled(template("p { color: red } {{}} {name}\n"), name="x")
        text = message.get_body(("plain",))
        assert text is not None
        self.assertEqual(text.get_content(), "p { color: red } {{}} {name}\r\n")

    @settings(max_examples=40, deadline=None)
    @given(st.text(st.characters(codec="utf-8"), max_size=80))
    def test_any_value(self, value: str) -> None:
        try:
            read(template()).filled({"name": value}, [])
        except BadTemplate:
            pass
