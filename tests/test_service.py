"""The server as a process: start, SIGHUP, stop."""

import gc
import os
import pwd
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from mailsrv.service import _tame_collector
from mailsrv.tls import authority
from tests.clients.server import HOST, ROOT, WAIT_S, Server, ServerCase
from tests.tls.certificates import write


def deliver(server: Server, name: str) -> None:
    address = server.account(name).address
    with smtplib.SMTP(HOST, server.ports["smtp"], timeout=WAIT_S) as client:
        client.sendmail("sender@example.org", [address], "Subject: a\n\nb\n")


class StartTests(ServerCase):
    def test_it_says_when_it_is_ready_and_ends_well(self) -> None:
        self.server.wait_for_log(" ready: smtp on tcp:")
        self.server.stop()
        self.assertIn("Server Shut Down", self.server.log())

    def test_it_starts_again_on_the_same_folder(self) -> None:
        self.server.stop()
        self.server.start()

    def test_systemd_is_told(self) -> None:
        self.server.stop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            name = str(self.folder / "notify")
            notify.bind(name)
            notify.settimeout(WAIT_S)
            self.patch(os, "environ", {**os.environ, "NOTIFY_SOCKET": name})
            self.server.start()
            self.assertEqual(notify.recv(100), b"READY=1")
            self.server.stop()
            self.assertEqual(notify.recv(100), b"STOPPING=1")


class CollectorTests(SynchronousTestCase):
    def test_full_collections_wait_for_the_clock(self) -> None:
        self.addCleanup(gc.set_threshold, *gc.get_threshold())
        self.addCleanup(gc.unfreeze)
        _tame_collector()
        done: list[int] = []

        def note(phase: str, info: dict[str, int]) -> None:
            done.append(info["generation"])

        gc.callbacks.append(note)
        self.addCleanup(gc.callbacks.remove, note)
        held = [[n] for n in range(200_000)]  # as the rows of a large mailbox
        self.assertEqual(len(held), 200_000)
        self.assertIn(1, done)
        self.assertNotIn(2, done)


class RefusedStartTests(ServerCase):
    def test_wrong_settings_end_it_with_their_list(self) -> None:
        self.server.stop()
        with self.server.config.open("a") as stream:
            stream.write("[smtp]\nmax_recipient = 1\n[log]\nlevel = 1\n")
        error = self.assertRaises(AssertionError, self.server.start)
        self.assertIn("smtp.max_recipient: is not known", str(error))
        self.assertIn("log.level: is 1", str(error))
        self.assertNotIn("Traceback", str(error))

    def test_a_used_port_is_said_in_one_line(self) -> None:
        self.server.stop()
        with socket.create_server((HOST, self.server.ports["imap"])):
            error = self.assertRaises(AssertionError, self.server.start)
        self.assertIn(f"cannot start: Couldn't listen on {HOST}", str(error))
        self.assertNotIn("Traceback", str(error))
        self.server.log_file.write_text("")  # that error was wanted


class ProxyTests(ServerCase):
    def test_behind_a_proxy_the_client_s_address_counts_and_starttls_works(
        self,
    ) -> None:
        self.server.stop()
        port = self.server.ports["imap"]
        text = self.server.config.read_text()
        self.server.config.write_text(
            text.replace(f'"tcp:{port}', f'"haproxy:tcp:{port}')
        )
        self.server.start()
        context = ssl.create_default_context(cafile=str(self.server.ca))
        with socket.create_connection((HOST, port), timeout=WAIT_S) as plain:
            plain.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 143\r\n")
            self.assertIn(b"LOGINDISABLED", plain.recv(4096))
            plain.sendall(b"a STARTTLS\r\n")
            self.assertTrue(plain.recv(4096).startswith(b"a OK"))
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                login, password = "anna@example.test", self.server.password("anna")
                tls.sendall(f"b LOGIN {login} {password}\r\n".encode())
                self.assertTrue(tls.recv(4096).startswith(b"b OK"))
        self.server.wait_for_log("peer=192.0.2.7 login user=anna@example.test")


