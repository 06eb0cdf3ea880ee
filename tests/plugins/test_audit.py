"""The built-in plugin "audit"."""

from twisted.logger import LogEvent, globalLogPublisher

from mailsrv.doors import contracts
from mailsrv.doors.values import Change
from mailsrv.plugins.audit import Audit, audit


class AuditMakerTests(contracts.PluginMakerContract):
    def provider(self) -> object:
        return audit


class AuditTests(contracts.ChangeListenerContract):
    def provider(self) -> Audit:
        return Audit({}, self.services())

    def test_a_line_for_each_kind(self) -> None:
        events: list[LogEvent] = []
        globalLogPublisher.addObserver(events.append)  # type: ignore[arg-type]
        self.addCleanup(
            globalLogPublisher.removeObserver,
            events.append,  # type: ignore[arg-type]
        )
        change = Change("anna@example.test", "INBOX", (), (3, 4, 5, 9), (1,))
        self.provider().changed(change)
        self.assertEqual(
            [(e["what"], e["count"], e["uids"], e["user"]) for e in events],
            [
                ("flagged", 4, "3:5,9", "anna@example.test"),
                ("expunged", 1, "1", "anna@example.test"),
            ],
        )
