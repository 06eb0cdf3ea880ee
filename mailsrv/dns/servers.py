"""Which name servers are asked: those of the settings, or of /etc/resolv.conf."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from twisted.logger import Logger

from mailsrv.threads import Threads

log = Logger()

RESOLV_CONF = Path("/etc/resolv.conf")
MAX_FILE = 64 * 1024
MAX_SERVERS = 3  # as resolv.conf(5) has it
LOOK_AGAIN_S = 5.0
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Server:
    """A resolver. `trusted`: its AD bit is believed."""

    ip: str
    port: int = DNS_PORT
    trusted: bool = False


def parse_server(text: str, *, validates: bool = False) -> Server:
    """Read ``IP``, ``IPv4:PORT`` or ``[IPv6]:PORT``. Raises ValueError."""
    ip, port = text, DNS_PORT
    if text.startswith("["):
        ip, _, rest = text[1:].partition("]")
        port = _port(rest.removeprefix(":")) if rest else DNS_PORT
    elif text.count(":") == 1:
        ip, _, rest = text.partition(":")
        port = _port(rest)
    address = ip_address(ip)
    return Server(ip, port, validates or address.is_loopback)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise ValueError(f"{text!r} is no port")
    return int(text)


class Servers:
    """The servers to ask, as of a few seconds ago."""

    def __init__(
        self,
        given: Sequence[str],
        *,
        validates: bool,
        threads: Threads,
        seconds: Callable[[], float],
        file: Path = RESOLV_CONF,
    ) -> None:
        self._given = tuple(parse_server(text, validates=validates) for text in given)
        self._validates = validates
        self._threads = threads
        self._seconds = seconds
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._read: tuple[Server, ...] = ()
        self._fresh_until_s = float("-inf")

    async def current(self) -> tuple[Server, ...]:
        """Return the servers, at least one."""
        if self._given:
            return self._given
        if self._seconds() >= self._fresh_until_s:
            self._fresh_until_s = self._seconds() + LOOK_AGAIN_S
            read = await self._threads.read.run(self._changed)
            if read is not None and read != self._read:
                self._read = read
                log.info(
                    "name servers of {file}: {servers}",
                    file=str(self._file),
                    servers=", ".join(server.ip for server in read),
                )
        # resolv.conf(5): without a line the server is on this machine.
        return self._read or (Server("127.0.0.1", trusted=True),)

    def _changed(self) -> tuple[Server, ...] | None:
        """Read the file if it is another one than before. Blocking."""
        try:
            status = self._file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self._stamp:
                return None
            with self._file.open("rb") as stream:
                text = stream.read(MAX_FILE).decode("utf-8", "replace")
        except OSError:
            return None  # being replaced, or none
        self._stamp = stamp
        return tuple(self._parsed(text))[:MAX_SERVERS]

    def _parsed(self, text: str) -> list[Server]:
        found = []
        for line in text.splitlines():
            words = line.split()
            if len(words) > 1 and words[0] == "nameserver":
                try:
                    found.append(parse_server(words[1], validates=self._validates))
                except ValueError:
                    log.warn(
                        "{file}: no address: {server}",
                        file=str(self._file),
                        server=words[1],
                    )
        return found
