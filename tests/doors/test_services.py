"""SMTP, IMAP and POP3 hold to the contract of listening services."""

from mailsrv.doors import contracts
from mailsrv.imap.server import ImapFactory
from mailsrv.pop3.server import Pop3Factory
from mailsrv.smtp.server import SmtpFactory
from tests.imap import office as imap
from tests.pop3 import office as pop3
from tests.smtp import office as smtp


class SmtpServiceTests(smtp.OfficeCase, contracts.ListenerServiceContract):
    def provider(self) -> SmtpFactory:
        return self.factory("mx")

    def let_time_pass(self) -> None:
        self.clock.pump([0, 60, 0])


class LmtpServiceTests(smtp.OfficeCase, contracts.ListenerServiceContract):
    def provider(self) -> SmtpFactory:
        return self.factory("lmtp")

    def let_time_pass(self) -> None:
        self.clock.pump([0, 60, 0])


class ImapServiceTests(imap.ImapCase, contracts.ListenerServiceContract):
    def provider(self) -> ImapFactory:
        return self.factory()

    def let_time_pass(self) -> None:
        self.clock.pump([0, 60, 0])


class Pop3ServiceTests(pop3.ServerCase, contracts.ListenerServiceContract):
    def provider(self) -> Pop3Factory:
        return self.factory

    def let_time_pass(self) -> None:
        self.office.clock.pump([0, 60, 0])
