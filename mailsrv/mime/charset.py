"""Charsets of mail, decoded by Python's codecs, and text made comparable.

Only charsets named here are looked up: Python's codecs also hold some that are no
charsets, or slow, and a look-up of a name from the wire imports modules.
"""

import unicodedata
from codecs import lookup

# Names by what decodes them; browsers do the same (a superset for a subset's name).
_NAMES = {
    "utf-8": "utf8 unicode-1-1-utf-8",
    "cp1252": "iso-8859-1 iso8859-1 latin1 latin-1 l1 windows-1252 x-ansi",
    "iso-8859-2": "iso8859-2 latin2 latin-2 l2",
    "iso-8859-3": "latin3",
    "iso-8859-4": "latin4",
    "iso-8859-5": "cyrillic",
    "iso-8859-6": "arabic",
    "iso-8859-7": "greek",
    "iso-8859-8": "iso-8859-8-i hebrew",
    "cp1254": "iso-8859-9 latin5 windows-1254",
    "iso-8859-10": "latin6",
    "cp874": "iso-8859-11 tis-620 windows-874",
    "iso-8859-13": "",
    "iso-8859-14": "latin8",
    "iso-8859-15": "latin9 latin-9",
    "iso-8859-16": "latin10",
    "cp1250": "windows-1250",
    "cp1251": "windows-1251",
    "cp1253": "windows-1253",
    "cp1255": "windows-1255",
    "cp1256": "windows-1256",
    "cp1257": "windows-1257",
    "cp1258": "windows-1258",
    "cp437": "ibm437",
    "cp850": "ibm850",
    "cp852": "ibm852",
    "cp866": "ibm866",
    "koi8-r": "koi8",
    "koi8-u": "",
    "mac-roman": "macintosh",
    "gb18030": "gb2312 gbk cp936 gb-2312 x-gbk",
    "hz": "hz-gb-2312",
    "cp950": "big5 x-x-big5 cn-big5",
    "big5hkscs": "big5-hkscs",
    "cp949": "euc-kr ks-c-5601-1987 ks-c-5601 ksc5601 korean windows-949",
    "iso2022-kr": "iso-2022-kr",
    "cp932": "shift-jis shiftjis sjis x-sjis windows-31j ms932 ms-kanji",
    "euc-jp": "x-euc-jp",
    # The extended codec also knows half-width katakana, which some mailers send.
    "iso2022-jp-ext": "iso-2022-jp iso-2022-jp-1 iso-2022-jp-ms",
    "iso2022-jp-2": "iso-2022-jp-2",
    "utf-7": "unicode-1-1-utf-7",
    "utf-16": "utf16 unicode",
    "utf-16-le": "utf-16le",
    "utf-16-be": "utf-16be",
    "utf-32": "",
}
_CODECS = {
    name: lookup(codec.replace("-", "_")).name
    for codec, names in _NAMES.items()
    for name in (codec, *names.split())
}


def _codec(charset: str) -> str | None:
    return _CODECS.get(charset.strip().lower().replace("_", "-"))


def is_known(charset: str) -> bool:
    """Tell whether text in `charset` can be decoded for what it is."""
    return charset.upper() == "US-ASCII" or _codec(charset) is not None


def decode(octets: bytes, charset: str) -> str:
    """Decode text that claims to be in `charset`; never fails.

    US-ASCII, no and unknown charsets: as UTF-8 if it is that, else as Latin-1.
    """
    codec = _codec(charset)
    if codec is not None:
        return octets.decode(codec, "replace")
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")


def fold(text: str) -> str:
    """Make text comparable: without case, in one Unicode form, blanks made one.

    What i;unicode-casemap (RFC 5051) takes for equal is equal, and so are case folds:
    compatibility characters are taken apart, and that first, since some stand for
    capitals. A blank at either end stays one: " x" is no part of "ax".
    """
    first, last = text[:1].isspace(), text[-1:].isspace()
    text = " ".join(text.split())
    if first or last:
        text = f"{' ' * first}{text}{' ' * last}" if text else " "
    if text.isascii():
        return text.lower()
    # Its title case makes the i without a dot a common one, case folding does not.
    text = unicodedata.normalize("NFKD", text).casefold().replace("\u0131", "i")
    return unicodedata.normalize("NFKD", text)


def casemap(text: str) -> str:
    """Return what the collation i;unicode-casemap compares (RFC 5051 section 2).

    Its code points stand in the order of their octets in UTF-8.
    """
    if text.isascii():
        return text.upper()
    return unicodedata.normalize("NFKD", "".join(map(_title, text)))


def _title(character: str) -> str:
    title = character.title()
    return title if len(title) == 1 else character  # as in UnicodeData.txt
