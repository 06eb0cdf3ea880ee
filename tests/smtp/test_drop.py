"""The drop folder: what is taken from it, and what is left alone."""

import io
import json
import os
import stat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from mailsrv.smtp import drop
from mailsrv.smtp.drop import MODE, Dropped, NotDropped

ENVELOPE = Dropped("anna@localhost", ("bert@example.test",))


class DropTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        drop.make(self.folder)

    def leave(self, octets: bytes, name: str = "a.mail") -> Path:
        path = self.folder / name
        path.write_bytes(octets)
        return path

    def test_folder(self) -> None:
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), MODE)
        self.folder.chmod(0o777)
        drop.make(self.folder)
        self.assertEqual(stat.S_IMODE(self.folder.stat().st_mode), MODE)

    def test_there_and_back(self) -> None:
        path = ENVELOPE.write(self.folder, io.BytesIO(b"Subject: x\r\n\r\ntext\r\n"))
        self.assertEqual(list(drop.waiting(self.folder)), [path])
        found = drop.open_dropped(path)
        self.addCleanup(found.file.close)
        self.assertEqual((found.envelope, found.uid), (ENVELOPE, os.getuid()))
        self.assertEqual(found.size_octets, 20)
        self.assertEqual(found.file.read(), b"Subject: x\r\n\r\ntext\r\n")
        self.assertEqual(found.start(7), b"Subject")

    def test_oldest_first_and_nothing_half(self) -> None:
        late, early = self.leave(b"", "b.mail"), self.leave(b"", "c.mail")
        self.leave(b"", "d.begun")
        os.utime(late, (2000, 2000))
        os.utime(early, (1000, 1000))
        self.assertEqual(list(drop.waiting(self.folder)), [early, late])

    def test_what_is_no_message(self) -> None:
        good = json.dumps({"reverse_path": "a", "recipients": ["b"]}).encode()
        for octets in (
            b"",
            b"\n",
            b"[]\n",
            b"{}\n",
            b"[" * 100_000,
            b'{"reverse_path": "a", "recipients": []}\n',
            b'{"reverse_path": 3, "recipients": ["b"]}\n',
            b'{"reverse_path": "a\\r\\nRCPT", "recipients": ["b"]}\n',
            b'{"reverse_path": "a", "recipients": '
            + b'["b"'
            + b', "b"' * 1000
            + b"]}\n",
        ):
            self.assertRaises(NotDropped, drop.open_dropped, self.leave(octets))
        drop.open_dropped(self.leave(good + b"\n")).file.close()

    def test_what_is_no_file_of_its_own(self) -> None:
        secret = self.leave(b'{"reverse_path": "a", "recipients": ["b"]}\n', "secret")
        link = self.folder / "link.mail"
        os.link(secret, link)
        self.assertRaises(NotDropped, drop.open_dropped, link)
        symbolic = self.folder / "symbolic.mail"
        symbolic.symlink_to("secret")
        self.assertRaises(OSError, drop.open_dropped, symbolic)
        pipe = self.folder / "pipe.mail"
        os.mkfifo(pipe)
        self.assertRaises(NotDropped, drop.open_dropped, pipe)

    def test_folders_cost_no_descriptors(self) -> None:
        folder = self.folder / "folder.mail"
        folder.mkdir()
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            self.assertRaises(NotDropped, drop.open_dropped, folder)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)

    def test_file_that_is_gone_when_it_is_looked_at(self) -> None:
        path = self.leave(b"")
        [entry] = os.scandir(self.folder)
        path.unlink()
        self.assertIs(drop._status(entry), None)
