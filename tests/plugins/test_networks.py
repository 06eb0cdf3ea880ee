"""The built-in plugin "networks"."""

from mailsrv.doors import contracts
from mailsrv.doors.values import Accept, Connection, Reject
from mailsrv.plugins.networks import Networks, networks

OPTIONS = {
    "deny": ["203.0.113.0/24", "2001:db8:bad::/48"],
    "allow": ["203.0.113.7"],
}


class NetworksMakerTests(contracts.PluginMakerContract):
    options = OPTIONS
    bad_options = (
        {"denied": []},
        {"deny": "192.0.2.0/24"},
        {"deny": ["192.0.2.1/24"]},
        {"allow": ["mail.example.test"]},
        {"allow": [["192.0.2.0/24"]]},
        {"deny": [10]},
    )

    def provider(self) -> object:
        return networks


class NetworksTests(contracts.ConnectionPolicyContract):
    refused = "203.0.113.1"

    def provider(self) -> Networks:
        return Networks(OPTIONS, self.services())

    def test_what_is_denied_and_not_allowed(self) -> None:
        policy = self.provider()
        for peer, expected in (
            ("203.0.113.255", Reject),
            ("203.0.113.7", Accept),
            ("::ffff:203.0.113.1", Reject),
            ("2001:db8:bad::1", Reject),
            ("2001:db8::1", Accept),
            ("", Accept),
        ):
            answer = policy.connection(Connection("smtp", peer))
            self.assertIsInstance(answer, expected, peer)
