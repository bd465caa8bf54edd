"""Regions and moves over the wire: one tree whatever the races, who sees what of it, where guides were."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.ids import new_id
from chassis.times import from_timestamp, to_timestamp
from daogou.members.v1 import binding_pb2, directory_pb2, guide_code_pb2, handover_pb2, region_pb2
from daogou.members.v1.directory_pb2 import Guide, GuidePosting, Store
from daogou.members.v1.guide_code_pb2 import ScanOutcome
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from daogou.members.v1.region_pb2 import Region
from tests.rpc.running import Caller, Running, refusal, refusal_of
from tests.rpc.world import World, a_world, flagship_of, request_id, store_of

INVALID: Final = grpc.StatusCode.INVALID_ARGUMENT
NOT_FOUND: Final = grpc.StatusCode.NOT_FOUND
REFUSED: Final = grpc.StatusCode.FAILED_PRECONDITION
REUSED: Final = grpc.StatusCode.ALREADY_EXISTS
DENIED: Final = grpc.StatusCode.PERMISSION_DENIED
ABORTED: Final = grpc.StatusCode.ABORTED


@pytest.fixture(scope="module")
async def other(running: Running) -> World:
    """Another brand, whose ids mean nothing in the first."""
    return await a_world(running, names=["Zephyr"], member=False)


# ---- the calls --------------------------------------------------------------------------------------


def creation(world: World, name: str, parent_id: str = "", **more: Any) -> region_pb2.CreateRegionRequest:
    region = Region(display_name=name, parent_region_id=parent_id)
    return region_pb2.CreateRegionRequest(
        **{"brand_id": world.brand_id, "request_id": request_id(), "region": region, **more}
    )


async def a_region(world: World, name: str, parent_id: str = "") -> str:
    """A new region."""
    return (await world.admin.regions.CreateRegion(creation(world, name, parent_id))).region.region_id


def change(world: World, region_id: str, *paths: str, **more: Any) -> region_pb2.UpdateRegionRequest:
    """A change of a region; `more` that are fields of a region are its new values."""
    values = {name: more.pop(name) for name in ("display_name", "parent_region_id") if name in more}
    return region_pb2.UpdateRegionRequest(
        **{
            "brand_id": world.brand_id,
            "region_id": region_id,
            "request_id": request_id(),
            "region": Region(**values),
            "update_mask": FieldMask(paths=paths or list(values)),
            **more,
        }
    )


async def tree_of(world: World) -> dict[str, str]:
    """The parent of each of the brand's regions."""
    listed = await world.admin.regions.ListRegions(region_pb2.ListRegionsRequest(brand_id=world.brand_id))
    return {region.region_id: region.parent_region_id for region in listed.regions}


async def a_store(world: World, name: str, region_id: str = "") -> str:
    """A new store."""
    request = directory_pb2.CreateStoreRequest(
        brand_id=world.brand_id, request_id=request_id(), store=store_of(name, region_id=region_id)
    )
    return (await world.admin.directory.CreateStore(request)).store.store_id


async def a_guide(world: World, store_id: str) -> Guide:
    """A new guide."""
    request = directory_pb2.CreateGuideRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide=Guide(store_id=store_id, display_name="Xu Li"),
    )
    return (await world.admin.directory.CreateGuide(request)).guide


def store_change(
    world: World, store_id: str, region_id: str, **more: Any
) -> directory_pb2.UpdateStoreRequest:
    return directory_pb2.UpdateStoreRequest(
        **{
            "brand_id": world.brand_id,
            "store_id": store_id,
            "request_id": request_id(),
            "store": Store(region_id=region_id),
            "update_mask": FieldMask(paths=["region_id"]),
            **more,
        }
    )


def move(world: World, guide_id: str, store_id: str, **more: Any) -> directory_pb2.MoveGuideRequest:
    return directory_pb2.MoveGuideRequest(
        **{
            "brand_id": world.brand_id,
            "guide_id": guide_id,
            "request_id": request_id(),
            "store_id": store_id,
            **more,
        }
    )


async def moved(world: World, guide_id: str, store_id: str, **more: Any) -> Guide:
    """The guide after a move."""
    return (await world.admin.directory.MoveGuide(move(world, guide_id, store_id, **more))).guide


