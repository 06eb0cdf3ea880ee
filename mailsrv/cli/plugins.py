"""``mailsrv plugins``: what is installed for ``[[plugin]]`` tables."""

import click

from mailsrv.doors.plugin import find


@click.command()
def plugins() -> None:
    """List the installed plugins, and modules that should hold some and cannot.

    Use one by a table of the settings: [[plugin]] with its name and, under
    [plugin.options], what it wants to know.
    """
    found = find()
    width = max(map(len, found.makers), default=0)
    for name, maker in found.makers.items():
        click.echo(f"{name:{width}}  {maker.summary}".rstrip())
    for module, wrong in found.broken.items():
        click.echo(f"{module} cannot be imported: {wrong}", err=True)
    if found.broken:
        raise SystemExit(1)
