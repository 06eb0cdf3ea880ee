"""Two libraries that many programs use: aioimaplib, and imapflow of Node.js.

imapflow is fetched by npm into `~/.cache`, once.
"""

import asyncio
import json
import shutil
import subprocess
from pathlib import Path

import aioimaplib  # type: ignore[import-untyped]  # has no stubs
from twisted.python.util import sibpath
from twisted.trial.unittest import SkipTest

from tests.clients.test_imap_clients import ImapCase, message

IMAPFLOW = "2"  # the major version; what it wants of Node.js is asked below
CACHE = Path.home() / ".cache" / "mailsrv-tests" / f"imapflow-{IMAPFLOW}"


class AioimaplibTests(ImapCase):
    def test_a_session(self) -> None:
        asyncio.run(self.session())

    async def session(self) -> None:
        client = aioimaplib.IMAP4_SSL(
            "localhost", self.server.ports["imaps"], ssl_context=self.context()
        )
        await client.wait_hello_from_server()
        await client.login("anna@example.test", self.server.password("anna"))
        folders = await client.list('""', "*")
        self.assertIn(b"Sent", b" ".join(folders.lines))
        await client.select("INBOX")
        # One waits in IDLE, the other appends.
        idle = await client.idle_start(timeout=30)
        other = self.imaplib_client()
        other.append("INBOX", "", "", message(1))
        news = await client.wait_server_push(timeout=30)
        self.assertIn(b"1 EXISTS", news)
        client.idle_done()
        await asyncio.wait_for(idle, 30)
        fetched = await client.uid("fetch", "1", "(FLAGS BODY.PEEK[])")
        self.assertIn(bytearray(message(1)), fetched.lines)
        await client.uid("store", "1", r"+FLAGS (\Seen Work)")
        other.noop()
        self.assertEqual(other.search(None, "SEEN", "KEYWORD", "Work")[1], [b"1"])
        other.store("1", "+FLAGS", r"(\Flagged)")
        await client.noop()
        self.assertEqual((await client.search("FLAGGED")).lines[0], b"1")
        appended = await client.append(message(2), mailbox="Sent", flags=r"\Seen")
        self.assertEqual(appended.result, "OK")
        await client.uid("move", "1", "Archive")
        await client.noop()
        self.assertEqual((await client.search("ALL")).lines[0], b"")
        self.assertEqual((await client.logout()).result, "OK")
        other.logout()


class ImapflowTests(ImapCase):
    def setUp(self) -> None:
        self.modules = imapflow()
        super().setUp()

    def test_a_session(self) -> None:
        values = {
            "port": self.server.ports["imaps"],
            "ca": self.server.ca.read_text(),
            "user": "anna@example.test",
            "pass": self.server.password("anna"),
        }
        done = subprocess.run(
            ["node", sibpath(__file__, "imapflow.js"), json.dumps(values)],
            capture_output=True,
            text=True,
            timeout=120,
            env={"PATH": "/usr/bin:/bin:/usr/local/bin", "NODE_PATH": self.modules},
        )
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual(done.stdout.strip(), "all done")


def imapflow() -> str:
    """The folder of modules that holds imapflow, or a skip that says why not."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        raise SkipTest("needs node and npm")
    if not (CACHE / "node_modules" / "imapflow").is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "install", "--silent", "--no-audit", f"imapflow@{IMAPFLOW}"],
            cwd=CACHE,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode:
            raise SkipTest(f"npm cannot fetch imapflow: {done.stderr[-300:]}")
    package = json.loads(
        (CACHE / "node_modules" / "imapflow" / "package.json").read_text()
    )
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    wanted = package["engines"]["node"]
    if int(version[1:].split(".")[0]) < int(wanted.lstrip(">= ").split(".")[0]):
        raise SkipTest(f"imapflow wants node {wanted}, this is {version.strip()}")
    return str(CACHE / "node_modules")
