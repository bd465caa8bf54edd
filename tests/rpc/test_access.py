"""Who may call what: every RPC × every role × every way of being somebody else, from the descriptors alone.

An RPC written later is covered the day it is written. What is expected is computed here from the contract's
option, not by `chassis.rpc.access`.
"""

from __future__ import annotations

import base64
import itertools
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from chassis.ids import new_id
from chassis.rpc.status import from_rpc_error
from daogou.common.v1 import access_pb2
from daogou.common.v1.access_pb2 import Access, Role, Scope
from local import token
from tests.messages import Accepted, every_method, service_of
from tests.rpc.running import Metadata, Running, sent
from tests.rpc.world import World

ROLES: Final = [value.number for value in Role.DESCRIPTOR.values if value.number]
TENANTLESS: Final = {Role.ROLE_PLATFORM, Role.ROLE_SERVICE}
METHODS: Final = every_method()
NAMES: Final = [method.full_name.removeprefix("daogou.") for method in METHODS]


def access_of(method: MethodDescriptor) -> Access:
    """What the contract says of the method."""
    found: Access = method.GetOptions().Extensions[access_pb2.access]
    return found


def expected(access: Access, role: int, mine: Mapping[str, str], request: Message) -> str | None:
    """The reason of the refusal, or None: admitted. Word for word what access.proto says."""
    if role not in access.roles:
        return "ROLE_NOT_ADMITTED"
    if role in TENANTLESS:
        return None
    asked = {name: getattr(request, name, "") for name in mine}
    if asked["brand_id"] != mine["brand_id"]:
        return "NOT_YOUR_BRAND"
    in_region = access.scope in {Scope.SCOPE_STORE, Scope.SCOPE_GUIDE}
    if in_region and role == Role.ROLE_REGION_MANAGER and asked["region_id"] != mine["region_id"]:
        return "NOT_YOUR_REGION"
    of_store = access.scope == Scope.SCOPE_STORE and role in {Role.ROLE_STORE_MANAGER, Role.ROLE_GUIDE}
    of_store = of_store or (access.scope == Scope.SCOPE_GUIDE and role == Role.ROLE_STORE_MANAGER)
    if of_store and asked["store_id"] != mine["store_id"]:
        return "NOT_YOUR_STORE"
    if (
        access.scope == Scope.SCOPE_GUIDE
        and role == Role.ROLE_GUIDE
        and asked["guide_id"] != mine["guide_id"]
    ):
        return "NOT_YOURS"
    return None


async def answer(
    channel: grpc.aio.Channel, method: MethodDescriptor, request: Message, metadata: Metadata
) -> tuple[grpc.StatusCode, str]:
    """The status of a call, of whatever cardinality, and the reason in it."""
    try:
        await sent(channel, method, request.SerializeToString(), metadata)
    except grpc.aio.AioRpcError as error:
        said = from_rpc_error(error)
        return error.code(), said.reason if said else f"no reason: {error.details()}"
    return grpc.StatusCode.OK, ""


def bearer(text: str) -> Metadata:
    """A token as callers bring it."""
    return (("authorization", f"Bearer {text}"),)


def ids_of(world: World) -> dict[str, str]:
    """What a caller may call his own."""
    return {
        "brand_id": world.brand_id,
        "region_id": world.region_id,
        "store_id": world.nanjing_road,
        "guide_id": world.guides[0],
    }


def requests_of(
    method: MethodDescriptor, world: World, other: Mapping[str, str]
) -> Iterator[tuple[str, Message]]:
    """The least acceptable request about one's own, and with each id, or all of them, another's."""
    mine = ids_of(world)
    named = [name for name in mine if name in method.input_type.fields_by_name]
    for count in range(len(named) + 1):
        for changed in itertools.combinations(named, count):
            values = {**mine, **{name: other[name] for name in changed}}
            choices = {name: [value] for name, value in values.items()}
            accepted = Accepted({**choices, "member_id": [world.member_id]}, now=world.running.now())
            label = f"another's {'+'.join(changed)}" if changed else "one's own"
            yield label, accepted.message(method.input_type)


