"""What the contracts' limits cannot say of a message, to be named together with what they do."""

from __future__ import annotations

from chassis.errors import Violation
from chassis.rpc import limits
from daogou.common.v1.identity_pb2 import Identity
from daogou.members.v1.binding_pb2 import CorrectBindingRequest
from daogou.members.v1.binding_watch_pb2 import WatchBindingsRequest
from daogou.members.v1.directory_pb2 import Brand, Guide, Store
from daogou.members.v1.guide_code_pb2 import CreateGuideCodeRequest
from daogou.members.v1.member_import_pb2 import ImportedMember
from svc_members.care import care_checks
from svc_members.directory import entities
from svc_members.member import identities
from svc_members.rules import guide_code


def register() -> None:
    """Has them checked with every request."""
    limits.also_check(Identity, _identity)
    limits.also_check(Brand, entities.brand_problems)
    limits.also_check(Store, entities.store_problems)
    limits.also_check(Guide, entities.guide_problems)
    limits.also_check(ImportedMember, _imported_member)
    limits.also_check(CreateGuideCodeRequest, _create_guide_code)
    limits.also_check(WatchBindingsRequest, _watch_bindings)
    limits.also_check(CorrectBindingRequest, _correct_binding)
    care_checks.register()


def _identity(identity: Identity, prefix: str) -> list[Violation]:
    return identities.problems(identity, prefix.removesuffix("."))


def _imported_member(member: ImportedMember, prefix: str) -> list[Violation]:
    if member.guide_id and not member.HasField("bound_time"):
        return [Violation(f"{prefix}bound_time", "is required with guide_id")]
    return []


def _create_guide_code(request: CreateGuideCodeRequest, prefix: str) -> list[Violation]:
    if guide_code.CAMPAIGN.fullmatch(request.campaign) is None:
        return [Violation(f"{prefix}campaign", "must be letters, digits, '-', '_' and '.'")]
    return []


def _watch_bindings(request: WatchBindingsRequest, prefix: str) -> list[Violation]:
    if request.from_start and request.resume_token:
        return [Violation(f"{prefix}from_start", "must not be set beside a resume_token")]
    return []


def _correct_binding(request: CorrectBindingRequest, prefix: str) -> list[Violation]:
    begin, end = (
        (time.seconds, time.nanos // 1_000_000) for time in (request.valid_from_time, request.valid_to_time)
    )
    if request.HasField("valid_to_time") and end <= begin:
        return [Violation(f"{prefix}valid_to_time", "must be after valid_from_time")]
    return []
