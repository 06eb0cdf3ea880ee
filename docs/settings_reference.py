"""Writes the reference of ``mailsrv.toml`` from the settings tree itself."""

from collections.abc import Iterator
from typing import Any, get_args, get_origin, get_type_hints

import attrs

from mailsrv.settings import Settings
from mailsrv.settings_file import allowed


def reference() -> str:
    """The text of the reference, in reStructuredText."""
    return "\n".join(_table("", Settings))


def _table(where: str, cls: type) -> Iterator[str]:
    hints = get_type_hints(cls)
    inner = []
    for field in attrs.fields(cls):
        key = f"{where}.{field.name}" if where else field.name
        hint = hints[field.name]
        item = get_args(hint)[0] if get_origin(hint) is list else hint
        if attrs.has(item):
            inner.append((key, item, hint is not item))
        else:
            yield from _key(key, field, hint)
    for key, item, many in inner:
        title = f"[[{key}]]" if many else f"[{key}]"
        yield from ("", title, "-" * len(title), "")
        yield from _table(key, item)


def _key(key: str, field: "attrs.Attribute[Any]", hint: object) -> Iterator[str]:
    # Any: a key's value may have each of the types that TOML knows.
    yield f"``{key}``"
    if field.default is attrs.NOTHING:
        default = "It has to be given."
    elif field.default is None:
        default = "Default: none."
    elif isinstance(field.default, attrs.Factory):  # type: ignore[arg-type]
        default = "Default: ``[]``."
    else:
        default = f"Default: ``{_toml(field.default)}``."
    doc = field.metadata["doc"].replace("*", r"\*")  # plain text, no emphasis
    yield f"    {doc}. {default}"
    yield f"    Allowed: {allowed(hint, field.metadata)}."
    yield ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else f"{value}"
