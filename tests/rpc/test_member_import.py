"""Members brought from another system: in bulk, with their bindings, once however often it is sent."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from chassis.times import to_timestamp
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import binding_pb2, member_import_pb2, member_pb2
from daogou.members.v1.binding_pb2 import BindingCause
from daogou.members.v1.member_import_pb2 import (
    IMPORT_OUTCOME_IMPORTED,
    IMPORT_OUTCOME_KNOWN,
    IMPORT_OUTCOME_REFUSED,
    ImportedMember,
)
from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceStub
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.member_import_pb2_grpc import MemberImportServiceAsyncStub

Result = member_import_pb2.ImportMembersResponse.Result


@pytest.fixture(scope="module")
async def world(running: Running) -> World:
    return await a_world(running, member=False)


async def _import(world: World, *members: ImportedMember) -> list[Result]:
    stub: MemberImportServiceAsyncStub = MemberImportServiceStub(world.connector.channel("members"))
    request = member_import_pb2.ImportMembersRequest(brand_id=world.brand_id, members=members)
    return list((await stub.ImportMembers(request)).results)


def _bound(world: World, since: datetime, *identities: Identity, guide: int = 0) -> ImportedMember:
    return ImportedMember(identities=identities, guide_id=world.guides[guide], bound_time=to_timestamp(since))


async def test_a_thousand_members_arrive_with_their_bindings_and_once(world: World) -> None:
    since = world.running.now() - timedelta(days=400)
    identities = [world.identity(IdentityKind.IDENTITY_KIND_POS_CARD) for _ in range(1000)]
    members = [_bound(world, since, identity, guide=place % 3) for place, identity in enumerate(identities)]
    first = await _import(world, *members)
    assert {result.outcome for result in first} == {IMPORT_OUTCOME_IMPORTED}
    again = await _import(world, *members)
    assert {result.outcome for result in again} == {IMPORT_OUTCOME_KNOWN}
    assert [result.member_id for result in again] == [result.member_id for result in first]
    assert len({result.member_id for result in first}) == 1000
    queries = [binding_pb2.BindingQuery(identity=identity) for identity in identities]
    resolved = await world.service.bindings.BatchResolveBindings(
        binding_pb2.BatchResolveBindingsRequest(brand_id=world.brand_id, queries=queries)
    )
    assert [one.guide_id for one in resolved.resolved] == [world.guides[place % 3] for place in range(1000)]


async def test_a_brought_binding_held_before_it_was_known(world: World) -> None:
    """He was hers a year ago, but nobody here knew it last month."""
    since = world.running.now() - timedelta(days=400)
    phone, card = world.identity(), world.identity(IdentityKind.IDENTITY_KIND_POS_CARD)
    [result] = await _import(world, _bound(world, since, phone, card))
    read = await world.admin.members.GetMember(
        member_pb2.GetMemberRequest(brand_id=world.brand_id, identity=card)
    )
    assert read.member.member_id == result.member_id
    assert len(read.member.identities) == 2
    assert read.member.binding.cause == BindingCause.BINDING_CAUSE_IMPORT

    async def whose(**known: Any) -> str:
        query = binding_pb2.BindingQuery(
            member_id=result.member_id, as_of_time=to_timestamp(since + timedelta(days=30)), **known
        )
        request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=query)
        return (await world.admin.bindings.ResolveBinding(request)).resolved.guide_id

    assert await whose() == world.guides[0]
    last_month = to_timestamp(world.running.now() - timedelta(days=30))
    assert await whose(known_at_time=last_month) == ""


async def test_whom_the_brand_knows_keeps_his_binding(world: World) -> None:
    member_id, buyer = await world.bound(1)
    with world.running.nothing_written(world.brand_id):
        [result] = await _import(world, _bound(world, world.running.now() - timedelta(days=9), buyer))
    assert (result.outcome, result.member_id) == (IMPORT_OUTCOME_KNOWN, member_id)


async def test_an_import_that_was_cut_off_between_its_writes_completes(world: World) -> None:
    """The identity was linked and the member was not written: sending it again leaves one whole member."""
    phone = world.identity()
    member = _bound(world, world.running.now() - timedelta(days=9), phone)
    [first] = await _import(world, member)
    members = world.running.database("members")["members"]
    members.delete_one({"_id": f"{world.brand_id}|{first.member_id}"})
    [second] = await _import(world, member)
    assert (second.outcome, second.member_id) == (IMPORT_OUTCOME_IMPORTED, first.member_id)


async def test_bad_items_are_named_and_their_neighbours_arrive(world: World) -> None:
    now = world.running.now()
    mine, other = world.identity(), world.identity()
    await world.scan(await world.code(0), mine)
    await world.scan(await world.code(1), other)
    twice = world.identity()
    cases = {
        "INVALID_FIELDS": ImportedMember(
            identities=[Identity(kind=IdentityKind.IDENTITY_KIND_PHONE, value="12")],
            guide_id=world.guides[0],
        ),
        "BOUND_IN_FUTURE": _bound(world, now + timedelta(days=1), world.identity()),
        "GUIDE_UNKNOWN": ImportedMember(
            identities=[world.identity()], guide_id="a" * 16, bound_time=to_timestamp(now)
        ),
        "IDENTITIES_OF_DIFFERENT_MEMBERS": _bound(world, now, mine, other),
        "": _bound(world, now - timedelta(days=1), twice),
        "IDENTITY_TWICE": _bound(world, now - timedelta(days=1), twice),
    }
    results = await _import(world, *cases.values())
    assert [result.error.reason for result in results] == list(cases)
    refused = [result.outcome == IMPORT_OUTCOME_REFUSED for result in results]
    assert refused == [True, True, True, True, False, True]
    assert {violation.field for violation in results[0].error.violations} == {
        "identities[0].value",
        "bound_time",
    }


async def test_a_thousand_and_one_are_too_many_and_write_nothing(world: World) -> None:
    members = [ImportedMember(identities=[world.identity()]) for _ in range(1001)]
    with world.running.nothing_written(world.brand_id):
        refused = await refusal(_import(world, *members))
    assert (refused.code, refused.fields) == (grpc.StatusCode.INVALID_ARGUMENT, {"members"})
