"""Who may call what: read from the method option `(daogou.common.v1.access)`, decided without I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from chassis.errors import Denied
from chassis.rpc.call import Claims
from chassis.rpc.identity import TENANTLESS
from daogou.common.v1 import access_pb2
from daogou.common.v1.access_pb2 import Role, Scope

_FOREIGN = {
    "brand_id": ("NOT_YOUR_BRAND", "the request is for another brand than the caller's"),
    "region_id": ("NOT_YOUR_REGION", "the request is for another region than the caller's"),
    "store_id": ("NOT_YOUR_STORE", "the request is for another store than the caller's"),
    "guide_id": ("NOT_YOURS", "the request is for another guide than the caller"),
}


@dataclass(frozen=True, slots=True)
class AccessRule:
    """What one method admits: per role, the request's fields that must equal the caller's claims."""

    matched: Mapping[Role.ValueType, tuple[str, ...]]


def _matched(role: Role.ValueType, scope: Scope.ValueType) -> tuple[str, ...]:
    if role in TENANTLESS:
        return ()
    fields = ["brand_id"]
    if role == Role.ROLE_REGION_MANAGER and scope >= Scope.SCOPE_STORE:
        fields.append("region_id")
    if role == Role.ROLE_STORE_MANAGER and scope >= Scope.SCOPE_STORE:
        fields.append("store_id")
    if role == Role.ROLE_GUIDE and scope == Scope.SCOPE_STORE:
        fields.append("store_id")
    if role == Role.ROLE_GUIDE and scope == Scope.SCOPE_GUIDE:
        fields.append("guide_id")
    return tuple(fields)


def rule_of(method: MethodDescriptor) -> AccessRule | None:
    """The method's rule. None: it carries no option, and nobody may call it.

    Raises: ValueError where the option could not be enforced on the method's request.
    """
    options = method.GetOptions()
    if not options.HasExtension(access_pb2.access):
        return None
    access = options.Extensions[access_pb2.access]
    roles, scope = frozenset(access.roles), access.scope
    if scope == Scope.SCOPE_UNSPECIFIED or (scope == Scope.SCOPE_PLATFORM and roles - TENANTLESS):
        raise ValueError(f"{method.full_name}: its scope does not fit its roles")
    matched = {role: _matched(role, scope) for role in roles}
    needed = {field for fields in matched.values() for field in fields}
    if scope >= Scope.SCOPE_BRAND:
        needed.add("brand_id")
    if missing := needed - set(method.input_type.fields_by_name):
        raise ValueError(f"{method.full_name}: its scope needs the request fields {sorted(missing)}")
    return AccessRule(matched)


def check(rule: AccessRule, claims: Claims, request: Message) -> None:
    """Raises: Denied ROLE_NOT_ADMITTED, NOT_YOUR_BRAND, NOT_YOUR_REGION, NOT_YOUR_STORE, NOT_YOURS."""
    fields = rule.matched.get(claims.role)
    if fields is None:
        raise Denied("ROLE_NOT_ADMITTED", f"{Role.Name(claims.role)} may not call this method")
    for field in fields:
        if getattr(request, field) != getattr(claims, field):
            raise Denied(*_FOREIGN[field])
