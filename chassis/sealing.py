"""Sealing of personal data: AES-256-GCM for the value, HMAC-SHA256 for finding it without reading it.

Keys come from one JSON file: `{"current": kid, "keys": {kid: base64url of 32 bytes}, "index": base64url of
32 bytes}`. New values are sealed under `current`; older keys still open what was sealed under them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import orjson
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from chassis.ids import random_bytes

_NONCE_BYTES = 12


def key_bytes(text: str) -> bytes:
    """A 256-bit key from base64url, with or without padding. Raises: ValueError for any other length."""
    key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if len(key) != 32:
        raise ValueError(f"a key must have 32 bytes, not {len(key)}")
    return key


@dataclass(frozen=True)
class KeyRing:
    """Named 256-bit keys, one of them current. Read from the JSON form above."""

    current: str
    keys: dict[str, bytes]

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Raises: ValueError, naming the file, when it is not of the form."""
        try:
            read = orjson.loads(path.read_bytes())
            keys = {kid: key_bytes(text) for kid, text in read["keys"].items()}
            ring = cls(current=read["current"], keys=keys)
            keys[ring.current]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"{path} is no key file: {type(error).__name__} {error}") from None
        return ring


class Sealer:
    """Seals and opens values, and makes the blind index under which they are found."""

    def __init__(self, ring: KeyRing, index_key: bytes) -> None:
        self._current = ring.current
        self._ciphers = {kid: AESGCM(key) for kid, key in ring.keys.items()}
        self._keyed = hmac.new(index_key, digestmod=hashlib.sha256)

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Raises: ValueError, naming the file, when it is not of the form."""
        ring = KeyRing.from_file(path)
        try:
            return cls(ring, key_bytes(orjson.loads(path.read_bytes())["index"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} has no usable index key: {type(error).__name__} {error}") from None

    def sealed(self, value: bytes, context: str) -> bytes:
        """The value encrypted, bound to its context: it opens under the same context alone."""
        nonce = random_bytes(_NONCE_BYTES)
        kid = self._current.encode()
        cipher = self._ciphers[self._current].encrypt(nonce, value, context.encode())
        return bytes([len(kid)]) + kid + nonce + cipher

    def opened(self, sealed: bytes, context: str) -> bytes:
        """The value. Raises: cryptography.exceptions.InvalidTag, KeyError for a key that is gone."""
        start = 1 + sealed[0]
        kid = sealed[1:start].decode()
        nonce, cipher = sealed[start : start + _NONCE_BYTES], sealed[start + _NONCE_BYTES :]
        return self._ciphers[kid].decrypt(nonce, cipher, context.encode())

    def blind_index(self, value: str) -> str:
        """Where the value is found: 43 URL-safe characters that only holders of the key can compute."""
        return base64.urlsafe_b64encode(self.digest(value.encode())).rstrip(b"=").decode()

    def digest(self, content: bytes) -> bytes:
        """A hash of 32 bytes by which equal content is recognised, and from which nothing can be guessed."""
        # A copy of what was begun with the key costs half of beginning anew.
        keyed = self._keyed.copy()
        keyed.update(content)
        return keyed.digest()
