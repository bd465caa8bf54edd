"""What the contracts' limits cannot say of what is known of members and done for them."""

from __future__ import annotations

from chassis.errors import Violation
from chassis.rpc import limits
from daogou.members.v1.consent_pb2 import CONSENT_STATE_GIVEN, RecordConsentRequest
from daogou.members.v1.follow_up_pb2 import Task, UpdateTaskRequest
from daogou.members.v1.member_search_pb2 import SearchMembersRequest
from daogou.members.v1.profile_pb2 import Birthday, UpdateProfileRequest
from daogou.members.v1.tag_pb2 import AddTagsRequest, BatchTagMembersRequest, RemoveTagsRequest
from svc_members.care.profiles import to_birthday
from svc_members.care.tasks import MUTABLE
from svc_members.rules.profile import LANGUAGE_TAG, TIER_LENGTH_MAX

_TASK_FIELDS = frozenset(Task.DESCRIPTOR.fields_by_name)
_FILTERS = (
    *("guide_id", "store_id", "tag", "tier"),
    *("last_purchase_from_time", "last_purchase_to_time", "birthday_month"),
)


def register() -> None:
    """Has them checked with every request."""
    limits.also_check(Birthday, _birthday)
    limits.also_check(UpdateProfileRequest, _update_profile)
    limits.also_check(AddTagsRequest, _tags)
    limits.also_check(RemoveTagsRequest, _tags)
    limits.also_check(BatchTagMembersRequest, _tags)
    limits.also_check(RecordConsentRequest, _record_consent)
    limits.also_check(UpdateTaskRequest, _update_task)
    limits.also_check(SearchMembersRequest, _search_members)


def _birthday(birthday: Birthday, prefix: str) -> list[Violation]:
    in_range = 1 <= birthday.month <= 12 and 1 <= birthday.day <= 31
    if in_range and not to_birthday(birthday).exists():
        return [Violation(f"{prefix}day", "is no day of that month")]
    return []


def _update_profile(request: UpdateProfileRequest, prefix: str) -> list[Violation]:
    profile, paths, found = request.profile, request.update_mask.paths, []
    language = profile.language_code
    if "language_code" in paths and language and not LANGUAGE_TAG.fullmatch(language):
        found.append(Violation(f"{prefix}profile.language_code", "must be a language tag such as zh-CN"))
    if "tier" in paths:
        found += _tier(profile.tier, f"{prefix}profile.tier")
    return found


def _tier(tier: str, path: str) -> list[Violation]:
    # A longer one than the format allows is named already.
    if TIER_LENGTH_MAX < len(tier) <= 64:
        return [Violation(path, f"must have at most {TIER_LENGTH_MAX} characters, not {len(tier)}")]
    return []


def _tags(
    request: AddTagsRequest | RemoveTagsRequest | BatchTagMembersRequest, prefix: str
) -> list[Violation]:
    return [
        Violation(f"{prefix}tags[{index}]", "must not be empty")
        for index, tag in enumerate(request.tags)
        if not tag.strip()
    ]


def _record_consent(request: RecordConsentRequest, prefix: str) -> list[Violation]:
    if request.state == CONSENT_STATE_GIVEN and not request.version:
        return [Violation(f"{prefix}version", "is required with a consent that is given")]
    return []


def _update_task(request: UpdateTaskRequest, prefix: str) -> list[Violation]:
    kept = (set(request.update_mask.paths) & _TASK_FIELDS) - MUTABLE
    return [Violation(f"{prefix}update_mask", f"{path} cannot be changed") for path in sorted(kept)]


def _search_members(request: SearchMembersRequest, prefix: str) -> list[Violation]:
    found = _tier(request.tier, f"{prefix}tier")
    # A present field counts, whatever it says: a time of 1970 is one.
    given = {field.name for field, _ in request.ListFields()} & set(_FILTERS)
    if not given:
        found.append(Violation(f"{prefix}filters", f"one of {', '.join(_FILTERS)} is required"))
    if request.tag and not request.tag.strip():
        found.append(Violation(f"{prefix}tag", "must not be empty"))
    start, end = request.last_purchase_from_time, request.last_purchase_to_time
    both = {"last_purchase_from_time", "last_purchase_to_time"} <= given
    if both and (end.seconds, end.nanos) <= (start.seconds, start.nanos):
        found.append(Violation(f"{prefix}last_purchase_to_time", "must be after last_purchase_from_time"))
    return found
