"""A member may ask for all that is held of him, and to be forgotten: then nobody can tell who he was."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import (
    activity_pb2,
    binding_pb2,
    consent_pb2,
    erasure_pb2,
    export_pb2,
    follow_up_pb2,
    member_pb2,
    merge_pb2,
    tag_pb2,
)
from daogou.members.v1.erasure_pb2_grpc import ErasureServiceStub
from daogou.members.v1.export_pb2_grpc import ExportServiceStub
from daogou.members.v1.follow_up_pb2 import Task
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from daogou.members.v1.profile_pb2 import Birthday, Profile
from tests.rpc.care import Care, found, update_of
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.erasure_pb2_grpc import ErasureServiceAsyncStub
    from daogou.members.v1.export_pb2_grpc import ExportServiceAsyncStub
    from daogou.members.v1.merge_pb2_grpc import MergeServiceAsyncStub

PHONE = IdentityKind.IDENTITY_KIND_PHONE
CARD = IdentityKind.IDENTITY_KIND_POS_CARD
NAME, REMARK, EVIDENCE, NOTE = "Zhang-san-planted", "remark-planted", "evidence-planted", "note-planted"
TAG = "tag-planted"


@pytest.fixture
async def world(running: Running) -> World:
    return await a_world(running, member=False, plan=plan_of())


async def erased(world: World, member_id: str) -> erasure_pb2.EraseMemberResponse:
    """Forgets a member."""
    erasures: ErasureServiceAsyncStub = ErasureServiceStub(world.admin.channel("members"))
    return await erasures.EraseMember(
        erasure_pb2.EraseMemberRequest(brand_id=world.brand_id, member_id=member_id, purpose="request 17")
    )


async def exported(world: World, member_id: str) -> list[export_pb2.ExportMemberResponse]:
    """All that is held of a member."""
    exports: ExportServiceAsyncStub = ExportServiceStub(world.running.plain("members"))
    request = export_pb2.ExportMemberRequest(
        brand_id=world.brand_id, member_id=member_id, purpose="request 18"
    )
    return [part async for part in exports.ExportMember(request, metadata=world.admin.metadata, timeout=30)]


async def linked(world: World, member_id: str, identity: Identity) -> member_pb2.LinkIdentityResponse:
    """One more identity of a member."""
    return await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=identity)
    )


async def well_known(world: World) -> tuple[str, list[Identity]]:
    """A member of whom everything is known that can be, and what he is known by."""
    phone, card = world.identity(PHONE), world.identity(CARD)
    member_id = (await world.scan(await world.code(0), phone)).member_id
    await linked(world, member_id, card)
    care, guide, now = Care(world.connector), Care(world.guide(0)), to_timestamp(world.running.now())
    birthday = Birthday(month=2, day=29)
    profile = Profile(display_name=NAME, remark=REMARK, tier="gold", birthday=birthday)
    await care.profiles.UpdateProfile(update_of(world, member_id, profile))
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
    await care.tags.AddTags(tag_pb2.AddTagsRequest(tags=[TAG, "vip"], **named))
    await care.consents.RecordConsent(
        consent_pb2.RecordConsentRequest(
            purpose="marketing-sms",
            state=consent_pb2.CONSENT_STATE_GIVEN,
            version="1",
            consent_time=now,
            channel=consent_pb2.CONSENT_CHANNEL_PAPER,
            evidence=EVIDENCE,
            **named,
        )
    )
    hers = {**named, "guide_id": world.guides[0]}
    await guide.activity.RecordContact(activity_pb2.RecordContactRequest(contact_time=now, note=NOTE, **hers))
    await guide.follow_up.CreateTask(
        follow_up_pb2.CreateTaskRequest(
            request_id=request_id(), task=Task(title="call him", note=NOTE, due_time=now), **hers
        )
    )
    await care.activity.RecordPurchase(activity_pb2.RecordPurchaseRequest(purchase_time=now, **named))
    return member_id, [phone, card]


async def whose(world: World, **query: Any) -> binding_pb2.ResolvedBinding:
    """Whose he was at a moment."""
    question = binding_pb2.BindingQuery(**query)
    request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=question)
    return (await world.service.bindings.ResolveBinding(request)).resolved


def held_of(world: World, member_ids: Sequence[str], identities: Sequence[Identity]) -> dict[str, int]:
    """In how many documents of each collection a member's id stands, or what was said of him in the clear."""
    counted: Counter[str] = Counter()
    wanted = [value.encode() for value in (*member_ids, *(one.value for one in identities), TAG)]
    for collection, raw in world.running.dump():
        if world.brand_id.encode() in raw and any(value in raw for value in wanted):
            counted[collection] += 1
    return dict(counted)


