"""Guides who are customers, over the wire: the directory knows them, and nobody pays for it."""

from __future__ import annotations

from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from daogou.commission.v1 import plan_pb2
from daogou.commission.v1.ledger_pb2 import ExplainOrderResponse, OwnerBasis
from daogou.commission.v1.order_event_pb2 import EventOutcome
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import directory_pb2, erasure_pb2, member_pb2, merge_pb2
from daogou.members.v1.directory_pb2 import BindingPolicy, Guide
from daogou.members.v1.erasure_pb2_grpc import ErasureServiceStub
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, line_of, plan_of, request_id

COAT: Final = line_of("coat", 10_000)
POS: Final = Channel.CHANNEL_POS
NOBODY: Final = "a" * 16
BY_HERSELF: Final = BindingPolicy(self_binding=True)


def update_of(world: World, member_id: str, index: int = 0, **more: Any) -> directory_pb2.UpdateGuideRequest:
    """A guide is that member as a customer."""
    return directory_pb2.UpdateGuideRequest(
        **{
            "brand_id": world.brand_id,
            "request_id": request_id(),
            "guide_id": world.guides[index],
            "guide": Guide(member_id=member_id),
            "update_mask": FieldMask(paths=["member_id"]),
            **more,
        }
    )


async def read(world: World, *indexes: int) -> list[Guide]:
    """Guides as others read them; all ways of reading agree."""
    ids = [world.guides[index] for index in indexes]
    request = directory_pb2.BatchGetGuidesRequest(brand_id=world.brand_id, guide_ids=ids)
    found = [result.guide for result in (await world.connector.directory.BatchGetGuides(request)).results]
    listed = await world.admin.directory.ListGuides(directory_pb2.ListGuidesRequest(brand_id=world.brand_id))
    by_id = {guide.guide_id: guide for guide in listed.guides}
    for guide in found:
        one = directory_pb2.GetGuideRequest(brand_id=world.brand_id, guide_id=guide.guide_id)
        assert (await world.admin.directory.GetGuide(one)).guide == guide == by_id[guide.guide_id]
    return found


async def enrolled(world: World, *identities: Identity) -> str:
    """A new member."""
    request = member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=identities)
    return (await world.connector.members.EnrolMember(request)).member.member_id


# ---- who she is as a customer -----------------------------------------------------------------------


async def test_a_guide_is_hired_and_changed_with_the_member_that_she_is(running: Running) -> None:
    world = await a_world(running)
    request = directory_pb2.CreateGuideRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide=Guide(store_id=world.nanjing_road, display_name="Fay", member_id=world.member_id),
    )
    hired = (await world.admin.directory.CreateGuide(request)).guide
    assert hired.member_id == world.member_id
    world.guides.append(hired.guide_id)
    assert [one.member_id for one in await read(world, 0, 3)] == ["", world.member_id]
    changed = (await world.admin.directory.UpdateGuide(update_of(world, world.member_id))).guide
    assert changed.member_id == world.member_id
    # Another change of hers leaves it as it is.
    named = update_of(
        world, "", guide=Guide(display_name="Ann"), update_mask=FieldMask(paths=["display_name"])
    )
    assert (await world.admin.directory.UpdateGuide(named)).guide.member_id == world.member_id
    await world.admin.directory.UpdateGuide(update_of(world, ""))
    assert [one.member_id for one in await read(world, 0, 3)] == ["", world.member_id]


async def test_a_guide_cannot_be_a_member_whom_the_brand_has_not(running: Running) -> None:
    world, other = await a_world(running), await a_world(running)
    guide = Guide(store_id=world.nanjing_road, display_name="Fay")
    for member_id in (NOBODY, other.member_id):
        hired = directory_pb2.CreateGuideRequest(
            brand_id=world.brand_id, request_id=request_id(), guide=guide
        )
        hired.guide.member_id = member_id
        with running.nothing_written(world.brand_id, other.brand_id):
            found = await refusal(world.admin.directory.CreateGuide(hired))
            changed = await refusal(world.admin.directory.UpdateGuide(update_of(world, member_id)))
        assert {(one.code, one.reason) for one in (found, changed)} == {
            (grpc.StatusCode.NOT_FOUND, "MEMBER_UNKNOWN")
        }
    several = directory_pb2.BatchCreateGuidesRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guides=[Guide(member_id=NOBODY, store_id=world.nanjing_road, display_name="Gil"), guide],
    )
    results = (await world.admin.directory.BatchCreateGuides(several)).results
    assert [one.error.reason for one in results] == ["MEMBER_UNKNOWN", ""]
    malformed = await refusal(world.admin.directory.UpdateGuide(update_of(world, "Ann")))
    assert malformed.fields == {"guide.member_id"}