async def read_guide(world: World, guide_id: str) -> Guide:
    request = directory_pb2.GetGuideRequest(brand_id=world.brand_id, guide_id=guide_id)
    return (await world.admin.directory.GetGuide(request)).guide


async def stores_seen(caller: Caller, world: World, region_id: str, page_size: int = 0) -> list[str]:
    """The ids of the stores that a list by region shows, all pages of it."""
    seen: list[str] = []
    token = ""
    while True:
        page = await caller.directory.ListStores(
            directory_pb2.ListStoresRequest(
                brand_id=world.brand_id, region_id=region_id, page_size=page_size, page_token=token
            )
        )
        seen += [store.store_id for store in page.stores]
        if not (token := page.next_page_token):
            return seen


async def guides_seen(
    caller: Caller, world: World, region_id: str, store_id: str = "", page_size: int = 0
) -> list[str]:
    """The ids of the guides that a list by region, or by store too, shows, all pages of it."""
    seen: list[str] = []
    token = ""
    while True:
        page = await caller.directory.ListGuides(
            directory_pb2.ListGuidesRequest(
                brand_id=world.brand_id,
                region_id=region_id,
                store_id=store_id,
                page_size=page_size,
                page_token=token,
            )
        )
        seen += [guide.guide_id for guide in page.guides]
        if not (token := page.next_page_token):
            return seen


def region_manager(world: World, region_id: str) -> Caller:
    return world.running.caller("REGION_MANAGER", brand=world.brand_id, region=region_id)


# ---- the tree ---------------------------------------------------------------------------------------


async def test_a_tree_grows_is_renamed_and_rearranged_and_is_listed_whole(running: Running) -> None:
    world = await a_world(running, member=False)
    created = (await world.admin.regions.CreateRegion(creation(world, "华东"))).region
    assert (created.brand_id, created.display_name, created.parent_region_id) == (world.brand_id, "华东", "")
    assert created.create_time == created.update_time
    shanghai = await a_region(world, "Shanghai", created.region_id)
    pudong = await a_region(world, "Pudong", shanghai)
    south = await a_region(world, "South")
    parents = {world.region_id: "", created.region_id: "", south: ""}
    assert await tree_of(world) == {**parents, shanghai: created.region_id, pudong: shanghai}

    running.later(minutes=1)
    renamed = await world.admin.regions.UpdateRegion(change(world, shanghai, display_name="上海"))
    assert (renamed.region.display_name, renamed.region.parent_region_id) == ("上海", created.region_id)
    assert from_timestamp(renamed.region.update_time) > from_timestamp(renamed.region.create_time)
    put = await world.admin.regions.UpdateRegion(change(world, shanghai, parent_region_id=south))
    assert (put.region.display_name, put.region.parent_region_id) == ("上海", south)
    assert await tree_of(world) == {**parents, shanghai: south, pudong: shanghai}
    await world.admin.regions.UpdateRegion(change(world, shanghai, parent_region_id=""))

    listed = await world.admin.regions.ListRegions(region_pb2.ListRegionsRequest(brand_id=world.brand_id))
    ids = [region.region_id for region in listed.regions]
    assert ids == sorted(parents | {shanghai: "", pudong: ""})
    [shown] = [region for region in listed.regions if region.region_id == shanghai]
    assert (shown.display_name, shown.parent_region_id) == ("上海", "")


async def test_a_repeated_creation_makes_no_second_region_and_returns_the_first_reply(world: World) -> None:
    request = creation(world, "Twice")
    first = await world.admin.regions.CreateRegion(request)
    region_id = first.region.region_id
    await world.admin.regions.UpdateRegion(change(world, region_id, display_name="Renamed"))
    with world.running.nothing_written(world.brand_id):
        replies = [await world.admin.regions.CreateRegion(request) for _ in range(3)]
        other_name = region_pb2.CreateRegionRequest()
        other_name.CopyFrom(request)
        other_name.region.display_name = "Another"
        refused = await refusal(world.admin.regions.CreateRegion(other_name))
    assert replies == [first] * 3
    assert (refused.code, refused.reason) == (REUSED, "REQUEST_ID_REUSED")


