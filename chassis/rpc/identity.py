"""Who calls: JSON Web Tokens, verified once and remembered until they expire."""

from __future__ import annotations

import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import jwt

from chassis import logs
from chassis.errors import Unauthenticated
from chassis.rpc.call import Claims
from daogou.common.v1.access_pb2 import Role

ALGORITHMS: Final = ["EdDSA", "RS256"]
TENANTLESS: Final = frozenset({Role.ROLE_PLATFORM, Role.ROLE_SERVICE})
"""Roles that carry no brand and take the tenant from the request."""

_LOOK_AT_FILE_EVERY_S: Final = 5.0
_CLOCKS_DIFFER_S: Final = 10.0
"""A token may have been issued this far ahead of our clock; it ends when it says, by ours."""


class KeySet:
    """Public keys from a JWKS file, by key id; read again when the file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._looked_time_s = time.monotonic()
        self._modified_ns = path.stat().st_mtime_ns
        self._keys = _read(path)

    def key(self, kid: str) -> jwt.PyJWK | None:
        """The key, or None."""
        return self._keys.get(kid)

    def refreshed(self) -> bool:
        """Whether the keys are others than at the last call. Looks at the file at most every few seconds."""
        if time.monotonic() - self._looked_time_s > _LOOK_AT_FILE_EVERY_S:
            self._looked_time_s = time.monotonic()
            try:
                modified_ns = self._path.stat().st_mtime_ns
                if modified_ns != self._modified_ns:
                    self._keys = _read(self._path)
                    self._modified_ns = modified_ns
                    return True
            except (OSError, ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
                # A file that is missing or half-written for a moment locks nobody out.
                logs.logger("identity").warning("jwks_unreadable", error=type(error).__name__)
        return False


def _read(path: Path) -> dict[str, jwt.PyJWK]:
    found = jwt.PyJWKSet.from_json(path.read_text(encoding="utf-8"))
    return {key.key_id: key for key in found.keys if key.key_id is not None}


class TokenVerifier:
    """Turns a bearer token into claims. Verified tokens are kept, least recently used first out."""

    def __init__(self, keys: KeySet, audience: str, *, cached_max: int = 20_000) -> None:
        self._keys = keys
        self._audience = audience
        self._cached_max = cached_max
        self._cache: OrderedDict[str, Claims] = OrderedDict()

    def claims_of(self, token: str) -> Claims:
        """The claims of a valid token.

        Raises: Unauthenticated TOKEN_INVALID, TOKEN_EXPIRED.
        """
        if self._keys.refreshed():
            # A key that was taken out must not live on in what it once signed.
            self._cache.clear()
        claims = self._cache.get(token)
        if claims is None:
            claims = self._verified(token)
            self._cache[token] = claims
            if len(self._cache) > self._cached_max:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(token)
        if claims.expire_time_s <= time.time():
            del self._cache[token]
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired")
        return claims

    def _verified(self, token: str) -> Claims:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = self._keys.key(kid) if isinstance(kid, str) else None
            if key is None:
                raise Unauthenticated("TOKEN_INVALID", "the token is signed with a key that is not known")
            payload = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                audience=self._audience,
                leeway=_CLOCKS_DIFFER_S,
                options={"require": ["exp", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("TOKEN_EXPIRED", "the token has expired") from None
        except jwt.PyJWTError as error:
            raise Unauthenticated(
                "TOKEN_INVALID", f"the token is not valid: {type(error).__name__}"
            ) from None
        return _claims(payload)


def _claims(payload: dict[str, Any]) -> Claims:
    """Raises: Unauthenticated TOKEN_INVALID where claims are missing or of the wrong type."""
    names = ("role", "brand_id", "region_id", "store_id", "guide_id")
    texts = {name: payload.get(name, "") for name in names}
    wrong = [name for name, value in texts.items() if not isinstance(value, str)]
    role = None if wrong else Role.DESCRIPTOR.values_by_name.get(f"ROLE_{texts['role']}")
    if role is None or role.number == Role.ROLE_UNSPECIFIED:
        raise Unauthenticated("TOKEN_INVALID", "the token carries no known role")
    needed = {
        Role.ROLE_REGION_MANAGER: ["brand_id", "region_id"],
        Role.ROLE_STORE_MANAGER: ["brand_id", "store_id"],
        Role.ROLE_GUIDE: ["brand_id", "store_id", "guide_id"],
    }.get(Role.ValueType(role.number), [] if role.number in TENANTLESS else ["brand_id"])
    if missing := [name for name in needed if not texts[name]]:
        raise Unauthenticated("TOKEN_INVALID", f"the token's role needs {', '.join(missing)}")
    return Claims(
        subject=str(payload["sub"]),
        role=Role.ValueType(role.number),
        brand_id=texts["brand_id"],
        store_id=texts["store_id"],
        guide_id=texts["guide_id"],
        region_id=texts["region_id"],
        expire_time_s=float(payload["exp"]),
    )