async def test_a_member_gets_all_that_is_held_of_him(world: World) -> None:
    """Every kind of thing, whole; it is recorded who gave it out, and why."""
    member_id, identities = await well_known(world)
    parts = await exported(world, member_id)
    kinds = Counter(part.WhichOneof("part") for part in parts)
    assert kinds == Counter(
        member=1, identity=2, profile=1, activity=1, binding=1, tags=1, consent=1, task=1, contact=1
    )
    by_kind: dict[str, Any] = {
        str(part.WhichOneof("part")): getattr(part, str(part.WhichOneof("part"))) for part in parts
    }
    assert {part.identity.identity.value for part in parts if part.HasField("identity")} == {
        identity.value for identity in identities
    }
    assert (by_kind["profile"].display_name, by_kind["profile"].birthday.day) == (NAME, 29)
    assert set(by_kind["tags"].tags) == {TAG, "vip"}
    assert by_kind["consent"].evidence == EVIDENCE
    assert by_kind["contact"].note == by_kind["task"].note == NOTE
    assert by_kind["activity"].HasField("last_purchase_time")
    assert by_kind["binding"].guide_id == world.guides[0]
    [record] = world.running.documents("members", "audit", {"subject.member_id": member_id})
    assert (record["action"], record["purpose"], record["role"]) == (
        "ExportMember",
        "request 18",
        "ROLE_BRAND_ADMIN",
    )


async def test_an_export_tells_of_whoever_was_merged_into_him_too(world: World) -> None:
    """One person: the rows of both, and that they were two."""
    member_id, _ = await well_known(world)
    other_id, card = await world.bound(1)
    merged = await linked(world, member_id, card)
    assert merged.merge.merged_member_id == other_id
    for asked in (member_id, other_id):
        parts = await exported(world, asked)
        assert {part.binding.member_id for part in parts if part.HasField("binding")} == {
            member_id,
            other_id,
        }
        assert [part.merge.merge_id for part in parts if part.HasField("merge")] == [merged.merge.merge_id]
        assert sum(part.HasField("identity") for part in parts) == 3


async def test_of_an_erased_member_nothing_is_left_but_his_id(world: World) -> None:
    """Identities, profile, tags, consents, tasks and contacts are gone; ledgers and their reasons stay."""
    member_id, identities = await well_known(world)
    world.running.later(hours=3)
    order = world.order(identity=identities[0])
    await world.ingest(order.paid(line_of("coat", 100_000)))
    owed = await world.owed(0)
    assert owed > 0
    world.running.later(seconds=10)
    known_at = to_timestamp(world.running.now())
    world.running.later(seconds=10)
    before = await whose(world, member_id=member_id, as_of_time=known_at, known_at_time=known_at)
    assert before.guide_id == world.guides[0]
    reply = await erased(world, member_id)
    assert list(reply.member_ids) == [member_id]
    assert set(held_of(world, [member_id], identities)) == {
        "members.members",
        "members.audit",
        "commission.orders",
        "commission.first_purchases",
        "commission.journal",
    }
    [left] = world.running.documents("members", "members", {"member_id": member_id})
    assert set(left) == {
        *("_id", "brand_id", "member_id", "rev", "create_time", "rows", "standing"),
        *("last_recorded_time", "identity_count", "erased_time"),
    }
    assert left["standing"] is None
    assert await world.owed(0) == owed
    again = await whose(world, member_id=member_id, as_of_time=known_at, known_at_time=known_at)
    assert again == before, "what was paid by this answer is explained by it for ever"
    assert not (await whose(world, member_id=member_id)).binding_id
    for identity in identities:
        assert not (await whose(world, identity=identity, as_of_time=known_at)).member_id
    explained = await world.explained(order)
    assert explained.books_agree
    assert explained.attribution.member_id == member_id


