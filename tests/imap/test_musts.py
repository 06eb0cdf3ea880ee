"""What the RFCs say a server MUST do, where it is easily forgotten."""

from mailsrv.store.account import AccountStore
from mailsrv.store.values import MAX_KEYWORDS, Moved, NoSuchMailbox
from tests.imap.office import ImapCase
from tests.imap.test_condstore import append


class ListTests(ImapCase):
    def test_an_empty_pattern_asks_for_the_separator_in_plain_list_alone(self) -> None:
        # RFC 5258 section 3, RFC 9051 section 6.3.9
        client = self.logged_in()
        answer = client.send(b'1 LIST "" ""\r\n')
        self.assertEqual(
            answer, b'* LIST (\\Noselect) "/" ""\r\n1 OK LIST completed\r\n'
        )
        for arguments in (
            b'() "" ""',
            b'"" ("")',
            b'"" "" RETURN (CHILDREN)',
            b'INBOX "" RETURN ()',
            b'(SUBSCRIBED) "" ""',
            b'INBOX ("")',
        ):
            answer = client.send(b"2 LIST %b\r\n" % arguments)
            self.assertEqual(answer, b"2 OK LIST completed\r\n", arguments)
        answer = client.send(b'3 LIST "" ("" INBOX)\r\n')
        self.assertEqual(answer.count(b"* LIST"), 1)

    def test_one_word_says_that_a_mailbox_cannot_be_selected(self) -> None:
        # RFC 5258 section 6, RFC 9051 section 9: one mbx-list-sflag in a response.
        client = self.logged_in()
        client.send(b"1 CREATE a/b\r\n")
        for enable in (b"NOOP", b"ENABLE IMAP4rev2"):
            client.send(b"2 %b\r\n" % enable)
            for arguments, word in (
                (b'"" a', b"\\Noselect"),
                (b'"" a RETURN ()', b"\\NonExistent"),
                (b'() "" (a)', b"\\NonExistent"),
            ):
                answer = client.send(b"3 LIST %b\r\n" % arguments)
                self.assertTrue(
                    answer.startswith(b'* LIST (\\HasChildren %b) "/" a\r\n' % word),
                    answer,
                )


