"""A user database: passwords that another program keeps in an SQLite file."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from hashlib import scrypt
from hmac import compare_digest
from typing import Any

from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.interfaces import IBlocking, IPluginServices, IUserDatabase


@implementer(IUserDatabase, IBlocking)
class SqliteUsers:
    """Checks passwords in the SQLite ``file`` of another program."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        if set(options) != {"file"}:
            raise ValueError("file: the database, and no other option")
        self._uri = f"file:{options['file']}?mode=ro"

    def check_password(self, account: str, password: str) -> bool:
        with closing(sqlite3.connect(self._uri, uri=True)) as users:
            query = "SELECT salt, hash FROM users WHERE address = ?"
            row = users.execute(query, (account,)).fetchone()
        if row is None:
            return False
        salt, hashed = row
        return compare_digest(
            hashed, scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)
        )


users = Plugin("acme-users", SqliteUsers)
