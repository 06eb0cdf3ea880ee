"""What is kept of a message for SORT and THREAD."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.charset import casemap
from mailsrv.mime.sort_keys import ID_OCTETS, MAX_KEY, MAX_REFERENCES, sort_keys


class SortKeysTests(SynchronousTestCase):
    def test_texts(self) -> None:
        keys = sort_keys(
            {
                b"subject": b"Re: =?utf-8?q?Gr=C3=BC=C3=9Fe?=",
                b"from": b"=?iso-8859-1?q?J=F6rg?= <Joe@a.test>, x@b.test",
                b"to": b"Friends: anna@a.test, ben@a.test;",
                b"cc": b"Carl@c.test",
            }
        )
        self.assertEqual(keys.subject, "GRU\u0308\u00dfE".encode())
        self.assertTrue(keys.is_reply)
        self.assertEqual(keys.from_mailbox, b"JOE")
        self.assertEqual(keys.from_name, "JO\u0308RG".encode())
        self.assertEqual((keys.to_mailbox, keys.to_name), (b"FRIENDS", b"FRIENDS"))
        self.assertEqual(keys.cc_mailbox, b"CARL")

    def test_names_fall_back_on_addresses(self) -> None:
        for value, name in (
            (b"anna@a.test", b"ANNA@A.TEST"),
            (b'"" <anna@a.test>', b"ANNA@A.TEST"),
            (b"=?utf-8?q??= <anna@a.test>", b"ANNA@A.TEST"),
        ):
            self.assertEqual(sort_keys({b"from": value}).from_name, name)

    def test_nothing(self) -> None:
        keys = sort_keys({})
        self.assertEqual({keys.subject, keys.to_name, keys.message_id}, {b""})
        self.assertEqual(keys.reference_ids, b"")

    def test_references(self) -> None:
        one, two = (
            sort_keys({b"message-id": b"<%d@a>" % n}).message_id for n in (1, 2)
        )
        self.assertEqual(len(one), ID_OCTETS)
        self.assertNotEqual(one, two)
        for fields, references in (
            ({b"references": b"<1@a> junk <2@a>"}, one + two),
            ({b"references": b'<"1"@a>', b"in-reply-to": b"<2@a>"}, one),
            ({b"references": b"none", b"in-reply-to": b"x <2@a> <1@a>"}, two),
            ({b"references": b"<noid>"}, b""),
        ):
            self.assertEqual(sort_keys(fields).reference_ids, references, fields)
        self.assertEqual(sort_keys({b"message-id": b"<noid>"}).message_id, b"")

    def test_limits(self) -> None:
        references = b"".join(b"<%d@a>" % n for n in range(2 * MAX_REFERENCES))
        keys = sort_keys({b"subject": b"x" * 10_000, b"references": references})
        self.assertEqual(len(keys.subject), MAX_KEY)
        self.assertEqual(len(keys.reference_ids), MAX_REFERENCES * ID_OCTETS)

    def test_casemap_orders_as_rfc_5051_does(self) -> None:
        self.assertEqual(casemap("a_B"), "A_B")
        self.assertLess(casemap("abc"), casemap("ABD"))
        self.assertLess(casemap("z"), casemap("_"))  # letters as capitals
        self.assertEqual(
            casemap("\u00df\u01c6"), "\u00dfD\u017e".replace("\u017e", "z\u030c")
        )

    def test_octets_of_no_charset(self) -> None:
        keys = sort_keys({b"subject": b"=?utf-7?q?+2AA-?= \xff\x00"})
        self.assertIn(b"\x00", keys.subject)
