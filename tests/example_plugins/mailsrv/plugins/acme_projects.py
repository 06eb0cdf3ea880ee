"""A resolver: mail for a project goes to those who work on it."""

from collections.abc import Mapping, Sequence
from typing import Any

from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.interfaces import IPluginServices, IRecipientResolver


@implementer(IRecipientResolver)
class Projects:
    """Resolves addresses of a ``domain``; ``members`` has the people by project."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        if set(options) != {"domain", "members"}:
            raise ValueError("domain and members have to be given, and nothing else")
        self._domain: str = options["domain"]
        self._members: Mapping[str, Sequence[str]] = options["members"]
        self._log = services.log

    def resolve(self, address: str) -> Sequence[str] | None:
        project, _, domain = address.rpartition("@")
        if domain != self._domain:
            return None  # not our matter
        if project not in self._members:
            self._log.info("no project {project}", project=project)
            return []  # nobody has this address
        return self._members[project]


projects = Plugin("acme-projects", Projects)
