"""Message identifiers and the beginning of a thread."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mime.message_id import message_ids, thread_root

IDS = [
    (b"<a@b>", [b"a@b"]),
    (b"  <a@b>\t<c@d> (he said) <e@f>", [b"a@b", b"c@d", b"e@f"]),
    # RFC 5256 section 2.2: one identifier, spelt in two ways.
    (b'<"01KF8JCEOCBS0045PS"@xxx.test>', [b"01KF8JCEOCBS0045PS@xxx.test"]),
    (b'<"a\\"b"@c>', [b'a"b@c']),
    (b"<a @ b>", [b"a@b"]),
    (b"<no-at>", [b"no-at"]),
    (b"a@b", []),
    (b"<>", []),
    (b"<a@b <c@d>", [b"c@d"]),
    (b'"<a@b>', [b"a@b"]),
]


class MessageIdTests(SynchronousTestCase):
    def test_ids(self) -> None:
        for value, ids in IDS:
            self.assertEqual(message_ids(value), ids, value)

    def test_thread_root(self) -> None:
        fields = {
            b"references": b"<root@x> <mid@x>",
            b"in-reply-to": b"<mid@x>",
            b"message-id": b"<own@x>",
        }
        self.assertEqual(thread_root(fields), b"root@x")
        del fields[b"references"]
        self.assertEqual(thread_root(fields), b"mid@x")
        fields[b"in-reply-to"] = b"your letter of today"
        self.assertEqual(thread_root(fields), b"own@x")
        self.assertIsNone(thread_root({}))