async def test_a_repeated_change_has_one_effect_and_returns_the_first_reply(world: World) -> None:
    region_id = await a_region(world, "Before")
    request = change(world, region_id, display_name="Between")
    first = await world.admin.regions.UpdateRegion(request)
    await world.admin.regions.UpdateRegion(change(world, region_id, display_name="After"))
    with world.running.nothing_written(world.brand_id):
        assert await world.admin.regions.UpdateRegion(request) == first
        reused = change(world, region_id, display_name="Else", request_id=request.request_id)
        refused = await refusal(world.admin.regions.UpdateRegion(reused))
    assert (refused.code, refused.reason) == (REUSED, "REQUEST_ID_REUSED")


async def test_a_creation_sent_eight_times_at_once_makes_one_region(world: World) -> None:
    before, request = await tree_of(world), creation(world, "At once")

    async def sent() -> region_pb2.CreateRegionResponse:
        while True:
            try:
                return await world.admin.regions.CreateRegion(request)
            except grpc.aio.AioRpcError as error:
                if refusal_of(error).reason != "REGIONS_CHANGED":
                    raise

    replies = await asyncio.gather(*(sent() for _ in range(8)))
    assert all(reply == replies[0] for reply in replies)
    assert (await tree_of(world)).keys() == before.keys() | {replies[0].region.region_id}


async def test_a_region_does_not_go_below_itself(world: World) -> None:
    top = await a_region(world, "Top")
    middle = await a_region(world, "Middle", top)
    bottom = await a_region(world, "Bottom", middle)
    with world.running.nothing_written(world.brand_id):
        for parent_id in (top, middle, bottom):
            refused = await refusal(
                world.admin.regions.UpdateRegion(change(world, top, parent_region_id=parent_id))
            )
            assert (refused.code, refused.reason) == (REFUSED, "REGION_CIRCLE")
    await world.admin.regions.UpdateRegion(change(world, bottom, parent_region_id=top))
    await world.admin.regions.UpdateRegion(change(world, middle, parent_region_id=bottom))
    tree = await tree_of(world)
    assert (tree[top], tree[bottom], tree[middle]) == ("", top, bottom)


async def test_of_two_opposite_changes_at_once_exactly_one_is_accepted(world: World) -> None:
    """Each alone is good; both would put two regions below each other, out of everybody's sight."""
    east, west = await a_region(world, "This"), await a_region(world, "That")
    for _ in range(15):
        changes = [change(world, east, parent_region_id=west), change(world, west, parent_region_id=east)]
        answers = await asyncio.gather(
            *(world.platform.regions.UpdateRegion(request) for request in changes), return_exceptions=True
        )
        accepted = [isinstance(answer, region_pb2.UpdateRegionResponse) for answer in answers]
        assert sorted(accepted) == [False, True], answers
        tree = await tree_of(world)
        assert sorted([tree[east], tree[west]]) == sorted(["", west if accepted[0] else east])
        refused = answers[accepted.index(False)]
        assert isinstance(refused, grpc.aio.AioRpcError)
        said = refusal_of(refused)
        assert (said.code, said.reason) in {(ABORTED, "REGIONS_CHANGED"), (REFUSED, "REGION_CIRCLE")}
        assert (said.retry_after_s is not None) == (said.code is ABORTED)
        again = await refusal(world.platform.regions.UpdateRegion(changes[accepted.index(False)]))
        assert (again.code, again.reason) == (REFUSED, "REGION_CIRCLE")
        lower = east if accepted[0] else west
        await world.admin.regions.UpdateRegion(change(world, lower, parent_region_id=""))


async def test_a_brand_has_at_most_a_thousand_regions(running: Running) -> None:
    world = await a_world(running, member=False)
    regions = running.database("members")["regions"]
    [kept] = running.documents("members", "regions", {"_id": world.brand_id})
    [one] = kept["regions"]
    chain = [one["region_id"], *sorted(new_id() for _ in range(999))]
    # One below the other, as deep as it can be.
    deep = [
        {**one, "region_id": region_id, "parent_region_id": chain[depth - 1] if depth else ""}
        for depth, region_id in enumerate(chain)
    ]
    regions.replace_one({"_id": world.brand_id}, {**kept, "rev": kept["rev"] + 1, "regions": deep})
    with running.nothing_written(world.brand_id):
        refused = await refusal(world.admin.regions.CreateRegion(creation(world, "One more", chain[5])))
        circle = await refusal(
            world.admin.regions.UpdateRegion(change(world, chain[0], parent_region_id=chain[-1]))
        )
    assert (refused.code, refused.reason) == (REFUSED, "TOO_MANY_REGIONS")
    assert circle.reason == "REGION_CIRCLE"
    await world.admin.directory.UpdateStore(store_change(world, world.nanjing_road, chain[-1]))
    assert await stores_seen(region_manager(world, chain[0]), world, chain[0]) == sorted(
        [world.nanjing_road, world.xintiandi]
    )
    assert await stores_seen(region_manager(world, chain[1]), world, chain[1]) == [world.nanjing_road]


