"""SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, 7677): keys, and a server's exchange.

Pure. The client proves that it knows the password, and the server that it has keys
made of it; with -PLUS both also prove that nobody is between them. Keys are as good
as PBKDF2: slow to make (in the hash pool only), and secret like a password's hash.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from passlib.utils import saslprep

from mailsrv.accounts.sasl import (
    Challenge,
    Finished,
    KeysWanted,
    Outcome,
    Proof,
    SaslError,
    text,
)

# RFC 7677 section 4 asks for 4,096 at least. More is cheap for a client, which does it
# once a log-in; Cyrus SASL takes no more than 65,536.
ITERATIONS = 32768
SALT_OCTETS = 16
NONCE_OCTETS = 18  # of the server, before base64

MAX_MESSAGE_OCTETS = 2048  # a name of 320 characters, escaped, and the rest
# Octets of the client's nonce and of what stands between commas are within that limit.
# RFC 5802 section 5.1: extensions are passed over, mandatory ones (m=) are errors
# wherever they stand, since there are none.
_ATTRIBUTE = rb"[A-Za-ln-z]=[^,\0]+"
# RFC 5802 section 7.
_CLIENT_FIRST = re.compile(
    rb"((n|y|p=([A-Za-z0-9.-]{1,64})),(?:a=([^,\0]+))?,)"
    rb"(n=([^,\0]+),r=([!-+\--~]{1,256})(?:," + _ATTRIBUTE + rb")*)"
)
_CLIENT_FINAL = re.compile(
    rb"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:," + _ATTRIBUTE + rb")*)"
    rb",p=([A-Za-z0-9+/=]+)"
)
_KEYS = re.compile(r"SCRAM-SHA-256\$(\d{1,9}):([^$:]+)\$([^$:]+):([^$:]+)")

# Gives a channel binding of the connection (RFC 5056) by its name; None: it has none.
ChannelBinding = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Keys:
    """What the server keeps of a password (RFC 5802 section 3)."""

    iterations: int
    salt: bytes
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def __str__(self) -> str:
        """The form of RFC 5803 section 3, for the database."""
        salt, stored_key, server_key = (
            base64.b64encode(value).decode()
            for value in (self.salt, self.stored_key, self.server_key)
        )
        return f"SCRAM-SHA-256${self.iterations}:{salt}${stored_key}:{server_key}"


def make_keys(password: str) -> Keys:
    """Make keys with a new salt. Slow."""
    salt = secrets.token_bytes(SALT_OCTETS)
    salted = hashlib.pbkdf2_hmac("sha256", _prepared(password), salt, ITERATIONS)
    stored_key = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
    return Keys(ITERATIONS, salt, stored_key, _hmac(salted, b"Server Key"))


def read_keys(stored: str) -> Keys:
    """Read the form of the database; raises ValueError."""
    found = _KEYS.fullmatch(stored)
    if found is None:
        raise ValueError("no keys of SCRAM-SHA-256")
    salt, stored_key, server_key = map(base64.b64decode, found.groups()[1:])
    return Keys(int(found[1]), salt, stored_key, server_key)


def feigned_keys(probe_key: bytes, name: str) -> Keys:
    """Keys for a name that has none: always the same, and no password fits them.

    A stranger who asks for names sees no difference to those that exist.
    """
    drawn = [
        _hmac(probe_key, use + name.encode("utf-8", "surrogatepass"))
        for use in (b"salt ", b"stored key ", b"server key ")
    ]
    return Keys(ITERATIONS, drawn[0][:SALT_OCTETS], drawn[1], drawn[2])


class _Waits(Enum):
    """For which message of the client."""

    FIRST = auto()
    FINAL = auto()
    LAST = auto()  # nothing but its consent to our proof


class Scram:
    """One exchange."""

    def __init__(self, *, plus: bool, binding: ChannelBinding | None) -> None:
        """`binding` is None where -PLUS was not offered."""
        self._plus = plus
        self._binding = binding
        self._waits = _Waits.FIRST
        self._login = self._authzid = ""
        self._bound = b""  # what c= has to hold
        self._nonce = b""
        self._first = b""  # both first messages, of AuthMessage
        self._keys: Keys | None = None

    def start(self, initial: bytes | None) -> Outcome:
        return Challenge(b"") if initial is None else self.step(initial)

    def step(self, response: bytes) -> Outcome:
        if len(response) > MAX_MESSAGE_OCTETS:
            raise SaslError("the message is too long")
        match self._waits:
            case _Waits.FIRST:
                return self._client_first(response)
            case _Waits.FINAL:
                return self._client_final(response)
            case _Waits.LAST:
                if response:
                    raise SaslError("nothing more was asked")
                return Finished()

    def _client_first(self, message: bytes) -> KeysWanted:
        found = _CLIENT_FIRST.fullmatch(message)
        if found is None:
            raise SaslError("no client-first-message of SCRAM")
        header, flag, binding, authzid, bare, name, nonce = found.groups()
        self._bound = header + self._binding_data(flag, binding)
        self._authzid, self._login = _name(authzid or b""), _name(name)
        self._nonce = nonce + base64.b64encode(secrets.token_bytes(NONCE_OCTETS))
        self._first = bare
        return KeysWanted(self._login, self._server_first)

    def _binding_data(self, flag: bytes, binding: bytes | None) -> bytes:
        """RFC 5802 section 6: the flag, the mechanism and what was offered agree."""
        if flag == b"y" and self._binding is not None:
            # Somebody between us has taken -PLUS out of what the client was offered.
            raise SaslError("channel binding was offered")
        if (binding is not None) is not self._plus:
            raise SaslError("the mechanism and the flag of channel binding differ")
        if binding is None:
            return b""
        data = self._binding(binding.decode()) if self._binding is not None else None
        if data is None:
            raise SaslError("no such channel binding here")
        return data

    def _server_first(self, keys: Keys) -> Challenge:
        salt = base64.b64encode(keys.salt)
        message = b"r=%b,s=%b,i=%d" % (self._nonce, salt, keys.iterations)
        self._first += b"," + message
        self._keys = keys
        self._waits = _Waits.FINAL
        return Challenge(message)

    def _client_final(self, message: bytes) -> Proof:
        found = _CLIENT_FINAL.fullmatch(message)
        keys = self._keys
        if found is None or keys is None:
            raise SaslError("no client-final-message of SCRAM")
        without_proof, bound, nonce, sent_proof = found.groups()
        if nonce != self._nonce:
            raise SaslError("the nonce is another one")
        proof = _decoded(sent_proof)
        signed = self._first + b"," + without_proof  # AuthMessage
        signature = _hmac(keys.stored_key, signed)
        if len(proof) != len(signature):
            raise SaslError("the proof has another length")
        client_key = bytes(a ^ b for a, b in zip(proof, signature, strict=True))
        is_good = hmac.compare_digest(
            hashlib.sha256(client_key).digest(), keys.stored_key
        ) & hmac.compare_digest(_decoded(bound), self._bound)
        self._waits = _Waits.LAST
        verifier = base64.b64encode(_hmac(keys.server_key, signed))
        answer = Challenge(b"v=" + verifier)
        return Proof(self._login, self._authzid, is_good, keys, answer)


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)


def _decoded(octets: bytes) -> bytes:
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except binascii.Error as error:
        raise SaslError("no base64 in a message of SCRAM") from error


def _name(escaped: bytes) -> str:
    """Decode a saslname, in which comma and equals sign are written =2C and =3D."""
    name = escaped.replace(b"=2C", b",")
    if name.count(b"=") != name.count(b"=3D"):
        raise SaslError("no saslname of SCRAM")
    return text(name.replace(b"=3D", b"="))


def _prepared(password: str) -> bytes:
    """RFC 4013, where it knows the characters: it ends with Unicode 3.2.

    A client that follows it as well refuses others itself; the rest send octets.
    """
    try:
        password = saslprep(password)
    except ValueError:
        pass
    return password.encode("utf-8", "surrogatepass")
