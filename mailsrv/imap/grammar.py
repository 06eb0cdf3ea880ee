"""The characters, tokens and limits of IMAP's formal syntax (RFC 3501 section 9).

Regular expressions match at a position and never backtrack over what they took.
"""

import re
from typing import TypeAlias

# Octets of the lines of one command, literals and their markers apart. Before login
# the longest one is ID (RFC 2971 section 3.3: 30 fields of 1,054 octets); after it a
# client's UID set can be long (RFC 7162 section 4 speaks of 8192, Thunderbird sends
# more).
MAX_LINE_BEFORE_LOGIN = 33 * 1024
MAX_LINE = 64 * 1024
# Octets of all literals of one command, an APPENDed message apart.
MAX_LITERALS_BEFORE_LOGIN = 8 * 1024
MAX_LITERALS = 64 * 1024
MAX_TAG = 64  # octets; real ones have under 10
MAX_DEPTH = 50  # of parentheses, and of NOT and OR, in one command

# A sequence-set as its ranges in the client's order; 0 stands for "*".
SequenceSet: TypeAlias = tuple[tuple[int, int], ...]
STAR = 0
MAX_NUMBER = 0xFFFFFFFF  # number, nz-number: unsigned 32 bits
# number64 (RFC 9051 section 9), mod-sequence-value (RFC 7162 section 7)
MAX_NUMBER64 = 0x7FFFFFFFFFFFFFFF

TAG = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\+]++')
ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\\]]++')
ASTRING_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){%*"\\]++')
LIST_ATOM = re.compile(rb'[^\x00-\x20\x7f-\xff(){"\\]++')
NUMBER = re.compile(rb"[0-9]{1,20}+")
# Octets over 127 are let through: clients send names and passwords in UTF-8.
QUOTED = re.compile(rb'"([^"\\\r\n\x00]*+(?:\\["\\][^"\\\r\n\x00]*+)*+)"')
ESCAPE = re.compile(rb'\\(["\\])')
# A literal's announcement; "+" for one that does not wait (RFC 7888).
LITERAL = re.compile(rb"\{([0-9]{1,20}+)(\+?)\}\r\n")
# The same at a line's end; "~" before a literal8 (RFC 3516 section 5).
MARKER = re.compile(rb"(~?)\{([0-9]{1,20}+)(\+?)\}\Z")
SEQUENCE_SET = re.compile(
    rb"(?:[1-9][0-9]{0,9}+|\*)(?::(?:[1-9][0-9]{0,9}+|\*))?+"
    rb"(?:,(?:[1-9][0-9]{0,9}+|\*)(?::(?:[1-9][0-9]{0,9}+|\*))?+)*+"
)
# A command whose next literal is the message of APPEND (and not its mailbox's name).
APPEND = re.compile(rb"[^ ]++ APPEND (?!~?\{[0-9]+\+?\}\Z)", re.IGNORECASE)

DATE = re.compile(rb"([ 0-9]?[0-9])-([A-Za-z]{3})-([0-9]{4})")
DATE_TIME = re.compile(
    rb'"([ 0-9]?[0-9])-([A-Za-z]{3})-([0-9]{4}) '
    rb'([0-9]{2}):([0-9]{2}):([0-9]{2}) ([+-])([0-9]{2})([0-9]{2})"'
)
MONTHS = {
    name: n
    for n, name in enumerate(
        b"jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1
    )
}
# system flags in their canonical spelling; \Recent is not a client's to set
SYSTEM_FLAGS = {
    name.lower(): name
    for name in (b"\\Answered", b"\\Flagged", b"\\Deleted", b"\\Seen", b"\\Draft")
}