# ---- what lies in a region --------------------------------------------------------------------------


async def test_a_region_manager_sees_his_region_and_below_and_nothing_beside(running: Running) -> None:
    world = await a_world(running, member=False)
    east, west = world.region_id, await a_region(world, "West")
    suzhou = await a_region(world, "Suzhou", east)
    guanqian, chengdu = await a_store(world, "Guanqian", suzhou), await a_store(world, "Chengdu", west)
    of_suzhou = await a_guide(world, guanqian)
    of_chengdu = await a_guide(world, chengdu)
    manager = region_manager(world, east)

    in_east = sorted([world.nanjing_road, world.xintiandi, guanqian])
    assert await stores_seen(manager, world, east) == in_east
    assert await stores_seen(manager, world, east, page_size=1) == in_east
    assert await stores_seen(world.admin, world, suzhou) == [guanqian]
    everywhere = await stores_seen(world.admin, world, "")
    assert set(everywhere) == {*in_east, chengdu, world.flagship}

    eastern = sorted([*world.guides, of_suzhou.guide_id])
    assert await guides_seen(manager, world, east) == eastern
    assert await guides_seen(manager, world, east, page_size=1) == eastern
    assert await guides_seen(manager, world, east, store_id=guanqian) == [of_suzhou.guide_id]
    assert await guides_seen(manager, world, east, store_id=chengdu) == []
    assert await guides_seen(world.admin, world, west) == [of_chengdu.guide_id]
    assert set(await guides_seen(world.admin, world, "")) == {*eastern, of_chengdu.guide_id}

    # What moves away, with the region or out of it, is out of his sight.
    await world.admin.regions.UpdateRegion(change(world, suzhou, parent_region_id=west))
    assert await stores_seen(manager, world, east) == sorted([world.nanjing_road, world.xintiandi])
    assert await guides_seen(manager, world, east) == sorted(world.guides)
    await moved(world, world.guides[0], chengdu)
    assert await guides_seen(manager, world, east) == sorted(world.guides[1:])
    await world.admin.directory.UpdateStore(store_change(world, world.xintiandi, ""))
    assert await stores_seen(manager, world, east) == [world.nanjing_road]
    assert await guides_seen(manager, world, east) == [world.guides[1]]


async def test_a_region_manager_is_denied_every_region_but_his_own(world: World) -> None:
    """Also those below it: what he asks for must be his, word for word."""
    below, beside = await a_region(world, "Below", world.region_id), await a_region(world, "Beside")
    manager = region_manager(world, world.region_id)
    for region_id in (beside, below, new_id(), ""):
        for seen in (stores_seen(manager, world, region_id), guides_seen(manager, world, region_id)):
            refused = await refusal(seen)
            assert (refused.code, refused.reason) == (DENIED, "NOT_YOUR_REGION")
    refused = await refusal(manager.regions.CreateRegion(creation(world, "Mine")))
    assert (refused.code, refused.reason) == (DENIED, "ROLE_NOT_ADMITTED")
    listed = await manager.regions.ListRegions(region_pb2.ListRegionsRequest(brand_id=world.brand_id))
    assert below in {region.region_id for region in listed.regions}


async def test_a_store_manager_lists_the_guides_of_his_store_with_a_region_or_without(world: World) -> None:
    manager, mine = world.manager(), sorted(world.guides[:2])
    beside = await a_region(world, "Beside him")
    assert await guides_seen(manager, world, "", store_id=world.nanjing_road) == mine
    assert await guides_seen(manager, world, world.region_id, store_id=world.nanjing_road) == mine
    assert await guides_seen(manager, world, beside, store_id=world.nanjing_road) == []
    refused = await refusal(guides_seen(manager, world, world.region_id))
    assert (refused.code, refused.reason) == (DENIED, "NOT_YOUR_STORE")


