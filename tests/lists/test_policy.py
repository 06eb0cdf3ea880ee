"""Who may name a list in RCPT."""

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.accounts import edits
from mailsrv.accounts.directory import Directory, Posting
from mailsrv.doors.values import ACCEPT, Recipient, Reject, Sender
from mailsrv.lists.members import Members
from mailsrv.lists.policy import ListPosting
from tests.inline_threads import InlineThreads
from tests.smtp.office import ANNA, BERT, office

LIST, ALIAS, CARL = "staff@example.test", "everybody@example.test", "carl@far.test"


class PostingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = edits.add_list(office(Directory()), LIST, [ANNA])
        self.directory = edits.add_alias(self.directory, ALIAS, [LIST])
        self.members = Members(Path(self.mktemp()), lambda: 0.0)
        self.addCleanup(self.members.close)
        self.members.subscribe(LIST, [BERT, CARL])
        self.policy = ListPosting(
            self.members, lambda: self.directory, InlineThreads().read
        )

    def posting(self, posting: Posting) -> None:
        self.directory = edits.set_list(self.directory, LIST, posting=posting)

    def said(self, reverse_path: str, to: str, service: str = "mx") -> str:
        sender = Sender(service, "192.0.2.1", "x", True, None, reverse_path, 0)
        asking = self.policy.recipient(Recipient(sender, to, ()))
        decision = self.successResultOf(Deferred.fromCoroutine(asking))
        if decision is ACCEPT:
            return "yes"
        assert isinstance(decision, Reject)
        return "log in" if "Log in" in decision.text else "no"

    def test_members_and_others(self) -> None:
        self.assertEqual(self.said(CARL, LIST), "yes")
        self.assertEqual(self.said("dora@far.test", LIST), "no")
        self.assertEqual(self.said("", LIST), "no")

    def test_who_has_an_address_here_logs_in(self) -> None:
        for posting, submitted in (
            ("members", "yes"),
            ("moderated", "yes"),
            ("announce", "no"),
        ):
            self.posting(posting)  # type: ignore[arg-type]  # mypy has str
            for to in (LIST, ALIAS):
                self.assertEqual(self.said(BERT, to), "log in", (posting, to))
            self.assertEqual(self.said(BERT, LIST, "submission"), submitted)
            # The server before this one has seen to it.
            self.assertEqual(self.said(BERT, LIST, "lmtp"), submitted)

    def test_what_anybody_may_do(self) -> None:
        self.assertEqual(self.said(BERT, "staff-owner@example.test"), "yes")
        self.assertEqual(self.said(BERT, ANNA), "yes")
        self.posting("anyone")
        self.assertEqual(self.said(BERT, LIST), "yes")
