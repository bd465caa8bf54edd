"""Who calls: only a whole token of a known key, for us, in time, with all that its role needs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chassis.errors import Unauthenticated
from chassis.rpc import client, identity
from chassis.rpc.identity import KeySet, TokenVerifier
from daogou.common.v1.access_pb2 import Role

OURS, OTHERS = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
BRAND = "abcdefghijklmnop"


def public(kid: str, key: Ed25519PrivateKey) -> dict[str, Any]:
    """A key as a JSON Web Key Set has it."""
    return {**jwt.algorithms.OKPAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": kid}


def write_keys(path: Path, *keys: dict[str, Any]) -> None:
    """Replaces the file, as a mounted secret is replaced: at once, and later than it was written before."""
    before_ns = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(json.dumps({"keys": keys}), encoding="ascii")
    os.utime(path, ns=(before_ns + 10**9, before_ns + 10**9))


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    write_keys(path, public("k1", OURS))
    return path


@pytest.fixture
def verifier(keys_file: Path) -> TokenVerifier:
    return TokenVerifier(KeySet(keys_file), "daogou", cached_max=3)


def token(key: Any = OURS, kid: str | None = "k1", algorithm: str = "EdDSA", **claims: Any) -> str:
    """A token of a connector, with some claims set otherwise; None leaves a claim out."""
    good = {
        "sub": "pos",
        "aud": "daogou",
        "exp": int(time.time()) + 300,
        "role": "CONNECTOR",
        "brand_id": BRAND,
    }
    whole: dict[str, Any] = {name: value for name, value in {**good, **claims}.items() if value is not None}
    return jwt.encode(whole, key, algorithm=algorithm, headers={"kid": kid} if kid else None)


def refusal(verifier: TokenVerifier, text: str) -> str:
    """Why a token is refused."""
    with pytest.raises(Unauthenticated) as error:
        verifier.claims_of(text)
    return error.value.reason


def test_a_good_token_says_who_calls(verifier: TokenVerifier) -> None:
    """Subject, role and tenant; the same when it comes again."""
    text = token()
    for _ in range(2):
        claims = verifier.claims_of(text)
        assert (claims.subject, claims.role, claims.brand_id) == ("pos", Role.ROLE_CONNECTOR, BRAND)
        assert (claims.store_id, claims.guide_id) == ("", "")


@pytest.mark.parametrize(
    "made",
    [
        lambda: token(key=OTHERS),
        lambda: token(kid="k9"),
        lambda: token(kid=None),
        lambda: token(aud="another"),
        lambda: token(aud=None),
        lambda: token(sub=None),
        lambda: token(exp=None),
        lambda: token(exp="tomorrow"),
        lambda: token(role=None),
        lambda: token(role=""),
        lambda: token(role="UNSPECIFIED"),
        lambda: token(role="ROLE_PLATFORM"),
        lambda: token(role="platform"),
        lambda: token(role="ROOT"),
        lambda: token(role=1),
        lambda: token(role=["PLATFORM"]),
        lambda: token(brand_id=None),
        lambda: token(brand_id=""),
        lambda: token(brand_id=7),
        lambda: token(brand_id=[BRAND]),
        lambda: token(nbf=int(time.time()) + 3600),
        lambda: "",
        lambda: "x",
        lambda: "a.b.c",
        lambda: "..",
        lambda: "日本",
        lambda: token()[:-1],
        lambda: token() + "x",
        lambda: token().rsplit(".", 1)[0] + ".",
    ],
)
def test_any_other_token_is_invalid(verifier: TokenVerifier, made: Callable[[], str]) -> None:
    """Of another key, for somebody else, without what it must say, or cut."""
    assert refusal(verifier, made()) == "TOKEN_INVALID"


def test_an_unsigned_token_is_invalid(verifier: TokenVerifier) -> None:
    """`alg: none`, with and without our key's name."""
    for kid in ("k1", None):
        assert refusal(verifier, token(key=None, kid=kid, algorithm="none")) == "TOKEN_INVALID"


def test_a_token_signed_with_our_public_key_as_a_secret_is_invalid(verifier: TokenVerifier) -> None:
    """The oldest trick: everybody has the public key."""
    raw = base64.urlsafe_b64decode(public("k1", OURS)["x"] + "=")

    def part(content: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(orjson.dumps(content)).rstrip(b"=").decode()

    claims = {"sub": "x", "aud": "daogou", "exp": int(time.time()) + 300, "role": "PLATFORM"}
    signed = f"{part({'alg': 'HS256', 'kid': 'k1', 'typ': 'JWT'})}.{part(claims)}"
    mac = hmac.digest(raw, signed.encode(), hashlib.sha256)
    text = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
    assert refusal(verifier, text) == "TOKEN_INVALID"


def test_a_token_of_another_algorithm_than_its_keys_is_invalid(verifier: TokenVerifier) -> None:
    """An RSA signature under the name of an Ed25519 key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert refusal(verifier, token(key=key, algorithm="RS256")) == "TOKEN_INVALID"


def test_an_rsa_token_is_as_good(keys_file: Path) -> None:
    """Most identity providers sign so."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    found = {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": "rsa"}
    write_keys(keys_file, found)
    verifier = TokenVerifier(KeySet(keys_file), "daogou")
    assert verifier.claims_of(token(key=key, kid="rsa", algorithm="RS256")).subject == "pos"


