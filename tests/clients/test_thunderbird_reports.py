"""A report on a failed message, in Thunderbird, which has sent it."""

import html
import re
import shutil

from tests.clients.server import ServerCase
from tests.clients.sink import Sink
from tests.clients.thunderbird import Thunderbird


class ReportTests(ServerCase):
    if shutil.which("thunderbird") is None:
        skip = "thunderbird is not installed"

    def setUp(self) -> None:
        self.sink = Sink()
        self.addCleanup(self.sink.server_close)
        self.addCleanup(self.sink.shutdown)
        self.settings = (
            f'[[relay.route]]\nto = "127.0.0.1:{self.sink.port}"\ntls = "never"\n'
        )
        super().setUp()
        self.thunderbird = Thunderbird(self.folder / "profile")
        self.addCleanup(self.thunderbird.kill)
        self.do = self.thunderbird.do

    def test_it_is_shown_in_the_conversation_of_the_message(self) -> None:
        self.sink.answers["nobody@far.test"] = "550 5.1.1 <nobody@far.test> unknown"
        self.thunderbird.set_up(self.server)
        self.do("send", to="nobody@far.test", subject="Grüße", body="Hello")
        subject = "Not delivered: Grüße"
        found = self.do("waitFor", folder="Inbox", subject=subject)
        self.assertIn("Mail Delivery System <postmaster@", found["author"])
        shown = self.do("shown", folder="Inbox", subject=subject)
        self.do("waitFor", folder="Sent", subject="Grüße")
        sent = self.do("messageId", folder="Sent", subject="Grüße")
        self.assertEqual(shown["answers"], sent)
        text = " ".join(html.unescape(re.sub("<[^>]*>", "", shown["html"])).split())
        for words in (
            "Your message has not been delivered to",
            "The address does not exist there. Please check its spelling.",
            "550 5.1.1 <nobody@far.test> unknown",
            "Final-Recipient: rfc822; nobody@far.test",  # the part for programs
        ):
            self.assertIn(words, text)
