"""The mail servers of the world, each on an address of its own; run in its namespace.

``python -m tests.lab.world HOSTS.json RESULTS``: each line of RESULTS is a message that
was taken, with host, recipients, and how it came.
"""

import json
import socket
import ssl
import sys
import threading
import time
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any


class _Session(StreamRequestHandler):
    server: "MailServer"

    def say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())
        self.wfile.flush()

    def handle(self) -> None:
        try:
            self.talk()
        except OSError:
            pass  # the peer has gone

    def talk(self) -> None:
        host = self.server.host
        if host.get("busy"):
            self.say("421 4.3.2 busy")
            return
        time.sleep(host.get("slow_s", 0))  # what is tested: a slow server
        self.say(f"220 {host['name']} ESMTP")
        recipients: list[str] = []
        tls = False
        while line := self.rfile.readline(4096):
            verb = line[:4].upper()
            address = line.decode().partition("<")[2].partition(">")[0]
            if verb == b"EHLO":
                offers = [host["name"], "PIPELINING", "8BITMIME"]
                offers += ["STARTTLS"] if host.get("chain") and not tls else []
                for offer in offers:
                    self.say(f"250-{offer}")
                self.say("250 DSN")
            elif verb == b"STAR":
                self.say("220 go")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(host["chain"])
                self.request = context.wrap_socket(self.request, server_side=True)
                self.setup()
                tls = True
            elif verb == b"RCPT":
                if (reply := self.server.refusal(address)) is not None:
                    self.say(reply)
                else:
                    recipients.append(address)
                    self.say("250 ok")
            elif verb == b"DATA":
                if not recipients:
                    self.say("554 nobody")
                    continue
                self.say("354 go")
                while (content := self.rfile.readline(65536)) not in (b".\r\n", b""):
                    if content.startswith(b"Subject: "):
                        subject = content.decode().strip()[9:]
                self.server.take(subject, recipients, tls)
                recipients = []
                if self.server.drops():
                    return
                self.say("250 mine")
            elif verb == b"QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class MailServer(ThreadingTCPServer):
    """One host of the world."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, host: dict[str, Any], ip: str, results: Path) -> None:
        # Any: values of JSON.
        self.host = host
        self.address_family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        self._results = results
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._dropped = 0
        super().__init__((ip, 25), _Session)

    def refusal(self, address: str) -> str | None:
        if address.startswith("nobody@"):
            return "550 5.1.1 No such person"
        if self.host.get("greylists") and address not in self._seen:
            self._seen.add(address)
            return "451 4.7.1 Greylisted, come again"
        return None

    def take(self, subject: str, recipients: list[str], tls: bool) -> None:
        line = json.dumps([self.host["name"], subject, recipients, tls])
        with self._lock, self._results.open("a") as file:
            file.write(line + "\n")

    def drops(self) -> bool:
        """Whether the answer is lost: the first time (RFC 5321 section 4.5.4)."""
        self._dropped += 1
        return bool(self.host.get("drops")) and self._dropped == 1


class _Web(StreamRequestHandler):
    """Answers every request with the policy of its server."""

    server: "Web"

    def handle(self) -> None:
        while self.rfile.readline(4096) not in (b"\r\n", b""):
            pass
        body = self.server.policy
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )


class Web(ThreadingTCPServer):
    """The HTTPS server of an MTA-STS policy."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, ip: str, chain: str, policy: str) -> None:
        self.policy = policy.encode()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        super().__init__((ip, 443), _Web)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, request: object, client_address: object) -> None:
        """A broken handshake is not worth a line."""


def main(hosts: Path, results: Path) -> None:
    servers: list[ThreadingTCPServer] = []
    for host in json.loads(hosts.read_text()):
        if "policy" in host:
            servers.append(Web(host["ips"][0], host["chain"], host["policy"]))
        else:
            servers += [MailServer(host, ip, results) for ip in host["ips"]]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
