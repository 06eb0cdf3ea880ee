"""The ``--config`` option of the commands, and the settings behind it."""

from pathlib import Path
from typing import Any, TypeVar

import click

from mailsrv import settings_file
from mailsrv.service import DEFAULT_FILE
from mailsrv.settings import Settings
from mailsrv.settings_file import SettingsError

F = TypeVar("F")


class _SettingsFile(click.ParamType[Settings]):
    """A settings file, read."""

    name = "file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Settings:
        # Any: click hands over a text, or what this made of it before.
        if isinstance(value, Settings):
            return value
        return load(Path(value))


def load(file: Path) -> Settings:
    """Read a settings file: its errors are the command's errors."""
    try:
        return settings_file.load(file)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error


def config_option(command: F) -> F:
    """Give a command the parameter ``settings``, from ``--config FILE``."""
    return click.option(
        "--config",
        "-c",
        "settings",
        type=_SettingsFile(),
        default=str(DEFAULT_FILE),
        envvar="MAILSRV_CONFIG",
        show_default=True,
        show_envvar=True,
        help="The settings file.",
    )(command)  # type: ignore[type-var]  # a click command or a function
