"""The answers to one FETCH of all messages, taken apart so that they compare."""

import imaplib
import re

_LITERAL = re.compile(rb"\{(\d+)\}\r\n\Z")
_TOKEN = re.compile(
    rb'\(|\)|"((?:[^"\\]|\\.)*)"|\{(\d+)\}\r\n|(\[[^\]]*\]|[^\s()"{\[]+)+'
)

Value = bytes | None | list["Value"]


def fetch(session: imaplib.IMAP4, item: str) -> dict[int, Value]:
    """Return by sequence number what an item is; a message without it is left out."""
    tag = f"f{session.tagnum}"
    session.tagnum += 1
    session.send(f"{tag} FETCH 1:* ({item})\r\n".encode())
    found: dict[int, Value] = {}
    while not (response := _response(session)).startswith(tag.encode()):
        if match := re.match(rb"\* (\d+) FETCH ", response):
            values = _parse(response, match.end())
            if isinstance(values, list) and len(values) >= 2:
                found[int(match[1])] = values[1]
    if not response.startswith(f"{tag} OK".encode()):
        raise AssertionError(f"{item}: {response!r}")
    return found


def _response(session: imaplib.IMAP4) -> bytes:
    """Read a line with the literals in it."""
    found = b""
    while True:
        line = session.readline()
        if not line:
            raise AssertionError("the server has closed the connection")
        found += line
        if (match := _LITERAL.search(line)) is None:
            return found
        found += session.read(int(match[1]))


def _parse(response: bytes, at: int) -> Value:
    """Return the list that begins at `at`; quoted and literal strings are alike.

    Atoms are told from strings by a colon before them, but for numbers.
    """
    stack: list[list[Value]] = [[]]
    while match := _TOKEN.search(response, at):
        at = match.end()
        token = match.group()
        if token == b"(":
            inner: list[Value] = []
            stack[-1].append(inner)
            stack.append(inner)
        elif token == b")":
            stack.pop()
            if len(stack) == 1:
                break
        elif token.startswith(b'"'):
            stack[-1].append(re.sub(rb"\\(.)", rb"\1", match[1]))
        elif token.startswith(b"{"):
            stack[-1].append(response[at : at + int(match[2])])
            at += int(match[2])
        else:
            stack[-1].append(None if token.upper() == b"NIL" else b":" + token)
    return stack[0][0]
