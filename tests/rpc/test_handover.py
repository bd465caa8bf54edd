"""Handover over the wire: a guide leaves or passes her members on, and every fen finds the right owner."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.times import to_timestamp
from daogou.members.v1 import binding_pb2, directory_pb2, guide_code_pb2, handover_pb2
from daogou.members.v1.binding_pb2 import BindingCause
from daogou.members.v1.directory_pb2 import GUIDE_STATE_RESIGNED, Guide
from daogou.members.v1.handover_pb2 import Handover, HandoverState, OfferState
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from tests.rpc.running import Running, eventually, refusal
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.handover_pb2_grpc import HandoverServiceAsyncStub


@pytest.fixture
async def world(running: Running) -> World:
    return await a_world(running, guides=4, plan=plan_of(), member=False)


def _handovers(world: World) -> HandoverServiceAsyncStub:
    stub: HandoverServiceAsyncStub = HandoverServiceStub(world.admin.channel("members"))
    return stub


def _resign(world: World, guide: int, *takers: int, **more: Any) -> handover_pb2.ResignGuideRequest:
    return handover_pb2.ResignGuideRequest(
        **{
            "brand_id": world.brand_id,
            "request_id": request_id(),
            "guide_id": world.guides[guide],
            "taker_guide_ids": [world.guides[taker] for taker in takers],
            **more,
        }
    )


async def _read(world: World, handover_id: str) -> Handover:
    request = handover_pb2.GetHandoverRequest(brand_id=world.brand_id, handover_id=handover_id)
    return (await _handovers(world).GetHandover(request)).handover


async def _until(world: World, handover_id: str, state: HandoverState.ValueType) -> Handover:
    async def reached() -> bool:
        return (await _read(world, handover_id)).state == state

    await eventually(reached, f"the handover is {HandoverState.Name(state)}")
    return await _read(world, handover_id)


async def _whose(world: World, member_id: str) -> tuple[str, str]:
    query = binding_pb2.BindingQuery(member_id=member_id)
    request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=query)
    resolved = (await world.admin.bindings.ResolveBinding(request)).resolved
    return resolved.guide_id, resolved.store_id


def _answer(
    world: World, handover_id: str, member_id: str, *, accept: bool
) -> handover_pb2.AnswerOfferRequest:
    return handover_pb2.AnswerOfferRequest(
        brand_id=world.brand_id, handover_id=handover_id, member_id=member_id, accept=accept
    )


async def test_leaver_pool_and_taker_each_get_what_was_sold_in_their_time(world: World) -> None:
    """Ordered before she left: hers. In between: the pool's. After the taker was accepted: the taker's.

    Three orders of 100.00 at 3 %: 3.00 each.
    """
    member_id, buyer = await world.bound(0)
    world.running.later(hours=3)
    before = world.order(identity=buyer)
    left = await _handovers(world).ResignGuide(_resign(world, 0, 1))
    handover_id = left.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    assert await _whose(world, member_id) == ("", world.nanjing_road)
    world.running.later(hours=3)
    between = world.order(identity=buyer)
    await _handovers(world).AnswerOffer(_answer(world, handover_id, member_id, accept=True))
    assert await _whose(world, member_id) == (world.guides[1], world.nanjing_road)
    world.running.later(hours=3)
    after = world.order(identity=buyer)
    for order in (after, between, before):
        await world.ingest(order.paid(line_of("coat", 10_000)))
    assert await world.owed(0) == 300
    assert await world.owed_to_pool(world.nanjing_road) == 300
    assert await world.owed(1) == 300
    assert (await world.trial_balance()).total_minor == 0


async def test_an_offer_that_nobody_answers_is_accepted_after_a_day(world: World) -> None:
    member_id, _ = await world.bound(0)
    left = await _handovers(world).ResignGuide(_resign(world, 0, 2))
    handover_id = left.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    world.running.later(hours=24, minutes=1)
    done = await _until(world, handover_id, HandoverState.HANDOVER_STATE_DONE)
    assert (done.member_count, done.offer_count, done.accepted_count) == (1, 1, 1)
    assert await _whose(world, member_id) == (world.guides[2], world.xintiandi)
    rows = await world.admin.bindings.ListBindingRows(
        binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=member_id)
    )
    causes = [row.cause for row in rows.rows if not row.HasField("superseded_time")]
    assert causes == [
        BindingCause.BINDING_CAUSE_RESIGNED,
        BindingCause.BINDING_CAUSE_HANDOVER,
        BindingCause.BINDING_CAUSE_HANDOVER,
    ]


async def test_who_refuses_stays_in_the_pool_and_cannot_be_asked_twice(world: World) -> None:
    member_id, _ = await world.bound(0)
    left = await _handovers(world).ResignGuide(_resign(world, 0, 1))
    handover_id = left.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    no = _answer(world, handover_id, member_id, accept=False)
    refused = await _handovers(world).AnswerOffer(no)
    assert refused.offer.state == OfferState.OFFER_STATE_REFUSED
    assert refused.offer.answered_by_member
    assert await _handovers(world).AnswerOffer(no) == refused, "a repeat changes nothing"
    yes = await refusal(_handovers(world).AnswerOffer(_answer(world, handover_id, member_id, accept=True)))
    assert (yes.code, yes.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "OFFER_ANSWERED")
    assert await _whose(world, member_id) == ("", world.nanjing_road)
    assert (await _read(world, handover_id)).state == HandoverState.HANDOVER_STATE_DONE


async def test_in_service_the_giver_holds_until_acceptance_and_keeps_who_refuses(world: World) -> None:
    stays, _ = await world.bound(0)
    goes, _ = await world.bound(0)
    request = handover_pb2.HandOverMembersRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide_id=world.guides[0],
        taker_guide_ids=[world.guides[1]],
    )
    begun = await _handovers(world).HandOverMembers(request)
    handover_id = begun.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    assert await _whose(world, goes) == (world.guides[0], world.nanjing_road)
    await _handovers(world).AnswerOffer(_answer(world, handover_id, stays, accept=False))
    await _handovers(world).AnswerOffer(_answer(world, handover_id, goes, accept=True))
    assert await _whose(world, stays) == (world.guides[0], world.nanjing_road)
    assert await _whose(world, goes) == (world.guides[1], world.nanjing_road)
    again = await _handovers(world).HandOverMembers(request)
    assert again.handover.handover_id == handover_id


async def test_members_are_spread_by_turn(world: World) -> None:
    for _ in range(5):
        await world.bound(0)
    left = await _handovers(world).ResignGuide(_resign(world, 0, 1, 2))
    handover_id = left.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    listed = await _handovers(world).ListOffers(
        handover_pb2.ListOffersRequest(brand_id=world.brand_id, handover_id=handover_id)
    )
    takers = [offer.taker_guide_id for offer in listed.offers]
    assert sorted(map(takers.count, world.guides[1:3])) == [2, 3]


async def test_members_are_spread_by_load(world: World) -> None:
    for _ in range(3):
        await world.bound(1)
    for _ in range(3):
        await world.bound(0)
    left = await _handovers(world).ResignGuide(_resign(world, 0, 1, 2, spread=handover_pb2.SPREAD_LOAD))
    handover_id = left.handover.handover_id
    await _until(world, handover_id, HandoverState.HANDOVER_STATE_OFFERED)
    listed = await _handovers(world).ListOffers(
        handover_pb2.ListOffersRequest(brand_id=world.brand_id, handover_id=handover_id)
    )
    assert {offer.taker_guide_id for offer in listed.offers} == {world.guides[2]}, "she had none"


async def test_whoever_has_left_recruits_and_is_handed_nobody_any_more(world: World) -> None:
    code = await world.code(0)
    resign = _resign(world, 0)
    left = await _handovers(world).ResignGuide(resign)
    assert (await _handovers(world).ResignGuide(resign)).handover.handover_id == left.handover.handover_id
    with world.running.nothing_written(world.brand_id):
        scanned = await refusal(world.scan(code, world.identity()))
        made = await refusal(world.code(0))
        taker = await refusal(_handovers(world).ResignGuide(_resign(world, 1, 0)))
        twice = await refusal(_handovers(world).ResignGuide(_resign(world, 0)))
    assert (scanned.code, scanned.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GUIDE_RESIGNED")
    assert made.reason == "GUIDE_RESIGNED"
    assert taker.reason == "TAKER_NOT_FIT"
    assert twice.reason == "GUIDE_RESIGNED"
    request = guide_code_pb2.RevokeGuideCodesRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        store_id=world.nanjing_road,
        guide_id=world.guides[0],
    )
    assert (await refusal(world.admin.codes.RevokeGuideCodes(request))).reason == "GUIDE_RESIGNED"
    done = await _until(world, left.handover.handover_id, HandoverState.HANDOVER_STATE_DONE)
    assert done.member_count == 0


async def test_bad_resignations_are_refused_and_write_nothing(world: World) -> None:
    tomorrow = to_timestamp(world.running.now() + timedelta(days=1))
    reused = _resign(world, 3)
    await _handovers(world).ResignGuide(reused)
    other = handover_pb2.ResignGuideRequest()
    other.CopyFrom(reused)
    other.taker_guide_ids.append(world.guides[1])
    cases = {
        "RESIGN_IN_FUTURE": _resign(world, 0, resign_time=tomorrow),
        "GUIDE_UNKNOWN": _resign(world, 0, guide_id="a" * 16),
        "TAKER_NOT_FIT": _resign(world, 0, 0),
        "REQUEST_ID_REUSED": other,
        "INVALID_FIELDS": _resign(world, 0, 1, 1),
    }
    await _until_quiet(world)
    with world.running.nothing_written(world.brand_id):
        for reason, request in cases.items():
            assert (await refusal(_handovers(world).ResignGuide(request))).reason == reason


async def _until_quiet(world: World) -> None:
    """Waits until no handover of the brand is under way."""

    async def quiet() -> bool:
        query = {"brand_id": world.brand_id, "state": "OFFERING"}
        return not world.running.documents("members", "handovers", query)

    await eventually(quiet, "the handovers are through")


async def test_a_member_is_offered_at_most_twice_in_ninety_days(world: World) -> None:
    member_id, _ = await world.bound(0)
    for guide, taker, offers in ((0, 1, 1), (1, 2, 1), (2, 3, 0)):
        left = await _handovers(world).ResignGuide(_resign(world, guide, taker))
        handover_id = left.handover.handover_id
        state = HandoverState.HANDOVER_STATE_OFFERED if offers else HandoverState.HANDOVER_STATE_DONE
        assert (await _until(world, handover_id, state)).offer_count == offers
        if offers:
            await _handovers(world).AnswerOffer(_answer(world, handover_id, member_id, accept=True))
    assert await _whose(world, member_id) == ("", world.xintiandi)


async def test_the_directory_shows_who_has_left_and_changes_her_no_more(world: World) -> None:
    await _handovers(world).ResignGuide(_resign(world, 0))
    read = await world.admin.directory.GetGuide(
        directory_pb2.GetGuideRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    )
    assert read.guide.state == GUIDE_STATE_RESIGNED
    update = directory_pb2.UpdateGuideRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide_id=world.guides[0],
        guide=Guide(state=directory_pb2.GUIDE_STATE_ACTIVE),
        update_mask=FieldMask(paths=["state"]),
    )
    assert (await refusal(world.admin.directory.UpdateGuide(update))).reason == "GUIDE_RESIGNED"
