"""``twistd mailsrv``: the one place where the parts are put together.

In order: settings are read and checked (`makeService`), twistd may go into the
background, ports are bound, root is dropped, the parts are opened as the user who
owns the mail, the doors open. SIGHUP and changed certificate files are taken up
without dropping a connection.
"""

import gc
import os
import pwd
import resource
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.application.service import IProcess, Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorCore, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from mailsrv import checks, settings_file
from mailsrv.listeners import Listeners
from mailsrv.logs import LineObserver, twistd_writer
from mailsrv.parts import Parts
from mailsrv.queue.database import QueueUnavailable
from mailsrv.settings import Settings
from mailsrv.settings_file import SettingsError
from mailsrv.tls.contexts import (
    LoadedCertificates,
    TlsContexts,
    UnusableCertificate,
    load_certificates,
)

DEFAULT_FILE = Path("/etc/mailsrv/mailsrv.toml")
CERTIFICATE_POLL_S = 60.0
COLLECT_S = 60.0
DRAIN_S = 10.0  # for transactions that run when the server stops

log = Logger()


class Options(usage.Options):
    """Options of ``twistd mailsrv``."""

    optParameters = [["config", "c", str(DEFAULT_FILE), "the settings file"]]


def makeService(options: Options) -> "MailServer":
    """Make the server that twistd runs; wrong settings end it with their list."""
    # Not at the top of the module: twistd chooses the reactor before this.
    from twisted.internet import reactor

    # Absolute: twistd changes its folder when it goes into the background.
    file = Path(options["config"]).absolute()
    try:
        settings, certificates = read_all(file, reactor)
    except SettingsError as error:
        raise SystemExit(str(error)) from error
    tls = None if certificates is None else TlsContexts(certificates)
    write, reopen_log = twistd_writer(options.parent or {})
    observer = LineObserver(write, settings.log)
    return MailServer(file, settings, tls, observer, reopen_log, reactor)


def read_all(file: Path, reactor: object) -> tuple[Settings, LoadedCertificates | None]:
    """Read and check settings and certificates. Blocking. Raises `SettingsError`."""
    settings = settings_file.load(file)
    if problems := checks.problems(settings, reactor):
        raise SettingsError(file, problems)
    if not settings.tls.certificate:
        return settings, None
    return settings, load_certificates(settings.tls.certificate)