async def test_a_store_is_put_into_a_region_and_out_of_it(world: World) -> None:
    region_id = await a_region(world, "Somewhere")
    store_id = await a_store(world, "Wandering")
    # As a store was kept before there were regions.
    world.running.database("members")["stores"].update_one(
        {"_id": f"{world.brand_id}|{store_id}"}, {"$unset": {"region_id": ""}}
    )
    request = directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id=store_id)
    assert (await world.admin.directory.GetStore(request)).store.region_id == ""
    put = store_change(world, store_id, region_id)
    first = await world.admin.directory.UpdateStore(put)
    assert first.store.region_id == region_id
    assert await stores_seen(world.admin, world, region_id) == [store_id]
    await world.admin.directory.UpdateStore(store_change(world, store_id, ""))
    assert await stores_seen(world.admin, world, region_id) == []
    assert await world.admin.directory.UpdateStore(put) == first
    assert (await world.admin.directory.GetStore(request)).store.region_id == ""


async def test_of_many_stores_only_those_in_unknown_regions_are_refused(world: World, other: World) -> None:
    stores = [
        store_of("In one", region_id=world.region_id),
        store_of("In another brand's", region_id=other.region_id),
        store_of("In none"),
        store_of("In nonsense", region_id="nonsense"),
        flagship_of("In the clouds", f"shop-{new_id()}"),
    ]
    stores[4].region_id = new_id()
    made = await world.admin.directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(
            brand_id=world.brand_id, request_id=request_id(), stores=stores
        )
    )
    reasons = [result.error.reason for result in made.results]
    assert reasons == ["", "REGION_UNKNOWN", "", "INVALID_FIELDS", "REGION_UNKNOWN"]
    assert [violation.field for violation in made.results[3].error.violations] == ["region_id"]
    assert made.results[0].store.region_id == world.region_id


# ---- where guides are -------------------------------------------------------------------------------


async def test_a_move_puts_her_elsewhere_and_remembers_where_she_was(world: World) -> None:
    hired = await a_guide(world, world.nanjing_road)
    guide_id = hired.guide_id
    began = GuidePosting(store_id=world.nanjing_road, from_time=hired.create_time)
    assert list(hired.postings) == [began]
    world.running.later(days=2)
    once = await moved(world, guide_id, world.xintiandi)
    assert (once.store_id, [one.store_id for one in once.postings]) == (
        world.xintiandi,
        [world.nanjing_road, world.xintiandi],
    )
    assert once.postings[0] == began
    assert once.postings[1].from_time == once.update_time
    # Dated back by a day, and back to where she came from.
    time = to_timestamp(world.running.now() + timedelta(days=2))
    world.running.later(days=3)
    twice = await moved(world, guide_id, world.nanjing_road, move_time=time)
    assert twice.store_id == world.nanjing_road
    assert list(twice.postings) == [
        *once.postings,
        GuidePosting(store_id=world.nanjing_road, from_time=time),
    ]
    assert await read_guide(world, guide_id) == twice
    request = directory_pb2.UpdateGuideRequest(
        brand_id=world.brand_id,
        guide_id=guide_id,
        request_id=request_id(),
        guide=Guide(display_name="Xu Lili"),
        update_mask=FieldMask(paths=["display_name"]),
    )
    renamed = (await world.admin.directory.UpdateGuide(request)).guide
    assert list(renamed.postings) == list(twice.postings)
    assert guide_id in await guides_seen(world.admin, world, "", store_id=world.nanjing_road)
    assert guide_id not in await guides_seen(world.admin, world, "", store_id=world.xintiandi)


