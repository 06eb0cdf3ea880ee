"""pop3_uidl_format in the spellings of Dovecot 2.3 and 2.4."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.store.pop3_uidl import DEFAULT, compiled

VALUES = (26, 1234567890, b"0123abcd", b"1.M2P3.host,S=9")


class Pop3UidlTests(SynchronousTestCase):
    def test_formats(self) -> None:
        for text, made in (
            (DEFAULT, b"0000001a499602d2"),
            ("%{uid | hex(8)}%{uidvalidity | hex(8)}", b"0000001a499602d2"),
            ("%v.%u", b"1234567890.26"),
            ("UID%u-%v", b"UID26-1234567890"),
            ("%{uidvalidity}.%{uid}", b"1234567890.26"),
            ("%Xu", b"1a"),
            ("%{uid|hex}%%", b"1a%"),
            ("%g", b"0123abcd"),
            ("%{guid}", b"0123abcd"),
            ("%f", b"1.M2P3.host,S=9"),
            ("{%u}", b"{26}"),
        ):
            self.assertEqual(compiled(text)(*VALUES), made, text)

    def test_what_cannot_be_made_is_refused(self) -> None:
        for text in ("", "fixed", "%m", "%{md5}", "%", "%08Xg", "a %u", "%{uid", "%ü"):
            with self.assertRaises(ValueError, msg=text):
                compiled(text)
