"""A recipient resolver that reads a file in the manner of aliases(5)."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zope.interface import implementer

from mailsrv.accounts.addresses import InvalidAddress, canonical_domain, parse
from mailsrv.doors.plugin import Plugin
from mailsrv.interfaces import IBlocking, IPluginServices, IRecipientResolver

MAX_OCTETS = 16 * 1024 * 1024

_ENTRY = re.compile(r"([^\s:#]+)(?:\s*:\s*|\s+)([^\s].*)")
_CONTINUED = re.compile(r"\n[ \t]+(?=[^\s#])")


@implementer(IRecipientResolver, IBlocking)
class AliasFile:
    """Reads aliases from a ``file``; names without @ are of the ``domain``.

    A line is ``name: address, address`` or, as in Postfix's virtual(5), ``name
    address``. A changed file is read at the next question.
    """

    def __init__(self, options: Mapping[str, Any], services: IPluginServices) -> None:
        # Any: values of TOML.
        if unknown := options.keys() - {"file", "domain"}:
            raise ValueError(f"{', '.join(unknown)}: only file and domain are known")
        for option in ("file", "domain"):
            if not isinstance(options.get(option), str):
                raise ValueError(f"{option}: a text that has to be given")
        if not options["file"].startswith("/"):
            raise ValueError("file: an absolute path")
        try:
            domain = canonical_domain(options["domain"])
        except InvalidAddress as error:
            raise ValueError(f"domain: {options['domain']!r} is no domain") from error
        self._file = Path(options["file"])
        self._domain = domain
        self._log = services.log
        self._stamp: tuple[int, int, int] | None = None
        self._aliases: Mapping[str, Sequence[str]] = {}

    def resolve(self, address: str) -> Sequence[str] | None:
        status = self._file.stat()
        stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        if stamp != self._stamp:
            if status.st_size > MAX_OCTETS:
                raise ValueError(f"{self._file} is larger than {MAX_OCTETS} octets")
            self._aliases = dict(self._read(self._file.read_text()))
            self._stamp = stamp
        return self._aliases.get(address)

    def _read(self, text: str) -> Iterator[tuple[str, Sequence[str]]]:
        for number, line in enumerate(_CONTINUED.sub(" ", text).splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            try:
                found = _ENTRY.fullmatch(line.strip())
                if found is None:
                    raise InvalidAddress
                targets = [t for t in re.split(r"[\s,]+", found[2]) if t]
                yield self._address(found[1]), [self._address(t) for t in targets]
            except InvalidAddress:
                self._log.warn(
                    "entry {number} of {file} is no alias to an address",
                    number=number,
                    file=str(self._file),
                )

    def _address(self, text: str) -> str:
        return parse(text if "@" in text else f"{text}@{self._domain}").canonical


alias_file = Plugin("alias-file", AliasFile)
