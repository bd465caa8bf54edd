"""Reattributions over the wire: two persons agree, the sale is another's, and only the difference moves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from cryptography.exceptions import InvalidTag
from google.protobuf.field_mask_pb2 import FieldMask

from chassis import audit
from chassis.sealing import Sealer
from chassis.times import to_timestamp
from daogou.commission.v1 import ledger_pb2, plan_pb2, reattribution_pb2
from daogou.commission.v1.ledger_pb2 import OwnerBasis
from daogou.commission.v1.order_event_pb2 import EventOutcome
from daogou.commission.v1.reattribution_pb2 import (
    REATTRIBUTION_STATE_APPROVED,
    REATTRIBUTION_STATE_DONE,
    REATTRIBUTION_STATE_PROPOSED,
    REATTRIBUTION_STATE_REJECTED,
    NamedOrders,
    OrderName,
    OrdersOfMember,
    ProposeReattributionRequest,
    Reattribution,
)
from daogou.commission.v1.reattribution_pb2_grpc import ReattributionServiceStub
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import binding_pb2, directory_pb2, member_pb2, merge_pb2
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from svc_commission.order.identities import KEPT
from tests.rpc.running import Caller, Running, eventually, refusal
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.commission.v1.reattribution_pb2_grpc import ReattributionServiceAsyncStub

COAT: Final = line_of("coat", 10_000)
POS: Final = Channel.CHANNEL_POS
CARD: Final = IdentityKind.IDENTITY_KIND_POS_CARD
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
HOUR: Final = timedelta(hours=1)


def stub(caller: Caller) -> ReattributionServiceAsyncStub:
    """The service, called by somebody."""
    made: ReattributionServiceAsyncStub = ReattributionServiceStub(caller.channel("commission"))
    return made


def second(world: World) -> Caller:
    """Another person of head office."""
    return world.running.caller("BRAND_ADMIN", brand=world.brand_id, subject="the second")


def named(world: World, *orders: Order, **more: Any) -> ProposeReattributionRequest:
    """A proposal for some orders."""
    names = [OrderName(channel=order.channel, order_id=order.order_id) for order in orders]
    return ProposeReattributionRequest(
        **{
            "brand_id": world.brand_id,
            "request_id": request_id(),
            "reason": "the codes of two guides were mixed up",
            "named": NamedOrders(orders=names),
            **more,
        }
    )


async def proposed(world: World, *orders: Order, **more: Any) -> Reattribution:
    """What would change."""
    return (await stub(world.admin).ProposeReattribution(named(world, *orders, **more))).reattribution


async def approved(world: World, proposal: Reattribution, caller: Caller | None = None) -> Reattribution:
    """A second person agrees."""
    request = reattribution_pb2.ApproveReattributionRequest(
        brand_id=world.brand_id, reattribution_id=proposal.reattribution_id, request_id=request_id()
    )
    return (await stub(caller or second(world)).ApproveReattribution(request)).reattribution


async def got(world: World, proposal: Reattribution) -> Reattribution:
    """How far it is."""
    request = reattribution_pb2.GetReattributionRequest(
        brand_id=world.brand_id, reattribution_id=proposal.reattribution_id
    )
    return (await stub(world.admin).GetReattribution(request)).reattribution


async def carried_out(world: World, proposal: Reattribution) -> Reattribution:
    """A second person agrees, and it is done."""
    await approved(world, proposal)

    async def is_done() -> bool:
        return (await got(world, proposal)).state == REATTRIBUTION_STATE_DONE

    await eventually(is_done, "the reattribution is carried out")
    return await got(world, proposal)


async def corrected(world: World, member_id: str, guide: int | None, since: datetime) -> None:
    """Whose he was since then, as somebody says that it was."""
    await world.admin.bindings.CorrectBinding(
        binding_pb2.CorrectBindingRequest(
            brand_id=world.brand_id,
            member_id=member_id,
            valid_from_time=to_timestamp(since),
            guide_id="" if guide is None else world.guides[guide],
            reason="asked in the shop",
            request_id=request_id(),
        )
    )


async def a_sale(world: World, guide: int = 0, *, paid: bool = True, **more: Any) -> tuple[str, Order]:
    """A guide's member who has paid 100.00 on Tmall, and his order."""
    member_id, identity = await world.bound(guide)
    world.running.later(hours=3)
    order = world.order(**{"identity": identity, **more})
    events = [order.placed(COAT), order.paid(COAT)] if paid else [order.placed(COAT)]
    assert {one.outcome for one in await world.ingest(*events)} == {EventOutcome.EVENT_OUTCOME_APPLIED}
    return member_id, order


