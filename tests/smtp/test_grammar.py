"""Arguments of SMTP commands, and replies."""

import contextlib
from time import process_time

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp import grammar
from mailsrv.smtp.events import Auth, Hello, Mail, Rcpt
from mailsrv.smtp.reply import Refused, Reply


class PathTests(SynchronousTestCase):
    def test_mail(self) -> None:
        for argument, expected in (
            (b"FROM:<>", Mail("", 0, False)),
            (b"from:<a@b.test>", Mail("a@b.test", 0, False)),
            (b"FROM: <a@b.test>", Mail("a@b.test", 0, False)),  # Outlook
            (b"FROM:<a@b.test> ", Mail("a@b.test", 0, False)),
            (b"FROM:<a@b.test> SIZE=12", Mail("a@b.test", 12, False)),
            (b"FROM:<a@b.test> size=12 body=8bitmime", Mail("a@b.test", 12, False)),
            (b"FROM:<a@b.test> BODY=7BIT AUTH=<>", Mail("a@b.test", 0, False)),
            (b"FROM:<a@b.test> SMTPUTF8", Mail("a@b.test", 0, True)),
            ("FROM:<ä@ö.test> SMTPUTF8".encode(), Mail("ä@ö.test", 0, True)),
            (b"FROM:<@x.test,@y.test:a@b.test>", Mail("a@b.test", 0, False)),
            (b"FROM:<a@[192.0.2.1]>", Mail("a@[192.0.2.1]", 0, False)),
            (b"FROM:<a@[IPv6:2001:db8::1]>", Mail("a@[IPv6:2001:db8::1]", 0, False)),
            (b"FROM:<a..b.@c.test>", Mail("a..b.@c.test", 0, False)),
            (b"FROM:<%b@b.test>" % (b"v" * 200), Mail("v" * 200 + "@b.test", 0, False)),
            (b'FROM:<"a.b"@c.test>', Mail("a.b@c.test", 0, False)),
            (b'FROM:<"a\\b"@c.test>', Mail("ab@c.test", 0, False)),
            (b'FROM:<"a > b"@c.test> SIZE=1', Mail('"a > b"@c.test', 1, False)),
            (b'FROM:<"a\\"\\\\b"@c.test>', Mail('"a\\"\\\\b"@c.test', 0, False)),
        ):
            self.assertEqual(grammar.mail(argument), expected, argument)

    def test_bad_mail(self) -> None:
        for argument, code in (
            (b"", 501),
            (b"<a@b.test>", 501),
            (b"FROM:a@b.test", 501),
            (b"FROM:<a>", 501),
            (b"FROM:<a@>", 501),
            (b"FROM:<@b.test>", 501),
            (b"FROM:<a@b..test>", 501),
            (b"FROM:<a@b.test", 501),
            (b"FROM:<a@b.test>x", 501),
            (b"FROM:<a b@c.test>", 501),
            (b"FROM:<a@b@c.test>", 501),
            (b"FROM:<a@[300.1.1.1]>", 501),
            (b"FROM:<a@[IPv6:::1:g]>", 501),
            (b"FROM:<%b@b.test>" % (b"v" * 2000), 501),
            (b"FROM:<a@%btest>" % (b"b." * 200), 501),
            (b'FROM:<"a@b.test>', 501),
            (b'FROM:<"a\r\nX: y"@b.test>', 501),
            (b"FROM:<\xff\xfe@b.test> SMTPUTF8", 501),
            ("FROM:<a\u2028b@b.test> SMTPUTF8".encode(), 501),
            ("FROM:<a\x85b@b.test> SMTPUTF8".encode(), 501),
            ("FROM:<ä@b.test>".encode(), 553),
            (b"FROM:<a@b.test> SIZE=x", 501),
            (b"FROM:<a@b.test> SIZE=", 501),
            (b"FROM:<a@b.test> SIZE=" + b"9" * 21, 501),
            (b"FROM:<a@b.test> SIZE=1 SIZE=1", 501),
            (b"FROM:<a@b.test> SMTPUTF8=1", 501),
            (b"FROM:<a@b.test> BODY=BINARYMIME", 555),
            (b"FROM:<a@b.test> RET=SOME", 501),
            (b"FROM:<a@b.test> ENVID=a+2", 501),
            (b"FROM:<a@b.test> ENVID=" + b"a" * 101, 501),
            (b"FROM:<a@b.test> REQUIRETLS=1", 501),
            (b"FROM:<a@b.test> NOSUCH", 555),
        ):
            refused = self.assertRaises(Refused, grammar.mail, argument)
            self.assertEqual(refused.reply.code, code, argument)

    def test_rcpt(self) -> None:
        for argument, expected in (
            (b"TO:<a@b.test>", "a@b.test"),
            (b"TO: <a@b.test>", "a@b.test"),
            (b"to:<postMASTER>", "Postmaster"),
            (b"TO:<Postmaster@b.test>", "Postmaster@b.test"),
            (b"TO:<@x.test:a@b.test>", "a@b.test"),
        ):
            self.assertEqual(grammar.rcpt(argument), Rcpt(expected))
        for argument, code in (
            (b"TO:<>", 501),
            (b"TO:<a>", 501),
            (b"FROM:<a@b.test>", 501),
            (b"TO:<a@b.test> NOTIFY=NEVER,DELAY", 501),
            (b"TO:<a@b.test> NOTIFY=", 501),
            (b"TO:<a@b.test> NOTIFY=ALWAYS", 501),
            (b"TO:<a@b.test> ORCPT=a@b.test", 501),
            (b"TO:<a@b.test> ORCPT=rfc822;a+", 501),
            (b"TO:<a@b.test> ORCPT=rfc822;" + b"a" * 500, 501),
            ("TO:<a@b.test> ORCPT=utf-8;a\x85b".encode(), 501),
            (b"TO:<a@b.test> NOSUCH=1", 555),
        ):
            refused = self.assertRaises(Refused, grammar.rcpt, argument)
            self.assertEqual(refused.reply.code, code, argument)

    def test_what_the_sender_wants_to_hear(self) -> None:
        self.assertEqual(
            grammar.mail(b"FROM:<a@b.test> RET=hdrs ENVID=QQ+2B3 REQUIRETLS"),
            Mail("a@b.test", 0, False, "HDRS", "QQ+2B3", True),
        )
        self.assertEqual(
            grammar.rcpt(b"TO:<a@b.test> NOTIFY=success,delay ORCPT=rfc822;c@d.test"),
            Rcpt("a@b.test", "SUCCESS,DELAY", "rfc822;c@d.test"),
        )
        self.assertEqual(
            grammar.rcpt("TO:<a@b.test> NOTIFY=NEVER ORCPT=utf-8;jörg@b".encode()),
            Rcpt("a@b.test", "NEVER", "utf-8;jörg@b"),
        )

    @settings(max_examples=50, deadline=None)
    @given(st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=60))
    def test_quoted_local_part_comes_back(self, local: str) -> None:
        quoted = local.replace("\\", "\\\\").replace('"', '\\"')
        wire = f'FROM:<"{quoted}"@c.test>'.encode()
        address = grammar.mail(wire).reverse_path
        again = grammar.mail(f"FROM:<{address}>".encode()).reverse_path
        self.assertEqual(again, address)
        if address.startswith('"'):
            self.assertEqual(address, f'"{quoted}"@c.test')
        else:
            self.assertEqual(address, f"{local}@c.test")

    def test_hostile_lines_take_linear_time(self) -> None:
        begun = process_time()
        for unit in (b"<", b'"', b"\\", b"@a,", b"a@", b".", b'"\\', b" ", b"a=b "):
            for head in (b"FROM:", b"FROM:<", b'FROM:<"', b"FROM:<@a", b"FROM:<a@b> "):
                with contextlib.suppress(Refused):
                    grammar.mail(head + unit * 4000)
        self.assertLess(process_time() - begun, 2.0)


