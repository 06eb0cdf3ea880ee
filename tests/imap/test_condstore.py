"""CONDSTORE and QRESYNC: mod-sequences, conditions, resynchronising (RFC 7162)."""

import re

from mailsrv.settings import ImapSettings
from mailsrv.store import index
from tests.imap.office import Client, ImapCase

MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


def append(client: Client, mailbox: bytes = b"INBOX") -> bytes:
    literal = b"{%d+}\r\n%b\r\n" % (len(MESSAGE), MESSAGE)
    return client.send(b"0 APPEND %b %b" % (mailbox, literal))


class Case(ImapCase):
    def selected(self, messages: int = 3, how: bytes = b"(CONDSTORE)") -> Client:
        """Return a session with `messages` more in INBOX, none \\Recent."""
        client = self.logged_in()
        for _ in range(messages):
            append(client)
        client.send(b"1 SELECT INBOX\r\n1 ENABLE QRESYNC\r\n" * (how == b"QRESYNC"))
        client.send(b"1 SELECT INBOX\r\n")
        client.send(b"2 SELECT INBOX %b\r\n" % how.replace(b"QRESYNC", b"(CONDSTORE)"))
        return client

    def mod_seq(self, client: Client, seq: int = 1) -> int:
        return number(rb"MODSEQ \((\d+)\)", client.send(b"M FETCH %d MODSEQ\r\n" % seq))

    def lines(self, answer: bytes) -> list[bytes]:
        """Return an answer's lines, its mod-sequences as #."""
        return re.sub(rb"(?<=MODSEQ )\d+|(?<=MODSEQ \()\d+", b"#", answer).split(
            b"\r\n"
        )[:-1]


def number(pattern: bytes, answer: bytes) -> int:
    found = re.search(pattern, answer)
    assert found is not None, answer
    return int(found.group(1))


