"""The ``mailsrv`` command: everything an admin does beside running the server."""

import os

import click

from mailsrv.cli.accounts import account_group
from mailsrv.cli.addresses import alias_group, domain_group, group_group
from mailsrv.cli.app_passwords import app_password_group
from mailsrv.cli.bulk import bulk_group
from mailsrv.cli.check_config import check_config
from mailsrv.cli.dkim import dkim_group
from mailsrv.cli.import_accounts import import_accounts
from mailsrv.cli.lists import list_group
from mailsrv.cli.log import log_group
from mailsrv.cli.maildir import maildir_group
from mailsrv.cli.plugins import plugins
from mailsrv.cli.queue import queue_group
from mailsrv.cli.quickstart import quickstart
from mailsrv.cli.sendmail import sendmail
from mailsrv.cli.verify import verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mailsrv")
def main() -> None:
    """Set up and look after a mailsrv mail server (run it by "twistd mailsrv")."""
    os.umask(0o077)  # mail is for its owner alone


main.add_command(check_config)
main.add_command(plugins)
main.add_command(quickstart)
account_group.add_command(import_accounts)
account_group.add_command(app_password_group)
main.add_command(account_group)
main.add_command(alias_group)
main.add_command(group_group)
main.add_command(domain_group)
main.add_command(dkim_group)
main.add_command(list_group)
main.add_command(bulk_group)
main.add_command(queue_group)
main.add_command(log_group)
main.add_command(sendmail)
main.add_command(verify)
main.add_command(maildir_group)