class StatusTests(ImapCase):
    def test_deleted_storage(self) -> None:
        # RFC 9208 section 5.1: it comes with QUOTA=RES-STORAGE.
        client = self.logged_in()
        for _ in range(3):
            append(client)
        answer = client.send(b"1 STATUS INBOX (DELETED-STORAGE)\r\n")
        self.assertIn(b"* STATUS INBOX (DELETED-STORAGE 0)\r\n", answer)
        client.send(b"2 SELECT INBOX\r\n3 STORE 2:3 +FLAGS (\\Deleted)\r\n")
        answer = client.send(b"4 STATUS INBOX (SIZE)\r\n")
        size = int(answer.partition(b"SIZE ")[2].partition(b")")[0])
        answer = client.send(b"5 STATUS INBOX (DELETED-STORAGE)\r\n")
        self.assertIn(b"(DELETED-STORAGE %d)" % (size // 3 * 2), answer)
        answer = client.send(b'6 LIST "" INBOX RETURN (STATUS (DELETED-STORAGE))\r\n')
        self.assertIn(b"(DELETED-STORAGE %d)" % (size // 3 * 2), answer)


class SelectedTests(ImapCase):
    def test_a_delete_that_fails_leaves_the_mailbox_selected(self) -> None:
        client = self.logged_in()
        append(client)
        client.send(b"1 SELECT INBOX\r\n")
        self.assertIn(b"2 NO [CANNOT]", client.send(b"2 DELETE INBOX\r\n"))
        self.assertIn(b"* 1 FETCH (UID 1)", client.send(b"3 FETCH 1 UID\r\n"))

    def test_a_delete_of_the_selected_mailbox_deselects_it(self) -> None:
        client = self.logged_in()
        client.send(b"1 CREATE a\r\n2 SELECT a\r\n")
        self.assertEqual(client.send(b"3 DELETE a\r\n"), b"3 OK DELETE completed\r\n")
        self.assertIn(b"4 BAD", client.send(b"4 CHECK\r\n"))
        self.assertIn(b"5 OK", client.send(b"5 NOOP\r\n"))

    def test_permanentflags_when_there_is_no_room_for_a_keyword(self) -> None:
        # RFC 9051 section 7.1: then without "\*".
        client, other = self.logged_in(), self.logged_in()
        append(client)
        client.send(b"1 SELECT INBOX\r\n")
        other.send(b"1 SELECT INBOX\r\n")
        most = [b"k%d" % n for n in range(MAX_KEYWORDS)]
        answer = client.send(b"2 STORE 1 FLAGS (%b)\r\n" % b" ".join(most[:-1]))
        self.assertIn(b"k%d \\*)]" % (MAX_KEYWORDS - 2), answer)
        answer = client.send(b"3 STORE 1 +FLAGS (%b)\r\n" % most[-1])
        for told in (answer, other.send(b"3 NOOP\r\n")):
            self.assertIn(b"[PERMANENTFLAGS (\\Answered", told)
            self.assertIn(b" %b)] " % most[-1], told)
            self.assertNotIn(b"\\*", told)
        self.assertIn(b"4 NO [LIMIT]", client.send(b"4 STORE 1 +FLAGS (more)\r\n"))
        self.assertNotIn(b"\\*", client.send(b"5 SELECT INBOX\r\n"))

    def test_a_keyword_of_another_program_that_is_no_flag(self) -> None:
        # RFC 9051 section 9: flag-keyword is an atom.
        client = self.logged_in()
        append(client)
        maildir = self.office.root / "anna@example.test" / "Maildir"
        (maildir / "dovecot-keywords").write_text('0 a b\n1 x]y\n2 "q\n3 ok\n')
        [file] = [*maildir.glob("new/*"), *maildir.glob("cur/*")]
        base = file.name.partition(":2,")[0]
        file.rename(maildir / "cur" / f"{base}:2,Sabcd")
        self.office.ahead_s += 3
        answer = client.send(b"1 SELECT INBOX\r\n")
        self.assertIn(b"\r\n* OK [PERMANENTFLAGS (", answer)
        self.assertIn(b"\\Seen \\Draft ok)\r\n", answer)
        self.assertIn(b"\\Seen \\Draft ok \\*)]", answer)
        answer = client.send(b"2 FETCH 1 FLAGS\r\n")
        self.assertIn(b"* 1 FETCH (FLAGS (\\Seen ok \\Recent))\r\n", answer)

    def test_copyuid_of_what_was_moved_before_a_failure(self) -> None:
        # RFC 9051 section 6.4.8: COPYUID comes before the EXPUNGEs.
        client = self.logged_in()
        for _ in range(201):  # one more than are moved at once
            append(client)
        client.send(b"1 SELECT INBOX\r\n")
        moves = []
        move = AccountStore.move

        def second_fails(store: AccountStore, **arguments: object) -> Moved:
            moves.append(arguments)
            if len(moves) == 2:
                raise NoSuchMailbox("deleted meanwhile")
            return move(store, **arguments)  # type: ignore[arg-type]  # passed on

        self.patch(AccountStore, "move", second_fails)
        answer = client.send(b"2 MOVE 1:* Archive\r\n")
        self.assertEqual(len(moves), 2)
        self.assertRegex(answer, rb"^\* OK \[COPYUID \d+ 1:200 1:200\] ")
        self.assertEqual(answer.count(b" EXPUNGE\r\n"), 200)
        self.assertTrue(answer.endswith(b"2 NO [TRYCREATE] No such mailbox\r\n"))


class FetchTests(ImapCase):
    def test_a_message_of_type_global_has_a_body_in_rev2(self) -> None:
        # RFC 9051 section 9, body-type-msg; in RFC 3501 only RFC822 has one.
        inner = b"From: \xc3\xa4@x.test\r\n\r\nbody"
        mail = b"Content-Type: message/global\r\n\r\n" + inner
        for enable in (b"NOOP", b"ENABLE IMAP4rev2"):
            client = self.logged_in()
            client.send(b"1 APPEND INBOX {%d+}\r\n%b\r\n" % (len(mail), mail))
            client.send(b"2 %b\r\n3 SELECT INBOX\r\n" % enable)
            for item in (b"BODY", b"BODYSTRUCTURE", b"(UID BODY)"):
                answer = client.send(b"4 FETCH 1 %b\r\n" % item)
                self.assertIn(b'("message" "global" NIL NIL NIL "7bit"', answer)
                nested = b' "x.test")) NIL NIL NIL NIL NIL) ("text" "plain" '
                self.assertEqual(nested in answer, enable != b"NOOP", answer)
            answer = client.send(b"5 FETCH 1 (BODY.PEEK[1.1] BODY.PEEK[1.HEADER])\r\n")
            self.assertIn(b"BODY[1.1] {4}\r\nbody", answer)
            self.assertIn(b"BODY[1.HEADER] {19}\r\nFrom: \xc3\xa4@x.test", answer)

    def test_numbers_of_63_bits(self) -> None:
        # RFC 9051 section 9, number64
        client = self.logged_in()
        append(client)
        client.send(b"1 SELECT INBOX\r\n")
        most = 2**63 - 1
        answer = client.send(b"2 SEARCH SMALLER %d NOT LARGER %d\r\n" % (most, most))
        self.assertIn(b"* SEARCH 1\r\n", answer)
        for item in (
            b"BODY[]<%d.%d>" % (most, most),
            b"BODY[HEADER.FIELDS (X)]<%d.1>" % most,
            b"BINARY[1]<%d.%d>" % (most, most),
        ):
            answer = client.send(b"3 FETCH 1 %b\r\n" % item)
            label = item.partition(b".%d>" % most)[0].partition(b".1>")[0]
            self.assertIn(b"* 1 FETCH (%b> {0}\r\n" % label, answer)
        answer = client.send(b"4 FETCH 1 BODY.PEEK[TEXT]<1.%d>\r\n" % most)
        self.assertIn(b"BODY[TEXT]<1> {5}\r\nody\r\n", answer)
        for command in (b"SEARCH LARGER %d", b"FETCH 1 BODY[]<%d.1>"):
            self.assertIn(b"5 BAD", client.send(b"5 %b\r\n" % (command % (most + 1))))


class OctetsTests(ImapCase):
    def test_quoted_octets_that_are_no_utf8(self) -> None:
        # RFC 9755 section 3: BAD, once UTF-8 is agreed upon.
        for enabled in (b"UTF8=ACCEPT", b"IMAP4rev2"):
            client = self.logged_in()
            client.send(b"1 ENABLE %b\r\n" % enabled)
            for command in (
                b'SELECT "\xff"',
                b'CREATE "x\xc3"',
                b'LIST "" "\xe4*"',
                b'LIST "\xe4" "*"',
                b'STATUS "\xed\xa0\x80" (MESSAGES)',
            ):
                answer = client.send(b"2 %b\r\n" % command)
                self.assertTrue(answer.startswith(b"2 BAD "), (command, answer))
            # A literal may be anything, and this one is no mailbox.
            answer = client.send(b"3 SELECT {1+}\r\n\xff\r\n")
            self.assertIn(b"3 NO [CANNOT]", answer)

    def test_a_literal_is_no_command_whatever_came_before_it(self) -> None:
        # RFC 7888 section 3: every line that announces one is followed by it.
        for before in (
            b"1 STATUS a\0b {%d+}\r\n",
            b"1 STATUS a\rb {%d+}\r\n",
            b"1 STATUS a {%d+}\n",
            b"1 APPEND a\0b {%d+}\r\n",
            b"1 APPEND a {1+}\r\nx\0 {%d+}\r\n",
            b"\xff {%d+}\r\n",
        ):
            client = self.logged_in()
            inside = b"2 CREATE inside\r\n"
            client.send(before % len(inside) + inside + b"\r\n")
            other = self.logged_in()
            answer = other.send(b'3 LIST "" inside\r\n')
            self.assertEqual(answer, b"3 OK LIST completed\r\n", before)
            client.lose()
            other.lose()