class EnablingTests(Case):
    def test_each_enabling_command_tells_the_highest_once(self) -> None:
        for command in (
            b"STATUS INBOX (HIGHESTMODSEQ)",
            b"FETCH 1 (MODSEQ)",
            b"FETCH 1 (FLAGS) (CHANGEDSINCE 1)",
            b"STORE 1 (UNCHANGEDSINCE 1) FLAGS ()",
            b"ENABLE CONDSTORE",
            b"ENABLE QRESYNC",
        ):
            client = self.selected(1, how=b"")
            self.assertNotIn(b"MODSEQ", client.send(b"2 STORE 1 FLAGS (\\Seen)\r\n"))
            answer = client.send(b"3 %b\r\n" % command)
            self.assertRegex(answer, rb"^\* OK \[HIGHESTMODSEQ \d+\] ", command)
            answer = client.send(b"4 STORE 1 FLAGS (\\Flagged)\r\n")
            self.assertIn(b" MODSEQ (", answer)
            self.assertNotIn(b"* OK", answer)
            client.lose()

    def test_select_always_tells_it(self) -> None:
        client = self.selected(1)
        client.send(b"3 STORE 1 FLAGS (\\Seen)\r\n")
        mod_seq = self.mod_seq(client)
        for command in (b"SELECT INBOX", b"EXAMINE INBOX (CONDSTORE)"):
            answer = client.send(b"4 %b\r\n" % command)
            self.assertTrue(answer.startswith(b"* OK [CLOSED] "), answer)
            self.assertIn(b"* OK [HIGHESTMODSEQ %d] " % mod_seq, answer)
        answer = client.send(b"5 STATUS INBOX (HIGHESTMODSEQ)\r\n")
        self.assertIn(b"(HIGHESTMODSEQ %d)" % mod_seq, answer)

    def test_enabled(self) -> None:
        client = self.logged_in()
        self.assertIn(b"* ENABLED QRESYNC\r\n", client.send(b"1 ENABLE QRESYNC\r\n"))
        # It implies CONDSTORE.
        self.assertIn(b"* ENABLED\r\n", client.send(b"2 ENABLE CONDSTORE\r\n"))

    def test_switched_off(self) -> None:
        settings = ImapSettings(disabled_extensions=["CONDSTORE"])
        client = self.logged_in(settings)
        append(client)
        self.assertNotIn(b"CONDSTORE", client.send(b"1 CAPABILITY\r\n"))
        self.assertNotIn(b"QRESYNC", client.send(b"1 CAPABILITY\r\n"))
        self.assertIn(b"* ENABLED\r\n", client.send(b"2 ENABLE QRESYNC\r\n"))
        self.assertNotIn(b"MODSEQ", client.send(b"3 SELECT INBOX\r\n"))
        for command in (
            b"SELECT INBOX (CONDSTORE)",
            b"STATUS INBOX (HIGHESTMODSEQ)",
            b"FETCH 1 MODSEQ",
            b"FETCH 1 FLAGS (CHANGEDSINCE 1)",
            b"STORE 1 (UNCHANGEDSINCE 1) FLAGS ()",
        ):
            self.assertIn(b"4 BAD", client.send(b"4 %b\r\n" % command), command)

    def test_grammar(self) -> None:
        client = self.selected(1)
        for command in (
            b"SELECT INBOX (XYZZY)",
            b"SELECT INBOX ()",
            b"SELECT INBOX (QRESYNC (1 1))",  # not enabled
            b"FETCH 1 FLAGS (CHANGEDSINCE 9223372036854775808)",
            b"FETCH 1 FLAGS (CHANGEDSINCE)",
            b"FETCH 1 FLAGS (CHANGEDSINCE 1 CHANGEDSINCE 1)",
            b"FETCH 1 FLAGS ()",
            b"UID FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",  # not enabled
            b"STORE 1 (UNCHANGEDSINCE x) FLAGS ()",
            b"STORE 1 (CHANGEDSINCE 1) FLAGS ()",
        ):
            self.assertIn(b"3 BAD", client.send(b"3 %b\r\n" % command), command)
        client.send(b"4 ENABLE QRESYNC\r\n")
        for command in (
            b"UID FETCH 1 FLAGS (VANISHED)",
            b"FETCH 1 FLAGS (CHANGEDSINCE 1 VANISHED)",
            b"SELECT INBOX (QRESYNC)",
            b"SELECT INBOX (QRESYNC (1))",
            b"SELECT INBOX (QRESYNC (1 1 1:*))",
            b"SELECT INBOX (QRESYNC (1 1 1:5 (1,2 1)))",
            b"SELECT INBOX (QRESYNC (1 1 1:5 (2,1 1,2)))",
            b"SELECT INBOX (QRESYNC (1 1 1:5 (1:2 2:1)))",
            b"SELECT INBOX (QRESYNC (1 1) QRESYNC (1 1))",
        ):
            self.assertIn(b"5 BAD", client.send(b"5 %b\r\n" % command), command)
        # The mailbox is still selected.
        self.assertIn(b"6 OK", client.send(b"6 FETCH 1 FLAGS\r\n"))


