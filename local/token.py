"""Prints a token for the services that `./daogou up` started: `./daogou token --role ROLE`.

`mint` makes tokens for the demo and the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import jwt

from daogou.common.v1.access_pb2 import Role
from local.keys import LocalKeys

ISSUER: Final = "daogou-local"
AUDIENCE: Final = "daogou"
ROLES: Final = tuple(role.name.removeprefix("ROLE_") for role in Role.DESCRIPTOR.values if role.number)
_UP_KEYS: Final = Path(__file__).resolve().parent.parent / ".daogou" / "up" / "keys"
_TTL_HOURS_MAX: Final = 24 * 366
_TENANTLESS: Final = ("PLATFORM", "SERVICE")


def mint(
    keys: LocalKeys,
    role: str,
    *,
    brand: str = "",
    region: str = "",
    store: str = "",
    guide: str = "",
    subject: str = "",
    ttl_s: float = 12 * 3600,
) -> str:
    """A signed token. `role` in any case; `subject` defaults to local- and the role. Lives `ttl_s` seconds.

    Raises: ValueError that names every mistake, one a line.
    """
    role = role.upper()
    if mistakes := _mistakes(role, brand, region, store, guide, ttl_s):
        raise ValueError("\n".join(mistakes))
    jwk = keys.issuer()
    now = int(time.time())
    claims: dict[str, str | int] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject or f"local-{role.lower()}",
        "iat": now,
        "exp": now + int(ttl_s),
        "role": role,
    }
    scope = {"brand_id": brand, "region_id": region, "store_id": store, "guide_id": guide}
    claims.update({name: value for name, value in scope.items() if value})
    return jwt.encode(claims, jwt.PyJWK(jwk).key, algorithm="EdDSA", headers={"kid": jwk["kid"]})


def _mistakes(role: str, brand: str, region: str, store: str, guide: str, ttl_s: float) -> list[str]:
    """In words, in terms of the command line's options."""
    said = []
    if role not in ROLES:
        said.append(f"--role {role} is none of {' '.join(ROLES)}")
    elif role not in _TENANTLESS and not brand:
        said.append(f"--role {role} requires --brand")
    if role == "REGION_MANAGER" and not region:
        said.append(f"--role {role} requires --region")
    if role in {"STORE_MANAGER", "GUIDE"} and not store:
        said.append(f"--role {role} requires --store")
    if role == "GUIDE" and not guide:
        said.append(f"--role {role} requires --guide")
    if not 0 < ttl_s <= _TTL_HOURS_MAX * 3600:
        said.append(f"--ttl-hours must be above 0 and at most {_TTL_HOURS_MAX}")
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the token and nothing else on standard output. 2 and all mistakes on standard error otherwise."""
    parser = argparse.ArgumentParser(
        prog="./daogou token", description="Print a token for the services that ./daogou up started."
    )
    parser.add_argument("--role", required=True, help=f"one of {' '.join(ROLES)}, in any case")
    parser.add_argument("--brand", default="", help="brand id; required but for PLATFORM and SERVICE")
    parser.add_argument("--region", default="", help="region id; required for REGION_MANAGER")
    parser.add_argument("--store", default="", help="store id; required for STORE_MANAGER and GUIDE")
    parser.add_argument("--guide", default="", help="guide id; required for GUIDE")
    parser.add_argument("--subject", default="", help="who calls, as audit records show it")
    parser.add_argument("--ttl-hours", type=float, default=12.0, help="lifetime in hours (default 12)")
    given = parser.parse_args(arguments)
    try:
        token = mint(
            LocalKeys.made(_UP_KEYS),
            given.role,
            brand=given.brand,
            region=given.region,
            store=given.store,
            guide=given.guide,
            subject=given.subject,
            ttl_s=given.ttl_hours * 3600,
        )
    except ValueError as error:
        for mistake in str(error).splitlines():
            print(f"token: {mistake}", file=sys.stderr)
        return 2
    print(token)
    return 0


if __name__ == "__main__":
    sys.exit(main())