async def test_who_answers_for_her_is_told_through_merges_and_their_undoing(running: Running) -> None:
    world = await a_world(running)
    card = world.identity(IdentityKind.IDENTITY_KIND_POS_CARD)
    younger = await enrolled(world, card)
    await world.admin.directory.UpdateGuide(update_of(world, younger))
    linked = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=world.member_id, identity=card)
    )
    [guide] = await read(world, 0)
    assert (guide.member_id, list(guide.merged_member_ids)) == (world.member_id, [younger])
    undo = merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=linked.merge.merge_id)
    await MergeServiceStub(world.admin.channel("members")).UndoMerge(undo)
    [guide] = await read(world, 0)
    assert (guide.member_id, list(guide.merged_member_ids)) == (younger, [])


async def test_an_erased_member_is_no_guide(running: Running) -> None:
    """What stays of him in ledgers must not have her name."""
    world = await a_world(running)
    await world.admin.directory.UpdateGuide(update_of(world, world.member_id))
    erase = erasure_pb2.EraseMemberRequest(
        brand_id=world.brand_id, member_id=world.member_id, purpose="he asked for it"
    )
    await ErasureServiceStub(world.admin.channel("members")).EraseMember(erase)
    [guide] = await read(world, 0)
    assert guide.member_id == ""
    assert not running.documents(
        "members", "guides", {"brand_id": world.brand_id, "member_id": world.member_id}
    )
    refused = await refusal(world.admin.directory.UpdateGuide(update_of(world, world.member_id)))
    assert refused.reason == "MEMBER_ERASED"


# ---- what she buys ----------------------------------------------------------------------------------


async def a_shop(running: Running, **plan: Any) -> tuple[World, Identity]:
    """A brand in which the first guide is a member by her card, and bound to herself."""
    shares = [
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=6000),
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_SERVING, share_bp=4000),
    ]
    rule = plan_pb2.Rule(rule_id="all", rate_bp=1000, shares=shares)
    world = await a_world(running, policy=BY_HERSELF, plan=plan_of(rule, **plan))
    card = world.identity(IdentityKind.IDENTITY_KIND_POS_CARD)
    scanned = await world.scan(await world.code(0), card)
    await world.admin.directory.UpdateGuide(update_of(world, scanned.member_id))
    running.later(hours=3)
    return world, card


async def bought(world: World, identity: Identity, serving: int) -> ExplainOrderResponse:
    """100.00 at the till, of which 6.00 are the owner's and 4.00 whoever served."""
    order = world.order(POS, identity=identity, serving_guide_id=world.guides[serving])
    [result] = await world.ingest(order.paid(COAT))
    assert result.outcome == EventOutcome.EVENT_OUTCOME_APPLIED, result
    return await world.explained(order)


async def test_a_guide_is_paid_nothing_for_what_she_buys_and_her_colleague_is(running: Running) -> None:
    world, card = await a_shop(running)
    told = await bought(world, card, serving=1)
    assert [await world.owed(index) for index in (0, 1)] == [0, 400]
    assert not told.attribution.HasField("owner")
    assert told.attribution.owner_basis == OwnerBasis.OWNER_BASIS_SELF_PURCHASE
    [withheld] = told.attribution.self_purchases
    assert (withheld.role, withheld.payee.guide_id) == (plan_pb2.PAYEE_ROLE_OWNER, world.guides[0])
    assert {one.store_id for one in told.sales_credits} == {world.nanjing_road}
    assert told.books_agree
    assert (await world.trial_balance()).total_minor == 0


async def test_who_serves_herself_is_not_paid_for_that_either(running: Running) -> None:
    world, card = await a_shop(running)
    told = await bought(world, card, serving=0)
    assert [await world.owed(index) for index in (0, 1)] == [0, 0]
    assert {one.role for one in told.attribution.self_purchases} == {
        plan_pb2.PAYEE_ROLE_OWNER,
        plan_pb2.PAYEE_ROLE_SERVING,
    }
    assert not told.entries
    assert told.books_agree


async def test_a_plan_may_pay_a_guide_for_what_she_buys(running: Running) -> None:
    world, card = await a_shop(running, self_purchase=plan_pb2.SELF_PURCHASE_PAY)
    [plan] = (await world.admin.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=world.brand_id))).plans
    assert plan.self_purchase == plan_pb2.SELF_PURCHASE_PAY
    told = await bought(world, card, serving=1)
    assert [await world.owed(index) for index in (0, 1)] == [600, 400]
    assert told.attribution.owner.guide_id == world.guides[0]
    assert not told.attribution.self_purchases


async def test_a_plan_that_says_nothing_pays_nothing(running: Running) -> None:
    world, _ = await a_shop(running)
    [plan] = (await world.admin.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=world.brand_id))).plans
    assert plan.self_purchase == plan_pb2.SELF_PURCHASE_NOTHING


@pytest.mark.parametrize("serving", [0, 1])
async def test_what_others_buy_of_her_is_hers(running: Running, serving: int) -> None:
    world, _ = await a_shop(running)
    _, identity = await world.bound(0)
    running.later(hours=3)
    await bought(world, identity, serving)
    assert await world.owed(0) == (1000 if serving == 0 else 600)
