"""The built-in plugin "pipe"."""

from pathlib import Path

from mailsrv.doors import contracts
from mailsrv.doors.message import MessageClosed
from mailsrv.plugins.pipe import NotTaken, Pipe, pipe

ANNA = "anna@example.test"


class PipeMakerTests(contracts.PluginMakerContract):
    options = {"commands": {ANNA: ["/bin/true"]}}
    bad_options = (
        {},
        {"commands": {}},
        {"commands": ["/bin/true"]},
        {"commands": {ANNA: "/bin/true"}},
        {"commands": {ANNA: []}},
        {"commands": {"anna": ["/bin/true"]}},
        {"commands": {ANNA: ["true"]}},
        {"commands": {ANNA: ["/bin/true", 1]}},
        {"commands": {ANNA: ["/bin/true"]}, "shell": True},
    )

    def provider(self) -> object:
        return pipe


class PipeTests(contracts.DelivererContract):
    def provider(self) -> Pipe:
        return self.running("cat >> out; echo $SENDER $RECIPIENT >> who")

    def running(self, script: str) -> Pipe:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        command = ["/bin/sh", "-c", f"cd {self.folder}; {script}"]
        return Pipe({"commands": {"Anna@example.test": command}}, self.services())

    def test_the_program_gets_all_of_it(self) -> None:
        message = contracts.message(b"line\n" * 500_000)
        self.assertTrue(self.provider().deliver(message, ANNA))
        header = contracts.HEADER.replace(b"\r\n", b"\n")
        self.assertEqual(
            (self.folder / "out").read_bytes(), header + b"line\n" * 500_000
        )
        who = (self.folder / "who").read_text()
        self.assertEqual(who, "someone@else.test anna@example.test\n")

    def test_its_status_decides(self) -> None:
        for status in (1, 75):
            deliverer = self.running(f"cat > /dev/null; exit {status}")
            self.assertRaises(NotTaken, deliverer.deliver, contracts.message(), ANNA)
        deliverer = Pipe({"commands": {ANNA: ["/no/where"]}}, self.services())
        self.assertRaises(OSError, deliverer.deliver, contracts.message(), ANNA)

    def test_it_need_not_read(self) -> None:
        message = contracts.message(b"x" * 3_000_000)
        self.assertTrue(self.running("exit 0").deliver(message, ANNA))
        self.assertRaises(NotTaken, self.running("exit 1").deliver, message, ANNA)

    def test_nothing_to_read_any_more(self) -> None:
        message = contracts.message()
        message._content.close()
        self.assertRaises(MessageClosed, self.provider().deliver, message, ANNA)
        self.assertFalse((self.folder / "who").exists())
