"""Who may call what: as the method's option says, and nobody where it says nothing."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from chassis.errors import Denied
from chassis.rpc import access
from chassis.rpc.call import Claims
from daogou.common.v1 import access_pb2
from daogou.common.v1.access_pb2 import Role, Scope
from daogou.members.v1 import directory_pb2 as pb
from tests.messages import every_method

MINE, OTHERS = "a" * 16, "b" * 16


def method(name: str) -> MethodDescriptor:
    """A method of the directory."""
    service = pb.DESCRIPTOR.services_by_name["DirectoryService"]
    found: MethodDescriptor = service.methods_by_name[name]
    return found


def claims(role: str, *, guide_id: str = "", store_id: str = "", region_id: str = "") -> Claims:
    """A caller of our brand."""
    tenantless = role in {"PLATFORM", "SERVICE"}
    return Claims(
        subject="caller",
        role=Role.Value(f"ROLE_{role}"),
        brand_id="" if tenantless else MINE,
        store_id=store_id,
        guide_id=guide_id,
        region_id=region_id,
        expire_time_s=0.0,
    )


def refusal(name: str, caller: Claims, request: Message) -> str:
    """Why a caller is refused; empty: he is not."""
    rule = access.rule_of(method(name))
    assert rule is not None
    try:
        access.check(rule, caller, request)
    except Denied as error:
        return error.reason
    return ""


def test_only_the_named_roles_may_call() -> None:
    """Brands are opened by the operator."""
    request = pb.CreateBrandRequest()
    for role in sorted(dict(Role.items())):
        if role not in {"ROLE_UNSPECIFIED", "ROLE_PLATFORM"}:
            assert refusal("CreateBrand", claims(role.removeprefix("ROLE_")), request) == "ROLE_NOT_ADMITTED"
    assert refusal("CreateBrand", claims("PLATFORM"), request) == ""


def test_a_brands_callers_reach_their_own_brand_alone() -> None:
    """Also with a request that names none. The operator and our services may name any."""
    for brand_id, wanted in [(MINE, ""), (OTHERS, "NOT_YOUR_BRAND"), ("", "NOT_YOUR_BRAND")]:
        request = pb.GetBrandRequest(brand_id=brand_id)
        for role in ("CONNECTOR", "BRAND_ADMIN"):
            assert refusal("GetBrand", claims(role), request) == wanted
        assert refusal("GetBrand", claims("SERVICE"), request) == ""


def test_a_store_manager_reaches_his_own_store_alone() -> None:
    """The admin of the brand reaches all of them."""
    manager = claims("STORE_MANAGER", store_id=MINE)
    for store_id, wanted in [(MINE, ""), (OTHERS, "NOT_YOUR_STORE"), ("", "NOT_YOUR_STORE")]:
        request = pb.ListGuidesRequest(brand_id=MINE, store_id=store_id)
        assert refusal("ListGuides", manager, request) == wanted
        assert refusal("ListGuides", claims("BRAND_ADMIN"), request) == ""


def test_a_guide_reaches_herself_alone_wherever_she_works_now() -> None:
    """After a move to another store she still reads what is hers."""
    guide = claims("GUIDE", guide_id=MINE, store_id=OTHERS)
    for guide_id, wanted in [(MINE, ""), (OTHERS, "NOT_YOURS"), ("", "NOT_YOURS")]:
        assert refusal("GetGuide", guide, pb.GetGuideRequest(brand_id=MINE, guide_id=guide_id)) == wanted
    assert refusal("GetGuide", guide, pb.GetGuideRequest(brand_id=OTHERS, guide_id=MINE)) == "NOT_YOUR_BRAND"


def test_every_method_has_a_rule_that_can_be_enforced() -> None:
    """A new RPC without one would be found here before it is found by a caller."""
    for one in every_method():
        rule = access.rule_of(one)
        assert rule is not None, f"{one.full_name} admits nobody"
        assert rule.matched, f"{one.full_name} names no role"


def made(name: str, roles: list[str], scope: str, *fields: str, option: bool = True) -> MethodDescriptor:
    """A method with an option of our making, on a request with some fields."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"tests/{name}.proto",
        package=f"tests.{name}",
        syntax="proto3",
        dependency=["daogou/common/v1/access.proto"],
    )
    request = file.message_type.add(name="Request")
    for number, field in enumerate(fields, start=1):
        request.field.add(name=field, number=number, type=9, label=1)
    added = file.service.add(name="Service").method.add(
        name="Call", input_type=f".tests.{name}.Request", output_type=f".tests.{name}.Request"
    )
    if option:
        found = added.options.Extensions[access_pb2.access]
        found.scope = Scope.Value(scope)
        found.roles.extend(Role.Value(f"ROLE_{role}") for role in roles)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    call: MethodDescriptor = pool.FindMethodByName(f"tests.{name}.Service.Call")
    return call


def test_a_method_without_an_option_has_no_rule() -> None:
    """Which is how the server knows to refuse everybody."""
    assert access.rule_of(made("without", [], "SCOPE_BRAND", "brand_id", option=False)) is None


@pytest.mark.parametrize(
    ("name", "roles", "scope", "fields"),
    [
        ("unscoped", ["PLATFORM"], "SCOPE_UNSPECIFIED", ["brand_id"]),
        ("tenants_everywhere", ["CONNECTOR"], "SCOPE_PLATFORM", ["brand_id"]),
        ("no_brand", ["CONNECTOR"], "SCOPE_BRAND", ["store_id"]),
        ("no_brand_for_services", ["SERVICE"], "SCOPE_BRAND", ["store_id"]),
        ("no_store", ["STORE_MANAGER"], "SCOPE_STORE", ["brand_id"]),
        ("no_region", ["REGION_MANAGER"], "SCOPE_STORE", ["brand_id", "store_id"]),
        ("no_guide", ["GUIDE"], "SCOPE_GUIDE", ["brand_id", "store_id"]),
    ],
)
def test_an_option_that_cannot_be_enforced_stops_the_service_at_its_start(
    name: str, roles: list[str], scope: str, fields: list[str]
) -> None:
    """Not when the first foreign brand is read."""
    with pytest.raises(ValueError, match=f"tests.{name}.Service.Call"):
        access.rule_of(made(name, roles, scope, *fields))