class UserTests(ServerCase):
    def test_root_is_dropped_before_anything_is_written(self) -> None:
        if os.geteuid() != 0:
            raise SkipTest("needs root")
        self.server.stop()
        nobody = pwd.getpwnam("nobody")
        self.folder.chmod(0o755)
        folder = self.server.folder
        for path in (folder, *folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        text = self.server.config.read_text()
        self.server.config.write_text('user = "nobody"\n' + text)
        self.server.start()
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        self.assertIn(f"\nUid:\t{nobody.pw_uid}\t{nobody.pw_uid}", status)
        deliver(self.server, "anna")
        owners = {path.stat().st_uid for path in (folder / "data").rglob("*")}
        self.assertEqual(owners, {nobody.pw_uid})
        (message,) = (self.server.maildir("anna") / "new").iterdir()
        self.assertEqual(message.stat().st_mode & 0o077, 0)


class ReloadTests(ServerCase):
    def test_a_connection_outlives_a_reload(self) -> None:
        with closing(socket.create_connection((HOST, self.server.ports["imap"]))) as s:
            s.settimeout(WAIT_S)
            self.assertTrue(s.recv(4096).startswith(b"* OK"))
            self.server.reload()
            s.sendall(b"a NOOP\r\n")
            self.assertTrue(s.recv(4096).startswith(b"a OK"))

    def test_wrong_settings_leave_the_old_ones(self) -> None:
        good = self.server.config.read_text()
        self.server.config.write_text(good + "[imap]\nkeep_alive = 1\n[pop4]\n")
        self.server.hang_up()
        self.server.wait_for_log("the old ones stay")
        log = self.server.log()
        self.assertIn("keep_alive_s is the nearest", log)
        self.assertIn("pop4: is not known", log)
        socket.create_connection((HOST, self.server.ports["imap"])).close()
        self.server.log_file.write_text("")  # these errors were wanted

    def test_what_needs_a_restart_is_said(self) -> None:
        text = self.server.config.read_text()
        self.server.config.write_text(text.replace("mail.example", "mx.example"))
        self.server.hang_up()
        self.server.wait_for_log("hostname has changed: restart to use it")
        self.server.wait_for_log("are reloaded")
        self.server.config.write_text(text)
        self.server.log_file.write_text("")
        self.server.reload()
        self.assertNotIn("has changed", self.server.log())

    def test_a_new_certificate_is_served(self) -> None:
        self.assertNotIn("new.example.test", self.served_names())
        tls = self.server.config.parent / "tls"
        ca = authority.load(
            (tls / "ca.pem").read_bytes(), (tls / "ca.key").read_bytes()
        )
        write(tls, authority.make_server(ca, ["new.example.test", "localhost"], []))
        self.server.hang_up()
        self.server.wait_for_log("certificates are renewed")
        self.assertIn("new.example.test", self.served_names())

    def served_names(self) -> set[str]:
        context = ssl.create_default_context(cafile=str(self.server.ca))
        with (
            socket.create_connection((HOST, self.server.ports["imaps"])) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            certificate = encrypted.getpeercert()
        assert certificate is not None
        # The type of getpeercert's values covers all of its fields.
        return {str(pair[1]) for pair in certificate["subjectAltName"]}


class DaemonTests(ServerCase):
    def test_in_the_background_the_log_is_a_file_that_can_be_moved(self) -> None:
        self.server.stop()
        folder = self.server.folder
        pid_file, log = folder / "twistd.pid", folder / "log"
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from twisted.scripts.twistd import run; run()",
                f"--pidfile={pid_file}",
                f"--logfile={log}",
                "mailsrv",
                "--config=mailsrv.toml",
            ],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=True,
            timeout=30,
        )
        pid = int(pid_file.read_text())
        daemon = Server.__new__(Server)
        daemon.log_file = log
        daemon.wait_for_log(" ready: ")
        log.rename(folder / "log.1")
        os.kill(pid, signal.SIGUSR1)
        os.kill(pid, signal.SIGTERM)
        daemon.wait_for_log("Server Shut Down")
        self.assertNotIn("Shut Down", Path(folder / "log.1").read_text())
