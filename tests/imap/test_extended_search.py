"""Extended SEARCH as a client meets it: RETURN, "$", mod-sequences."""

import re

from mailsrv.imap import searching
from mailsrv.imap.commands import search
from tests.imap.office import Client
from tests.imap.test_reading import ReadingCase


class ExtendedSearchTests(ReadingCase):
    def setUp(self) -> None:
        super().setUp()
        self.fill(*(b"Subject: %d\r\n\r\n" % n for n in range(1, 6)))

    def test_dialogue(self) -> None:
        self.play("search.txt", Client(self.factory()))

    def test_saved_result_outlives_expunges_of_others(self) -> None:
        reader, other = self.reader(), self.reader()
        reader.send(b"2 SEARCH RETURN (SAVE) 2:4")
        other.send(b"2 STORE 1,3 +FLAGS.SILENT (\\Deleted)")
        other.send(b"3 EXPUNGE")
        # The two are gone, and this session was not told of it yet.
        self.assertEqual(
            reader.send(b"3 SEARCH RETURN (ALL) $"),
            b'* ESEARCH (TAG "3") ALL 2,4\r\n3 OK SEARCH completed\r\n',
        )
        reader.send(b"4 NOOP")
        self.assertEqual(
            reader.send(b"5 FETCH $ UID"),
            b"* 1 FETCH (UID 2)\r\n* 2 FETCH (UID 4)\r\n5 OK FETCH completed\r\n",
        )

    def test_mod_sequences(self) -> None:
        reader = self.reader()
        reader.send(b"2 STORE 2 +FLAGS.SILENT (\\Seen)")
        reader.send(b"3 STORE 4 +FLAGS.SILENT (\\Seen)")
        answers = [
            reader.send(b"4 SEARCH %bMODSEQ 1 %b" % (returns, keys))
            for returns, keys in (
                (b"", b"ALL"),
                (b"", b"1:3"),
                (b"RETURN (MIN) ", b"2:4"),
                (b"RETURN (MAX) ", b"1:4"),
                (b"RETURN (MIN MAX) ", b"2:3"),
                (b"RETURN (MIN COUNT) ", b"2:4"),
                (b"RETURN (ALL) ", b"UID 9"),
            )
        ]
        four, two, *rest = (
            int(found[1]) if (found := re.search(rb"MODSEQ (\d+)", answer)) else None
            for answer in answers
        )
        assert four is not None and two is not None
        self.assertLess(two, four)
        self.assertEqual(rest, [two, four, two, four, None])
        self.assertEqual(
            reader.send(b"5 SEARCH MODSEQ %d" % four),
            b"* SEARCH 4 (MODSEQ %d)\r\n5 OK SEARCH completed\r\n" % four,
        )
        self.assertEqual(
            reader.send(b"6 SEARCH RETURN (ALL COUNT) MODSEQ %d" % two),
            b'* ESEARCH (TAG "6") COUNT 2 ALL 2,4 MODSEQ %d\r\n'
            b"6 OK SEARCH completed\r\n" % four,
        )

    def test_imap4rev2_always_gets_esearch(self) -> None:
        reader = self.reader()
        session = reader.server.session
        assert session is not None
        session.enabled.add(b"IMAP4REV2")
        self.assertEqual(
            reader.send(b"2 UID SEARCH 2:3"),
            b'* ESEARCH (TAG "2") UID ALL 2:3\r\n2 OK UID SEARCH completed\r\n',
        )

    def test_long_answers_come_in_pieces_and_are_whole(self) -> None:
        self.patch(search, "NUMBERS", 2)
        reader = self.reader()
        reader.send(b"2 STORE 3 +FLAGS.SILENT (\\Seen)")
        self.assertEqual(
            reader.send(b"3 SEARCH UNSEEN"),
            b"* SEARCH 1 2 4 5\r\n3 OK SEARCH completed\r\n",
        )
        self.assertEqual(
            reader.send(b"4 SEARCH RETURN (ALL COUNT) UNSEEN"),
            b'* ESEARCH (TAG "4") COUNT 4 ALL 1:2,4:5\r\n4 OK SEARCH completed\r\n',
        )
        self.patch(searching, "CHUNK", 2)
        self.assertEqual(
            reader.send(b"5 SEARCH RETURN (ALL MAX) UNSEEN"),
            b'* ESEARCH (TAG "5") MAX 5 ALL 1:2,4:5\r\n5 OK SEARCH completed\r\n',
        )
