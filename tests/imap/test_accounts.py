"""What a change of the accounts does to open sessions."""

from mailsrv.accounts.edits import set_enabled
from tests.imap.office import Client, ImapCase


class AccountsChangedTests(ImapCase):
    def test_sessions_of_a_closed_account_end(self) -> None:
        factory = self.factory()
        stranger, anna = Client(factory), Client(factory)
        anna.send(b"1 LOGIN anna secret\r\n2 IDLE\r\n")
        self.clock.advance(0)
        stranger.heard(), anna.heard()
        directory = self.live.current
        factory.accounts_changed(directory)
        self.assertEqual(anna.heard(), b"")
        factory.accounts_changed(set_enabled(directory, "anna@example.test", False))
        self.assertIn(b"* BYE", anna.heard())
        self.assertTrue(anna.ended)
        self.assertFalse(stranger.ended)
