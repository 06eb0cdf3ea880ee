"""ENVELOPE, dates, field sets: small things with exact octets."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.date import sent_date
from mailsrv.mime.envelope import envelope, read
from mailsrv.mime.header import fields, select, unfold
from mailsrv.mime.nstring import nstring, string
from mailsrv.mime.parameters import content_type, disposition, parameters, token

# RFC 3501 section 8, the message whose ENVELOPE it shows.
RFC3501 = (
    b"Date: Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\r\n"
    b"From: Terry Gray <gray@cac.washington.edu>\r\n"
    b"Subject: IMAP4rev1 WG mtg summary and minutes\r\n"
    b"To: imap@cac.washington.edu\r\n"
    b"cc: minutes@CNRI.Reston.VA.US, John Klensin <KLENSIN@MIT.EDU>\r\n"
    b"Message-Id: <B27397-0100000@cac.washington.edu>\r\n"
    b"MIME-Version: 1.0\r\n"
    b"Content-Type: TEXT/PLAIN; CHARSET=US-ASCII\r\n"
    b"\r\n"
)
RFC3501_ENVELOPE = (
    b'("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)"'
    b' "IMAP4rev1 WG mtg summary and minutes"'
    b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
    b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
    b' (("Terry Gray" NIL "gray" "cac.washington.edu"))'
    b' ((NIL NIL "imap" "cac.washington.edu"))'
    b' ((NIL NIL "minutes" "CNRI.Reston.VA.US")'
    b'("John Klensin" NIL "KLENSIN" "MIT.EDU"))'
    b' NIL NIL "<B27397-0100000@cac.washington.edu>")'
)


class EnvelopeTests(SynchronousTestCase):
    def test_rfc_3501(self) -> None:
        self.assertEqual(envelope(RFC3501), RFC3501_ENVELOPE)

    def test_nothing(self) -> None:
        self.assertEqual(envelope(b""), b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)")

    def test_sender_and_reply_to(self) -> None:
        got = envelope(b"From: a@x\nSender: b@x\nReply-To: \n\n")
        self.assertEqual(
            got,
            b'(NIL NIL ((NIL NIL "a" "x")) ((NIL NIL "b" "x")) ((NIL NIL "a" "x"))'
            b" NIL NIL NIL NIL NIL)",
        )

    def test_repeated_fields(self) -> None:
        got = read(envelope(b"Subject: one\nTo: a@x\nSubject: two\nTo: b@x\n\n"))
        self.assertEqual((got[b"subject"], got[b"to"]), (b"one", b"<a@x>, <b@x>"))

    def test_folds_literals_and_nul(self) -> None:
        got = envelope(b"Subject: a\r\n\tb \xff\0\r\nMessage-ID:\n <x>\n\n")
        self.assertEqual(
            got, b'(NIL {6}\r\na b \xff\x80 NIL NIL NIL NIL NIL NIL NIL "<x>")'
        )

    def test_mbox_line_and_junk_are_passed_over(self) -> None:
        got = read(envelope(b"From a@b Mon Jan  1\njunk\n: x\nSubject : s\n\n"))
        self.assertEqual(got, {b"subject": b"s"})

    def test_what_is_written_is_read(self) -> None:
        header = (
            b'Date: d\nSubject: "q" \\ \xc3\xbc\nFrom: "A \\"B\\"" <a@b>\n'
            b"To: G: c@d, e@f;\nCc: (x) y\nIn-Reply-To: <i>\nMessage-ID: <m>\n\n"
        )
        self.assertEqual(
            read(envelope(header)),
            {
                b"date": b"d",
                b"subject": b'"q" \\ \xc3\xbc',
                b"from": b'A "B" <a@b>',
                b"sender": b'A "B" <a@b>',
                b"reply-to": b'A "B" <a@b>',
                b"to": b"G, <c@d>, <e@f>, ",
                b"cc": b"x <y@>",
                b"in-reply-to": b"<i>",
                b"message-id": b"<m>",
            },
        )


class StringTests(SynchronousTestCase):
    def test_strings(self) -> None:
        for value, wire in (
            (b"", b'""'),
            (b'a "b" \\', b'"a \\"b\\" \\\\"'),
            (b"a\rb", b"{3}\r\na\rb"),
            (b'"\xff', b'{2}\r\n"\xff'),
            (b"\0", b"{1}\r\n\x80"),
        ):
            self.assertEqual(string(value), wire)
        self.assertEqual(nstring(None), b"NIL")


class FieldTests(SynchronousTestCase):
    HEADER = b"From: a\nTo: b,\n\tc\nX: 1\nfrom : d\n\n"

    def test_fields(self) -> None:
        got = [(name, unfold(raw)) for name, raw in fields(self.HEADER)]
        self.assertEqual(
            got, [(b"From", b"a"), (b"To", b"b, c"), (b"X", b"1"), (b"from", b"d")]
        )

    def test_select(self) -> None:
        names = {b"from", b"to"}
        self.assertEqual(
            select(self.HEADER, names),
            b"From: a\r\nTo: b,\r\n\tc\r\nfrom : d\r\n\r\n",
        )
        self.assertEqual(select(self.HEADER, names, exclude=True), b"X: 1\r\n\r\n")
        self.assertEqual(select(b"", names), b"\r\n")

    def test_select_serves_crlf_files_alike(self) -> None:
        crlf = self.HEADER.replace(b"\n", b"\r\n")
        for names in ({b"from"}, {b"to"}, {b"x"}):
            self.assertEqual(select(crlf, names), select(self.HEADER, names))


class ParameterTests(SynchronousTestCase):
    def test_content_types(self) -> None:
        for value, expected in (
            (b"text/plain", (b"text", b"plain", ())),
            (
                b"Text/HTML; Charset=utf-8",
                (b"text", b"html", ((b"charset", b"utf-8"),)),
            ),
            (b"text / plain ; a = b", (b"text", b"plain", ((b"a", b"b"),))),
            (
                b"text/plain; charset=us-ascii (Plain text)",
                (b"text", b"plain", ((b"charset", b"us-ascii"),)),
            ),
            (
                b'a/b; name="x;\\"y\\""; name=z; n2=a b.pdf;; q="open',
                (
                    b"a",
                    b"b",
                    ((b"name", b'x;"y"'), (b"n2", b"a b.pdf"), (b"q", b"open")),
                ),
            ),
            (b"text", None),
            (b"/plain", None),
            (b"", None),
        ):
            self.assertEqual(content_type(value), expected, value)

    def test_rfc_2231(self) -> None:
        for value, expected in (
            # section 3
            (
                b';URL*0="ftp://";\n URL*1="cs.utk.edu/pub/moore/bulk-mailer.tar"',
                ((b"url", b"ftp://cs.utk.edu/pub/moore/bulk-mailer.tar"),),
            ),
            # section 4
            (
                b";title*=us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A",
                ((b"title*", b"us-ascii'en-us'This%20is%20%2A%2A%2Afun%2A%2A%2A"),),
            ),
            # section 4.1
            (
                b";title*0*=us-ascii'en'This%20is%20even%20more%20"
                b';title*1*=%2A%2A%2Afun%2A%2A%2A%20;title*2="isn\'t it!"',
                (
                    (
                        b"title*",
                        b"us-ascii'en'This%20is%20even%20more%20"
                        b"%2A%2A%2Afun%2A%2A%2A%20isn%27t%20it%21",
                    ),
                ),
            ),
            (b"; f*1=b; f*0=a; f*3=d", ((b"f", b"ab"),)),
        ):
            self.assertEqual(parameters(value), expected, value)

    def test_tokens(self) -> None:
        self.assertEqual(token(b" (c) Quoted-Printable ; x"), b"quoted-printable")
        self.assertEqual(token(b'"7bit"'), b"7bit")
        self.assertIsNone(token(b""))
        self.assertEqual(
            disposition(b"ATTACHMENT; filename=a.txt"),
            (b"attachment", ((b"filename", b"a.txt"),)),
        )


class DateTests(SynchronousTestCase):
    def test_dates(self) -> None:
        for value, at_utc, day in (
            (b"Thu, 1 Jan 1970 00:00:00 +0000", 0, 0),
            (b"Fri, 2 Jan 1970 00:30:00 +0100", 84600, 1),  # the sender's day
            (b"1 Jan 70 00:00 GMT", 0, 0),
            (b"Thursday, 01-Jan-70 00:00:00 EST", 18000, 0),
            (b"2 jan 2000", 946771200, 10958),
            (b"Sun, 02 Jan 2000 1:2:3 +0000", 946774923, 10958),
            (b"2 Jan 2000 24:01:00 +0000", 946771200, 10958),  # no such time
            (b"2 Jan 2000 00:00:00 +9900", 946771200, 10958),  # no such zone
            (b"Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880070400, 10186),
        ):
            self.assertEqual(sent_date(value), (at_utc, day), value)

    def test_none(self) -> None:
        wrong = (b"", b"yesterday", b"31 Feb 2000", b"1 Foo 2000 00:00", b"2 Jan 0102")
        for value in wrong:
            self.assertIsNone(sent_date(value), value)
