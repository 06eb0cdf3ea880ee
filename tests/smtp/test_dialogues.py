"""Whole dialogues, from the files in tests/data/smtp.

``C:`` lines that follow one another are sent in one write, ``S:`` lines are all that
comes back (``*`` at its end stands for anything), ``M:``
names the folders of the one message that came in, ``X: closed`` says that the server
ends the connection. A bug report becomes a file.
"""

from pathlib import Path

from mailsrv.smtp.engine import ROLES
from tests.smtp.office import Connection, OfficeCase

DIALOGUES = Path(__file__).parent.parent / "data" / "smtp"


class DialogueTests(OfficeCase):
    def play(self, name: str) -> None:
        lines = (DIALOGUES / name).read_text().splitlines()
        word, *tls = lines[1].removeprefix("role: ").split()
        [role] = [known for known in ROLES if known == word]
        client = Connection(self.factory(role), tls=bool(tls))
        replies, sent = client.greeting.decode(), ""
        for number, line in enumerate(lines[2:], 3):
            kind, _, text = line.partition(":")
            text = text.removeprefix(" ")
            if kind != "C" and sent:
                replies, sent = replies + client.send(sent.encode()).decode(), ""
            if kind == "C":
                self.assertEqual(replies, "", f"{name}:{number}")
                sent += text + "\r\n"
            elif kind == "S":
                if text == "250*":  # the reply to EHLO, all of it
                    reply, replies = replies, ""
                else:
                    reply, _, replies = replies.partition("\r\n")
                if text.endswith("*"):
                    text = text[:-1]
                    reply = reply[: len(text)]
                self.assertEqual(reply, text, f"{name}:{number}")
            elif kind == "M":
                [message] = self.store.messages
                self.store.messages.clear()
                folders = sorted(t.folder for t in message.targets)
                self.assertEqual(folders, text.split(), f"{name}:{number}")
            else:
                self.assertEqual((kind, text, client.ended), ("X", "closed", True))
        client.lose()
        self.assertEqual((replies, sent), ("", ""), name)
        self.assertEqual(self.store.messages, [], name)

    def test_all(self) -> None:
        names = sorted(path.name for path in DIALOGUES.glob("*.txt"))
        self.assertGreater(len(names), 5)
        for name in names:
            self.play(name)
