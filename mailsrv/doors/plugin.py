"""Finding the plugins, and making those that the settings name.

`Plugin` is what a plugin's module holds; `problems` and `Plugins` are for the server.
"""

import re
from collections import Counter
from collections.abc import (
    Callable,
    Container,
    Iterator,
    Mapping,
    Sequence,
    Set,
)
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import implementer
from zope.interface.interface import InterfaceClass
from zope.interface.verify import verifyObject

from mailsrv.doors.guest import Guest
from mailsrv.interfaces import (
    IChangeListener,
    IConnectionPolicy,
    IDeliverer,
    IListenerService,
    IMessagePolicy,
    IPluginMaker,
    IPluginServices,
    IRecipientPolicy,
    IRecipientResolver,
    IScramKeys,
    ISenderPolicy,
    ITokenVerifier,
    IUserDatabase,
)
from mailsrv.settings import PluginSettings, Settings
from mailsrv.settings_file import Problem
from mailsrv.threads import Reactor

# By its name, since the plugins in it may import every part of the server.
PACKAGE = "mailsrv.plugins"

DOORS: Sequence[InterfaceClass] = (
    IConnectionPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IMessagePolicy,
    IRecipientResolver,
    IDeliverer,
    IChangeListener,
    IListenerService,
    IUserDatabase,
    IScramKeys,
    ITokenVerifier,
)

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@implementer(IPluginMaker)
class Plugin:
    """A plugin as its module holds it: ``Plugin("no-exe", NoExe)``."""

    def __init__(
        self, name: str, build: Callable[[Mapping[str, Any], IPluginServices], object]
    ) -> None:
        """`build` is a class, or a function, of options and services; the first line
        of its docstring is the summary. Any: values of TOML.
        """
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r}: small letters, digits and - only")
        self.name = name
        self.summary = (build.__doc__ or "").strip().partition("\n")[0]
        self._build = build

    def build(self, options: Mapping[str, Any], services: IPluginServices) -> object:
        return self._build(options, services)


@implementer(IReactorTime)
class PluginClock:
    """The reactor's time, without the reactor."""

    def __init__(self, reactor: IReactorTime) -> None:
        self._clock = reactor

    def seconds(self) -> float:
        return self._clock.seconds()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., Any],
        *args: object,
        **kwargs: object,
    ) -> IDelayedCall:
        # Any: as Twisted has it.
        return self._clock.callLater(delay, callable, *args, **kwargs)

    def getDelayedCalls(self) -> list[IDelayedCall]:
        """None: those of others are not a plugin's business."""
        return []


@implementer(IPluginServices)
@dataclass(frozen=True, slots=True)
class Services:
    """What one plugin is given."""

    clock: IReactorTime
    log: Logger
    state: Path


@dataclass(frozen=True, slots=True)
class Found:
    """What is installed: makers by name, and the modules that cannot be imported."""

    makers: Mapping[str, IPluginMaker]
    broken: Mapping[str, str]  # module -> what is wrong with it
    twice: Set[str]  # names that more than one plugin has


def find() -> Found:
    """Look through the installed plugins. Blocking.

    Every module is imported, so that it can be told what is wrong with one. That is
    why `twisted.plugin.getPlugins` is not asked: its cache would save the imports,
    hides what an older file holds that was put in place of a newer one, and cannot be
    written, or read, once root is dropped, of which the log would tell at each start.
    """
    package = import_module(PACKAGE)
    makers: dict[int, IPluginMaker] = {}  # once, if modules import it from others
    broken: dict[str, str] = {}
    for found in iter_modules(package.__path__, f"{PACKAGE}."):
        try:
            module = import_module(found.name)
            values = list(vars(module).values())
            makers |= {id(v): v for v in values if IPluginMaker.providedBy(v)}
        except (Exception, SystemExit) as error:
            broken[found.name] = f"{type(error).__name__}: {_line(error)}"
    ordered = sorted(makers.values(), key=lambda maker: maker.name)
    names = Counter(maker.name for maker in ordered)
    twice = {name for name, count in names.items() if count > 1}
    return Found({maker.name: maker for maker in ordered}, broken, twice)


