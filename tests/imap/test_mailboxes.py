"""SELECT to STATUS, and LIST in its kinds, over a real Maildir."""

import re

from mailsrv.settings import ImapSettings
from tests.imap.office import ImapCase


def untagged(answer: bytes) -> list[str]:
    return [
        line.decode()[2:] for line in answer.split(b"\r\n") if line.startswith(b"* ")
    ]


class MailboxesTests(ImapCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.logged_in()

    def ok(self, command: str) -> list[str]:
        answer = self.client.send(f"1 {command}\r\n".encode())
        self.assertIn(b"1 OK", answer, command)
        return untagged(answer)

    def no(self, command: str, code: str) -> None:
        answer = self.client.send(f"1 {command}\r\n".encode())
        self.assertTrue(answer.startswith(f"1 NO [{code}]".encode()), answer)

    def test_names(self) -> None:
        self.ok("CREATE Entw&APw-rfe/")
        self.assertEqual(
            self.ok('LIST "" Ent%'), ['LIST (\\HasNoChildren) "/" Entw&APw-rfe']
        )
        self.no("CREATE Entw&APw-rfe", "ALREADYEXISTS")
        self.no("CREATE inbox", "ALREADYEXISTS")
        for name in ("a.b", "../x", "a//b", "/a", '""', "&", '"a\x7f"'):
            self.no(f"CREATE {name}", "CANNOT")
        self.no("SELECT nowhere", "NONEXISTENT")
        self.no("DELETE nowhere", "NONEXISTENT")
        self.no("RENAME nowhere x", "NONEXISTENT")
        self.no("STATUS nowhere (MESSAGES)", "NONEXISTENT")
        self.no("DELETE INBOX", "CANNOT")

    def test_create_with_a_special_use(self) -> None:
        self.ok("CREATE mine (USE (\\archive))")
        self.assertIn("\\Archive", self.ok('LIST "" mine')[0])
        self.no("CREATE other (USE (\\All))", "USEATTR")

    def test_a_parent_that_does_not_exist(self) -> None:
        self.ok("CREATE a/b/c")
        self.assertEqual(
            self.ok('LIST "" a%'),
            ['LIST (\\HasChildren \\Noselect) "/" a'],
        )
        self.no("SELECT a", "NONEXISTENT")

    def test_select_while_selected(self) -> None:
        self.ok("SELECT INBOX")
        answer = self.client.send(b"1 SELECT nowhere\r\n")
        self.assertRegex(answer, rb"^\* OK \[CLOSED\] .*\r\n1 NO \[NONEXISTENT\] ")
        # RFC 3501 section 6.3.1: now none is selected.
        self.assertIn(b"2 BAD", self.client.send(b"2 CHECK\r\n"))

    def test_examine_changes_nothing(self) -> None:
        self.deliver()
        self.clock.advance(1)
        lines = self.ok("EXAMINE INBOX")
        self.assertIn("1 RECENT", lines)
        self.assertIn("OK [PERMANENTFLAGS ()] Flags permitted.", lines)
        self.ok("FETCH 1 BODY[]")
        for command in (
            "STORE 1 +FLAGS (\\Seen)",
            "EXPUNGE",
            "UID EXPUNGE 1",
            "MOVE 1 Sent",
        ):
            self.no(command, "CANNOT")
        self.ok("CLOSE")
        lines = self.ok("SELECT INBOX")
        self.assertIn("1 RECENT", lines)
        self.assertIn("OK [UNSEEN 1] First unseen.", lines)
        self.assertIn("0 RECENT", self.ok("SELECT INBOX"))

    def test_status_of_what_list_names(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.ok("CREATE a/b")
        self.ok("SUBSCRIBE gone")
        self.assertEqual(
            self.ok('LIST "" (INBOX a* gone) RETURN (STATUS (MESSAGES UIDNEXT))'),
            [
                'LIST (\\HasNoChildren) "/" INBOX',
                "STATUS INBOX (MESSAGES 1 UIDNEXT 2)",
                'LIST (\\HasChildren \\NonExistent) "/" a',
                'LIST (\\HasNoChildren) "/" a/b',
                "STATUS a/b (MESSAGES 0 UIDNEXT 1)",
            ],
        )
        both = 'LIST "" INBOX RETURN (SUBSCRIBED STATUS (UNSEEN) CHILDREN)'
        self.assertEqual(self.ok(both)[1], "STATUS INBOX (UNSEEN 1)")
        for wrong in (b"STATUS", b"STATUS ()", b"STATUS (FOO)", b"(STATUS (UNSEEN)"):
            wire = b'1 LIST "" * RETURN (%b)\r\n' % wrong
            self.assertIn(b"1 BAD", self.client.send(wire))

    def test_sizes(self) -> None:
        for _ in range(2):
            self.deliver()
        self.clock.advance(1)
        [line] = self.ok("STATUS INBOX (SIZE DELETED)")
        self.ok("SELECT INBOX")
        sizes = re.findall(r"SIZE (\d+)", " ".join(self.ok("FETCH 1:* RFC822.SIZE")))
        self.assertEqual(line, f"STATUS INBOX (SIZE {sum(map(int, sizes))} DELETED 0)")

    def test_the_size_of_what_another_program_brought(self) -> None:
        new = self.office.root / "anna@example.test" / "Maildir" / "new"
        self.ok("STATUS INBOX (SIZE)")  # makes the folders
        for number in range(30):  # without a size in the name, with LF in the file
            (new / f"1700000000.M{number}.host").write_bytes(b"A: b\n\nc\n")
        [line] = self.ok("STATUS INBOX (SIZE)")
        self.assertEqual(line, f"STATUS INBOX (SIZE {30 * len('A: b..--c..')})")

    def test_status_items_of_disabled_extensions(self) -> None:
        settings = ImapSettings(
            disabled_extensions=["STATUS=SIZE", "APPENDLIMIT", "LIST-STATUS"]
        )
        client = self.logged_in(settings)
        self.assertIn(b"1 BAD", client.send(b"1 STATUS INBOX (APPENDLIMIT)\r\n"))
        command = b'1 LIST "" * RETURN (STATUS (MESSAGES))\r\n'
        self.assertIn(b"1 BAD", client.send(command))

    def test_status(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.assertEqual(
            self.ok("STATUS inbox (UIDNEXT UNSEEN MESSAGES RECENT)"),
            ["STATUS INBOX (UIDNEXT 2 UNSEEN 1 MESSAGES 1 RECENT 1)"],
        )
        self.assertIn(b"1 BAD", self.client.send(b"1 STATUS INBOX (SIZES)\r\n"))

    def test_own_selected_mailbox_deleted(self) -> None:
        self.ok("CREATE x")
        self.ok("SELECT x")
        self.ok("DELETE x")
        self.assertIn(b"2 BAD", self.client.send(b"2 CHECK\r\n"))

    def test_quota(self) -> None:
        self.assertEqual(self.ok("GETQUOTAROOT INBOX"), ["QUOTAROOT INBOX"])
        self.no('GETQUOTA ""', "NONEXISTENT")
        self.no("GETQUOTAROOT nowhere", "NONEXISTENT")
        self.office.account("anna@example.test", 10_240)
        self.deliver()
        self.clock.advance(1)
        expected = 'QUOTA "" (STORAGE 1 10)'
        self.assertEqual(self.ok('GETQUOTA ""'), [expected])
        self.assertEqual(
            self.ok("GETQUOTAROOT INBOX"), ['QUOTAROOT INBOX ""', expected]
        )
        self.no("APPEND INBOX {20000}", "OVERQUOTA")


class ListTests(ImapCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = self.logged_in()
        for name in ("a", "a/b", "a/b/c", "d"):
            self.client.send(f"1 CREATE {name}\r\n".encode())
        for name in ("Archive", "Drafts", "Junk", "Sent", "Trash"):
            self.client.send(f"1 UNSUBSCRIBE {name}\r\n".encode())
        for name in ("a/b/c", "d", "gone"):
            self.client.send(f"1 SUBSCRIBE {name}\r\n".encode())

    def names(self, command: str) -> dict[str, str]:
        """Return what stands before each name by the name and what follows it."""
        answer = self.client.send(f"1 {command}\r\n".encode())
        self.assertIn(b"1 OK", answer, command)
        lines = (line.split(' "/" ') for line in untagged(answer))
        return {name: attributes for attributes, name in lines}

    def test_list(self) -> None:
        self.assertEqual(
            list(self.names('LIST "" *')),
            "INBOX Archive Drafts Junk Sent Trash a a/b a/b/c d".split(),
        )
        self.assertEqual(
            list(self.names('LIST "" %')),
            "INBOX Archive Drafts Junk Sent Trash a d".split(),
        )
        self.assertEqual(list(self.names('LIST "a/" %')), ["a/b"])
        self.assertEqual(list(self.names('LIST "" a/')), ["a"])
        self.assertEqual(self.names('LIST "" ""'), {'""': "LIST (\\Noselect)"})
        self.assertEqual(self.names('LIST "" a')["a"], "LIST (\\HasChildren)")

    def test_lsub(self) -> None:
        self.assertEqual(
            self.names('LSUB "" *'),
            {name: "LSUB ()" for name in ("INBOX", "a/b/c", "d", "gone")},
        )
        self.assertEqual(
            self.names('LSUB "" %'),
            {
                "INBOX": "LSUB ()",
                "a": "LSUB (\\Noselect)",
                "d": "LSUB ()",
                "gone": "LSUB ()",
            },
        )

    def test_subscribed(self) -> None:
        found = self.names('LIST (SUBSCRIBED) "" *')
        self.assertEqual(list(found), ["INBOX", "a/b/c", "d", "gone"])
        self.assertIn("\\NonExistent", found["gone"])
        self.assertIn("\\Subscribed", found["d"])
        found = self.names('LIST "" (a d) RETURN (SUBSCRIBED CHILDREN)')
        self.assertIn("\\Subscribed", found["d"])
        self.assertNotIn("\\Subscribed", found["a"])

    def test_recursive_match(self) -> None:
        found = self.names('LIST (SUBSCRIBED RECURSIVEMATCH) "" %')
        self.assertEqual(
            list(found), ["INBOX", 'a ("CHILDINFO" ("SUBSCRIBED"))', "d", "gone"]
        )
        found = self.names('LIST (SUBSCRIBED RECURSIVEMATCH) "" (a a/b/c)')
        self.assertEqual(list(found), ["a/b/c"])
        self.client.send(b"1 SUBSCRIBE no/such/mailbox\r\n")
        self.assertEqual(
            self.names('LIST (SUBSCRIBED RECURSIVEMATCH) "" n%'),
            {'no ("CHILDINFO" ("SUBSCRIBED"))': "LIST (\\HasNoChildren \\NonExistent)"},
        )
        answer = self.client.send(b'1 LIST (RECURSIVEMATCH REMOTE) "" *\r\n')
        self.assertIn(b"1 BAD", answer)

    def test_special_use(self) -> None:
        found = self.names('LIST (SPECIAL-USE) "" * RETURN (SPECIAL-USE)')
        self.assertEqual(list(found), "Archive Drafts Junk Sent Trash".split())
        self.assertIn("\\Junk", found["Junk"])

    def test_several_patterns(self) -> None:
        self.assertEqual(list(self.names('LIST "" (d a% "")')), ["a", "d"])
        self.assertIn(b"1 BAD", self.client.send(b'1 LIST (FOO) "" *\r\n'))
        self.assertIn(b"1 BAD", self.client.send(b'1 LIST "" * RETURN (FOO)\r\n'))
        many = b" ".join([b"*"] * 21)
        self.assertIn(b"1 BAD", self.client.send(b'1 LIST "" (%b)\r\n' % many))

    def test_xlist(self) -> None:
        found = self.names('XLIST "" *')
        self.assertIn("\\Inbox", found["INBOX"])
        self.assertIn("\\Spam", found["Junk"])

    def test_a_pattern_that_is_no_name_matches_nothing(self) -> None:
        self.assertEqual(self.names('LIST "" &*'), {})


class SessionsTests(ImapCase):
    def test_a_renamed_mailbox_stays_selected(self) -> None:
        one, other = self.logged_in(), self.logged_in()
        one.send(b"1 CREATE x\r\n2 SELECT x\r\n")
        self.assertIn(b"1 OK", other.send(b"1 RENAME x y\r\n"))
        self.assertIn(b"3 OK", one.send(b"3 NOOP\r\n"))
        other.send(b"2 APPEND y {8+}\r\nA: b\r\n\r\n\r\n")
        self.assertIn(b"* 1 EXISTS", one.send(b"4 NOOP\r\n"))
