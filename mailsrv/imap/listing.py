"""What LIST, LSUB and XLIST ask for, and which mailboxes answer (RFC 3501 6.3).

Also RFC 5258 (LIST-EXTENDED), 3348 (CHILDREN), 5819 (LIST-STATUS), 6154 (SPECIAL-USE).
No I/O.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mailsrv.imap import format
from mailsrv.imap.errors import ProtocolViolation
from mailsrv.imap.parser import Parser, decoded_name
from mailsrv.imap.patterns import Pattern
from mailsrv.store.names import INBOX, SEPARATOR
from mailsrv.store.values import MailboxInfo

MAX_PATTERNS = 20  # of one LIST; each is tried on each mailbox
SELECTIONS = {b"SUBSCRIBED", b"REMOTE", b"RECURSIVEMATCH", b"SPECIAL-USE"}
RETURNS = {b"SUBSCRIBED", b"CHILDREN", b"SPECIAL-USE", b"STATUS"}
# The names that XLIST had before RFC 6154 settled others.
_XLIST = {"\\Junk": "\\Spam", "\\All": "\\AllMail", "\\Flagged": "\\Starred"}


@dataclass(frozen=True, slots=True)
class List:
    """The arguments of LIST; of LSUB and XLIST reference and patterns alone."""

    reference: bytes
    patterns: tuple[bytes, ...]
    selection: frozenset[bytes] = frozenset()
    returns: frozenset[bytes] = frozenset()
    status: tuple[bytes, ...] = ()  # items that STATUS is to tell of each mailbox
    extended: bool = False  # in a form that only RFC 5258 has
    utf8: bool = False  # names are in UTF-8, here and in the answer

    @property
    def asks_for_separator(self) -> bool:
        """RFC 9051 section 6.3.9: an empty name asks for the separator.

        In the basic syntax only; in the extended one it is ignored.
        """
        return self.patterns == (b"",) and not self.extended


def parse_plain(arguments: Parser) -> List:
    """Parse the arguments of LSUB and XLIST."""
    arguments.space()
    reference = arguments.astring()
    arguments.space()
    patterns = (arguments.list_mailbox(),)
    return List(reference, patterns, utf8=arguments.utf8)


def parse_list(arguments: Parser) -> List:
    """Parse the arguments of LIST, RFC 5258's options included."""
    arguments.space()
    selection: frozenset[bytes] = frozenset()
    extended = arguments.peek() == b"("
    if extended:
        names = arguments.items(arguments.keyword, may_be_empty=True)
        selection = _known(names, SELECTIONS)
        if b"RECURSIVEMATCH" in selection and selection <= {
            b"RECURSIVEMATCH",
            b"REMOTE",
        }:
            # RFC 5258 section 3.1
            raise ProtocolViolation("RECURSIVEMATCH needs another selection")
        arguments.space()
    reference = arguments.astring()
    arguments.space()
    if arguments.peek() == b"(":
        extended = True
        patterns = tuple(arguments.items(arguments.list_mailbox))
    else:
        patterns = (arguments.list_mailbox(),)
    if len(patterns) > MAX_PATTERNS:
        raise ProtocolViolation("Too many patterns")
    returns: list[bytes] = []
    status: tuple[bytes, ...] = ()

    def option() -> None:
        nonlocal status
        returns.append(arguments.keyword())
        if returns[-1] == b"STATUS":
            arguments.uses(b"LIST-STATUS")
            arguments.space()
            status = tuple(arguments.items(arguments.keyword))

    if arguments.skip(b" RETURN "):
        extended = True
        arguments.items(option, may_be_empty=True)
    if extended:
        arguments.uses(b"LIST-EXTENDED")
    if b"SPECIAL-USE" in (*selection, *returns):
        arguments.uses(b"SPECIAL-USE")
    known = _known(returns, RETURNS)
    return List(reference, patterns, selection, known, status, extended, arguments.utf8)


def _known(names: Iterable[bytes], known: set[bytes]) -> frozenset[bytes]:
    options = frozenset(names)
    if unknown := options - known:
        # RFC 5258 section 3: an option that was not offered is BAD.
        raise ProtocolViolation(f"Unknown option {min(unknown).decode('ascii')}")
    return options


def patterns_of(request: List) -> list[Pattern]:
    """Return the patterns with their reference, as names in Unicode.

    What is not coded as it should matches nothing.
    """
    found = []
    for coded in filter(None, request.patterns):
        text = request.reference + coded
        if len(text) > 1 and not any(wildcard in text for wildcard in b"*%"):
            # Thunderbird may end the name of a folder with the separator.
            text = text.removesuffix(SEPARATOR.encode("ascii"))
        try:
            found.append(Pattern(decoded_name(text, utf8=request.utf8)))
        except ValueError:
            continue
    return found


def _matches(patterns: Sequence[Pattern], name: str) -> bool:
    return any(pattern.matches(name) for pattern in patterns)


