"""Programs that want a terminal: keys in, the screen's text out."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping
from contextlib import suppress

from tests.clients.server import WAIT_S

ROWS, COLUMNS = 40, 120
# Colours, cursor movements and the other sequences of a terminal.
_CONTROL = re.compile(
    rb"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78]|\][^\x07]*\x07)"
)


class Terminal:
    """A program in a terminal of its own."""

    def __init__(self, *command: str, environment: Mapping[str, str]) -> None:
        self._keyboard, child = pty.openpty()
        size = struct.pack("HHHH", ROWS, COLUMNS, 0, 0)
        fcntl.ioctl(child, termios.TIOCSWINSZ, size)
        self._program = subprocess.Popen(
            command,
            stdin=child,
            stdout=child,
            stderr=child,
            env={"PATH": os.environ["PATH"], "TERM": "xterm", **environment},
            start_new_session=True,
            # It may open /dev/tty.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(child)
        self._output = b""
        self._read = 0  # up to here it was waited for

    def press(self, keys: str) -> None:
        os.write(self._keyboard, keys.encode())

    def wait_for(self, text: str) -> None:
        """Wait until the program writes `text`, after what was waited for before."""
        deadline = time.monotonic() + WAIT_S
        while True:
            shown = _CONTROL.sub(b"", self._output[self._read :])
            if text.encode() in shown:
                self._read = len(self._output)
                return
            if time.monotonic() > deadline or not self._more():
                tail = _CONTROL.sub(b"", self._output)[-3000:]
                raise AssertionError(f"no {text!r}: {tail.decode(errors='replace')}")

    def wait(self) -> int:
        """Wait for the end; return the exit status."""
        deadline = time.monotonic() + WAIT_S
        while self._program.poll() is None and time.monotonic() < deadline:
            self._more()
        return self._program.wait(1.0)

    def close(self) -> None:
        self._program.kill()
        self._program.wait()
        os.close(self._keyboard)

    def _more(self) -> bool:
        """Read what comes within a moment; False at the end."""
        if not select.select([self._keyboard], [], [], 0.1)[0]:
            return True
        with suppress(OSError):  # Linux: EIO when the program has ended
            if data := os.read(self._keyboard, 65536):
                self._output += data
                return True
        return False
