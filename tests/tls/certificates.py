"""Certificates for tests, made once in a process."""

import os
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from mailsrv.settings import Certificate
from mailsrv.tls.authority import Pair, make_authority, make_server


@cache
def ca() -> Pair:
    return make_authority("test")


@cache
def pair(*names: str) -> Pair:
    return make_server(ca(), names, [ip_address("127.0.0.1")])


def write(folder: Path, made: Pair, name: str = "server") -> Certificate:
    """Write a pair's files into `folder`."""
    folder.mkdir(exist_ok=True)
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(made.chain_pem())
    if key.exists():
        key.unlink()
    opened = os.open(key, os.O_WRONLY | os.O_CREAT, 0o600)
    with os.fdopen(opened, "wb") as stream:
        stream.write(made.key_pem())
    return Certificate(chain=chain.absolute(), key=key.absolute())
