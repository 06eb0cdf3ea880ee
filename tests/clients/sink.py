"""A mail server of the world, as simple as can be; what it says can be changed."""

import socketserver
import threading


class _Session(socketserver.StreamRequestHandler):
    server: "Sink"

    def handle(self) -> None:
        def say(line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        reverse_path, recipients = "", list[str]()
        say("220 sink.test")
        while line := self.rfile.readline(4096):
            verb = line[:4].upper()
            self.server.lines.append(line.decode().rstrip())
            if verb == b"MAIL":
                reverse_path = line.decode().partition("<")[2].partition(">")[0]
            if verb == b"EHLO":
                say("250-sink.test\r\n250-8BITMIME\r\n250 DSN")
            elif verb == b"RCPT":
                address = line.decode().partition("<")[2].partition(">")[0]
                answer = self.server.answers.get(address, "250 ok")
                if answer.startswith("2"):
                    recipients.append(address)
                say(answer)
            elif verb == b"DATA":
                say("354 go")
                lines = []
                while (content := self.rfile.readline(65536)) not in (b".\r\n", b""):
                    lines.append(content.removeprefix(b"."))
                content = b"".join(lines)
                self.server.messages.append(content)
                for address in recipients:
                    self.server.copies[address] = (reverse_path, content)
                recipients = []
                say("250 taken")
            elif verb == b"QUIT":
                say("221 bye")
                return
            else:
                say("250 ok")


class Sink(socketserver.ThreadingTCPServer):
    """Keeps `messages`, and the last one of each recipient with its reverse-path.

    `answers` to RCPT by address, where it is not 250.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.copies: dict[str, tuple[str, bytes]] = {}
        self.lines: list[str] = []
        self.answers: dict[str, str] = {}
        super().__init__(("127.0.0.1", 0), _Session)
        self.port: int = self.server_address[1]
        threading.Thread(target=self.serve_forever, daemon=True).start()
