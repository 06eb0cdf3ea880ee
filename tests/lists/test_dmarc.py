"""Whose mail a list must not pass on in the author's name."""

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from mailsrv.dns.memory import MemoryResolver
from mailsrv.lists.dmarc import is_strict


class DmarcTests(SynchronousTestCase):
    def strict(self, domain: str, *records: tuple[str, str], failing: str = "") -> bool:
        zones = {(f"_dmarc.{name}", "TXT"): [f'"{text}"'] for name, text in records}
        resolver = MemoryResolver(
            {**zones, ("test", "NS"): ["a."]}, failing=[failing] if failing else []
        )
        result: bool = self.successResultOf(
            Deferred.fromCoroutine(is_strict(resolver, domain))
        )
        return result

    def test_policies(self) -> None:
        for text, strict in (
            ("v=DMARC1; p=none", False),
            ("v=DMARC1; p=quarantine", True),
            ("v=DMARC1;p=Reject;rua=mailto:x@a.test", True),
            ("v=spf1 -all", False),
            ("p=reject", False),
            ("v=DMARC1", False),
            ("", False),
        ):
            self.assertIs(self.strict("a.test", ("a.test", text)), strict, text)

    def test_policy_of_a_domain_above(self) -> None:
        above = ("a.test", "v=DMARC1; p=none; sp=reject")
        self.assertTrue(self.strict("b.a.test", above))
        self.assertFalse(self.strict("a.test", above))
        own = ("b.a.test", "v=DMARC1; p=none")
        self.assertFalse(self.strict("b.a.test", above, own))

    def test_nobody_can_say(self) -> None:
        self.assertTrue(self.strict("a.test", failing="_dmarc.a.test"))
        self.assertFalse(self.strict("a.test"))
