"""Recorded dialogues, under tests/data/imap, on a new account."""

from tests.imap.office import Client, ImapCase


class DialogueTests(ImapCase):
    def test_basic(self) -> None:
        self.play("basic.txt", Client(self.factory()))

    def test_reading(self) -> None:
        self.play("reading.txt", Client(self.factory()))