def test_every_method_says_who_may_call_it() -> None:
    assert METHODS
    silent = [
        method.full_name for method in METHODS if not method.GetOptions().HasExtension(access_pb2.access)
    ]
    assert not silent, f"nobody may call these, for want of an option: {silent}"
    pointless = [method.full_name for method in METHODS if not access_of(method).roles]
    assert not pointless, f"these admit nobody: {pointless}"


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_roles_reach_what_the_contract_says_and_no_further(
    method: MethodDescriptor, running: Running, world: World, other: Mapping[str, str]
) -> None:
    access, mine = access_of(method), ids_of(world)
    channel = running.plain(service_of(method))
    wrong = []
    for role in ROLES:
        ids = {} if role in TENANTLESS else {"brand": mine["brand_id"]}
        if role == Role.ROLE_REGION_MANAGER:
            ids["region"] = mine["region_id"]
        if role in {Role.ROLE_STORE_MANAGER, Role.ROLE_GUIDE}:
            ids["store"] = mine["store_id"]
        if role == Role.ROLE_GUIDE:
            ids["guide"] = mine["guide_id"]
        name = Role.Name(Role.ValueType(role)).removeprefix("ROLE_")
        caller = running.caller(name, **ids)
        for about, request in requests_of(method, world, other):
            code, reason = await answer(channel, method, request, caller.metadata)
            refused = expected(access, role, mine, request)
            if refused is None:
                good = code not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
                # Admitted is no licence to fall over.
                good = good and code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
            else:
                good = (code, reason) == (grpc.StatusCode.PERMISSION_DENIED, refused)
            if not good:
                wrong.append(f"{name} about {about}: {code.name} {reason}, expected {refused or 'admitted'}")
    assert not wrong, "\n".join(wrong)


@pytest.fixture(scope="module")
def other(running: Running) -> dict[str, str]:
    """Somebody else's ids. They need not exist: a caller is turned away before anything is looked up."""
    return {name: new_id() for name in ("brand_id", "region_id", "store_id", "guide_id")}


def _signed(world: World, *, key: Any = None, kid: str | None = None, **changed: Any) -> str:
    """A token that is good but for what is changed. None leaves a claim out."""
    issuer = world.running.stack.keys.issuer()
    claims = {
        "iss": token.ISSUER,
        "aud": token.AUDIENCE,
        "sub": "somebody",
        "exp": int(time.time()) + 600,
        "role": "BRAND_ADMIN",
        "brand_id": world.brand_id,
        "store_id": world.nanjing_road,
        "guide_id": world.guides[0],
    }
    claims = {name: value for name, value in {**claims, **changed}.items() if value is not None}
    return jwt.encode(
        claims,
        key or jwt.PyJWK(issuer).key,
        algorithm="EdDSA",
        headers={"kid": issuer["kid"] if kid is None else kid},
    )


def _unsigned(world: World, algorithm: str) -> str:
    """The claims of a good token under a header that asks for no signature, or for a public key's HMAC."""
    parts = _signed(world).split(".")
    header = {"alg": algorithm, "typ": "JWT", "kid": world.running.stack.keys.issuer()["kid"]}
    parts[0] = base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()
    return ".".join([*parts[:2], "" if algorithm == "none" else parts[2]])