async def owed(world: World) -> list[int]:
    return [await world.owed(index) for index in range(len(world.guides))]


@pytest.fixture
async def world(running: Running) -> World:
    """A brand of 3 % for the owner."""
    return await a_world(running, plan=plan_of())


# ---- as it should go --------------------------------------------------------------------------------


async def test_a_corrected_binding_moves_the_money_once_two_persons_agree(world: World) -> None:
    """Ann's sale was Bea's: three fen in a hundred leave the one and come to the other, and no more."""
    member_id, order = await a_sale(world)
    ann, bea = world.guides[:2]
    frozen = (await world.explained(order)).attribution
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    assert await owed(world) == [300, 0, 0], "a correction moves nothing by itself"
    proposal = await proposed(world, order)
    assert proposal.state == REATTRIBUTION_STATE_PROPOSED
    [one] = proposal.orders
    assert one.before == frozen
    assert (one.before.owner.guide_id, one.after.owner.guide_id) == (ann, bea)
    moved = {each.payee.guide_id: each.difference_minor for each in one.differences}
    assert moved == {ann: -300, bea: 300}
    assert (list(proposal.differences), proposal.changed_count) == (list(one.differences), 1)
    assert proposal.currency_code == "CNY"
    assert await owed(world) == [300, 0, 0], "neither does a proposal"
    done = await carried_out(world, proposal)
    assert (done.proposer, done.decider) == ("local-brand_admin", "the second")
    assert await owed(world) == [0, 300, 0]
    told = await world.explained(order)
    assert told.attribution == one.after
    assert told.attribution.known_at_time == proposal.propose_time
    [former] = told.former_attributions
    assert (former.attribution, former.reattribution_id) == (frozen, proposal.reattribution_id)
    causes = [list(entry.cause_event_ids) for entry in told.entries]
    assert causes == [["PLACED", "PAID:1"], [f"REATTRIBUTED:{proposal.reattribution_id}"]]
    assert told.books_agree
    owners = []
    for entry in told.entries:
        asked = ledger_pb2.ExplainEntryRequest(brand_id=world.brand_id, entry_id=entry.entry_id)
        explained = (await world.admin.ledger.ExplainEntry(asked)).order
        assert explained.agrees, "each entry follows from whose sale it was then"
        owners.append(explained.attribution.owner.guide_id)
    assert owners == [ann, bea]
    assert (await world.trial_balance()).total_minor == 0


async def test_what_happens_later_follows_the_new_owner(world: World) -> None:
    """A refund takes back from Bea what was Ann's; events between proposal and approval count as well."""
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    proposal = await proposed(world, order)
    await world.ingest(order.refunded(refund_of("coat", 5_000)))
    assert await owed(world) == [150, 0, 0]
    await carried_out(world, proposal)
    assert await owed(world) == [0, 150, 0]
    await world.ingest(order.refunded(refund_of("coat", 5_000), number=2))
    assert await owed(world) == [0, 0, 0]
    assert (await world.explained(order)).books_agree


