"""Guide codes over the wire: a store's, an alias, a revocation, a claim out of the pool."""

from __future__ import annotations

import grpc
import pytest

from daogou.members.v1 import binding_pb2, guide_code_pb2
from daogou.members.v1.binding_pb2 import BindingCause
from daogou.members.v1.directory_pb2 import BindingPolicy
from daogou.members.v1.guide_code_pb2 import ScanOutcome
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, line_of, plan_of, request_id


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running, policy=BindingPolicy(pool_claim=True), plan=plan_of())


async def _store_code(world: World, store_id: str) -> str:
    request = guide_code_pb2.CreateGuideCodeRequest(brand_id=world.brand_id, store_id=store_id)
    return (await world.manager(store_id).codes.CreateGuideCode(request)).code


async def _alias(world: World, code: str) -> str:
    request = guide_code_pb2.CreateCodeAliasRequest(brand_id=world.brand_id, code=code)
    return (await world.guide(0).codes.CreateCodeAlias(request)).alias


def _claim(world: World, member_id: str, guide: int) -> binding_pb2.ClaimMemberRequest:
    return binding_pb2.ClaimMemberRequest(
        brand_id=world.brand_id, member_id=member_id, guide_id=world.guides[guide]
    )


async def test_a_stores_code_binds_to_its_pool_and_any_guide_takes_the_member_from_there(
    world: World,
) -> None:
    customer = world.identity()
    code = await _store_code(world, world.nanjing_road)
    pooled = await world.scan(code, customer)
    assert pooled.outcome == ScanOutcome.SCAN_OUTCOME_BOUND
    assert (pooled.binding.guide_id, pooled.binding.store_id) == ("", world.nanjing_road)
    assert (await world.scan(code, customer)).outcome == ScanOutcome.SCAN_OUTCOME_ALREADY_BOUND
    other = await _store_code(world, world.xintiandi)
    assert (await world.scan(other, customer)).outcome == ScanOutcome.SCAN_OUTCOME_KEPT
    taken = await world.scan(await world.code(2), customer)
    assert taken.outcome == ScanOutcome.SCAN_OUTCOME_BOUND
    assert taken.binding.guide_id == world.guides[2]
    assert (await world.scan(code, customer)).outcome == ScanOutcome.SCAN_OUTCOME_KEPT


async def test_an_order_of_a_member_of_the_pool_is_owed_to_the_pool_of_his_store(world: World) -> None:
    customer = world.identity()
    await world.scan(await _store_code(world, world.xintiandi), customer)
    # Two hours are to pass, so that the order is placed after the scan.
    world.running.later(hours=3)
    before = await world.owed_to_pool(world.xintiandi)
    order = world.order(identity=customer)
    await world.ingest(order.paid(line_of("coat", 10_000)))
    assert await world.owed_to_pool(world.xintiandi) - before == 300


async def test_a_guide_may_not_make_her_stores_code(world: World) -> None:
    request = guide_code_pb2.CreateGuideCodeRequest(brand_id=world.brand_id, store_id=world.nanjing_road)
    refused = await refusal(world.guide(0).codes.CreateGuideCode(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOURS")


async def test_an_alias_stands_for_its_code_and_is_always_the_same(world: World) -> None:
    code = await world.code(0)
    alias = await _alias(world, code)
    assert len(alias) == 16
    assert await _alias(world, code) == alias
    scanned = await world.scan(alias, world.identity())
    assert scanned.binding.guide_id == world.guides[0]


async def test_an_alias_that_was_never_given_binds_nobody(world: World) -> None:
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(world.scan("a" * 16, world.identity()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "CODE_ALIAS_UNKNOWN")


async def test_no_alias_is_given_to_what_is_no_code(world: World) -> None:
    request = guide_code_pb2.CreateCodeAliasRequest(brand_id=world.brand_id, code="no-code")
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(world.connector.codes.CreateCodeAlias(request))
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "GUIDE_CODE_MALFORMED")


async def test_revoked_codes_bind_nobody_and_later_ones_do(world: World) -> None:
    code = await world.code(1)
    alias = await _alias(world, code)
    revoke = guide_code_pb2.RevokeGuideCodesRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        store_id=world.nanjing_road,
        guide_id=world.guides[1],
    )
    first = await world.guide(1).codes.RevokeGuideCodes(revoke)
    for revoked in (code, alias):
        with world.running.nothing_written(world.brand_id):
            refused = await refusal(world.scan(revoked, world.identity()))
        assert (refused.code, refused.reason) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "GUIDE_CODE_REVOKED",
        )
    later = await world.code(1)
    again = await world.guide(1).codes.RevokeGuideCodes(revoke)
    assert again == first, "a repeat answers the same"
    bound = await world.scan(later, world.identity())
    assert bound.outcome == ScanOutcome.SCAN_OUTCOME_BOUND, "and revokes nothing more"


async def test_a_guide_claims_a_member_of_her_stores_pool_once(world: World) -> None:
    member_id = (await world.scan(await _store_code(world, world.nanjing_road), world.identity())).member_id
    claimed = await world.guide(0).bindings.ClaimMember(_claim(world, member_id, 0))
    assert claimed.binding.guide_id == world.guides[0]
    assert claimed.binding.cause == BindingCause.BINDING_CAUSE_CLAIM
    assert await world.guide(0).bindings.ClaimMember(_claim(world, member_id, 0)) == claimed
    refused = await refusal(world.guide(1).bindings.ClaimMember(_claim(world, member_id, 1)))
    assert refused.reason == "MEMBER_NOT_IN_POOL"


async def test_the_pool_of_another_store_is_not_hers_to_claim_from(world: World) -> None:
    member_id = (await world.scan(await _store_code(world, world.xintiandi), world.identity())).member_id
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(world.guide(0).bindings.ClaimMember(_claim(world, member_id, 0)))
    assert (refused.code, refused.reason) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "MEMBER_NOT_IN_POOL",
    )


async def test_nobody_claims_where_the_policy_does_not_let_guides(running: Running) -> None:
    world = await a_world(running)
    member_id = (await world.scan(await _store_code(world, world.nanjing_road), world.identity())).member_id
    refused = await refusal(world.guide(0).bindings.ClaimMember(_claim(world, member_id, 0)))
    assert refused.reason == "POOL_CLAIM_OFF"