async def test_whoever_comes_with_the_same_phone_is_somebody_new(world: World) -> None:
    """Nothing that he was before comes back to him."""
    member_id, [phone, _] = await well_known(world)
    await erased(world, member_id)
    again = await world.scan(await world.code(1), phone)
    assert again.member_id != member_id
    assert again.binding.guide_id == world.guides[1]
    parts = await exported(world, again.member_id)
    assert Counter(part.WhichOneof("part") for part in parts) == Counter(
        member=1, identity=1, profile=1, activity=1, binding=1
    )


async def test_whoever_was_merged_into_him_is_erased_with_him(world: World) -> None:
    """By whichever of the ids it is asked; a merge of the erased cannot be undone."""
    member_id, identities = await well_known(world)
    other_id, card = await world.bound(1)
    merged = await linked(world, member_id, card)
    reply = await erased(world, other_id)
    assert set(reply.member_ids) == {member_id, other_id}
    held = held_of(world, [], [*identities, card])
    assert held == {}
    merges: MergeServiceAsyncStub = MergeServiceStub(world.admin.channel("members"))
    undone = await refusal(
        merges.UndoMerge(merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=merged.merge.merge_id))
    )
    assert undone.reason == "MEMBER_ERASED"
    assert {row["reason"] for row in _rows(world, member_id)} == {""}


def _rows(world: World, member_id: str) -> list[dict[str, Any]]:
    [document] = world.running.documents("members", "members", {"member_id": member_id})
    rows: list[dict[str, Any]] = document["rows"]
    return rows


async def test_an_identity_that_he_gave_up_tells_nothing_of_him_either(world: World) -> None:
    """The number is somebody else's now, and stays that one's."""
    member_id, [phone, _] = await well_known(world)
    await world.connector.members.UnlinkIdentity(
        member_pb2.UnlinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=phone)
    )
    heir = await world.scan(await world.code(1), phone)
    await erased(world, member_id)
    holders = world.running.documents("members", "identities", {"member_id": heir.member_id})
    assert [row["member_id"] for one in holders for row in one["holders"]] == [heir.member_id]
    assert (await whose(world, identity=phone)).guide_id == world.guides[1]


async def test_erasing_again_changes_nothing_and_says_the_same(world: World) -> None:
    """He may ask twice."""
    member_id, _ = await well_known(world)
    first = await erased(world, member_id)
    world.running.later(days=1)
    assert await erased(world, member_id) == first


async def test_nothing_is_done_with_an_erased_member_any_more(world: World) -> None:
    """He is said to be erased, not to be unknown; lists show him no more."""
    member_id, _ = await well_known(world)
    care = Care(world.connector)
    assert [one.member_id for one in await found(care, world, tag=TAG)] == [member_id]
    await erased(world, member_id)
    assert await found(care, world, tag=TAG) == []
    assert await found(care, world, tier="gold") == []
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": member_id}
    now = to_timestamp(world.running.now())
    for call in (
        world.connector.members.GetMember(member_pb2.GetMemberRequest(**named)),
        linked(world, member_id, world.identity()),
        care.tags.AddTags(tag_pb2.AddTagsRequest(tags=["late"], **named)),
        care.activity.RecordPurchase(activity_pb2.RecordPurchaseRequest(purchase_time=now, **named)),
        exported(world, member_id),
    ):
        refused = await refusal(call)
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "MEMBER_ERASED")


async def test_who_is_unknown_cannot_be_erased_or_exported(world: World) -> None:
    """And bad requests name every field; nothing is written but that somebody asked."""
    for call in (erased(world, "a" * 16), exported(world, "a" * 16)):
        assert (await refusal(call)).reason == "MEMBER_UNKNOWN"
    erasures: ErasureServiceAsyncStub = ErasureServiceStub(world.admin.channel("members"))
    bad = erasure_pb2.EraseMemberRequest(brand_id=world.brand_id, member_id="x", purpose="p" * 201)
    with world.running.nothing_written(world.brand_id):
        assert (await refusal(erasures.EraseMember(bad))).fields == {"member_id", "purpose"}