def _line(error: BaseException) -> str:
    """Return an exception's text as one line that says something."""
    return " ".join(str(error).split()) or type(error).__name__


def problems(settings: Settings, reactor: IReactorTime) -> list[Problem]:
    """Everything that keeps the plugins of `settings` from being made. Blocking."""
    if not settings.plugin:
        return []
    found = find()
    wrong = []
    names: set[str] = set()
    for number, plugin in enumerate(settings.plugin, 1):
        key = f"plugin[{number}]"
        if plugin.name in names:
            wrong.append(Problem(f"{key}.name", f'"{plugin.name}" is there already'))
        elif plugin.name not in found.makers:
            wrong.append(_unknown(f"{key}.name", plugin.name, found))
        elif plugin.name in found.twice:
            told = f'"{plugin.name}" is the name of two installed plugins'
            wrong.append(Problem(f"{key}.name", told, "one of their packages alone"))
        else:
            wrong += _unfit(
                key,
                plugin,
                found.makers[plugin.name],
                _services(plugin, settings, reactor),
                {listener.service for listener in settings.listen},
            )
        names.add(plugin.name)
    return wrong


def _unknown(key: str, name: str, found: Found) -> Problem:
    broken = "".join(
        f"; {module} cannot be imported: {error}"
        for module, error in found.broken.items()
    )
    installed = ", ".join(found.makers) or "none is installed"
    return Problem(key, f'"{name}" is no installed plugin{broken}', installed)


def _unfit(
    key: str,
    plugin: PluginSettings,
    maker: IPluginMaker,
    services: IPluginServices,
    listening: Container[str],
) -> Iterator[Problem]:
    """What is wrong with one plugin, which is made for it."""
    try:
        provider = maker.build(plugin.options, services)
    except ValueError as error:
        allowed = f"what {plugin.name} documents"
        yield Problem(f"{key}.options", _line(error), allowed)
    except (Exception, SystemExit) as error:
        wrong = f"{plugin.name} cannot be made: {type(error).__name__}: {_line(error)}"
        yield Problem(key, wrong, "another version of it, or none")
    else:
        yield from _misfits(key, plugin.name, provider)
        if plugin.name in listening and not IListenerService.providedBy(provider):
            wrong = f"{plugin.name} serves no port, and a [[listen]] names it"
            yield Problem(f"{key}.name", wrong, "a plugin that is a listening service")


def _misfits(key: str, name: str, provider: object) -> Iterator[Problem]:
    """What keeps a plugin that was made from being asked anything."""
    doors = [door for door in DOORS if door.providedBy(provider)]
    if not doors:
        kind = type(provider).__name__
        wrong = f"{name} makes a {kind}, which provides no door: it would do nothing"
        yield Problem(key, wrong, "a plugin with @implementer and a door's interface")
    for door in doors:
        try:
            verifyObject(door, provider)
        except Exception as error:
            wrong = f"{name} is no whole {door.__name__}: {_line(error)}"
            yield Problem(key, wrong, "another version of it, or none")
            return  # doors have doors in them: once is enough


def _services(
    plugin: PluginSettings, settings: Settings, reactor: IReactorTime
) -> IPluginServices:
    return Services(
        PluginClock(reactor),
        Logger(f"{PACKAGE}.{plugin.name}"),
        settings.data / "plugins" / plugin.name,
    )


class Plugins:
    """The plugins of a running server, in the order of the settings."""

    def __init__(self, settings: Settings, reactor: Reactor) -> None:
        """Make them, and their folders: blocking, and as the user who serves."""
        self._guests = []
        makers = find().makers if settings.plugin else {}
        for plugin in settings.plugin:
            services = _services(plugin, settings, IReactorTime(reactor))
            services.state.mkdir(mode=0o700, parents=True, exist_ok=True)
            provider = makers[plugin.name].build(plugin.options, services)
            guest = Guest(plugin.name, provider, plugin.timeout_s, reactor)
            self._guests.append(guest)

    def providers(self, door: InterfaceClass) -> Sequence[Guest]:
        """Return those that stand behind a door."""
        return [guest for guest in self._guests if door.providedBy(guest.provider)]
