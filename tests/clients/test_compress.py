"""COMPRESS=DEFLATE over TLS and a real network, by a client of zlib and sockets."""

import socket
import ssl
import zlib

from tests.clients.server import HOST, ServerCase

MESSAGES = 200
RAW = -zlib.MAX_WBITS


class Connection:
    """Sends a command and reads to its tagged reply, deflated once `packed` is set."""

    def __init__(self, port: int, ca: str, name: str) -> None:
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = False
        self.socket = context.wrap_socket(
            socket.create_connection((HOST, port), timeout=30), server_hostname=name
        )
        self.packed = False
        self.deflate = zlib.compressobj(wbits=RAW)
        self.inflate = zlib.decompressobj(wbits=RAW)
        self.octets_in = 0
        self.read(b"* OK")

    def send(self, octets: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> None:
        if self.packed:
            octets = self.deflate.compress(octets) + self.deflate.flush(flush)
        self.socket.sendall(octets)

    def read(self, start: bytes) -> bytes:
        """Read up to a line that begins with `start`; more must not be needed."""
        heard = b""
        while not (heard.startswith(start) or b"\r\n" + start in heard):
            octets = self.socket.recv(65536)
            assert octets, heard[-200:]
            self.octets_in += len(octets)
            heard += self.inflate.decompress(octets) if self.packed else octets
        return heard

    def ask(self, command: bytes, flush: int = zlib.Z_SYNC_FLUSH) -> bytes:
        self.send(b"t " + command + b"\r\n", flush)
        return self.read(b"t ")


class CompressTests(ServerCase):
    def test_many_bursts_and_flushes(self) -> None:
        server = self.server
        client = Connection(server.ports["imaps"], str(server.ca), HOST)
        self.addCleanup(client.socket.close)
        login = server.account("anna").login.encode()
        client.ask(b"LOGIN %b %b" % (login, server.password("anna").encode()))
        client.ask(b"COMPRESS DEFLATE")
        client.packed = True
        text = b"A line like all others of this message.\r\n" * 300
        for number in range(MESSAGES):
            message = b"Subject: message %d\r\n\r\n%b" % (number, text)
            client.send(b"t APPEND INBOX {%d}\r\n" % len(message))
            client.read(b"+ ")
            client.send(message, zlib.Z_PARTIAL_FLUSH)
            client.send(b"\r\n")
            self.assertIn(b"t OK", client.read(b"t "))
        client.ask(b"SELECT INBOX")
        before = client.octets_in
        heard = client.ask(b"FETCH 1:* BODY.PEEK[]")
        self.assertEqual(heard.count(text), MESSAGES)
        self.assertLess((client.octets_in - before) * 10, len(heard))
        for uid in range(1, MESSAGES + 1):
            flush = zlib.Z_PARTIAL_FLUSH if uid % 2 else zlib.Z_FULL_FLUSH
            heard = client.ask(b"UID FETCH %d (FLAGS BODY.PEEK[])" % uid, flush)
            self.assertIn(b"Subject: message %d\r\n" % (uid - 1), heard)
            self.assertIn(text, heard)
        client.send(b"t IDLE\r\n")
        client.read(b"+ ")
        client.send(b"DONE\r\n")
        client.read(b"t OK")
        self.assertIn(b"* BYE", client.ask(b"LOGOUT"))
        self.assertFalse(client.inflate.eof)
