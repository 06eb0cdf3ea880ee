"""POP3 by the clients of Debian and of Python, against a real server."""

import poplib
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys

from twisted.trial.unittest import SkipTest

from tests.clients.server import HOST, ROOT, ServerCase

BODY = b"first\r\n.dot\r\n..dots\r\n\r\nlast\r\n"


def client(name: str) -> str:
    """The program's path, or a skip."""
    path = shutil.which(name)
    if path is None:
        raise SkipTest(f"{name} is not installed")
    return path


class Pop3ClientCase(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.login = self.server.account("anna").login
        self.password = self.server.password("anna")
        self.tls = ssl.create_default_context(cafile=str(self.server.ca))

    def deliver(self, *subjects: str, body: bytes = BODY) -> None:
        with smtplib.SMTP(HOST, self.server.ports["smtp"]) as smtp:
            for subject in subjects:
                head = f"From: x@other.test\r\nSubject: {subject}\r\n\r\n".encode()
                smtp.sendmail("x@other.test", [self.login], head + body)

    def connect(self) -> poplib.POP3_SSL:
        pop3 = poplib.POP3_SSL(
            "localhost", self.server.ports["pop3s"], context=self.tls, timeout=30
        )
        self.addCleanup(pop3.close)
        return pop3

    def log_in(self) -> poplib.POP3_SSL:
        pop3 = self.connect()
        pop3.user(self.login)
        pop3.pass_(self.password)
        return pop3

    def run_client(self, *command: str, stdin: str = "") -> str:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, timeout=60
        )
        said = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, said)
        return said


class PoplibTests(Pop3ClientCase):
    def test_stls(self) -> None:
        self.deliver("one")
        pop3 = poplib.POP3("localhost", self.server.ports["pop3"], timeout=30)
        self.addCleanup(pop3.close)
        self.assertIn("STLS", pop3.capa())
        pop3.stls(self.tls)
        self.assertNotIn("STLS", pop3.capa())
        pop3.user("anna")
        pop3.pass_(self.password)
        self.assertEqual(pop3.stat()[0], 1)
        pop3.quit()

    def test_messages(self) -> None:
        self.deliver("one", "two", "three")
        pop3 = self.log_in()
        lines = pop3.retr(2)[1]
        self.assertEqual(b"\r\n".join(lines).split(b"\r\n\r\n", 1)[1], BODY[:-2])
        self.assertEqual(len(b"\r\n".join(lines)) + 2, pop3.retr(2)[2])
        self.assertEqual(pop3.top(1, 1)[1][-1], b"first")
        ids = pop3.uidl()[1]
        pop3.dele(2)
        pop3.quit()
        left = self.log_in().uidl()[1]
        self.assertEqual(
            [line.split()[1] for line in left],
            [ids[0].split()[1], ids[2].split()[1]],
        )

    def test_deletion_survives_a_kill(self) -> None:
        self.deliver("one", "two")
        pop3 = self.log_in()
        pop3.dele(1)
        pop3.quit()
        self.server.kill()
        self.server.start()
        pop3 = self.log_in()
        self.assertEqual(pop3.stat()[0], 1)
        self.assertIn(b"Subject: two", pop3.top(1, 0)[1])

    def test_large_message_does_not_hold_up_others(self) -> None:
        self.deliver("large", body=(b"x" * 70 + b"\r\n") * 200_000)
        reader = socket.create_connection((HOST, self.server.ports["pop3s"]))
        slow = self.tls.wrap_socket(reader, server_hostname="localhost")
        self.addCleanup(slow.close)
        slow.sendall(
            f"USER {self.login}\r\nPASS {self.password}\r\nRETR 1\r\n".encode()
        )
        slow.recv(1)  # and no more: the rest waits in the server
        other = self.connect()
        other.user("ben")
        other.pass_(self.server.password("ben"))
        other.quit()

    def test_wrong_password(self) -> None:
        pop3 = self.connect()
        pop3.user("anna")
        with self.assertRaisesRegex(poplib.error_proto, r"\[AUTH\]"):
            pop3.pass_("wrong")
        self.server.wait_for_log("login failed")
        self.assertNotIn("wrong", self.server.log())

    def test_tls_hello_on_the_port_for_clear_text(self) -> None:
        with socket.create_connection((HOST, self.server.ports["pop3"]), 30) as plain:
            with self.assertRaises(ssl.SSLError):
                self.tls.wrap_socket(plain, server_hostname="localhost")