async def test_a_buyer_who_is_enrolled_later_can_be_let_count(world: World) -> None:
    """Unknown then, the pool's; his number is kept until it has answered, and not a moment longer."""
    number = world.identity()
    order = world.order(POS, identity=number)
    await world.ingest(order.paid(COAT))
    assert await world.owed_to_pool(world.nanjing_road) == 300
    kept = sealed_identities(world)
    assert [value for value in kept if number.value.encode() in value], "the search must be able to find it"
    scanned = await world.scan(await world.code(1), number)
    await corrected(world, scanned.member_id, 1, order.placed_time - HOUR)
    await carried_out(world, await proposed(world, order))
    assert await owed(world) == [0, 300, 0]
    assert await world.owed_to_pool(world.nanjing_road) == 0
    told = await world.explained(order)
    assert (told.attribution.member_id, told.attribution.owner_basis) == (
        scanned.member_id,
        OwnerBasis.OWNER_BASIS_BINDING,
    )
    assert told.first_purchase
    assert not sealed_identities(world)


async def test_the_orders_of_a_member_in_a_range_are_found(world: World) -> None:
    member_id, first = await a_sale(world)
    world.running.later(hours=5)
    later = world.order(member_id=member_id)
    await world.ingest(later.paid(COAT))
    await a_sale(world)
    whose = OrdersOfMember(
        member_id=member_id,
        placed_from_time=to_timestamp(first.placed_time),
        placed_to_time=to_timestamp(later.placed_time),
    )
    found = await proposed(world, named=None, of_member=whose)
    assert [one.order_id for one in found.orders] == [first.order_id]
    whose.placed_to_time.CopyFrom(to_timestamp(later.placed_time + timedelta(milliseconds=1)))
    found = await proposed(world, named=None, of_member=whose)
    assert [one.order_id for one in found.orders] == [first.order_id, later.order_id]
    assert (found.changed_count, list(found.differences)) == (0, [])
    done = await carried_out(world, found)
    assert not any(one.HasField("after") for one in done.orders)
    assert not (await world.explained(first)).former_attributions


async def test_orders_that_cannot_be_reattributed_are_reported_by_themselves(world: World) -> None:
    member_id, order = await a_sale(world)
    nowhere = world.order()
    pending = world.order(POS, selling_store_id="a" * 16)
    await world.ingest(pending.paid(COAT))
    await corrected(world, member_id, 2, order.placed_time - HOUR)
    proposal = await proposed(world, nowhere, order, pending)
    assert [one.error.reason for one in proposal.orders] == ["ORDER_UNKNOWN", "", "ATTRIBUTION_PENDING"]
    await carried_out(world, proposal)
    assert await owed(world) == [0, 0, 300]


async def test_who_served_stays_paid_and_the_manager_stays(running: Running) -> None:
    """Only the owner is decided anew."""
    shares = [
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=5000),
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_SERVING, share_bp=5000),
    ]
    plan = plan_of(plan_pb2.Rule(rule_id="all", rate_bp=1000, shares=shares))
    world = await a_world(running, plan=plan)
    member_id, identity = await world.bound(0)
    running.later(hours=3)
    order = world.order(POS, identity=identity, serving_guide_id=world.guides[1])
    await world.ingest(order.paid(COAT))
    await corrected(world, member_id, None, order.placed_time - HOUR)
    await carried_out(world, await proposed(world, order))
    # Nobody's then: who served is the owner too.
    assert await owed(world) == [0, 1000, 0]
    told = await world.explained(order)
    assert told.attribution.owner_basis == OwnerBasis.OWNER_BASIS_SERVING_GUIDE
    assert {one.store_id for one in told.sales_credits if one.amount_minor} == {world.nanjing_road}


async def test_a_guide_who_turns_out_to_be_the_buyer_gives_back_what_she_was_paid(world: World) -> None:
    """And has it again where that was an error."""
    member_id, order = await a_sale(world)
    for who, expected in ((member_id, 0), (world.member_id, 300)):
        update = directory_pb2.UpdateGuideRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            guide_id=world.guides[0],
            guide=directory_pb2.Guide(member_id=who),
            update_mask=FieldMask(paths=["member_id"]),
        )
        await world.admin.directory.UpdateGuide(update)
        assert await world.owed(0) == 300 - expected
        await carried_out(world, await proposed(world, order))
        assert await owed(world) == [expected, 0, 0]
    assert (await world.explained(order)).books_agree


