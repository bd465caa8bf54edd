"""Who manages a store, and many guides read at once: what the commission service asks of the directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.ids import new_id
from daogou.common.v1.identity_pb2 import IdentityKind
from daogou.members.v1 import directory_pb2, handover_pb2
from daogou.members.v1.directory_pb2 import BatchGetGuidesResponse, Guide, GuideState, Store
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from tests.rpc.running import Caller, Running, eventually, refusal
from tests.rpc.world import World, a_world, request_id, store_of

if TYPE_CHECKING:
    # The name exists in the stubs alone.
    from daogou.members.v1.handover_pb2_grpc import HandoverServiceAsyncStub

NOBODY: Final = new_id()
INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION


@pytest.fixture(scope="module")
async def other(running: Running) -> World:
    """Another brand."""
    return await a_world(running, member=False)


async def updated(world: World, store_id: str, *paths: str, **store: Any) -> Store:
    """The store after an update of these fields."""
    request = directory_pb2.UpdateStoreRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        store_id=store_id,
        store=Store(**store),
        update_mask=FieldMask(paths=paths or list(store)),
    )
    return (await world.admin.directory.UpdateStore(request)).store


async def manager_of(world: World, store_id: str) -> str:
    request = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id=store_id)
    return (await world.admin.directory.GetStore(request)).store.manager_guide_id


async def left(world: World, guide: int) -> None:
    """A guide has resigned, and nothing more follows from it."""
    handovers: HandoverServiceAsyncStub = HandoverServiceStub(world.admin.channel("members"))
    request = handover_pb2.ResignGuideRequest(
        brand_id=world.brand_id, request_id=request_id(), guide_id=world.guides[guide]
    )
    begun = (await handovers.ResignGuide(request)).handover
    read = handover_pb2.GetHandoverRequest(brand_id=world.brand_id, handover_id=begun.handover_id)

    async def done() -> bool:
        return (await handovers.GetHandover(read)).handover.state == handover_pb2.HANDOVER_STATE_DONE

    await eventually(done, "her members are handed over")


# ---- managers ---------------------------------------------------------------------------------------


async def test_a_store_has_the_manager_it_was_given_last(running: Running) -> None:
    """One of its own guides or another store's; none, when that is what was said."""
    world = await a_world(running, member=False)
    assert await manager_of(world, world.nanjing_road) == ""
    for guide in (0, 2):
        store = await updated(world, world.nanjing_road, manager_guide_id=world.guides[guide])
        assert store.manager_guide_id == world.guides[guide]
        assert await manager_of(world, world.nanjing_road) == world.guides[guide]
    renamed = await updated(world, world.nanjing_road, display_name="New name")
    assert (renamed.display_name, renamed.manager_guide_id) == ("New name", world.guides[2])
    await updated(world, world.nanjing_road, "manager_guide_id")
    assert await manager_of(world, world.nanjing_road) == ""
    listed = await world.admin.directory.ListStores(directory_pb2.ListStoresRequest(brand_id=world.brand_id))
    assert {store.manager_guide_id for store in listed.stores} == {""}


async def test_a_store_may_be_opened_with_a_manager(running: Running) -> None:
    """And a repeat returns it, though she has left meanwhile; another store cannot have her any more."""
    world = await a_world(running, member=False)
    store = store_of("West", manager_guide_id=world.guides[0])
    requests = [
        directory_pb2.CreateStoreRequest(brand_id=world.brand_id, request_id=request_id(), store=store)
        for _ in range(2)
    ]
    opened = await world.admin.directory.CreateStore(requests[0])
    assert opened.store.manager_guide_id == world.guides[0]
    await left(world, 0)
    with running.nothing_written(world.brand_id):
        assert await world.admin.directory.CreateStore(requests[0]) == opened
        found = await refusal(world.admin.directory.CreateStore(requests[1]))
        assert (found.code, found.reason) == (REFUSED, "GUIDE_RESIGNED")
        reused = directory_pb2.CreateStoreRequest(
            brand_id=world.brand_id,
            request_id=requests[0].request_id,
            store=store_of("East", manager_guide_id=world.guides[0]),
        )
        found = await refusal(world.admin.directory.CreateStore(reused))
        assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


async def test_a_repeated_update_returns_the_first_reply_though_she_has_left(running: Running) -> None:
    """What was accepted once is not refused afterwards."""
    world = await a_world(running, member=False)
    request = directory_pb2.UpdateStoreRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        store_id=world.xintiandi,
        store=Store(manager_guide_id=world.guides[2]),
        update_mask=FieldMask(paths=["manager_guide_id"]),
    )
    first = await world.admin.directory.UpdateStore(request)
    await left(world, 2)
    with running.nothing_written(world.brand_id):
        assert await world.admin.directory.UpdateStore(request) == first


async def test_stores_are_opened_beside_those_whose_managers_are_refused(
    running: Running, other: World
) -> None:
    """One by one, each with its reason."""
    world = await a_world(running, member=False)
    await left(world, 1)
    managers = [world.guides[0], NOBODY, other.guides[0], world.guides[1], "", "x"]
    request = directory_pb2.BatchCreateStoresRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        stores=[store_of(f"Store {name}", manager_guide_id=name) for name in managers],
    )
    for _ in range(2):
        reply = await world.admin.directory.BatchCreateStores(request)
        assert [one.error.reason for one in reply.results] == [
            "",
            "GUIDE_UNKNOWN",
            "GUIDE_UNKNOWN",
            "GUIDE_RESIGNED",
            "",
            "INVALID_FIELDS",
        ]
    stores = await world.admin.directory.ListStores(directory_pb2.ListStoresRequest(brand_id=world.brand_id))
    assert len(stores.stores) == 3 + 2


