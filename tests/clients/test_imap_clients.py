"""IMAP by real clients: imaplib, IMAPClient, curl, mbsync, against a real server."""

import imaplib
import shutil
import socket
import ssl
import subprocess
import unittest
from pathlib import Path

from imapclient import IMAPClient  # type: ignore[import-untyped]  # has no stubs

from tests.clients.server import ServerCase

BIG = b"Subject: big\r\n\r\n" + (b"x" * 70 + b"\r\n") * 150_000  # over 10 MB


def message(n: int) -> bytes:
    return b"Subject: mail %d\r\nFrom: a@example.test\r\n\r\nbody\r\n" % n


class ImapCase(ServerCase):
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.server.ca)

    def imaplib_client(self) -> imaplib.IMAP4:
        client = imaplib.IMAP4_SSL(
            "localhost", self.server.ports["imaps"], ssl_context=self.context()
        )
        # A test sends a literal and the CR LF after it in two packets.
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.login("anna@example.test", self.server.password("anna"))
        client.select()
        return client

    def run_client(self, *command: str) -> bytes:
        done = subprocess.run(command, capture_output=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout


class ImaplibTests(ImapCase):
    def test_messages(self) -> None:
        client = self.imaplib_client()
        for n in range(20):
            status, _ = client.append("INBOX", "", "", message(n))
            self.assertEqual(status, "OK")
        self.assertEqual(client.search(None, "SUBJECT", '"mail 7"'), ("OK", [b"8"]))
        client.store("1:10", "+FLAGS", r"(\Deleted $label1)")
        status, gone = client.expunge()
        self.assertEqual((status, len(gone)), ("OK", 10))
        client.uid("MOVE", "11:12", "Archive")
        self.assertEqual(
            client.status("Archive", "(MESSAGES)"), ("OK", [b"Archive (MESSAGES 2)"])
        )
        self.assertEqual(client.logout()[0], "BYE")

    def test_a_large_message(self) -> None:
        client = self.imaplib_client()
        self.assertEqual(client.append("INBOX", r"(\Seen)", "", BIG)[0], "OK")
        _, data = client.fetch("1", "(BODY.PEEK[])")
        assert isinstance(data[0], tuple)
        self.assertEqual(data[0][1], BIG)
        client.logout()

    def test_starttls_and_idle(self) -> None:
        writer = self.imaplib_client()
        client = imaplib.IMAP4("localhost", self.server.ports["imap"])
        client.starttls(self.context())
        client.login("anna@example.test", self.server.password("anna"))
        client.select()
        client.send(b"x IDLE\r\n")
        self.assertEqual(client.readline(), b"+ idling\r\n")
        writer.append("INBOX", "", "", message(1))
        self.assertEqual(client.readline(), b"* 1 EXISTS\r\n")
        self.assertEqual(client.readline(), b"* 1 RECENT\r\n")
        client.send(b"DONE\r\n")
        self.assertEqual(client.readline(), b"x OK IDLE completed\r\n")
        for session in (client, writer):
            session.logout()

    def test_files_of_other_programs_appear(self) -> None:
        client = self.imaplib_client()
        path = self.server.maildir("anna") / "new" / "1.foreign.host"
        path.write_bytes(b"Subject: foreign\n\nx\n")
        client.noop()
        self.assertEqual(client.search(None, "SUBJECT", "foreign"), ("OK", [b"1"]))
        client.logout()


class ServerTests(ImapCase):
    def memory_kib(self) -> int:
        status = Path(f"/proc/{self.server.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def test_a_client_that_does_not_read_costs_no_memory(self) -> None:
        writer = self.imaplib_client()
        for _ in range(3):
            writer.append("INBOX", "", "", BIG)
        plain = socket.create_connection(
            ("localhost", self.server.ports["imaps"]), timeout=30
        )
        with self.context().wrap_socket(plain, server_hostname="localhost") as tls:
            reader = tls.makefile("rb")
            reader.readline()
            password = self.server.password("anna").encode()
            tls.sendall(b"1 LOGIN anna@example.test " + password + b"\r\n")
            reader.readline()
            before_kib = self.memory_kib()
            tls.sendall(b"2 SELECT INBOX\r\n3 FETCH 1:3 BODY.PEEK[]\r\n4 LOGOUT\r\n")
            # Another session is served meanwhile, when the buffers are full.
            for _ in range(50):
                self.assertEqual(writer.noop()[0], "OK")
            self.assertLess(self.memory_kib() - before_kib, 10 * 1024)
            # All comes, and the server closes without waiting for the client.
            self.assertGreater(len(reader.read()), 3 * len(BIG))
        writer.logout()

    def test_tls_and_commands_where_they_do_not_belong(self) -> None:
        for octets, answer in (
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", b""),
            (b"1 STARTTLS\r\n2 NOOP\r\n", b"* BYE Nothing may follow STARTTLS\r\n"),
        ):
            address = "localhost", self.server.ports["imap"]
            with socket.create_connection(address, timeout=30) as client:
                reader = client.makefile("rb")
                self.assertIn(b"* OK", reader.readline())
                client.sendall(octets)
                self.assertEqual(reader.read(), answer)


class ImapClientTests(ImapCase):
    def test_folders_and_messages(self) -> None:
        with IMAPClient(
            "localhost", self.server.ports["imaps"], ssl_context=self.context()
        ) as client:
            client.login("anna@example.test", self.server.password("anna"))
            client.create_folder("Entwürfe & Co")
            client.append("Entwürfe & Co", message(1), [b"\\Flagged", b"kw"])
            client.select_folder("Entwürfe & Co")
            self.assertEqual(client.search(["FLAGGED", "KEYWORD", "kw"]), [1])
            client.move([1], "Trash")
            client.unselect_folder()
            client.rename_folder("Entwürfe & Co", "a/b")
            client.delete_folder("a/b")
            self.assertEqual(
                client.folder_status("Trash", "MESSAGES"), {b"MESSAGES": 1}
            )
            self.assertEqual(client.find_special_folder(b"\\Trash"), "Trash")


class ProgramsTests(ImapCase):
    @unittest.skipUnless(shutil.which("curl"), "curl is not installed")
    def test_curl(self) -> None:
        client = self.imaplib_client()
        client.append("INBOX", "", "", message(1))
        client.logout()
        url = f"imaps://localhost:{self.server.ports['imaps']}"
        options = [
            *("curl", "--silent", "--show-error", "--cacert", str(self.server.ca)),
            *("--user", f"anna@example.test:{self.server.password('anna')}"),
        ]
        self.assertEqual(self.run_client(*options, f"{url}/INBOX;UID=1"), message(1))
        letter = self.folder / "letter"
        letter.write_bytes(message(2))
        self.run_client(*options, "--upload-file", str(letter), f"{url}/INBOX")
        found = self.run_client(*options, f"{url}/INBOX?ALL")
        self.assertEqual(found, b"* SEARCH 1 2\r\n")

    @unittest.skipUnless(shutil.which("mbsync"), "mbsync (isync) is not installed")
    def test_mbsync_both_ways(self) -> None:
        client = self.imaplib_client()
        for n in range(3):
            client.append("INBOX", "", "", message(n))
        near = self.folder / "near"
        near.mkdir()
        rules = self.folder / "mbsyncrc"
        rules.write_text(
            _MBSYNCRC.format(
                port=self.server.ports["imaps"],
                password=self.server.password("anna"),
                ca=self.server.ca,
                near=near,
            )
        )
        sync = ("mbsync", "--config", str(rules), "all")
        self.run_client(*sync)
        self.assertEqual(len(_files(near / "INBOX")), 3)
        for name in ("Archive", "Drafts", "Junk", "Sent", "Trash"):
            self.assertTrue((near / name).is_dir(), name)
        read = _files(near / "INBOX")[0]
        read.rename(near / "INBOX" / "cur" / f"{read.name.split(':')[0]}:2,FS")
        (near / "INBOX" / "cur" / "1.new.host:2,D").write_bytes(b"Subject: new\n\nx\n")
        self.run_client(*sync)
        client.noop()
        self.assertEqual(client.search(None, "FLAGGED", "SEEN")[1], [b"1"])
        self.assertEqual(client.search(None, "DRAFT", "SUBJECT", "new")[1], [b"4"])
        client.logout()


def _files(maildir: Path) -> list[Path]:
    return sorted(p for part in ("cur", "new") for p in (maildir / part).iterdir())


_MBSYNCRC = """\
IMAPAccount anna
Host localhost
Port {port}
User anna@example.test
Pass {password}
SSLType IMAPS
CertificateFile {ca}

IMAPStore far
Account anna

MaildirStore near
Path {near}/
Inbox {near}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns *
Create Both
Expunge Both
SyncState *
"""
