"""Identifiers: 80 bits as 16 characters of a-z and 2-7 (base32), short enough for a QR code."""

from __future__ import annotations

import base64
import hashlib
import re
import ssl
from typing import Final

ID_BYTES: Final = 10
_FORM: Final = re.compile(r"[a-z2-7]{16}")


def id_of_bytes(raw: bytes) -> str:
    """The identifier of exactly 10 bytes."""
    return base64.b32encode(raw).decode("ascii").lower()


def bytes_of_id(identifier: str) -> bytes:
    """The 10 bytes of an identifier. Raises: ValueError for anything else."""
    raw = base64.b32decode(identifier.upper())
    if len(raw) != ID_BYTES:
        raise ValueError(f"not an identifier: {identifier!r}")
    return raw


def is_id(text: str) -> bool:
    """Whether a text has the form of an identifier."""
    return _FORM.fullmatch(text) is not None


def new_id() -> str:
    """A random identifier."""
    return id_of_bytes(random_bytes(ID_BYTES))


def random_bytes(count: int) -> bytes:
    """Random bytes that nobody can guess.

    From OpenSSL's generator: the kernel's gives up the interpreter while it answers, and where threads of
    the database's driver wait for that, an event loop gets it back much later.
    """
    return ssl.RAND_bytes(count)


def derived_id(*parts: str) -> str:
    """The identifier that the parts determine.

    What a request creates is named by the request itself, so that its repeat finds it by the primary key.
    """
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return id_of_bytes(digest[:ID_BYTES])
