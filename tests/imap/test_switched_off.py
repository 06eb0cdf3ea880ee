"""What a broken client must not meet, once its extension is switched off."""

from mailsrv.settings import ImapExtension, ImapSettings
from tests.imap.office import Client, ImapCase
from tests.imap.test_condstore import append


class SwitchedOffTests(ImapCase):
    def without(self, *extensions: ImapExtension) -> Client:
        settings = ImapSettings(disabled_extensions=list(extensions))
        client = self.logged_in(settings)
        append(client)
        client.send(b"1 SELECT INBOX\r\n")
        return client

    def refuses(self, client: Client, *commands: bytes) -> None:
        for command in commands:
            answer = client.send(b"2 %b\r\n" % command)
            self.assertIn(b"2 BAD", answer, command)

    def test_search_keys(self) -> None:
        known = (
            (b"WITHIN", b"OLDER 1", b"NOT YOUNGER 1"),
            (b"SAVEDATE", b"SAVEDON 1-Jan-2020", b"SAVEDATESUPPORTED"),
            (b"OBJECTID", b"EMAILID M1", b"OR SEEN (THREADID T1)"),
            (b"CONDSTORE", b"MODSEQ 1"),
            (b"SEARCHRES", b"UID $", b"RETURN (SAVE) ALL"),
        )
        client = self.without("WITHIN", "SAVEDATE", "OBJECTID", "CONDSTORE")
        other = self.without("SEARCHRES")
        for word, *keys in known:
            without = other if word == b"SEARCHRES" else client
            with_it = client if word == b"SEARCHRES" else other
            for key in keys:
                self.refuses(without, b"SEARCH " + key)
                self.assertIn(b"3 OK", with_it.send(b"3 SEARCH %b\r\n" % key))
        self.refuses(client, b"SORT (DATE) UTF-8 OLDER 1")
        self.refuses(client, b"THREAD REFERENCES UTF-8 EMAILID M1")

    def test_the_saved_result(self) -> None:
        client = self.without("SEARCHRES")
        self.refuses(client, b"FETCH $ UID", b"STORE $ FLAGS ()", b"UID COPY $ Junk")

    def test_identifiers(self) -> None:
        client = self.without("OBJECTID")
        self.refuses(client, b"FETCH 1 EMAILID", b"STATUS INBOX (MAILBOXID)")
        self.assertNotIn(b"MAILBOXID", client.send(b"2 SELECT INBOX\r\n"))
        self.assertNotIn(b"MAILBOXID", client.send(b"3 CREATE x\r\n"))

    def test_uids_of_copies(self) -> None:
        client = self.without("UIDPLUS")
        self.assertNotIn(b"APPENDUID", append(client))
        answer = client.send(b"2 COPY 1 Junk\r\n3 MOVE 1 Junk\r\n")
        self.assertTrue(answer.startswith(b"2 OK COPY completed\r\n* 1 EXPUNGE\r\n"))
        self.assertTrue(answer.endswith(b"3 OK MOVE completed\r\n"))
        self.refuses(client, b"UID EXPUNGE 1")

    def test_rev2_has_the_uids_of_copies(self) -> None:
        client = self.without("UIDPLUS")
        client.send(b"2 ENABLE IMAP4REV2\r\n")
        self.assertIn(b"[APPENDUID", append(client))
        self.assertIn(b"[COPYUID", client.send(b"3 COPY 1 Junk\r\n"))

    def test_special_uses(self) -> None:
        client = self.without("SPECIAL-USE", "CREATE-SPECIAL-USE")
        self.assertIn(
            b'* LIST (\\HasNoChildren) "/" Sent\r\n', client.send(b'2 LIST "" S%\r\n')
        )
        self.refuses(
            client,
            b'LIST (SPECIAL-USE) "" *',
            b'LIST "" * RETURN (SPECIAL-USE)',
            b"CREATE x (USE (\\Sent))",
        )

    def test_extended_list(self) -> None:
        client = self.without("LIST-EXTENDED")
        self.refuses(
            client,
            b'LIST (SUBSCRIBED) "" *',
            b'LIST "" (a b)',
            b'LIST "" (a)',
            b'LIST "" * RETURN (SUBSCRIBED)',
            b'LIST "" * RETURN (STATUS (MESSAGES))',
        )
        self.assertNotIn(b"LIST-STATUS", client.send(b"2 CAPABILITY\r\n"))
        self.assertIn(b"3 OK", client.send(b'3 LIST "" *\r\n'))

    def test_sort_by_display_names(self) -> None:
        client = self.without("SORT=DISPLAY")
        self.refuses(client, b"SORT (DISPLAYFROM) UTF-8 ALL")
        self.assertIn(b"3 OK", client.send(b"3 SORT (FROM) UTF-8 ALL\r\n"))