_PAST = int(time.time()) - 5
UNKNOWN_CALLERS: Final[Mapping[str, tuple[str, Callable[[World], Metadata]]]] = {
    "no token": ("TOKEN_MISSING", lambda _: ()),
    "an empty header": ("TOKEN_MISSING", lambda _: (("authorization", ""),)),
    "a password": ("TOKEN_MISSING", lambda _: (("authorization", "Basic YWRtaW46YWRtaW4="),)),
    "an empty token": ("TOKEN_INVALID", lambda _: bearer("")),
    "garbage": ("TOKEN_INVALID", lambda _: bearer("garbage")),
    "dotted garbage": ("TOKEN_INVALID", lambda _: bearer("e30.e30.e30")),
    "long garbage": ("TOKEN_INVALID", lambda _: bearer("x" * 5000)),
    "an expired token": ("TOKEN_EXPIRED", lambda world: bearer(_signed(world, exp=_PAST))),
    "another's key": (
        "TOKEN_INVALID",
        lambda world: bearer(_signed(world, key=Ed25519PrivateKey.generate())),
    ),
    "an unknown key id": ("TOKEN_INVALID", lambda world: bearer(_signed(world, kid="nobody"))),
    "another audience": ("TOKEN_INVALID", lambda world: bearer(_signed(world, aud="elsewhere"))),
    "no audience": ("TOKEN_INVALID", lambda world: bearer(_signed(world, aud=None))),
    "no expiry": ("TOKEN_INVALID", lambda world: bearer(_signed(world, exp=None))),
    "no subject": ("TOKEN_INVALID", lambda world: bearer(_signed(world, sub=None))),
    "not valid yet": ("TOKEN_INVALID", lambda world: bearer(_signed(world, nbf=_PAST + 3600))),
    "no role": ("TOKEN_INVALID", lambda world: bearer(_signed(world, role=None))),
    "an unknown role": ("TOKEN_INVALID", lambda world: bearer(_signed(world, role="OWNER"))),
    "the role nobody has": ("TOKEN_INVALID", lambda world: bearer(_signed(world, role="UNSPECIFIED"))),
    "a role that is a number": ("TOKEN_INVALID", lambda world: bearer(_signed(world, role=1))),
    "a brand role without brand": ("TOKEN_INVALID", lambda world: bearer(_signed(world, brand_id=None))),
    "a guide without guide id": (
        "TOKEN_INVALID",
        lambda world: bearer(_signed(world, role="GUIDE", guide_id=None)),
    ),
    "a manager without store": (
        "TOKEN_INVALID",
        lambda world: bearer(_signed(world, role="STORE_MANAGER", store_id=None)),
    ),
    "a region manager without region": (
        "TOKEN_INVALID",
        lambda world: bearer(_signed(world, role="REGION_MANAGER")),
    ),
    "no signature": ("TOKEN_INVALID", lambda world: bearer(_unsigned(world, "none"))),
    "a symmetric signature": ("TOKEN_INVALID", lambda world: bearer(_unsigned(world, "HS256"))),
    "a changed claim": ("TOKEN_INVALID", lambda world: bearer(_with_claim_changed(_signed(world)))),
}


def _with_claim_changed(signed: str) -> str:
    header, payload, signature = signed.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    claims["role"] = "PLATFORM"
    changed = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{header}.{changed}.{signature}"


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
async def test_nobody_gets_in_without_a_good_token(
    method: MethodDescriptor, running: Running, world: World, other: Mapping[str, str]
) -> None:
    [(_, request), *_] = requests_of(method, world, other)
    channel = running.plain(service_of(method))
    wrong = []
    for who, (reason, metadata) in UNKNOWN_CALLERS.items():
        found = await answer(channel, method, request, metadata(world))
        if found != (grpc.StatusCode.UNAUTHENTICATED, reason):
            wrong.append(f"{who}: {found[0].name} {found[1]}, expected UNAUTHENTICATED {reason}")
    assert not wrong, "\n".join(wrong)


async def test_a_token_that_expires_between_two_calls_is_refused_the_second_time(
    running: Running, world: World
) -> None:
    """Verified tokens are remembered; their expiry must be looked at all the same."""
    method = next(method for method in METHODS if method.name == "GetBrand")
    [(_, request), *_] = requests_of(method, world, {"brand_id": new_id()})
    expires_s = int(time.time()) + 2
    metadata = bearer(_signed(world, exp=expires_s))
    channel = running.plain("members")
    assert (await answer(channel, method, request, metadata))[0] is grpc.StatusCode.OK
    while True:
        code, reason = await answer(channel, method, request, metadata)
        if code is not grpc.StatusCode.OK:
            break
        assert time.time() < expires_s + 1, "still admitted after its expiry"
    assert time.time() >= expires_s
    assert (code, reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


@pytest.mark.parametrize("service", ["members", "commission", "embedder"])
async def test_health_is_open_and_unknown_methods_tell_nothing(service: str, running: Running) -> None:
    channel = running.plain(service)
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    reply = await check(health_pb2.HealthCheckRequest(service=""), timeout=5)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    known = next(method for method in METHODS if service_of(method) == service)
    paths = [
        f"/{known.containing_service.full_name}/DropEverything",
        f"/daogou.{service}.v1.AdminService/{known.name}",
        f"/daogou.{service}.v2.{known.containing_service.name}/{known.name}",
        f"/{uuid.uuid4()}",
        "/grpc.channelz.v1.Channelz/GetTopChannels",
        "/",
    ]
    admin = running.caller("PLATFORM")
    for path, metadata in itertools.product(paths, [(), admin.metadata]):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(path, bytes, bytes)(b"", metadata=metadata, timeout=5)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED, path
        assert caught.value.details() == "Method not found!", path
        assert not [key for key, _ in caught.value.trailing_metadata() or () if key != "grpc-message"], path
