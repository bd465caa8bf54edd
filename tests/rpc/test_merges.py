"""Two members who are one person, over the wire: one answers for both, and two do again when it is undone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import binding_pb2, member_pb2, merge_pb2
from daogou.members.v1.binding_pb2 import BindingCause
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.merge_pb2_grpc import MergeServiceAsyncStub

CARD = IdentityKind.IDENTITY_KIND_POS_CARD


@pytest.fixture
async def world(running: Running) -> World:
    return await a_world(running, member=False, plan=plan_of())


def merges(world: World) -> MergeServiceAsyncStub:
    """The service of merges, called by head office."""
    stub: MergeServiceAsyncStub = MergeServiceStub(world.admin.channel("members"))
    return stub


async def linked(world: World, member_id: str, identity: Any) -> member_pb2.LinkIdentityResponse:
    """One more identity of a member."""
    request = member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=identity)
    return await world.connector.members.LinkIdentity(request)


async def undone(world: World, merge_id: str) -> merge_pb2.Merge:
    """The two are two again."""
    request = merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=merge_id)
    return (await merges(world).UndoMerge(request)).merge


async def guide_of(world: World, **query: Any) -> str:
    """Whose he was at a moment; empty: nobody's."""
    question = binding_pb2.BindingQuery(**query)
    request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=question)
    return (await world.service.bindings.ResolveBinding(request)).resolved.guide_id


async def corrected(world: World, **more: Any) -> binding_pb2.CorrectBindingResponse:
    """The past, as somebody says that it was."""
    request = binding_pb2.CorrectBindingRequest(
        **{"brand_id": world.brand_id, "reason": "asked in the shop", "request_id": request_id(), **more}
    )
    return await world.admin.bindings.CorrectBinding(request)


async def test_of_two_members_one_answers_and_the_earlier_guide_keeps_him(world: World) -> None:
    """By either id and by every identity; what was bought before stays whose it was."""
    old, his = await world.bound(0)
    world.running.later(days=1)
    young, hers = await world.bound(1)
    world.running.later(hours=3)
    before = to_timestamp(world.running.now())
    order = world.order(identity=hers)
    await world.ingest(order.paid(line_of("coat", 10_000)))
    owed = await world.owed(1)
    assert owed > 0
    world.running.later(hours=1)
    reply = await linked(world, old, hers)
    assert (reply.merge.survivor_member_id, reply.merge.merged_member_id) == (old, young)
    assert list(reply.member.merged_member_ids) == [young]
    assert len(reply.member.identities) == 2
    for query in ({"member_id": old}, {"member_id": young}, {"identity": his}, {"identity": hers}):
        assert await guide_of(world, **query) == world.guides[0], query
    assert await guide_of(world, member_id=young, as_of_time=before) == world.guides[1]
    assert await guide_of(world, identity=hers, as_of_time=before) == world.guides[1]
    read = member_pb2.GetMemberRequest(brand_id=world.brand_id, member_id=young)
    assert (await world.connector.members.GetMember(read)).member.member_id == old
    assert await world.owed(1) == owed
    again = await linked(world, old, hers)
    assert not again.HasField("merge")
    assert again.member == reply.member


async def test_a_merge_undone_leaves_two_who_each_have_what_came_through_themselves(world: World) -> None:
    """A card that was linked in the younger's name is his again; to undo it twice changes nothing."""
    old, his = await world.bound(0)
    young, hers = await world.bound(1)
    merge = (await linked(world, old, hers)).merge
    card = world.identity(CARD)
    await linked(world, young, card)
    world.running.later(days=2)
    first = await undone(world, merge.merge_id)
    assert first.HasField("undone_time")
    assert await undone(world, merge.merge_id) == first
    assert await guide_of(world, identity=his) == world.guides[0]
    for query in ({"member_id": young}, {"identity": hers}, {"identity": card}):
        assert await guide_of(world, **query) == world.guides[1], query
    request = merge_pb2.ListMergesRequest(brand_id=world.brand_id, member_id=young)
    assert list((await merges(world).ListMerges(request)).merges) == [first]