# ---- two persons, once ------------------------------------------------------------------------------


async def test_nobody_approves_what_he_proposed_himself(world: World) -> None:
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    proposal = await proposed(world, order)
    with world.running.nothing_written(world.brand_id):
        found = await refusal(approved(world, proposal, world.admin))
    assert (found.code, found.reason) == (REFUSED, "SAME_PERSON")
    assert (await got(world, proposal)).state == REATTRIBUTION_STATE_PROPOSED
    await carried_out(world, proposal)


async def test_it_is_decided_once(world: World) -> None:
    """Approved or rejected: whoever comes after is told that it was."""
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    proposal = await proposed(world, order)
    reject = reattribution_pb2.RejectReattributionRequest(
        brand_id=world.brand_id, reattribution_id=proposal.reattribution_id, request_id=request_id()
    )
    rejected = await stub(world.admin).RejectReattribution(reject)
    assert rejected.reattribution.state == REATTRIBUTION_STATE_REJECTED
    assert await stub(world.admin).RejectReattribution(reject) == rejected
    late = await refusal(approved(world, proposal))
    reject.request_id = request_id()
    twice = await refusal(stub(world.admin).RejectReattribution(reject))
    assert {(one.code, one.reason) for one in (late, twice)} == {(REFUSED, "ALREADY_DECIDED")}
    await asyncio.sleep(1.5)
    assert await owed(world) == [300, 0, 0]


