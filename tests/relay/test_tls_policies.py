"""The domains for which the settings say how TLS has to be."""

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.relay.tls_policies import canonical, problems
from mailsrv.settings import RelayTlsPolicy


def policy(*domains: str) -> RelayTlsPolicy:
    return RelayTlsPolicy(domains=list(domains), mode="verify")


class DomainTests(SynchronousTestCase):
    def test_as_the_queue_has_them(self) -> None:
        [found] = canonical([policy("Far.TEST", "*.Bücher.test", "bücher.test")])
        self.assertEqual(
            found.domains,
            ["far.test", "*.xn--bcher-kva.test", "xn--bcher-kva.test"],
        )
        self.assertEqual(found.mode, "verify")

    def test_what_would_never_be_found(self) -> None:
        for domain in (
            *("far.test.", "@far.test", "a@far.test", "https://far.test", ""),
            *("*", ".far.test", "mx.*.test", "[192.0.2.1]", "*.[192.0.2.1]"),
        ):
            [(key, _, _)] = problems([policy("far.test"), policy(domain)])
            self.assertEqual(key, "relay.tls_policy[2].domains", domain)
        self.assertEqual(len(list(problems([policy()]))), 1)

    def test_domain_of_two_tables(self) -> None:
        [(key, wrong, _)] = problems([policy("far.test"), policy("x.test", "FAR.test")])
        self.assertEqual(key, "relay.tls_policy[2].domains")
        self.assertIn("table 1", wrong)
        self.assertEqual(list(problems([policy("a.test", "*.a.test")])), [])
