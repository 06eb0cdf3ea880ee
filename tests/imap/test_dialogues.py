"""Dialogues under tests/data/imap: what clients send, on a new account."""

from tests.imap.office import Client, ImapCase


class DialogueTests(ImapCase):
    def test_basic(self) -> None:
        self.play("basic.txt", Client(self.factory()))

    def test_thunderbird(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.play("thunderbird.txt", Client(self.factory()))

    def test_microsoft(self) -> None:
        self.play("microsoft.txt", Client(self.factory()))

    def test_outlook(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.play("outlook.txt", Client(self.factory()))

    def test_apple_mail(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.play("applemail.txt", Client(self.factory()))

    def test_mbsync(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.play("mbsync.txt", Client(self.factory()))

    def test_objects(self) -> None:
        self.play("objects.txt", Client(self.factory()))

    def test_ios(self) -> None:
        self.play("ios.txt", Client(self.factory()))

    def test_rev2(self) -> None:
        self.deliver()
        self.clock.advance(1)
        self.play("rev2.txt", Client(self.factory()))

    def test_utf8(self) -> None:
        self.play("utf8.txt", Client(self.factory()))