async def test_repeats_return_the_first_reply_and_move_nothing_twice(world: World) -> None:
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    propose = named(world, order)
    first = await stub(world.admin).ProposeReattribution(propose)
    approve = reattribution_pb2.ApproveReattributionRequest(
        brand_id=world.brand_id,
        reattribution_id=first.reattribution.reattribution_id,
        request_id=request_id(),
    )
    said = [await stub(second(world)).ApproveReattribution(approve) for _ in range(3)]
    assert {one.reattribution.state for one in said} == {REATTRIBUTION_STATE_APPROVED}
    assert said[0] == said[1] == said[2]

    async def is_done() -> bool:
        return (await got(world, first.reattribution)).state == REATTRIBUTION_STATE_DONE

    await eventually(is_done, "the reattribution is carried out")
    assert await stub(world.admin).ProposeReattribution(propose) == first
    assert await stub(second(world)).ApproveReattribution(approve) == said[0]
    propose.reason = "another"
    reused = await refusal(stub(world.admin).ProposeReattribution(propose))
    assert (reused.code, reused.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await owed(world) == [0, 300, 0]
    assert len((await world.explained(order)).former_attributions) == 1


async def test_of_many_approvals_at_once_one_counts(world: World) -> None:
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    proposal = await proposed(world, order)
    people = [
        world.running.caller("BRAND_ADMIN", brand=world.brand_id, subject=f"person {index}")
        for index in range(8)
    ]
    outcomes = await asyncio.gather(
        *[approved(world, proposal, person) for person in people], return_exceptions=True
    )
    assert sum(isinstance(one, Reattribution) for one in outcomes) == 1, outcomes
    decider = next(one.decider for one in outcomes if isinstance(one, Reattribution))

    async def is_done() -> bool:
        return (await got(world, proposal)).state == REATTRIBUTION_STATE_DONE

    await eventually(is_done, "the reattribution is carried out")
    assert (await got(world, proposal)).decider == decider
    assert await owed(world) == [0, 300, 0]


async def test_what_was_decided_from_newer_knowledge_stays(world: World) -> None:
    """Two proposals, and the older is approved last: it must not bring back what was known before."""
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    older = await proposed(world, order)
    await corrected(world, member_id, 2, order.placed_time - HOUR)
    newer = await proposed(world, order)
    await carried_out(world, newer)
    assert await owed(world) == [0, 0, 300]
    await carried_out(world, older)
    assert await owed(world) == [0, 0, 300]
    assert len((await world.explained(order)).former_attributions) == 1


async def test_it_can_be_reattributed_again(world: World) -> None:
    member_id, order = await a_sale(world)
    for guide in (1, 2):
        await corrected(world, member_id, guide, order.placed_time - HOUR)
        await carried_out(world, await proposed(world, order))
    assert await owed(world) == [0, 0, 300]
    told = await world.explained(order)
    owners = [one.attribution.owner.guide_id for one in told.former_attributions]
    assert owners == world.guides[:2]
    assert told.books_agree


async def test_all_three_steps_are_recorded_in_the_audit_log(world: World) -> None:
    member_id, order = await a_sale(world)
    await corrected(world, member_id, 1, order.placed_time - HOUR)
    proposal = await proposed(world, order)
    await carried_out(world, proposal)
    rejected = await proposed(world, order)
    reject = reattribution_pb2.RejectReattributionRequest(
        brand_id=world.brand_id, reattribution_id=rejected.reattribution_id, request_id=request_id()
    )
    await stub(second(world)).RejectReattribution(reject)
    records = world.running.documents("commission", "audit", {"brand_id": world.brand_id})
    mine = [one for one in records if one["action"].endswith("Reattribution")]
    assert [(one["action"], one["caller"]) for one in mine] == [
        ("ProposeReattribution", "local-brand_admin"),
        ("ApproveReattribution", "the second"),
        ("ProposeReattribution", "local-brand_admin"),
        ("RejectReattribution", "the second"),
    ]
    assert {one["purpose"] for one in mine} == {"the codes of two guides were mixed up"}
    chain = world.running.documents("commission", "audit", {"process_id": mine[0]["process_id"]})
    assert audit.broken_at(sorted(chain, key=lambda one: int(one["sequence"]))) is None


# ---- lists and refusals -----------------------------------------------------------------------------


async def test_they_are_listed_the_last_first_without_their_orders(world: World) -> None:
    _, order = await a_sale(world)
    made = []
    for _ in range(5):
        made.append((await proposed(world, order)).reattribution_id)
        world.running.later(seconds=1)
    found: list[str] = []
    request = reattribution_pb2.ListReattributionsRequest(brand_id=world.brand_id, page_size=2)
    while True:
        page = await stub(world.admin).ListReattributions(request)
        assert not any(one.orders for one in page.reattributions)
        found += [one.reattribution_id for one in page.reattributions]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert found == made[::-1]
    request.page_token = "forged"
    assert (await refusal(stub(world.admin).ListReattributions(request))).reason == "PAGE_TOKEN_INVALID"


def _of_member(begin: datetime, end: datetime) -> OrdersOfMember:
    return OrdersOfMember(
        member_id="a" * 16, placed_from_time=to_timestamp(begin), placed_to_time=to_timestamp(end)
    )


async def test_refusals_name_every_field_and_write_nothing(world: World) -> None:
    twice = [OrderName(channel=POS, order_id="1"), OrderName(channel=POS, order_id="1")]
    now = world.running.now()
    for request, fields in (
        (ProposeReattributionRequest(brand_id=world.brand_id), {"request_id", "reason", "which"}),
        (named(world, reason="r" * 501), {"reason", "named.orders"}),
        (named(world, named=NamedOrders(orders=twice)), {"named.orders[1]"}),
        (
            named(world, named=NamedOrders(orders=[OrderName()])),
            {"named.orders[0].channel", "named.orders[0].order_id"},
        ),
        (named(world, named=None, of_member=_of_member(now, now)), {"of_member.placed_to_time"}),
        (named(world, named=None, of_member=_of_member(now, now - HOUR)), {"of_member.placed_to_time"}),
        (
            named(world, named=None, of_member=OrdersOfMember()),
            {"of_member.member_id", "of_member.placed_from_time", "of_member.placed_to_time"},
        ),
        (named(world, *[world.order() for _ in range(1001)]), {"named.orders"}),
    ):
        with world.running.nothing_written(world.brand_id):
            found = await refusal(stub(world.admin).ProposeReattribution(request))
        assert (found.reason, found.fields) == ("INVALID_FIELDS", fields)


async def test_another_brands_reattributions_and_orders_are_unknown(running: Running, world: World) -> None:
    other = await a_world(running, plan=plan_of())
    member_id, order = await a_sale(other)
    await corrected(other, member_id, 1, order.placed_time - HOUR)
    theirs = await proposed(other, order)
    found = await proposed(world, order)
    assert [one.error.reason for one in found.orders] == ["ORDER_UNKNOWN"]
    whose = _of_member(order.placed_time - HOUR, order.placed_time + HOUR)
    whose.member_id = member_id
    assert not (await proposed(world, named=None, of_member=whose)).orders
    with running.nothing_written(other.brand_id):
        for call in (got(world, theirs), approved(world, theirs)):
            refused = await refusal(call)
            assert (refused.code, refused.reason) == (NOT_FOUND, "REATTRIBUTION_UNKNOWN")
    listed = await stub(world.admin).ListReattributions(
        reattribution_pb2.ListReattributionsRequest(brand_id=world.brand_id)
    )
    assert theirs.reattribution_id not in {one.reattribution_id for one in listed.reattributions}


# ---- first purchases --------------------------------------------------------------------------------


async def of_two_purchases(running: Running) -> World:
    """A brand that pays 10 % for a first purchase and 2 % for a repeat."""
    first = plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST)
    return await a_world(running, plan=plan_of(rule_of("first", 1000, match=first), rule_of("repeat", 200)))