def test_an_expired_token_is_told_so(verifier: TokenVerifier) -> None:
    """The caller then fetches another; at once, without asking a person."""
    assert refusal(verifier, token(exp=int(time.time()) - 1)) == "TOKEN_EXPIRED"


def test_a_remembered_token_expires_too(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the second that it says."""
    expires = int(time.time()) + 300
    text = token(exp=expires)
    verifier.claims_of(text)
    monkeypatch.setattr(time, "time", lambda: expires - 0.001)
    assert verifier.claims_of(text).subject == "pos"
    monkeypatch.setattr(time, "time", lambda: float(expires))
    assert refusal(verifier, text) == "TOKEN_EXPIRED"


def test_a_token_of_a_machine_whose_clock_is_a_little_ahead_is_good(verifier: TokenVerifier) -> None:
    """Clocks of a cluster differ; a token made just now must not be refused because of that."""
    assert verifier.claims_of(token(iat=int(time.time()) + 2)).subject == "pos"
    assert verifier.claims_of(token(nbf=int(time.time()) + 2)).subject == "pos"


@pytest.mark.parametrize(
    ("role", "needs"),
    [
        ("PLATFORM", set()),
        ("SERVICE", set()),
        ("CONNECTOR", {"brand_id"}),
        ("BRAND_ADMIN", {"brand_id"}),
        ("REGION_MANAGER", {"brand_id", "region_id"}),
        ("STORE_MANAGER", {"brand_id", "store_id"}),
        ("GUIDE", {"brand_id", "store_id", "guide_id"}),
        ("DOOR", {"brand_id"}),
        ("BOX", {"brand_id"}),
    ],
)
def test_a_role_needs_its_claims(verifier: TokenVerifier, role: str, needs: set[str]) -> None:
    """A guide without a store would match a request without one."""
    whole: dict[str, Any] = {
        name: BRAND if name in needs else None for name in ("brand_id", "region_id", "store_id", "guide_id")
    }
    assert verifier.claims_of(token(role=role, **whole)).role == Role.Value(f"ROLE_{role}")
    for missing in needs:
        for value in (None, ""):
            assert refusal(verifier, token(role=role, **{**whole, missing: value})) == "TOKEN_INVALID"


def test_no_more_tokens_are_remembered_than_the_limit(verifier: TokenVerifier) -> None:
    """Whoever sends ever new tokens fills no memory."""
    for number in range(10):
        verifier.claims_of(token(sub=f"pos-{number}"))
    assert len(verifier._cache) == 3


def test_a_token_that_is_used_stays_remembered(verifier: TokenVerifier, keys_file: Path) -> None:
    """The one that was not used for longest goes first: the busy ones need no signature checked again."""
    busy, idle = token(sub="busy"), token(sub="idle")
    verifier.claims_of(busy)
    verifier.claims_of(idle)
    for number in range(4):
        verifier.claims_of(token(sub=f"pos-{number}"))
        verifier.claims_of(busy)
    assert busy in verifier._cache
    assert idle not in verifier._cache


def test_keys_are_rotated_by_replacing_the_file(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new key counts within seconds, and so does the end of an old one for tokens not seen before."""
    verifier = TokenVerifier(KeySet(keys_file), "daogou")
    new = token(key=OTHERS, kid="k2")
    assert refusal(verifier, new) == "TOKEN_INVALID"
    write_keys(keys_file, public("k2", OTHERS))
    monkeypatch.setattr(identity, "_LOOK_AT_FILE_EVERY_S", -1.0)
    assert verifier.claims_of(new).subject == "pos"
    assert refusal(verifier, token()) == "TOKEN_INVALID"


@pytest.mark.parametrize("broken", ["", "{", "[]", '{"keys": []}', '{"keys": [{"kty": "?"}]}', None])
def test_a_broken_key_file_locks_nobody_out(
    keys_file: Path, monkeypatch: pytest.MonkeyPatch, broken: str | None
) -> None:
    """While it is half-written or missing the keys of before hold."""
    verifier = TokenVerifier(KeySet(keys_file), "daogou")
    monkeypatch.setattr(identity, "_LOOK_AT_FILE_EVERY_S", -1.0)
    if broken is None:
        keys_file.unlink()
    else:
        keys_file.write_text(broken, encoding="ascii")
    assert verifier.claims_of(token()).subject == "pos"
    assert refusal(verifier, token(key=OTHERS, kid="k2")) == "TOKEN_INVALID"


def test_a_services_own_token_is_good_and_is_kept_until_it_is_old(
    keys_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five minutes, renewed a minute before: no call goes out with a token that ends under way."""
    private = {**jwt.algorithms.OKPAlgorithm.to_jwk(OURS, as_dict=True), "kid": "k1"}
    key_file = tmp_path / "service.json"
    key_file.write_text(json.dumps(private), encoding="ascii")
    own = client.ServiceToken(key_file, "svc_commission", "daogou")
    verifier = TokenVerifier(KeySet(keys_file), "daogou")
    first, begun = own(), time.time()
    claims = verifier.claims_of(first)
    assert (claims.subject, claims.role, claims.brand_id) == ("svc_commission", Role.ROLE_SERVICE, "")
    for after_s, same in [(200, True), (239, True), (241, False), (1000, False)]:
        monkeypatch.setattr(time, "time", lambda moment=begun + after_s: moment)
        text = own()
        assert (text == first) == same
        remaining_s = jwt.decode(text, options={"verify_signature": False})["exp"] - time.time()
        assert remaining_s > 58
