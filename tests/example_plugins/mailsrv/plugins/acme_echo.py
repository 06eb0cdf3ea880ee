"""A listening service: sends back what it gets (RFC 862)."""

from collections.abc import Mapping
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from zope.interface import implementer

from mailsrv.doors.plugin import Plugin
from mailsrv.interfaces import IListenerService, IPluginServices


class EchoProtocol(Protocol):
    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)


@implementer(IListenerService)
class Echo(Factory):
    """Sends back what it gets."""

    protocol = EchoProtocol
    noisy = False

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        pass

    def drain(self) -> None:
        """Sessions end with the server."""


echo = Plugin("acme-echo", Echo)
