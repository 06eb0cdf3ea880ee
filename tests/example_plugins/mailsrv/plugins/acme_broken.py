"""Plugins that do everything wrong, when the Subject tells them to."""

import sys
import time
from collections.abc import Awaitable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailsrv.doors.message import Message
from mailsrv.doors.plugin import Plugin
from mailsrv.doors.values import ACCEPT, Verdict
from mailsrv.interfaces import IBlocking, IMessagePolicy, IPluginServices


@implementer(IMessagePolicy)
class Broken:
    """Raises, exits or hangs."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        pass

    def message(self, message: Message) -> Verdict | Awaitable[Verdict]:
        if b"Subject: raise\r\n" in message.header:
            raise ZeroDivisionError
        if b"Subject: exit\r\n" in message.header:
            sys.exit(1)
        if b"Subject: hang\r\n" in message.header:
            return Deferred()
        return ACCEPT


@implementer(IMessagePolicy, IBlocking)
class Blocking:
    """Blocks its thread for a minute."""

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        pass

    def message(self, message: Message) -> Verdict:
        if b"Subject: block\r\n" in message.header:
            time.sleep(60)
        return ACCEPT


broken = Plugin("acme-broken", Broken)
blocking = Plugin("acme-blocking", Blocking)