async def firsts(world: World, *orders: Order) -> list[bool]:
    found = [await world.explained(order) for order in orders]
    assert all(one.books_agree for one in found)
    return [one.first_purchase for one in found]


async def test_a_purchase_that_turns_out_to_be_an_earlier_one_displaces_his_first(running: Running) -> None:
    """A stranger's purchase becomes a member's, and is before what passed for his first."""
    world = await of_two_purchases(running)
    running.later(hours=30)
    card = world.identity(CARD)
    early = world.order(POS, identity=card)
    await world.ingest(early.paid(COAT))
    running.later(hours=5)
    member_id, late = await a_sale(world)
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=card)
    )
    await corrected(world, member_id, 0, early.placed_time - HOUR)
    assert await firsts(world, early, late) == [False, True]
    proposal = await proposed(world, early)
    moved = {
        one.payee.guide_id or one.payee.pool_store_id: one.difference_minor for one in proposal.differences
    }
    assert moved == {world.guides[0]: 1000, world.nanjing_road: -200}
    await carried_out(world, proposal)

    async def settled() -> bool:
        return await firsts(world, early, late) == [True, False]

    await eventually(settled, "the later one is a repeat")
    assert await owed(world) == [1200, 0, 0]
    assert await world.owed_to_pool(world.nanjing_road) == 0
    assert (await world.trial_balance()).total_minor == 0