class OtherArgumentsTests(SynchronousTestCase):
    def test_hello(self) -> None:
        for argument, name in (
            (b"[127.0.0.1]", "[127.0.0.1]"),
            (b" my host_1 ", "my?host_1"),
            ("bücher\x07.test".encode(), "b?cher?.test"),
            (b"\xff" * 999, "?"),
        ):
            self.assertEqual(grammar.hello(argument, True), Hello(name, True))
        self.assertRaises(Refused, grammar.hello, b" ", False)

    def test_auth(self) -> None:
        for argument, expected in (
            (b"PLAIN", Auth("PLAIN", None)),
            (b"plain AGEAYg==", Auth("PLAIN", b"\0a\0b")),
            (b"PLAIN  AGEAYg== ", Auth("PLAIN", b"\0a\0b")),  # Windows Mail
            (b"LOGIN YQ==", Auth("LOGIN", b"a")),  # Microsoft's cloud
            (b"PLAIN =", Auth("PLAIN", b"")),
        ):
            self.assertEqual(grammar.auth(argument), expected)
        for argument in (b"", b"PLAIN !", b"PLAIN A", b"PLAIN AAAA AAAA"):
            self.assertRaises(Refused, grammar.auth, argument)

    def test_bdat(self) -> None:
        self.assertEqual(grammar.bdat(b"0"), (0, False))
        self.assertEqual(grammar.bdat(b"12 last "), (12, True))
        for argument in (b"", b"x", b"1 2", b"1 LAST 2", b"+1", b"1" * 21):
            self.assertRaises(Refused, grammar.bdat, argument)


class ReplyTests(SynchronousTestCase):
    def test_one_line(self) -> None:
        self.assertEqual(Reply(250, "2.0.0", "Ok").wire, b"250 2.0.0 Ok\r\n")
        self.assertEqual(Reply(334, "", "").wire, b"334 \r\n")

    def test_lines_each_with_the_enhanced_code(self) -> None:
        self.assertEqual(
            Reply(550, "5.7.1", "No\nnever").wire,
            b"550-5.7.1 No\r\n550 5.7.1 never\r\n",
        )