async def test_a_scan_binds_to_the_store_where_she_was_when_it_was_scanned(world: World) -> None:
    guide_id = (await a_guide(world, world.nanjing_road)).guide_id
    request = guide_code_pb2.CreateGuideCodeRequest(
        brand_id=world.brand_id, store_id=world.nanjing_road, guide_id=guide_id
    )
    code = (await world.connector.codes.CreateGuideCode(request)).code
    early = await world.scan(code, world.identity())
    world.running.later(hours=2)
    scanned_time = to_timestamp(world.running.now())
    world.running.later(hours=1)
    now = world.running.now()
    await moved(world, guide_id, world.xintiandi, move_time=to_timestamp(now))
    world.running.later(minutes=1)

    late = await world.scan(code, world.identity(), scanned_time=scanned_time)
    assert late.outcome == ScanOutcome.SCAN_OUTCOME_BOUND
    assert (late.binding.guide_id, late.binding.store_id) == (guide_id, world.nanjing_road)
    just_before = await world.scan(
        code, world.identity(), scanned_time=to_timestamp(now - timedelta(milliseconds=1))
    )
    assert just_before.binding.store_id == world.nanjing_road
    just_then = await world.scan(code, world.identity(), scanned_time=to_timestamp(now))
    assert just_then.binding.store_id == world.xintiandi
    fresh = await world.scan(code, world.identity())
    assert (fresh.binding.guide_id, fresh.binding.store_id) == (guide_id, world.xintiandi)

    # Who was hers before the move is hers as before, row for row.
    rows = await world.admin.bindings.ListBindingRows(
        binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=early.member_id)
    )
    assert list(rows.rows) == [early.binding]
    assert early.binding.store_id == world.nanjing_road


async def test_she_makes_codes_for_the_store_where_she_is_and_for_no_other(world: World) -> None:
    guide_id = (await a_guide(world, world.nanjing_road)).guide_id
    await moved(world, guide_id, world.xintiandi)

    def wanted(store_id: str) -> guide_code_pb2.CreateGuideCodeRequest:
        return guide_code_pb2.CreateGuideCodeRequest(
            brand_id=world.brand_id, store_id=store_id, guide_id=guide_id
        )

    # Her token still names the old store; what is hers is hers all the same.
    herself = world.running.caller("GUIDE", brand=world.brand_id, store=world.nanjing_road, guide=guide_id)
    assert (await herself.codes.CreateGuideCode(wanted(world.xintiandi))).code
    refused = await refusal(herself.codes.CreateGuideCode(wanted(world.nanjing_road)))
    assert (refused.code, refused.reason) == (REFUSED, "GUIDE_NOT_OF_STORE")


async def test_a_repeated_move_has_one_effect_and_returns_the_first_reply(world: World) -> None:
    guide_id = (await a_guide(world, world.nanjing_road)).guide_id
    request = move(world, guide_id, world.xintiandi)
    first = await world.admin.directory.MoveGuide(request)
    await moved(world, guide_id, world.nanjing_road)
    with world.running.nothing_written(world.brand_id):
        assert await world.admin.directory.MoveGuide(request) == first
        reused = move(world, guide_id, world.flagship, request_id=request.request_id)
        refused = await refusal(world.admin.directory.MoveGuide(reused))
    assert (refused.code, refused.reason) == (REUSED, "REQUEST_ID_REUSED")
    assert len((await read_guide(world, guide_id)).postings) == 3