async def test_who_loses_his_first_purchase_has_his_next_for_it(running: Running) -> None:
    """Bought under an id that was merged into another's, and is its own again."""
    world = await of_two_purchases(running)
    card = world.identity(CARD)
    younger = (await world.scan(await world.code(1), card)).member_id
    older = world.member_id
    running.later(hours=3)
    linked = await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=older, identity=card)
    )
    running.later(hours=3)
    his = world.order(member_id=younger)
    await world.ingest(his.paid(COAT))
    running.later(hours=3)
    own = world.order(member_id=older)
    await world.ingest(own.paid(COAT))
    assert {(await world.explained(order)).attribution.member_id for order in (his, own)} == {older}
    assert await firsts(world, his, own) == [True, False]
    undo = merge_pb2.UndoMergeRequest(brand_id=world.brand_id, merge_id=linked.merge.merge_id)
    await MergeServiceStub(world.admin.channel("members")).UndoMerge(undo)
    await carried_out(world, await proposed(world, his))
    assert (await world.explained(his)).attribution.member_id == younger

    async def settled() -> bool:
        return await firsts(world, his, own) == [True, True]

    await eventually(settled, "each has a first of his own")
    assert (await world.trial_balance()).total_minor == 0


# ---- identities -------------------------------------------------------------------------------------


def sealed_identities(world: World) -> list[bytes]:
    """What the commission service holds of its buyers that can be opened with its keys."""
    sealer = Sealer.from_file(world.running.stack.keys.pii_file)
    found: list[bytes] = []
    for name in world.running.database("commission").list_collection_names():
        query = {"brand_id": world.brand_id}
        for document in world.running.documents("commission", name, query):
            context = document.get("order_key", document["_id"])
            found += [opened for value in _bytes_in(document) if (opened := _opened(sealer, value, context))]
    return found


def _bytes_in(value: Any) -> Sequence[bytes]:
    if isinstance(value, bytes):
        return [value]
    if isinstance(value, dict):
        return [one for part in value.values() for one in _bytes_in(part)]
    if isinstance(value, list):
        return [one for part in value for one in _bytes_in(part)]
    return []


def _opened(sealer: Sealer, value: bytes, context: str) -> bytes:
    try:
        return sealer.opened(value, context)
    except (InvalidTag, KeyError, ValueError, IndexError):
        return b""


async def test_an_identity_is_gone_as_soon_as_it_has_answered(world: World) -> None:
    """From events that come later too; and what comes again is known all the same."""
    member_id, order = await a_sale(world, paid=False)
    assert not sealed_identities(world)
    await world.ingest(order.paid(COAT), order.refunded(refund_of("coat", 100)))
    assert not sealed_identities(world)
    repeats = await world.ingest(order.placed(COAT), order.paid(COAT))
    assert {one.outcome for one in repeats} == {EventOutcome.EVENT_OUTCOME_DUPLICATE}
    told = await world.explained(order)
    assert told.attribution.member_id == member_id
    [stored] = world.running.documents("commission", "orders", {"brand_id": world.brand_id})
    assert {event["buyer"]["member_id"] for event in stored["events"]} == {member_id}


async def test_an_identity_that_nobody_knows_is_dropped_after_half_a_year(world: World) -> None:
    """That of an event which contradicts another one too, of which the rest is kept."""
    number, other = world.identity(), world.identity()
    order = world.order(POS, identity=number)
    await world.ingest(order.paid(COAT))
    contradicted = order.paid(COAT)
    contradicted.identity.CopyFrom(other)
    [result] = await world.ingest(contradicted)
    assert result.outcome == EventOutcome.EVENT_OUTCOME_QUARANTINED

    def found() -> list[str]:
        opened = sealed_identities(world)
        return [one.value for one in (number, other) if any(one.value.encode() in value for value in opened)]

    assert found() == [number.value, other.value]
    world.running.later(seconds=KEPT.total_seconds() - 3600)
    await asyncio.sleep(2.5)
    assert found() == [number.value, other.value]
    world.running.later(hours=2)

    async def is_gone() -> bool:
        return not found()

    await eventually(is_gone, "no identity is left")
    assert [value for value in sealed_identities(world) if b"coat" in value], "the rest of what contradicts"
    [repeat] = await world.ingest(order.paid(COAT))
    assert repeat.outcome == EventOutcome.EVENT_OUTCOME_DUPLICATE
    await world.ingest(order.refunded(refund_of("coat", 100)))
    assert not found()
    told = await world.explained(order)
    assert told.books_agree
