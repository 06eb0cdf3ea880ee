"""A filter: programs that come by mail go to Junk."""

import re
from collections.abc import Mapping
from typing import Any

from zope.interface import implementer

from mailsrv.doors.message import Message
from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import ACCEPT, Edit, Quarantine, Verdict
from mailsrv.interfaces import IMessagePolicy, IPluginServices

STEP, OVERLAP = 500_000, 1_000  # octets that are looked at together


@implementer(IMessagePolicy)
class NoPrograms:
    """Puts messages with attached programs into Junk; ``endings`` is a list."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        endings = options.get("endings", ["exe", "js", "scr"])
        if not all(isinstance(e, str) and e.isalnum() for e in endings):
            raise ValueError('endings: a list such as ["exe"]')
        either = "|".join(endings).encode()
        self._program = re.compile(
            rb'name="?[^"\n]+\.(?:%b)"?\s*$' % either, re.I | re.M
        )

    async def message(self, message: Message) -> Verdict:
        for start in range(0, message.size_octets, STEP):
            if self._program.search(await message.read(start, STEP + OVERLAP)):
                mark = Edit(add=(("X-Acme", "a program is attached"),))
                return Quarantine("a program is attached", mark)
        return ACCEPT


no_programs = Plugin("acme-no-programs", NoPrograms)
