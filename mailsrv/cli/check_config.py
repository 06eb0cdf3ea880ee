"""``mailsrv check-config``: would the server start with this file?"""

from pathlib import Path

import click
from twisted.internet.task import Clock

from mailsrv.service import read_all
from mailsrv.settings_file import SettingsError


@click.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Print every error in the settings FILE, and what is allowed instead.

    Files, users and endpoints that it names are looked at as well. Run it as root
    or as the user of the server: others may not see what it sees.
    """
    try:
        # Endpoints are parsed, not bound: any reactor does.
        settings, _ = read_all(file, Clock())
    except SettingsError as error:
        click.echo(str(error), err=True)
        raise SystemExit(1) from None
    services = ", ".join(listener.service for listener in settings.listen)
    click.echo(f"{file}: good ({services} for {settings.hostname})")