def list_responses(
    request: List, mailboxes: Sequence[MailboxInfo]
) -> Iterator[tuple[MailboxInfo, bytes]]:
    """Yield the mailboxes that LIST names, with their responses."""
    patterns = patterns_of(request)
    # RFC 5258 section 3.5: of children that are listed themselves nothing is said.
    with_selected = _parents(
        mailbox.name
        for mailbox in mailboxes
        if _is_selected(request, mailbox) and not _matches(patterns, mailbox.name)
    )
    recursive = b"RECURSIVEMATCH" in request.selection
    wants_subscribed = b"SUBSCRIBED" in request.selection | request.returns
    known = {mailbox.name for mailbox in mailboxes}
    # Section 3.5 also of a parent that is no mailbox itself: foo of foo/bar.
    missing = [
        MailboxInfo(name, False, (), False, False, "")
        for name in sorted(with_selected - known)
        if recursive
    ]
    for mailbox in (*mailboxes, *missing):
        below = recursive and mailbox.name in with_selected
        if not (below or _is_selected(request, mailbox)):
            continue
        if not _matches(patterns, mailbox.name):
            continue
        attributes = _attributes(mailbox, extended=request.extended)
        if wants_subscribed and mailbox.subscribed:
            attributes.append(b"\\Subscribed")
        extended = b""
        if below:
            criteria = sorted(request.selection - {b"RECURSIVEMATCH", b"REMOTE"})
            extended = b' ("CHILDINFO" (%b))' % b" ".join(
                b'"%b"' % criterion for criterion in criteria
            )
        yield (
            mailbox,
            _response(b"LIST", attributes, mailbox.name, extended, utf8=request.utf8),
        )


def _is_selected(request: List, mailbox: MailboxInfo) -> bool:
    if b"SPECIAL-USE" in request.selection and not mailbox.special_uses:
        return False
    if b"SUBSCRIBED" in request.selection:
        return mailbox.subscribed
    return mailbox.selectable or mailbox.has_children


def lsub_responses(request: List, mailboxes: Sequence[MailboxInfo]) -> Iterator[bytes]:
    """Yield LSUB's responses: subscribed names, and what leads to them."""
    patterns = patterns_of(request)
    subscribed = [m.name for m in mailboxes if m.subscribed]
    names = set(subscribed)
    if any(b"%" in pattern for pattern in request.patterns):
        # RFC 3501 section 6.3.9: foo for foo/bar, if "%" passes over bar.
        names |= _parents(name for name in subscribed if not _matches(patterns, name))
    for name in sorted(names, key=lambda name: (name != INBOX, name)):
        if _matches(patterns, name):
            attributes = [] if name in subscribed else [b"\\Noselect"]
            yield _response(b"LSUB", attributes, name, utf8=request.utf8)


def xlist_responses(request: List, mailboxes: Sequence[MailboxInfo]) -> Iterator[bytes]:
    """Yield the responses of XLIST, which Outlook 2013 and old iOS use."""
    patterns = patterns_of(request)
    for mailbox in mailboxes:
        if _is_selected(request, mailbox) and _matches(patterns, mailbox.name):
            attributes = _attributes(mailbox)
            attributes += [
                _XLIST[use].encode("ascii")
                for use in mailbox.special_uses
                if use in _XLIST
            ]
            if mailbox.name == INBOX:
                attributes.append(b"\\Inbox")
            yield _response(b"XLIST", attributes, mailbox.name, utf8=request.utf8)


def _attributes(mailbox: MailboxInfo, *, extended: bool = False) -> list[bytes]:
    attributes = [b"\\HasChildren" if mailbox.has_children else b"\\HasNoChildren"]
    if not mailbox.selectable:
        # RFC 5258 section 6: one of them. Who uses the basic syntax may know only
        # \Noselect, which the other one implies.
        attributes.append(b"\\NonExistent" if extended else b"\\Noselect")
    return attributes + [use.encode("ascii") for use in mailbox.special_uses]


def _parents(names: Iterator[str]) -> set[str]:
    found = set()
    for name in names:
        while (at := name.rfind(SEPARATOR)) > 0:
            name = name[:at]
            found.add(name)
    return found


def list_response(mailbox: MailboxInfo, old_name: str = "") -> bytes:
    """Return the LIST response that tells of one mailbox (RFC 9051 section 7.3.1).

    `old_name` is how the client or a RENAME called it before.
    """
    extended = b""
    if old_name:
        extended = b' ("OLDNAME" (%b))' % format.mailbox(old_name, utf8=True)
    attributes = _attributes(mailbox, extended=True)
    if mailbox.subscribed:
        attributes.append(b"\\Subscribed")
    return _response(b"LIST", attributes, mailbox.name, extended, utf8=True)


def _response(
    kind: bytes,
    attributes: Sequence[bytes],
    name: str,
    extended: bytes = b"",
    *,
    utf8: bool,
) -> bytes:
    return b'* %b (%b) "/" %b%b\r\n' % (
        kind,
        b" ".join(attributes),
        format.mailbox(name, utf8=utf8),
        extended,
    )
