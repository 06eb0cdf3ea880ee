"""One copy in Sent, whoever files it and in whatever order."""

from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.mailboxes.account import AccountMailboxes
from mailsrv.mailboxes.incoming import Incoming
from mailsrv.store.sent import FILED
from mailsrv.store.values import SEEN, Target
from tests.mailboxes.office import Office, all_uids

TRACE = b"Return-Path: <anna@example.test>\r\nReceived: from a by b; now\r\n"
HEADER = b"Message-ID: <1@example.test>\r\nSubject: offer\r\nTo: ben@example.test\r\n"
BODY = b"\r\nDear Ben,\r\n.\r\nAnna\r\n"


class SentTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Path(self.mktemp())
        root.mkdir()
        self.office = Office(self, root)
        self.mailboxes.files_sent = True

    @property
    def mailboxes(self) -> AccountMailboxes:
        # Not by Office.account, which sets files_sent anew.
        return self.office.mail_store._mailboxes("anna")

    def fill(self, incoming: Incoming, message: bytes) -> Incoming:
        incoming.feed(message)
        return incoming

    def file(self, message: bytes) -> None:
        """As the server does when anna has submitted `message`."""
        sent = self.office.wait(self.mailboxes.sent())
        target = Target("anna", sent, None, SEEN, delivery_id=FILED)
        incoming = self.office.mail_store.receive([target], TRACE)
        self.office.wait(self.fill(incoming, message).commit())

    def append(self, message: bytes, flags: Sequence[str] = ("\\Seen",)) -> int:
        incoming = self.office.wait(self.mailboxes.arrivals.receive("Sent", flags))
        self.fill(incoming, message)
        (uid,) = self.office.wait(
            self.mailboxes.arrivals.append("Sent", [incoming])
        ).uids
        return uid

    def sent(self) -> dict[int, bytes]:
        self.office.clock.advance(2)  # what was filed is indexed
        selected = self.office.wait(self.mailboxes.select("Sent"))
        uids = all_uids(selected)
        found = {}
        for uid in uids:
            store = self.office.wait(self.mailboxes.prepare())
            with store.open_message("Sent", uid) as file:
                found[uid] = file.read(0, file.size_octets)
        self.office.wait(selected.close())
        return found

    def test_the_same_message_is_kept_once(self) -> None:
        self.file(HEADER + BODY)
        uid = self.append(HEADER + BODY)
        self.assertEqual(self.sent(), {uid: TRACE + HEADER + BODY})

    def test_an_index_that_lags_does_not_matter(self) -> None:
        self.file(HEADER + BODY)
        self.assertEqual(self.append(HEADER + BODY), 1)

    def test_the_copy_with_bcc_stays(self) -> None:
        self.file(HEADER + BODY)
        mine = b"Bcc: carla@example.test\r\n" + HEADER + BODY
        uid = self.append(mine)
        self.assertEqual(uid, 2)
        self.assertEqual(self.sent(), {uid: mine})

    def test_the_copy_that_was_there_first_stays(self) -> None:
        uid = self.append(HEADER + BODY)
        self.file(HEADER + BODY)
        self.assertEqual(self.sent(), {uid: HEADER + BODY})

    def test_more_flags_are_not_lost(self) -> None:
        self.file(HEADER + BODY)
        uid = self.append(HEADER + BODY, ("\\Seen", "\\Flagged"))
        self.assertEqual(self.sent(), {uid: HEADER + BODY})

    def test_keywords_go_to_the_copy_that_stays(self) -> None:
        self.file(HEADER + BODY)
        uid = self.append(HEADER + BODY, ("\\Seen", "$MDNSent"))
        self.assertEqual(list(self.sent()), [uid])
        selected = self.office.wait(self.mailboxes.select("Sent"))
        ((_, _, flags, _),) = selected.walk([uid])
        self.assertIn("$MDNSent", selected.flag_names(flags))

    def test_other_mail_stays(self) -> None:
        self.file(HEADER + BODY)
        self.append(HEADER + BODY + b"PS\r\n")  # another body
        self.append(HEADER.replace(b"<1@", b"<2@") + BODY)
        self.append(HEADER[28 + 2 :] + BODY)  # no Message-ID
        self.assertEqual(len(self.sent()), 4)

    def test_copies_of_the_client_alone_stay(self) -> None:
        self.append(HEADER + BODY)
        self.append(HEADER + BODY)
        self.assertEqual(len(self.sent()), 2)

    def test_without_the_option_both_stay(self) -> None:
        self.mailboxes.files_sent = False
        self.file(HEADER + BODY)
        self.append(HEADER + BODY)
        self.assertEqual(len(self.sent()), 2)

    def test_a_session_sees_one_message_in_the_end(self) -> None:
        selected = self.office.wait(self.mailboxes.select("Sent"))
        self.file(HEADER + BODY)
        uid = self.append(HEADER + BODY)
        selected.news(expunges=True)
        self.assertEqual(all_uids(selected), [uid])

    def test_newlines_at_the_end_do_not_count(self) -> None:
        self.file(HEADER + BODY)
        uid = self.append(HEADER + BODY + b"\r\n\r\n")
        self.assertEqual(list(self.sent()), [uid])

    @given(st.integers(0, 3), st.integers(0, 3), st.booleans())
    @settings(max_examples=20, deadline=None)
    def test_large_mail_is_compared_to_its_end(
        self, mine: int, its: int, other: bool
    ) -> None:
        self.setUp()
        long = b"\r\n" + b"0123456789abcdef" * 4 + b"\r\n"
        body = long * 6000
        self.file(HEADER + body + b"\r\n" * mine)
        tail = b"x" if other else b""
        self.append(HEADER + body + tail + b"\r\n" * its)
        self.assertEqual(len(self.sent()), 2 if other else 1)
