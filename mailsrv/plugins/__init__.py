"""The plugins of mailsrv; other distributions add modules to this package."""

from twisted.plugin import pluginPackagePaths

__path__.extend(pluginPackagePaths(__name__))
__all__: list[str] = []