class CommandLineTests(Pop3ClientCase):
    def test_account_added_while_the_server_runs(self) -> None:
        command = [
            client("env"),
            f"PYTHONPATH={ROOT}",
            sys.executable,
            "-c",
            "from mailsrv.cli.main import main; main()",
            "account",
        ]
        config = ["--config", str(self.server.config)]
        self.run_client(
            *command,
            "add",
            "carl@example.test",
            "--password-stdin",
            *config,
            stdin="secret\n",
        )
        pop3 = self.connect()
        pop3.user("carl")
        pop3.pass_("secret")
        self.run_client(*command, "disable", "carl", *config)
        self.server.wait_for_log("account closed")
        with self.assertRaises((poplib.error_proto, OSError, EOFError)):
            pop3.noop()
        self.run_client(*command, "delete", "carl", *config)
        (kept,) = (self.server.folder / "data" / "deleted").iterdir()
        self.assertTrue((kept / "Maildir" / "cur").is_dir())


class DebianClientTests(Pop3ClientCase):
    def test_curl(self) -> None:
        self.deliver("one")
        curl = [client("curl"), "-sS", "--cacert", str(self.server.ca)]
        user = ["-u", f"{self.login}:{self.password}"]
        pop3s = f"pop3s://localhost:{self.server.ports['pop3s']}/1"
        pop3 = f"pop3://localhost:{self.server.ports['pop3']}/1"
        for options in (
            [pop3s],
            [pop3s, "--login-options", "AUTH=PLAIN"],
            [pop3s, "--login-options", "AUTH=LOGIN", "--sasl-ir"],
            [pop3, "--ssl-reqd", "--sasl-ir"],
        ):
            said = self.run_client(*curl, *user, *options)
            self.assertTrue(said.endswith("\n.dot\n..dots\n\nlast\n"), said)

    def test_fetchmail(self) -> None:
        self.deliver("one", "two")
        got = self.folder / "got"
        settings = self.folder / "fetchmailrc"
        settings.write_text(
            f"poll localhost protocol pop3 port {self.server.ports['pop3']}\n"
            f'  user "{self.login}" password "{self.password}"\n'
            f'  sslproto tls1.2+ sslcertfile "{self.server.ca}" nokeep fetchall\n'
            f'  mda "cat >> {got}"\n'
        )
        settings.chmod(0o600)
        self.run_client(
            client("fetchmail"),
            "--nodetach",
            "--nosyslog",
            "--fetchmailrc",
            str(settings),
            "--pidfile",
            str(self.folder / "pid"),
            "--idfile",
            str(self.folder / "ids"),
        )
        self.assertEqual(got.read_text().count(".dot\n..dots\n"), 2)
        self.assertEqual(self.log_in().stat(), (0, 0))

    def test_getmail(self) -> None:
        self.deliver("one", "two")
        got = self.folder / "got"
        got.touch()
        settings = self.folder / "getmail"
        settings.mkdir()
        (settings / "getmailrc").write_text(
            "[retriever]\n"
            "type = SimplePOP3SSLRetriever\n"
            "server = localhost\n"
            f"port = {self.server.ports['pop3s']}\n"
            f"ca_certs = {self.server.ca}\n"
            f"username = {self.login}\n"
            f"password = {self.password}\n"
            "[destination]\n"
            # Its own Maildir refuses to work for root.
            "type = MDA_external\n"
            f"path = {client('dd')}\n"
            f"arguments = ('of={got}', 'oflag=append', 'conv=notrunc', 'status=none')\n"
            "allow_root_commands = true\n"
            "[options]\n"
            "read_all = false\n"
        )

        def fetch() -> int:
            self.run_client(client("getmail"), "--getmaildir", str(settings))
            return got.read_text().count("\n.dot\n..dots\n\nlast\n")

        self.assertEqual(fetch(), 2)
        self.deliver("three")
        self.assertEqual(fetch(), 3)  # by UIDL: the first two are known
