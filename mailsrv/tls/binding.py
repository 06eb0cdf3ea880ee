"""Channel bindings of a TLS connection: what ties a log-in to it (RFC 5056).

Two kinds, in TLS 1.3 only: ``tls-exporter`` (RFC 9266) and ``tls-server-end-point``
(RFC 5929 section 4). In TLS 1.2 clients expect ``tls-unique``, which is not safe
without an extension of which OpenSSL does not tell, so there nothing is offered.
"""

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

EXPORTER_LABEL = b"EXPORTER-Channel-Binding"  # RFC 9266 section 2
EXPORTER_OCTETS = 32


def channel_binding(transport: object) -> Callable[[str], bytes | None] | None:
    """What gives a binding by its name; None if the connection has none.

    The name may come from the peer: None for one that there is not.
    """
    get_handle = getattr(transport, "getHandle", None)
    connection = get_handle() if get_handle else None
    if not isinstance(connection, SSL.Connection):
        return None
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None

    def binding(name: str) -> bytes | None:
        match name:
            case "tls-exporter":
                # RFC 8446 section 7.5: no context is the same as an empty one.
                return connection.export_keying_material(
                    EXPORTER_LABEL, EXPORTER_OCTETS, None
                )
            case "tls-server-end-point":
                return _end_point(connection)
        return None

    return binding


def _end_point(connection: SSL.Connection) -> bytes | None:
    """Hash the certificate that was shown, as its signature does (RFC 5929 4.1)."""
    shown = connection.get_certificate()
    if shown is None:
        return None
    certificate = shown.to_cryptography()
    algorithm = certificate.signature_hash_algorithm
    if algorithm is None:  # Ed25519 and its like: not defined
        return None
    if isinstance(algorithm, hashes.MD5 | hashes.SHA1):
        algorithm = hashes.SHA256()
    digest = hashes.Hash(algorithm)
    digest.update(certificate.public_bytes(Encoding.DER))
    return digest.finalize()