async def test_a_merge_is_undone_within_thirty_days_and_the_latest_first(world: World) -> None:
    """Later nobody can tell any more what came through whom."""
    oldest, _ = await world.bound(0)
    old, middle_card = await world.bound(1)
    _, young_card = await world.bound(1)
    first = (await linked(world, old, young_card)).merge
    second = (await linked(world, oldest, middle_card)).merge
    refused = await refusal(undone(world, first.merge_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "MERGED_AGAIN")
    world.running.later(days=31)
    assert (await refusal(undone(world, second.merge_id))).reason == "MERGE_TOO_OLD"
    unknown = await refusal(undone(world, "a" * 16))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "MERGE_UNKNOWN")


async def test_a_number_that_was_given_up_is_the_next_ones(world: World) -> None:
    """As of before it is the first one's still."""
    first, phone = await world.bound(0)
    world.running.later(days=1)
    before = to_timestamp(world.running.now())
    world.running.later(days=1)
    request = member_pb2.UnlinkIdentityRequest(brand_id=world.brand_id, member_id=first, identity=phone)
    assert not (await world.connector.members.UnlinkIdentity(request)).member.identities
    await world.connector.members.UnlinkIdentity(request)
    heir = await world.scan(await world.code(1), phone)
    assert heir.member_id != first
    assert await guide_of(world, identity=phone) == world.guides[1]
    assert await guide_of(world, identity=phone, as_of_time=before) == world.guides[0]
    refused = await refusal(world.connector.members.UnlinkIdentity(request))
    assert refused.reason == "NOT_HIS_IDENTITY"


async def test_a_corrected_past_is_told_from_now_on_and_moves_no_money(world: World) -> None:
    """What was known before stays; a repeat is the same correction; it is recorded who made it, and why."""
    member_id, buyer = await world.bound(0)
    world.running.later(hours=3)
    order = world.order(identity=buyer)
    await world.ingest(order.paid(line_of("coat", 10_000)))
    owed = await world.owed(0)
    assert owed > 0
    world.running.later(minutes=1)
    known_at = to_timestamp(world.running.now())
    world.running.later(minutes=1)
    begin, end = order.placed_time, world.running.now()
    named: dict[str, Any] = {
        "member_id": member_id,
        "guide_id": world.guides[1],
        "valid_from_time": to_timestamp(begin),
        "valid_to_time": to_timestamp(end),
        "request_id": request_id(),
    }
    reply = await corrected(world, **named)
    assert await corrected(world, **named) == reply
    assert {row.cause for row in reply.added} >= {BindingCause.BINDING_CAUSE_CORRECTED}
    assert {row.reason for row in reply.added if row.guide_id == world.guides[1]} == {"asked in the shop"}
    placed = to_timestamp(begin)
    assert await guide_of(world, member_id=member_id, as_of_time=placed) == world.guides[1]
    then = await guide_of(world, member_id=member_id, as_of_time=placed, known_at_time=known_at)
    assert then == world.guides[0]
    assert await guide_of(world, member_id=member_id) == world.guides[0]
    assert (await world.owed(0), await world.owed(1)) == (owed, 0)
    records = world.running.documents("members", "audit", {"subject.member_id": member_id})
    assert {record["action"] for record in records} == {"CorrectBinding"}
    other = await refusal(corrected(world, **{**named, "guide_id": world.guides[2]}))
    assert other.reason == "REQUEST_ID_REUSED"


async def test_a_bad_correction_names_every_field_and_writes_nothing(world: World) -> None:
    """The future is not corrected; who is unknown was nobody's."""
    member_id, _ = await world.bound(0)
    now = world.running.now()
    tomorrow = to_timestamp(now.replace(year=now.year + 1))
    with world.running.nothing_written(world.brand_id):
        bad = await refusal(corrected(world, member_id="x", guide_id="y", reason="r" * 201, request_id="z"))
        assert bad.fields == {"member_id", "guide_id", "reason", "request_id", "valid_from_time"}
        wrong: list[tuple[dict[str, Any], str]] = [
            ({"valid_from_time": tomorrow}, "CORRECTION_IN_FUTURE"),
            ({"guide_id": "a" * 16}, "GUIDE_UNKNOWN"),
            ({"store_id": "a" * 16}, "STORE_UNKNOWN"),
            ({"member_id": "a" * 16}, "MEMBER_UNKNOWN"),
        ]
        for more, reason in wrong:
            named = {"member_id": member_id, "valid_from_time": to_timestamp(now), **more}
            assert (await refusal(corrected(world, **named))).reason == reason, reason