@pytest.mark.parametrize(
    ("manager", "code", "reason", "fields"),
    [
        (lambda w, o: NOBODY, NOT_FOUND, "GUIDE_UNKNOWN", set()),
        (lambda w, o: o.guides[0], NOT_FOUND, "GUIDE_UNKNOWN", set()),
        (lambda w, o: w.guides[2], REFUSED, "GUIDE_RESIGNED", set()),
        (lambda w, o: "A" * 16, INVALID, "INVALID_FIELDS", {"store.manager_guide_id"}),
    ],
    ids=["nobody", "another brand's", "who has left", "no id"],
)
async def test_who_cannot_manage_a_store_is_refused(
    running: Running,
    deserted: World,
    other: World,
    manager: Callable[[World, World], str],
    code: grpc.StatusCode,
    reason: str,
    fields: set[str],
) -> None:
    world = deserted
    with running.nothing_written(world.brand_id):
        found = await refusal(
            updated(world, world.nanjing_road, manager_guide_id=manager(world, other), display_name="x")
        )
    assert (found.code, found.reason, found.fields) == (code, reason, fields)


@pytest.fixture(scope="module")
async def deserted(running: Running) -> World:
    """A brand whose Xintiandi store names a manager who has left."""
    world = await a_world(running, member=False)
    await updated(world, world.xintiandi, manager_guide_id=world.guides[2])
    await left(world, 2)
    return world


async def test_a_manager_who_has_left_is_named_and_keeps_nothing_else_from_being_changed(
    deserted: World,
) -> None:
    """A store must be able to change its opening hours before it has found somebody new."""
    world = deserted
    store = await updated(world, world.xintiandi, display_name="Xintiandi II", region_id=world.region_id)
    assert (store.display_name, store.manager_guide_id) == ("Xintiandi II", world.guides[2])


# ---- many guides at once ----------------------------------------------------------------------------


async def read(caller: Caller, world: World, *guide_ids: str) -> list[BatchGetGuidesResponse.Result]:
    request = directory_pb2.BatchGetGuidesRequest(brand_id=world.brand_id, guide_ids=guide_ids)
    return list((await caller.directory.BatchGetGuides(request)).results)


async def test_guides_are_read_in_the_order_of_the_request(deserted: World, other: World) -> None:
    """Twice, when they are asked for twice; each as GetGuide returns her; those of nobody by their reason."""
    world = deserted
    asked = [world.guides[2], NOBODY, world.guides[0], other.guides[0], world.guides[2]]
    results = await read(world.service, world, *asked)
    for caller in (world.service, world.connector, world.admin):
        assert await read(caller, world, *asked) == results
    assert [one.error.reason or one.guide.guide_id for one in results] == [
        world.guides[2],
        "GUIDE_UNKNOWN",
        world.guides[0],
        "GUIDE_UNKNOWN",
        world.guides[2],
    ]
    for index in (0, 2):
        request = directory_pb2.GetGuideRequest(brand_id=world.brand_id, guide_id=asked[index])
        assert results[index].guide == (await world.admin.directory.GetGuide(request)).guide


async def test_a_guide_who_has_left_says_since_when(deserted: World) -> None:
    gone, here = await read(deserted.service, deserted, deserted.guides[2], deserted.guides[0])
    assert gone.guide.state == GuideState.GUIDE_STATE_RESIGNED
    assert gone.guide.HasField("resign_time")
    assert not here.guide.HasField("resign_time")


async def test_her_accounts_are_masked(running: Running) -> None:
    world = await a_world(running, member=False)
    account = world.identity(IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID)
    hired = await world.admin.directory.CreateGuide(
        directory_pb2.CreateGuideRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            guide=Guide(store_id=world.xintiandi, display_name="Eve", accounts=[account]),
        )
    )
    [found] = await read(world.service, world, hired.guide.guide_id)
    assert [one.value for one in found.guide.accounts] == [f"{account.value[:3]}****{account.value[-4:]}"]


@pytest.mark.parametrize(
    ("guide_ids", "fields"),
    [
        ([], {"guide_ids"}),
        (["x", NOBODY, ""], {"guide_ids[0]", "guide_ids[2]"}),
        ([NOBODY] * 1001, {"guide_ids"}),
    ],
    ids=["none", "no ids", "1,001"],
)
async def test_bad_lists_of_guides_are_refused(
    deserted: World, guide_ids: list[str], fields: set[str]
) -> None:
    found = await refusal(read(deserted.service, deserted, *guide_ids))
    assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_FIELDS", fields)


async def test_a_thousand_guides_are_read_at_once(deserted: World) -> None:
    results = await read(deserted.service, deserted, *[NOBODY] * 999, deserted.guides[0])
    assert results[-1].guide.guide_id == deserted.guides[0]
    assert {one.error.reason for one in results[:-1]} == {"GUIDE_UNKNOWN"}


async def test_another_brands_people_read_none_of_them(deserted: World, other: World) -> None:
    """By their own brand they are unknown, and theirs is not the caller's."""
    results = await read(other.connector, other, *deserted.guides)
    assert {one.error.reason for one in results} == {"GUIDE_UNKNOWN"}
    found = await refusal(read(other.connector, deserted, *deserted.guides))
    assert found.code == grpc.StatusCode.PERMISSION_DENIED
    found = await refusal(read(deserted.guide(), deserted, *deserted.guides))
    assert found.code == grpc.StatusCode.PERMISSION_DENIED
