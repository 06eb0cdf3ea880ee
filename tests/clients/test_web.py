"""The pages of a real server, over TLS."""

import ssl
import urllib.error
import urllib.request

from tests.clients.server import HOST, WAIT_S, ServerCase, free_port


class WebTests(ServerCase):
    def setUp(self) -> None:
        self.port = free_port()
        self.settings = (
            '[[listen]]\nservice = "https"\n'
            f'endpoint = "tcp:{self.port}:interface={HOST}"\n'
            f'[web]\nurl = "https://localhost:{self.port}"\n'
        )
        super().setUp()

    def test_page_over_tls(self) -> None:
        tls = ssl.create_default_context(cafile=str(self.server.ca))
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(
                f"https://localhost:{self.port}/unsubscribe/1-aaaaaaaaaaaaaaaa",
                timeout=WAIT_S,
                context=tls,
            )
        with raised.exception as answer:
            self.assertEqual(answer.code, 404)
            self.assertEqual(answer.headers["Referrer-Policy"], "no-referrer")
            self.assertIn("The link does not work", answer.read().decode())
        self.server.wait_for_log("GET unsubscribe: 404")
        self.assertNotIn("aaaaaaaa", self.server.log())