async def test_moves_at_once_follow_each_other_and_none_is_lost(world: World) -> None:
    guide_id = (await a_guide(world, world.nanjing_road)).guide_id
    stores = [world.xintiandi, world.flagship] * 4
    answers = await asyncio.gather(
        *(world.admin.directory.MoveGuide(move(world, guide_id, store_id)) for store_id in stores),
        return_exceptions=True,
    )
    accepted = [answer for answer in answers if isinstance(answer, directory_pb2.MoveGuideResponse)]
    refused = [refusal_of(answer) for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
    assert len(accepted) + len(refused) == len(stores)
    assert {one.reason for one in refused} <= {"DIRECTORY_CHANGED", "ALREADY_THERE", "MOVE_BEFORE_LAST"}
    postings = (await read_guide(world, guide_id)).postings
    assert len(postings) == 1 + len(accepted) > 1
    assert all(one.store_id != following.store_id for one, following in itertools.pairwise(postings))
    times = [from_timestamp(posting.from_time) for posting in postings]
    assert times == sorted(times)


async def test_she_has_at_most_two_hundred_postings(world: World) -> None:
    guide = await a_guide(world, world.nanjing_road)
    began = from_timestamp(guide.create_time)
    postings = [
        {
            "store_id": (world.nanjing_road, world.xintiandi)[number % 2],
            "from_time": began + timedelta(milliseconds=number),
        }
        for number in range(200)
    ]
    world.running.database("members")["guides"].update_one(
        {"_id": f"{world.brand_id}|{guide.guide_id}"},
        {"$set": {"postings": postings, "store_id": world.xintiandi}, "$inc": {"rev": 1}},
    )
    world.running.later(seconds=1)
    with world.running.nothing_written(world.brand_id):
        request = move(world, guide.guide_id, world.flagship)
        refused = await refusal(world.admin.directory.MoveGuide(request))
    assert (refused.code, refused.reason) == (REFUSED, "TOO_MANY_MOVES")


async def test_whoever_has_resigned_moves_nowhere(running: Running) -> None:
    world = await a_world(running, member=False)
    guide_id = world.guides[0]
    before = move(world, guide_id, world.xintiandi)
    first = await world.admin.directory.MoveGuide(before)
    await HandoverServiceStub(world.admin.channel("members")).ResignGuide(
        handover_pb2.ResignGuideRequest(brand_id=world.brand_id, request_id=request_id(), guide_id=guide_id)
    )
    refused = await refusal(world.admin.directory.MoveGuide(move(world, guide_id, world.nanjing_road)))
    assert (refused.code, refused.reason) == (REFUSED, "GUIDE_RESIGNED")
    assert await world.admin.directory.MoveGuide(before) == first


# ---- what is refused --------------------------------------------------------------------------------


Call = Callable[[World, World], Awaitable[object]]
"""Makes the call, given one's own brand and another."""

LONG: Final = "长" * 101
BAD_FIELDS: Final[Mapping[str, tuple[Call, set[str]]]] = {
    "a region without anything": (
        lambda w, o: w.platform.regions.CreateRegion(region_pb2.CreateRegionRequest()),
        {"brand_id", "request_id", "region"},
    ),
    "a region of nonsense": (
        lambda w, o: w.platform.regions.CreateRegion(
            creation(w, LONG, "nonsense", brand_id="nonsense", request_id="short")
        ),
        {"brand_id", "request_id", "region.display_name", "region.parent_region_id"},
    ),
    "a region without a name": (
        lambda w, o: w.admin.regions.CreateRegion(creation(w, "")),
        {"region.display_name"},
    ),
    "a change of nothing": (
        lambda w, o: w.platform.regions.UpdateRegion(region_pb2.UpdateRegionRequest()),
        {"brand_id", "region_id", "request_id", "region", "update_mask"},
    ),
    "a change into nonsense": (
        lambda w, o: w.platform.regions.UpdateRegion(
            change(w, "nonsense", display_name="", parent_region_id="nonsense", request_id="short")
        ),
        {"region_id", "request_id", "region.display_name", "region.parent_region_id"},
    ),
    "a change of what is given": (
        lambda w, o: w.admin.regions.UpdateRegion(change(w, w.region_id, "region_id", "create_time")),
        {"update_mask"},
    ),
    "a change of what is not there": (
        lambda w, o: w.admin.regions.UpdateRegion(change(w, w.region_id, "owner")),
        {"update_mask"},
    ),
    "a list of nonsense": (
        lambda w, o: w.platform.regions.ListRegions(region_pb2.ListRegionsRequest(brand_id="nonsense")),
        {"brand_id"},
    ),
    "stores in nonsense": (
        lambda w, o: w.admin.directory.ListStores(
            directory_pb2.ListStoresRequest(brand_id=w.brand_id, region_id="nonsense", page_size=1001)
        ),
        {"region_id", "page_size"},
    ),
    "guides in nonsense": (
        lambda w, o: w.admin.directory.ListGuides(
            directory_pb2.ListGuidesRequest(brand_id=w.brand_id, region_id="x", store_id="y", page_size=-1)
        ),
        {"region_id", "store_id", "page_size"},
    ),
    "a store in nonsense": (
        lambda w, o: w.admin.directory.CreateStore(
            directory_pb2.CreateStoreRequest(
                brand_id=w.brand_id, request_id=request_id(), store=store_of("", region_id="nonsense")
            )
        ),
        {"store.display_name", "store.region_id"},
    ),
    "a store put into nonsense": (
        lambda w, o: w.admin.directory.UpdateStore(
            store_change(w, w.nanjing_road, "nonsense", request_id="short")
        ),
        {"store.region_id", "request_id"},
    ),
    "a move of nothing": (
        lambda w, o: w.platform.directory.MoveGuide(directory_pb2.MoveGuideRequest()),
        {"brand_id", "guide_id", "request_id", "store_id"},
    ),
    "a move of nonsense": (
        lambda w, o: w.platform.directory.MoveGuide(
            move(w, "she", "there", brand_id="B", request_id="short", move_time={"seconds": -1})
        ),
        {"brand_id", "guide_id", "request_id", "store_id", "move_time"},
    ),
    "her store, by another way": (
        lambda w, o: w.admin.directory.UpdateGuide(
            directory_pb2.UpdateGuideRequest(
                brand_id=w.brand_id,
                guide_id=w.guides[0],
                request_id=request_id(),
                guide=Guide(store_id=w.xintiandi),
                update_mask=FieldMask(paths=["store_id", "postings"]),
            )
        ),
        {"update_mask"},
    ),
}


@pytest.mark.parametrize("what", BAD_FIELDS)
async def test_bad_input_names_every_field_and_writes_nothing(what: str, world: World, other: World) -> None:
    call, fields = BAD_FIELDS[what]
    with world.running.nothing_written(world.brand_id, other.brand_id):
        refused = await refusal(call(world, other))
    assert (refused.code, refused.reason) == (INVALID, "INVALID_FIELDS")
    assert refused.fields == fields


async def _soon(world: World, **by: float) -> object:
    time = to_timestamp(world.running.now() + timedelta(**by))
    return await moved(world, world.guides[0], world.xintiandi, move_time=time)


REFUSALS: Final[Mapping[str, tuple[Call, grpc.StatusCode, str]]] = {
    "a region of a brand that is not there": (
        lambda w, o: w.platform.regions.CreateRegion(creation(w, "Nowhere", brand_id=new_id())),
        NOT_FOUND,
        "BRAND_UNKNOWN",
    ),
    "a region below one that is not there": (
        lambda w, o: a_region(w, "Orphan", new_id()),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a region below another brand's": (
        lambda w, o: a_region(w, "Stolen", o.region_id),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a change of another brand's region": (
        lambda w, o: w.admin.regions.UpdateRegion(change(w, o.region_id, display_name="Ours")),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a region put below another brand's": (
        lambda w, o: w.admin.regions.UpdateRegion(change(w, w.region_id, parent_region_id=o.region_id)),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a store in another brand's region": (
        lambda w, o: a_store(w, "Lost", o.region_id),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a store put into another brand's region": (
        lambda w, o: w.admin.directory.UpdateStore(store_change(w, w.nanjing_road, o.region_id)),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "stores of another brand's region": (
        lambda w, o: stores_seen(w.admin, w, o.region_id),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "guides of another brand's region": (
        lambda w, o: guides_seen(w.admin, w, o.region_id),
        NOT_FOUND,
        "REGION_UNKNOWN",
    ),
    "a move of another brand's guide": (
        lambda w, o: moved(w, o.guides[0], w.nanjing_road),
        NOT_FOUND,
        "GUIDE_UNKNOWN",
    ),
    "a move to another brand's store": (
        lambda w, o: moved(w, w.guides[0], o.nanjing_road),
        NOT_FOUND,
        "STORE_UNKNOWN",
    ),
    "a move to where she is": (
        lambda w, o: moved(w, w.guides[0], w.nanjing_road),
        REFUSED,
        "ALREADY_THERE",
    ),
    "a move before she was hired": (
        lambda w, o: _soon(w, days=-400),
        REFUSED,
        "MOVE_BEFORE_LAST",
    ),
    "a move in a minute": (lambda w, o: _soon(w, minutes=1), INVALID, "MOVE_IN_FUTURE"),
}


@pytest.mark.parametrize("what", REFUSALS)
async def test_what_cannot_be_is_refused_with_its_reason_and_writes_nothing(
    what: str, world: World, other: World
) -> None:
    call, code, reason = REFUSALS[what]
    with world.running.nothing_written(world.brand_id, other.brand_id):
        refused = await refusal(call(world, other))
    assert (refused.code, refused.reason) == (code, reason)