class StoreTests(Case):
    def test_silent_stores_tell_the_mod_seq_alone(self) -> None:
        client = self.selected()
        self.assertEqual(
            self.lines(client.send(b"3 UID STORE 2 +FLAGS.SILENT (\\Seen)\r\n")),
            [
                b"* 2 FETCH (UID 2 MODSEQ (#))",
                b"3 OK [HIGHESTMODSEQ #] UID STORE completed",
            ],
        )

    def test_unchanged_since(self) -> None:
        client, other = self.selected(), self.selected(0)
        since = max(self.mod_seq(client, seq) for seq in (1, 2, 3))
        other.send(b"3 STORE 2 +FLAGS (\\Flagged)\r\n")
        answer = client.send(
            b"4 STORE 1:3 (UNCHANGEDSINCE %d) +FLAGS.SILENT (\\Seen)\r\n" % since
        )
        self.assertEqual(
            self.lines(answer),
            [
                b"* 2 FETCH (UID 2 FLAGS (\\Flagged) MODSEQ (#))",
                b"* 1 FETCH (UID 1 MODSEQ (#))",
                b"* 3 FETCH (UID 3 MODSEQ (#))",
                b"* OK [HIGHESTMODSEQ #] Highest.",
                b"4 OK [MODIFIED 2] STORE completed",
            ],
        )
        self.assertGreater(number(rb"HIGHESTMODSEQ (\d+)", answer), since)
        # By UID; and of what passes all are told, changed or not.
        client.send(b"5 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n6 EXPUNGE\r\n")
        since = self.mod_seq(client, 1)
        other.send(b"7 NOOP\r\n8 UID STORE 3 +FLAGS (\\Draft)\r\n")
        answer = client.send(
            b"9 UID STORE 2:3 (UNCHANGEDSINCE %d) FLAGS.SILENT (\\Flagged)\r\n" % since
        )
        self.assertEqual(
            self.lines(answer),
            [
                b"* 2 FETCH (UID 3 FLAGS (\\Seen \\Draft) MODSEQ (#))",
                b"* 1 FETCH (UID 2 MODSEQ (#))",
                b"* OK [HIGHESTMODSEQ #] Highest.",
                b"9 OK [MODIFIED 3] UID STORE completed",
            ],
        )

    def test_unchanged_since_0_always_fails(self) -> None:
        client = self.selected(1)
        self.assertEqual(
            self.lines(client.send(b"3 STORE 1 (UNCHANGEDSINCE 0) FLAGS (a)\r\n"))[-2:],
            [
                b"* 1 FETCH (UID 1 FLAGS () MODSEQ (#))",
                b"3 OK [MODIFIED 1] STORE completed",
            ],
        )

    def test_what_changes_nothing_takes_no_mod_seq(self) -> None:
        client = self.selected(1)
        client.send(b"3 STORE 1 FLAGS (\\Seen)\r\n")
        before = self.mod_seq(client)
        for command in (b"STORE 1 +FLAGS (\\Seen)", b"FETCH 1 BODY[]"):
            client.send(b"4 %b\r\n" % command)
            self.assertEqual(self.mod_seq(client), before)

    def test_seen_by_fetch_tells_uid_flags_and_mod_seq(self) -> None:
        client = self.selected(1)
        self.assertIn(
            b" UID 1 FLAGS (\\Seen) MODSEQ (#))",
            self.lines(client.send(b"3 FETCH 1 BODY[TEXT]\r\n")),
        )
        # Asked for nothing of these, and nothing has changed: nothing is told.
        answer = client.send(b"4 FETCH 1 BODY[TEXT]\r\n")
        self.assertNotIn(b"MODSEQ", answer)

    def test_another_session_hears_mod_seqs(self) -> None:
        client, other = self.selected(1), self.selected(0)
        client.send(b"3 STORE 1 +FLAGS.SILENT (\\Seen)\r\n")
        mod_seq = self.mod_seq(client)
        self.assertEqual(
            other.send(b"4 NOOP\r\n"),
            b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (%d))\r\n"
            b"4 OK [HIGHESTMODSEQ %d] NOOP completed\r\n" % (mod_seq, mod_seq),
        )