class MailServer(Service):
    """The server as twistd sees it."""

    name = "mailsrv"

    def __init__(
        self,
        file: Path,
        settings: Settings,
        tls: TlsContexts | None,
        observer: LineObserver,
        reopen_log: Callable[[], None],
        reactor: Any,  # the global one: it provides more interfaces than one type has
    ) -> None:
        self._file = file
        self._settings = settings  # of the start: what a reload cannot change
        self._tls = tls
        self._observer = observer
        self._reopen_log = reopen_log
        self._reactor = reactor
        self._listeners = Listeners(settings.listen)
        self._parts: Parts | None = None
        self._reloading = DeferredLock()
        self._poll = LoopingCall(self._poll_certificates)
        self._poll.clock = IReactorTime(reactor)
        self._collect = LoopingCall(gc.collect)
        self._collect.clock = IReactorTime(reactor)

    def setServiceParent(self, parent: Any) -> None:
        # Any: twistd's application provides three interfaces at once.
        super().setServiceParent(parent)
        parent.setComponent(ILogObserver, self._observer)
        if self._settings.user is not None and os.geteuid() == 0:
            entry = pwd.getpwnam(self._settings.user)
            process = IProcess(parent)
            process.uid, process.gid = entry.pw_uid, entry.pw_gid

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        # Early: by default these signals would end a server that still starts.
        self._on_signal(signal.SIGHUP, self._hang_up)
        self._on_signal(signal.SIGUSR1, self._reopen_log)
        _raise_descriptor_limit()
        try:
            self._listeners.bind(self._reactor)
        except CannotListenError as error:
            log.critical("cannot start: {reason}", reason=str(error))
            raise SystemExit(1) from None

    def startService(self) -> None:
        super().startService()
        os.umask(0o077)  # mail is for its owner alone
        if os.geteuid() == 0:
            log.warn("runs as root: set user to a system user made for mailsrv")
        try:
            self._parts = Parts(self._settings, self._tls, self._reactor)
        except QueueUnavailable as error:
            log.critical("cannot start: {reason}", reason=str(error))
            raise SystemExit(1) from None
        started = self._parts.start()
        started.addErrback(lambda failure: log.failure("start failed", failure))
        self._listeners.open(
            self._parts.factories, self._tls, self._parts.connection_policies
        )
        self._poll.start(CERTIFICATE_POLL_S, now=False)
        _tame_collector()
        self._collect.start(COLLECT_S, now=False)
        IReactorCore(self._reactor).callWhenRunning(self._running)

    def _running(self) -> None:
        log.info("ready: {listeners}", listeners=str(self._listeners))
        _tell_systemd("READY=1")

    def stopService(self) -> "Deferred[None]":
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        """Accept no more, let what runs end, then close what it needs."""
        _tell_systemd("STOPPING=1")
        for again in (signal.SIGTERM, signal.SIGINT):
            # Twisted would stop a reactor twice, and fail in doing so.
            signal.signal(again, signal.SIG_IGN)
        for call in (self._poll, self._collect):
            if call.running:
                call.stop()
        await self._listeners.close()
        if self._parts is not None:
            drained = Deferred.fromCoroutine(self._parts.drain())
            drained.addTimeout(DRAIN_S, IReactorTime(self._reactor))
            drained.addErrback(
                lambda failure: log.warn("stops with sessions that still run")
            )
            await drained
            await self._parts.stop()

    def _on_signal(self, number: signal.Signals, act: Callable[[], None]) -> None:
        signal.signal(number, lambda *_: self._reactor.callFromThread(act))

    def _hang_up(self) -> None:
        _observe(self._reloading.run(Deferred.fromCoroutine, self._reload()))

    def _poll_certificates(self) -> None:
        _observe(self._reloading.run(Deferred.fromCoroutine, self._renew()))

    async def _reload(self) -> None:
        """Take up new settings, accounts and certificates; or say what is wrong."""
        parts = self._opened()
        try:
            settings, certificates = await parts.threads.read.run(
                lambda: read_all(self._file, self._reactor)
            )
        except SettingsError as error:
            for problem in error.problems:
                log.error(
                    "{file}: {problem}", file=str(self._file), problem=str(problem)
                )
            log.error("settings are not reloaded: the old ones stay")
            return
        for key in _need_restart(self._settings, settings):
            log.warn("{key} has changed: restart to use it", key=key)
        if self._tls is not None and certificates is not None:
            self._take_certificates(self._tls, certificates)
        self._observer.settings = settings.log
        await parts.use(settings)
        log.info("settings, accounts and certificates are reloaded")

    async def _renew(self) -> None:
        """Read the certificates again if their files have changed."""
        if self._tls is None:
            return
        try:
            renewed = await self._opened().threads.read.run(self._tls.loaded.renewed)
        except UnusableCertificate as error:
            log.error("certificates not renewed: {wrong}", wrong=str(error))
        else:
            if renewed is not None:
                self._take_certificates(self._tls, renewed)

    def _take_certificates(
        self, tls: TlsContexts, certificates: LoadedCertificates
    ) -> None:
        # The same files keep their context: with it go the keys of tickets.
        if certificates.stamps != tls.loaded.stamps:
            tls.replace(certificates)
            log.info("certificates are renewed")

    def _opened(self) -> Parts:
        assert self._parts is not None  # noqa: S101  signals come after startService
        return self._parts


def _need_restart(old: Settings, new: Settings) -> list[str]:
    """The keys that a running server cannot change."""
    changed = [
        name
        for name in ("hostname", "data", "user", "listen", "plugin")
        if getattr(old, name) != getattr(new, name)
    ]
    if bool(old.tls.certificate) != bool(new.tls.certificate):
        changed.append("tls.certificate")  # TLS on or off as a whole
    return changed


def _observe(running: "Deferred[Any]") -> None:
    # Any: what the coroutine returned, nothing here.
    running.addErrback(lambda failure: log.failure("reload failed", failure))


def _tame_collector() -> None:
    """Keep the collector of cyclic garbage from holding all threads for long.

    A full collection in the midst of reading a mailbox of 50,000 messages takes
    0.1 to 0.2 s. Automatic ones are left to young objects, full ones come by the
    clock, and what stays as long as the server runs is looked at no more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(2000, 10, 1_000_000)


def _raise_descriptor_limit() -> None:
    """A connection is a descriptor: use all that the system grants."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell_systemd(state: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd names, if it does."""
    name = os.environ.get("NOTIFY_SOCKET")
    if not name:
        return
    address = "\0" + name[1:] if name.startswith("@") else name
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        try:
            notify.sendto(state.encode(), address)
        except OSError as error:
            log.warn("systemd not told: {reason}", reason=error.strerror)
