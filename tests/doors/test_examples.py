"""The examples of docs/plugins.rst hold to the contracts of their doors."""

import sqlite3
from contextlib import closing
from hashlib import scrypt
from pathlib import Path

from mailsrv.doors import contracts
from mailsrv.doors.message import Message
from tests.example_plugins.mailsrv.plugins.acme_filter import NoPrograms, no_programs
from tests.example_plugins.mailsrv.plugins.acme_projects import Projects, projects
from tests.example_plugins.mailsrv.plugins.acme_users import SqliteUsers, users

MEMBERS = {"apollo": ["anna@example.test"]}


class FilterMakerTests(contracts.PluginMakerContract):
    options = {"endings": ["exe"]}
    bad_options = ({"endings": ["*"]}, {"endings": [1]})

    def provider(self) -> object:
        return no_programs


class FilterTests(contracts.MessagePolicyContract):
    def provider(self) -> NoPrograms:
        return NoPrograms({}, self.services())

    def unwanted(self) -> Message:
        # Where one reading ends and the next begins.
        return contracts.message(b"x\n" * 249_900 + b'name="Game.EXE"\n' * 20)


class UsersMakerTests(contracts.PluginMakerContract):
    options = {"file": "/nowhere"}

    def provider(self) -> object:
        return users


class UsersTests(contracts.UserDatabaseContract):
    def provider(self) -> SqliteUsers:
        file = Path(self.mktemp()).absolute()
        hashed = scrypt(self.password.encode(), salt=b"salt", n=2**14, r=8, p=1)
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("CREATE TABLE users (address, salt, hash)")
            row = (self.account, b"salt", hashed)
            database.execute("INSERT INTO users VALUES (?, ?, ?)", row)
        return SqliteUsers({"file": str(file)}, self.services())


class ProjectsMakerTests(contracts.PluginMakerContract):
    options = {"domain": "projects.test", "members": MEMBERS}

    def provider(self) -> object:
        return projects


class ProjectsTests(contracts.RecipientResolverContract):
    known = "apollo@projects.test"

    def provider(self) -> Projects:
        options = {"domain": "projects.test", "members": MEMBERS}
        return Projects(options, self.services())