class ChangedSinceTests(Case):
    def test_changed_since(self) -> None:
        client = self.selected()
        since = number(rb"MODSEQ (\d+)", client.send(b"3 SELECT INBOX\r\n"))
        client.send(b"3 STORE 2 FLAGS (\\Seen)\r\n")
        self.assertEqual(
            self.lines(client.send(b"4 FETCH 1:* UID (CHANGEDSINCE %d)\r\n" % since)),
            [b"* 2 FETCH (UID 2 MODSEQ (#))", b"4 OK FETCH completed"],
        )
        self.assertEqual(
            self.lines(
                client.send(b"4 UID FETCH 1,3 FLAGS (CHANGEDSINCE %d)\r\n" % since)
            ),
            [b"4 OK UID FETCH completed"],
        )
        answer = client.send(b"5 FETCH 2 BODY.PEEK[TEXT] (CHANGEDSINCE %d)\r\n" % since)
        self.assertEqual(self.lines(answer)[2], b" MODSEQ (#))")

    def test_higher_than_any_is_of_a_lost_index(self) -> None:
        client = self.selected(2)
        answer = client.send(b"3 FETCH 1:* UID (CHANGEDSINCE 9223372036854775807)\r\n")
        self.assertEqual(answer.count(b"FETCH ("), 2)

    def test_vanished(self) -> None:
        client = self.selected(6, how=b"QRESYNC")
        since = number(rb"MODSEQ (\d+)", client.send(b"3 SELECT INBOX\r\n"))
        client.send(b"4 STORE 2,4,6 +FLAGS.SILENT (\\Deleted)\r\n5 EXPUNGE\r\n")
        client.send(b"6 STORE 1 FLAGS (\\Seen)\r\n")
        # "*" is the last there ever was: a client knows of 6, which is gone.
        for uids, gone in ((b"1:*", b"2,4,6"), (b"3:5", b"4"), (b"1:3,6", b"2,6")):
            answer = client.send(
                b"7 UID FETCH %b (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % (uids, since)
            )
            self.assertEqual(
                self.lines(answer)[0], b"* VANISHED (EARLIER) %b" % gone, uids
            )
        answer = client.send(
            b"8 UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % since
        )
        self.assertEqual(
            self.lines(answer)[1:],
            [
                b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (#))",
                b"8 OK UID FETCH completed",
            ],
        )

    def test_what_is_not_told_yet_has_not_vanished_earlier(self) -> None:
        client, other = self.selected(3, how=b"QRESYNC"), self.selected(0)
        since = self.mod_seq(client, 3)
        other.send(b"3 STORE 2 +FLAGS.SILENT (\\Deleted)\r\n4 EXPUNGE\r\n")
        answer = client.send(
            b"5 UID FETCH 1:* (FLAGS) (CHANGEDSINCE %d VANISHED)\r\n" % since
        )
        self.assertNotIn(b"VANISHED", answer)
        self.assertEqual(client.send(b"6 NOOP\r\n").split(b"\r\n")[0], b"* VANISHED 2")


class ExpungeTests(Case):
    def test_vanished_in_place_of_expunge(self) -> None:
        client = self.selected(5, how=b"QRESYNC")
        client.send(b"3 STORE 2,3,5 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(
            self.lines(client.send(b"4 EXPUNGE\r\n")),
            [b"* VANISHED 2:3,5", b"4 OK [HIGHESTMODSEQ #] EXPUNGE completed"],
        )
        client.send(b"5 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(
            self.lines(client.send(b"6 UID EXPUNGE 1:9\r\n")),
            [b"* VANISHED 1", b"6 OK [HIGHESTMODSEQ #] UID EXPUNGE completed"],
        )
        answer = self.lines(client.send(b"7 MOVE 1 Trash\r\n"))
        self.assertRegex(answer[0], rb"^\* OK \[COPYUID \d+ 4 1\]")
        self.assertEqual(
            answer[1:], [b"* VANISHED 4", b"7 OK [HIGHESTMODSEQ #] MOVE completed"]
        )

    def test_close_tells_none(self) -> None:
        client = self.selected(1, how=b"QRESYNC")
        client.send(b"3 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n")
        self.assertEqual(client.send(b"4 CLOSE\r\n"), b"4 OK CLOSE completed\r\n")

    def test_the_highest_stays_low_while_an_expunge_is_held_back(self) -> None:
        # RFC 7162 section 6: else a client that is cut off here would never hear
        # of the expunge, since it takes the highest MODSEQ that it has seen.
        client, other = self.selected(3, how=b"QRESYNC"), self.selected(0)
        told = number(rb"HIGHESTMODSEQ (\d+)", client.send(b"3 SELECT INBOX\r\n"))
        other.send(b"4 STORE 2 +FLAGS.SILENT (\\Deleted)\r\n5 EXPUNGE\r\n")
        answer = client.send(b"6 STORE 1 FLAGS (\\Seen)\r\n")
        self.assertGreater(number(rb"MODSEQ \((\d+)", answer), told)
        self.assertEqual(number(rb"6 OK \[HIGHESTMODSEQ (\d+)", answer), told)
        answer = client.send(b"7 STORE 1 (UNCHANGEDSINCE %d) FLAGS ()\r\n" % told)
        self.assertEqual(number(rb"\* OK \[HIGHESTMODSEQ (\d+)", answer), told)
        self.assertIn(b"7 OK [MODIFIED 1] ", answer)
        answer = client.send(b"8 NOOP\r\n")
        self.assertIn(b"* VANISHED 2\r\n", answer)
        self.assertGreater(number(rb"8 OK \[HIGHESTMODSEQ (\d+)", answer), told)

    def test_in_idle_the_highest_follows_what_was_told(self) -> None:
        client, other = self.selected(2, how=b"QRESYNC"), self.selected(0)
        client.send(b"3 IDLE\r\n")
        other.send(b"4 STORE 2 +FLAGS.SILENT (\\Deleted)\r\n5 EXPUNGE\r\n")
        self.assertEqual(
            self.lines(client.heard())[-2:],
            [b"* VANISHED 2", b"* OK [HIGHESTMODSEQ #] Highest."],
        )
        self.assertEqual(client.send(b"DONE\r\n"), b"3 OK IDLE completed\r\n")


class ResynchroniseTests(Case):
    def setUp(self) -> None:
        super().setUp()
        client = self.selected(9, how=b"QRESYNC")
        answer = client.send(b"3 SELECT INBOX\r\n")
        self.uid_validity = number(rb"UIDVALIDITY (\d+)", answer)
        self.since = number(rb"HIGHESTMODSEQ (\d+)", answer)
        client.send(b"4 STORE 2:4,9 +FLAGS.SILENT (\\Deleted)\r\n5 EXPUNGE\r\n")
        client.send(b"6 UID STORE 1,6 FLAGS (\\Seen)\r\n")
        append(client)
        client.lose()
        self.client = self.logged_in()
        self.client.send(b"1 ENABLE QRESYNC\r\n")

    def told(self, known: bytes, since: int | None = None) -> list[bytes]:
        since = self.since if since is None else since
        answer = self.client.send(
            b"2 SELECT INBOX (QRESYNC (%d %d%b))\r\n"
            % (self.uid_validity, since, known)
        )
        lines = self.lines(answer)
        self.assertEqual(lines[-1], b"2 OK [READ-WRITE] SELECT completed")
        self.assertIn(b"* OK [HIGHESTMODSEQ #] Highest.", lines)
        last = max(n for n, line in enumerate(lines) if line.startswith(b"* OK ["))
        return lines[last + 1 : -1]

    def test_what_has_changed(self) -> None:
        seen = [
            b"* 1 FETCH (UID 1 FLAGS (\\Seen) MODSEQ (#))",
            b"* 3 FETCH (UID 6 FLAGS (\\Seen) MODSEQ (#))",
        ]
        new = b"* 6 FETCH (UID 10 FLAGS () MODSEQ (#))"
        gone = b"* VANISHED (EARLIER) 2:4,9"
        self.assertEqual(self.told(b""), [gone, *seen, new])
        self.assertEqual(self.told(b" 1:9"), [gone, *seen])
        self.assertEqual(self.told(b" 3,6:7"), [b"* VANISHED (EARLIER) 3", *seen[1:]])
        # All is remembered: what the client knows of numbers is not needed.
        self.assertEqual(self.told(b" 1:9 (1,4 1,7)"), [gone, *seen])
        self.assertEqual(self.told(b" (1,4 1,7)"), [gone, *seen, new])

    def test_another_uid_validity(self) -> None:
        self.uid_validity += 1
        self.assertEqual(self.told(b" 1:9"), [])

    def test_below_the_history_all_that_is_absent_has_vanished(self) -> None:
        for since in (1, 2**63 - 1):
            told = self.told(b" 1:9,12:20", since)
            self.assertEqual(told[0], b"* VANISHED (EARLIER) 2:4,9")
            self.assertEqual(
                [line[:7] for line in told[1:]], [b"* %d FET" % n for n in range(1, 6)]
            )
        # Up to number 3, UID 6, the client knows it all.
        told = self.told(b" 1:9 (1,3,5 1,6,9)", 1)
        self.assertEqual(told[0], b"* VANISHED (EARLIER) 9")
        told = self.told(b" 1:9 (4,5 4,5)", 1)
        self.assertEqual(told[0], b"* VANISHED (EARLIER) 2:4,9")

    def test_the_history_is_bounded(self) -> None:
        self.patch(index, "MAX_TOMBSTONES", 4)
        client = self.logged_in()
        client.send(b"1 SELECT INBOX\r\n2 STORE 1 +FLAGS.SILENT (\\Deleted)\r\n")
        client.send(b"3 EXPUNGE\r\n")
        # The first four are forgotten, and so all that is absent is told.
        self.assertEqual(self.told(b" 1:20")[0], b"* VANISHED (EARLIER) 1:4,9")

    def test_an_index_that_was_lost(self) -> None:
        self.client.lose()
        self.office.stop()
        (found,) = self.office.root.glob("*/index.sqlite")
        index.discard(str(found))
        self.client = self.logged_in()
        self.client.send(b"1 ENABLE QRESYNC\r\n")
        told = self.told(b" 1:9")
        self.assertEqual(told[0], b"* VANISHED (EARLIER) 2:4,9")
        self.assertEqual(len(told), 6)

    def test_examine(self) -> None:
        answer = self.client.send(
            b"2 EXAMINE INBOX (QRESYNC (%d %d))\r\n" % (self.uid_validity, self.since)
        )
        self.assertIn(b"* VANISHED (EARLIER) 2:4,9\r\n", answer)
