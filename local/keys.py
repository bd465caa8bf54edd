"""Keys for one machine, made once and kept in a folder: what a Secret holds in production.

`issuer.jwk.json` signs the tokens of local/token.py, `service.jwk.json` those of services among themselves;
`jwks.json` has the public halves of both. `pii_keys.json` and `guide_code_keys.json` hold 256-bit keys.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

Json = dict[str, Any]


@dataclass(frozen=True)
class LocalKeys:
    """The files of one folder, which only its owner may read."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Self:
        """The keys of this folder; those that are missing are made. Processes that do so at once agree.

        Raises: OSError when the folder cannot be written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        keys = cls(folder)
        _keep(keys.issuer_file, lambda: _private_jwk("issuer"))
        _keep(keys.service_file, lambda: _private_jwk("service"))
        _keep(keys.pii_file, lambda: {**_key_ring(), "index": _random_key()})
        _keep(keys.guide_code_file, _key_ring)
        public = [_public(_read(file)) for file in (keys.issuer_file, keys.service_file)]
        if not keys.jwks_file.exists() or _read(keys.jwks_file) != {"keys": public}:
            _write_new(folder, {"keys": public}).replace(keys.jwks_file)
        return keys

    @property
    def issuer_file(self) -> Path:
        """Private JSON Web Key that signs the tokens of callers."""
        return self.folder / "issuer.jwk.json"

    @property
    def service_file(self) -> Path:
        """Private JSON Web Key that signs the tokens of services."""
        return self.folder / "service.jwk.json"

    @property
    def jwks_file(self) -> Path:
        """Public keys of both, as services read them."""
        return self.folder / "jwks.json"

    @property
    def pii_file(self) -> Path:
        """Keys that seal personal data, and the one that indexes it blindly."""
        return self.folder / "pii_keys.json"

    @property
    def guide_code_file(self) -> Path:
        """Keys that sign guides' QR codes."""
        return self.folder / "guide_code_keys.json"

    def issuer(self) -> Json:
        """The private JSON Web Key in `issuer_file`."""
        return _read(self.issuer_file)


def _keep(file: Path, make: Callable[[], Json]) -> None:
    """Write `file` whole, unless it or another process's is there."""
    if file.exists():
        return
    new = _write_new(file.parent, make())
    try:
        os.link(new, file)  # unlike a rename, refuses to replace what another process made meanwhile
    except FileExistsError:
        pass
    finally:
        new.unlink()


def _write_new(folder: Path, content: Json) -> Path:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")  # mode 0600
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        json.dump(content, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(descriptor)
    return Path(name)


def _read(file: Path) -> Json:
    content: Json = json.loads(file.read_text(encoding="ascii"))
    return content


def _private_jwk(purpose: str) -> Json:
    key = Ed25519PrivateKey.generate()
    public = _base64url(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    private = _base64url(key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption()))
    kid = f"local-{purpose}-{hashlib.sha256(public.encode()).hexdigest()[:8]}"
    return {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": public,
        "d": private,
        "kid": kid,
        "use": "sig",
        "alg": "EdDSA",
    }


def _public(jwk: Json) -> Json:
    return {name: value for name, value in jwk.items() if name != "d"}


def _key_ring() -> Json:
    return {"current": "1", "keys": {"1": _random_key()}}


def _random_key() -> str:
    return _base64url(secrets.token_bytes(32))


def _base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")
