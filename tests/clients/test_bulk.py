"""Newsletters of a real server: each recipient once, whatever is cut off."""

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from tests.clients.server import (
    HOST,
    PAUSE_S,
    WAIT_S,
    ServerCase,
    environment,
    free_port_base,
)
from tests.clients.sink import Sink

ROWS = 60
TEMPLATE = """\
Subject: News for {{name}}
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Dear {{name}}, you are number {{number}}.
"""


class BulkTests(ServerCase):
    def setUp(self) -> None:
        self.sink = Sink()
        self.addCleanup(self.sink.server_close)
        self.addCleanup(self.sink.shutdown)
        self.web = free_port_base() + 80
        self.settings = (
            '[[listen]]\nservice = "web"\n'
            f'endpoint = "tcp:{self.web}:interface={HOST}"\n'
            f'[web]\nurl = "http://{HOST}:{self.web}"\n'
            f'[[relay.route]]\nto = "127.0.0.1:{self.sink.port}"\ntls = "never"\n'
        )
        super().setUp()
        self.anna = self.server.account("anna").address
        self.table = self.folder / "members.csv"
        lines = [f"r{n}@far.test;Nr {n};{n}" for n in range(ROWS)]
        self.table.write_text("\n".join(["Email;Name;Number", *lines, lines[0]]) + "\n")
        self.template = self.folder / "news.eml"
        self.template.write_text(TEMPLATE)

    def arguments(self, *more: str) -> list[str]:
        to = ["--from", self.anna, "--list", str(self.table), str(self.template)]
        return ["bulk", "send", *to, *more]

    def eventually(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"never\n{self.server.log()[-3000:]}")
            time.sleep(PAUSE_S)

    def test_cut_off_and_begun_again(self) -> None:
        command = self.server.command_line(*self.arguments())
        with subprocess.Popen(
            command,
            env={**environment(), "MAILSRV_CONFIG": str(self.server.config)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            self.eventually(lambda: len(self.sink.messages) > 3)
            process.kill()
        self.server.kill()
        self.server.start()
        done = self.server.command(*self.arguments())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.eventually(lambda: len(self.sink.copies) == ROWS)
        self.eventually(self.is_empty)
        # The sink has taken none twice but what the kill cut off.
        self.assertLessEqual(len(self.sink.messages), ROWS + 20)
        again = self.server.command(*self.arguments())
        self.assertIn(f"0 sent, {ROWS} had it already", again.stdout)
        report = self.server.command("bulk", "report")
        self.assertIn("News for", report.stdout)

    def is_empty(self) -> bool:
        return self.server.command("queue", "list", "--json").stdout == ""

    def test_unsubscribed_with_one_click(self) -> None:
        self.assertEqual(self.server.command(*self.arguments()).returncode, 0)
        self.eventually(lambda: len(self.sink.copies) == ROWS)
        reverse_path, octets = self.sink.copies["r7@far.test"]
        self.assertRegex(reverse_path, r"^anna-bounces\+[a-z0-9-]+@example\.test$")
        text = octets.decode().replace("\r\n ", " ")
        self.assertIn("Subject: News for Nr 7\r\n", text)
        self.assertIn("Dear Nr 7, you are number 7.", text)
        self.assertIn("List-Unsubscribe-Post: List-Unsubscribe=One-Click", text)
        signed = text.partition("DKIM-Signature:")[2].partition("\r\nFrom")[0].lower()
        self.assertIn("list-unsubscribe", signed)
        found = re.search(r"<(http://[^>]+)>", text)
        assert found is not None
        page = urllib.request.urlopen(found[1], timeout=WAIT_S).read().decode()
        self.assertIn("<button>Unsubscribe</button>", page)  # nothing is changed yet
        body = b"List-Unsubscribe=One-Click"
        page = urllib.request.urlopen(found[1], body, timeout=WAIT_S).read().decode()
        self.assertIn("no more", page)
        for bad in (found[1] + "x", found[1].rpartition("/")[0] + "/..%2f"):
            with self.assertRaises(urllib.error.HTTPError):
                urllib.request.urlopen(bad, body, timeout=WAIT_S)
        self.assertNotIn(found[1].rpartition("/")[2], self.server.log())
        done = self.server.command(*self.arguments("--again"))
        self.assertIn("1 want no mail", done.stdout)

    def test_preview_and_dry_run_send_nothing(self) -> None:
        done = self.server.command(*self.arguments("--preview", "r9@far.test"))
        self.assertIn("Subject: News for Nr 9", done.stdout)
        done = self.server.command(*self.arguments("--dry-run"))
        self.assertIn(f"{ROWS} would be sent, 1 rows again", done.stdout)
        self.assertEqual(self.sink.messages, [])

    def test_server_that_is_down(self) -> None:
        self.server.terminate()
        done = self.server.command(*self.arguments())
        self.assertEqual(done.returncode, 1)
        self.assertIn("Run the same command again", done.stderr)
        self.server.start()
        done = self.server.command(*self.arguments("--json"))
        self.assertEqual(json.loads(done.stdout)["sent"], ROWS)

    def test_what_is_wrong_is_said(self) -> None:
        self.template.write_text(TEMPLATE.replace("number", "city"))
        done = self.server.command(*self.arguments())
        self.assertIn("needs city", done.stderr)
        self.table.write_text("a;b\n1;2\n")
        done = self.server.command(*self.arguments())
        self.assertIn('no column "email"', done.stderr)
