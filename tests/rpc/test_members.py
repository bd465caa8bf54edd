"""The members service over the wire: the directory, guide codes and scans, members, whose they were when."""

from __future__ import annotations

import asyncio
import itertools
import struct
import zlib
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import pytest
import segno
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from chassis import audit
from chassis.times import to_timestamp
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import binding_pb2, directory_pb2, guide_code_pb2, member_pb2
from daogou.members.v1.binding_pb2 import Binding, BindingCause, BindingQuery, ResolvedBinding
from daogou.members.v1.directory_pb2 import BindingPolicy, Brand, Guide, OpeningHours, ShopAccount, Store
from daogou.members.v1.guide_code_pb2 import ScanGuideCodeResponse, ScanOutcome
from tests.rpc.running import Running, refusal
from tests.rpc.world import World, a_world, request_id, store_of

PHONE: Final = IdentityKind.IDENTITY_KIND_PHONE
CARD: Final = IdentityKind.IDENTITY_KIND_POS_CARD
TAOBAO: Final = IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID

BOUND: Final = ScanOutcome.SCAN_OUTCOME_BOUND
ALREADY_BOUND: Final = ScanOutcome.SCAN_OUTCOME_ALREADY_BOUND
KEPT: Final = ScanOutcome.SCAN_OUTCOME_KEPT
SNATCHED: Final = ScanOutcome.SCAN_OUTCOME_SNATCHED


def time_of(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


# ---- the directory ----------------------------------------------------------------------------------


async def test_a_brand_is_opened_once_however_often_it_is_asked_for(running: Running) -> None:
    platform = running.caller("PLATFORM")
    request = directory_pb2.CreateBrandRequest(
        request_id=request_id(), brand=Brand(display_name="Aurora 极光")
    )
    replies = await asyncio.gather(*[platform.directory.CreateBrand(request) for _ in range(8)])
    assert len({reply.SerializeToString() for reply in replies}) == 1
    opened = replies[0].brand
    assert (opened.business_time_zone, opened.currency_code) == ("Asia/Shanghai", "CNY")
    assert opened.binding_policy.snatch == directory_pb2.SNATCH_AFTER_PROTECTION
    assert opened.binding_policy.protection_days == 90
    read = await platform.directory.GetBrand(directory_pb2.GetBrandRequest(brand_id=opened.brand_id))
    assert read.brand == opened
    again = await platform.directory.CreateBrand(request)
    assert again == replies[0]


async def test_a_store_is_as_it_was_created(world: World) -> None:
    wanted = store_of(
        "Nanjing West Road 南京西路店",
        address="上海市静安区南京西路 1 号",
        opening_hours=[OpeningHours(weekday=7, open_minute=600, close_minute=1440)],
        shops=[
            ShopAccount(channel=Channel.CHANNEL_CLOUD_STORE, shop_id=request_id()),
            ShopAccount(channel=Channel.CHANNEL_POS, shop_id=request_id()),
        ],
    )
    request = directory_pb2.CreateStoreRequest(brand_id=world.brand_id, request_id=request_id(), store=wanted)
    made = (await world.admin.directory.CreateStore(request)).store
    assert (await world.admin.directory.CreateStore(request)).store == made
    for caller in (world.connector, world.guide(), world.manager(), world.service):
        read = await caller.directory.GetStore(
            directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id=made.store_id)
        )
        assert read.store == made
    assert made.brand_id == world.brand_id
    for field in ("store_id", "brand_id", "create_time", "update_time"):
        made.ClearField(field)
    assert made == wanted


async def test_only_the_masked_fields_of_a_store_change_and_once(world: World) -> None:
    directory = world.admin.directory
    shop = ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id=request_id())
    before = (
        await directory.CreateStore(
            directory_pb2.CreateStoreRequest(
                brand_id=world.brand_id,
                request_id=request_id(),
                store=store_of("Before", address="Here", shops=[shop]),
            )
        )
    ).store
    change = directory_pb2.UpdateStoreRequest(
        brand_id=world.brand_id,
        store_id=before.store_id,
        request_id=request_id(),
        store=Store(display_name="After", address="There"),
        update_mask=FieldMask(paths=["display_name", "shops"]),
    )
    after = (await directory.UpdateStore(change)).store
    assert (after.display_name, after.address, list(after.shops)) == ("After", "Here", [])
    assert time_of(after.update_time) >= time_of(before.update_time)
    assert after.create_time == before.create_time
    another = directory_pb2.UpdateStoreRequest(
        brand_id=world.brand_id,
        store_id=before.store_id,
        request_id=request_id(),
        store=Store(display_name="Later still"),
        update_mask=FieldMask(paths=["display_name"]),
    )
    await directory.UpdateStore(another)
    assert (await directory.UpdateStore(change)).store == after, "a repeat answers as it did"
    read = await directory.GetStore(
        directory_pb2.GetStoreRequest(brand_id=world.brand_id, store_id=before.store_id)
    )
    assert read.store.display_name == "Later still", "and changes nothing"
    # The shop is free for another store now.
    await directory.CreateStore(
        directory_pb2.CreateStoreRequest(
            brand_id=world.brand_id, request_id=request_id(), store=store_of("Other", shops=[shop])
        )
    )


async def test_of_two_changes_at_once_none_is_lost(world: World) -> None:
    """Whoever comes second is told to try again, or finds the first one's change in his reply."""
    names = [f"Name {index}" for index in range(8)]

    async def changed(name: str) -> str:
        request = directory_pb2.UpdateGuideRequest(
            brand_id=world.brand_id,
            guide_id=world.guides[0],
            request_id=request_id(),
            guide=Guide(display_name=name),
            update_mask=FieldMask(paths=["display_name"]),
        )
        try:
            return (await world.admin.directory.UpdateGuide(request)).guide.display_name
        except grpc.aio.AioRpcError as error:
            return error.code().name

    outcomes = await asyncio.gather(*[changed(name) for name in names])
    done = [name for name in outcomes if name != "ABORTED"]
    assert done
    assert set(done) <= set(names)
    read = await world.admin.directory.GetGuide(
        directory_pb2.GetGuideRequest(brand_id=world.brand_id, guide_id=world.guides[0])
    )
    assert read.guide.display_name in done


async def test_a_new_policy_is_for_scans_to_come(running: Running) -> None:
    never = BindingPolicy(snatch=directory_pb2.SNATCH_NEVER)
    always = BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS)
    world = await a_world(running, policy=never)

    async def change(policy: BindingPolicy) -> None:
        await world.admin.directory.UpdateBrand(
            directory_pb2.UpdateBrandRequest(
                brand_id=world.brand_id,
                request_id=request_id(),
                brand=Brand(binding_policy=policy),
                update_mask=FieldMask(paths=["binding_policy"]),
            )
        )

    customer = world.identity()
    first = await world.scan(await world.code(0), customer)
    await change(always)
    member = await world.connector.members.GetMember(
        member_pb2.GetMemberRequest(brand_id=world.brand_id, member_id=first.member_id)
    )
    assert member.member.binding == first.binding, "no standing binding moves"
    assert (await world.scan(await world.code(1), customer)).outcome == SNATCHED
    await change(never)
    assert (await world.scan(await world.code(2), customer)).outcome == KEPT


async def test_stores_are_found_by_id_and_by_shop_in_the_order_asked(world: World) -> None:
    key = directory_pb2.BatchGetStoresRequest.Key
    tmall = ShopAccount(channel=Channel.CHANNEL_TMALL, shop_id=world.shop_id)
    taobao = ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id=world.shop_id)
    reply = await world.connector.directory.BatchGetStores(
        directory_pb2.BatchGetStoresRequest(
            brand_id=world.brand_id,
            keys=[
                key(shop=tmall),
                key(store_id="a" * 16),
                key(store_id=world.xintiandi),
                key(shop=taobao),
                key(store_id=world.nanjing_road),
                key(store_id=world.xintiandi),
            ],
        )
    )
    found = [result.store.store_id or result.error.reason for result in reply.results]
    assert found == [
        world.flagship,
        "STORE_UNKNOWN",
        world.xintiandi,
        "STORE_UNKNOWN",
        world.nanjing_road,
        world.xintiandi,
    ]


async def test_pages_hold_every_guide_once_and_in_order(running: Running) -> None:
    world = await a_world(running, guides=7)
    listed: list[str] = []
    token, pages = "", 0
    while True:
        reply = await world.admin.directory.ListGuides(
            directory_pb2.ListGuidesRequest(brand_id=world.brand_id, page_size=3, page_token=token)
        )
        listed += [guide.guide_id for guide in reply.guides]
        pages += 1
        token = reply.next_page_token
        if not token:
            break
        assert len(reply.guides) == 3
    assert pages == 3
    assert listed == sorted(world.guides)
    by_store = await world.manager(world.xintiandi).directory.ListGuides(
        directory_pb2.ListGuidesRequest(brand_id=world.brand_id, store_id=world.xintiandi)
    )
    assert [guide.guide_id for guide in by_store.guides] == sorted(world.guides[2:])
    assert not by_store.next_page_token


async def test_a_page_that_ends_with_the_list_has_no_next(running: Running) -> None:
    world = await a_world(running, guides=4)
    reply = await world.admin.directory.ListGuides(
        directory_pb2.ListGuidesRequest(brand_id=world.brand_id, page_size=4)
    )
    assert len(reply.guides) == 4
    assert not reply.next_page_token


async def test_brands_are_listed_for_the_operator(world: World) -> None:
    listed: list[str] = []
    token = ""
    while True:
        reply = await world.platform.directory.ListBrands(
            directory_pb2.ListBrandsRequest(page_size=1000, page_token=token)
        )
        listed += [brand.brand_id for brand in reply.brands]
        token = reply.next_page_token
        if not token:
            break
    assert world.brand_id in listed
    assert listed == sorted(set(listed))


async def test_a_thousand_guides_are_hired_in_one_call_and_a_repeat_hires_nobody(running: Running) -> None:
    world = await a_world(running, guides=1)
    request = directory_pb2.BatchCreateGuidesRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guides=[
            Guide(
                store_id="a" * 16 if index % 100 == 7 else world.nanjing_road, display_name=f"Guide {index}"
            )
            for index in range(1000)
        ],
    )
    first = await world.admin.directory.BatchCreateGuides(request)
    assert Counter(result.error.reason for result in first.results) == {"": 990, "STORE_UNKNOWN": 10}
    assert await world.admin.directory.BatchCreateGuides(request) == first
    assert len(running.documents("members", "guides", {"brand_id": world.brand_id})) == 991


async def test_a_repeated_batch_makes_what_was_refused_before_and_is_acceptable_now(world: World) -> None:
    shop = ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id=request_id())
    holder = await world.admin.directory.CreateStore(
        directory_pb2.CreateStoreRequest(
            brand_id=world.brand_id, request_id=request_id(), store=store_of("Holder", shops=[shop])
        )
    )
    request = directory_pb2.BatchCreateStoresRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        stores=[store_of("One"), store_of("Two", shops=[shop]), store_of("Three")],
    )
    first = await world.admin.directory.BatchCreateStores(request)
    assert [result.error.reason for result in first.results] == ["", "SHOP_TAKEN", ""]
    await world.admin.directory.UpdateStore(
        directory_pb2.UpdateStoreRequest(
            brand_id=world.brand_id,
            store_id=holder.store.store_id,
            request_id=request_id(),
            store=Store(),
            update_mask=FieldMask(paths=["shops"]),
        )
    )
    second = await world.admin.directory.BatchCreateStores(request)
    assert [result.error.reason for result in second.results] == ["", "", ""]
    assert [second.results[0], second.results[2]] == [first.results[0], first.results[2]]


async def test_two_stores_of_one_batch_cannot_hold_one_shop(world: World) -> None:
    shop = ShopAccount(channel=Channel.CHANNEL_TAOBAO, shop_id=request_id())
    reply = await world.admin.directory.BatchCreateStores(
        directory_pb2.BatchCreateStoresRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            stores=[store_of("One", shops=[shop]), store_of("Two", shops=[shop])],
        )
    )
    assert [result.error.reason for result in reply.results] == ["", "SHOP_TAKEN"]


async def test_a_guides_accounts_are_masked_in_every_reply(world: World) -> None:
    phone = world.identity()
    request = directory_pb2.CreateGuideRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide=Guide(store_id=world.nanjing_road, display_name="Lin Mei", accounts=[phone]),
    )
    hired = (await world.admin.directory.CreateGuide(request)).guide
    masked = f"{phone.value[3:6]}****{phone.value[-4:]}"
    assert [account.value for account in hired.accounts] == [masked]
    renamed = await world.admin.directory.UpdateGuide(
        directory_pb2.UpdateGuideRequest(
            brand_id=world.brand_id,
            guide_id=hired.guide_id,
            request_id=request_id(),
            guide=Guide(display_name="Lin Mei-hua"),
            update_mask=FieldMask(paths=["display_name"]),
        )
    )
    assert [account.value for account in renamed.guide.accounts] == [masked]
    # Her account is still hers: she cannot become her own member by it.
    code = await world.connector.codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=world.brand_id, store_id=world.nanjing_road, guide_id=hired.guide_id
        )
    )
    assert (await refusal(world.scan(code.code, phone))).reason == "SELF_BINDING"


# ---- guide codes ------------------------------------------------------------------------------------


async def test_a_code_comes_as_token_link_and_picture(world: World) -> None:
    begun = world.running.now()
    reply = await world.guide().codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=world.brand_id,
            store_id=world.nanjing_road,
            guide_id=world.guides[0],
            campaign="double-11",
            ttl_seconds=3600,
        )
    )
    assert len(reply.code) <= 120
    assert set(reply.code) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert reply.link.endswith(reply.code)
    assert reply.link.startswith("https://")
    assert reply.qr_svg.startswith("<svg")
    assert timedelta(minutes=59) < time_of(reply.expire_time) - begun <= timedelta(minutes=60)
    # What a camera would see: every module of the QR of the link, and the quiet zone around it.
    assert modules_of(reply.qr_png, scale=8, border=4) == [
        [bool(module) for module in row] for row in segno.make(reply.link, error="m", micro=False).matrix
    ]
    bound = await world.scan(reply.code, world.identity())
    assert bound.binding.campaign == "double-11"


def modules_of(png: bytes, *, scale: int, border: int) -> list[list[bool]]:
    """The dark modules of a QR in a PNG of one bit a pixel, without its border."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    packed, at, width, height, dark = b"", 8, 0, 0, 0
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        content = png[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack_from(">I", png, at + 8 + length)[0]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack_from(">IIBB", content)
            assert (depth, colour) in {(1, 0), (1, 3)}
        elif kind == b"IDAT":
            packed += content
        at += 12 + length
    raw, stride = zlib.decompress(packed), 1 + (width + 7) // 8
    rows = [raw[y * stride : (y + 1) * stride] for y in range(height)]
    assert {row[0] for row in rows} <= {0, 2}, "no filter, or the one that says `as above`"
    lines: list[bytes] = []
    for row in rows:
        above = lines[-1] if lines and row[0] == 2 else bytes(stride - 1)
        lines.append(bytes((now + before) % 256 for now, before in zip(row[1:], above, strict=True)))

    def bit(x: int, y: int) -> int:
        return lines[y][x // 8] >> (7 - x % 8) & 1

    dark = 1 - bit(0, 0)
    size = width // scale
    return [
        [bit(x * scale + scale // 2, y * scale + scale // 2) == dark for x in range(border, size - border)]
        for y in range(border, size - border)
    ]


async def test_every_code_is_another_and_all_are_good(world: World) -> None:
    codes = {await world.code() for _ in range(5)}
    assert len(codes) == 5
    member = {(await world.scan(code, world.identity())).binding.guide_id for code in codes}
    assert member == {world.guides[0]}


# ---- scans ------------------------------------------------------------------------------------------


async def _rows(world: World, member_id: str) -> list[Binding]:
    reply = await world.admin.bindings.ListBindingRows(
        binding_pb2.ListBindingRowsRequest(brand_id=world.brand_id, member_id=member_id)
    )
    return list(reply.rows)


def _standing(rows: Sequence[Binding]) -> list[Binding]:
    return [row for row in rows if not row.HasField("superseded_time") and not row.HasField("valid_to_time")]


async def test_the_first_scan_binds_and_a_repeat_changes_nothing(world: World) -> None:
    code, customer = await world.code(), world.identity()
    first = await world.scan(code, customer)
    assert first.outcome == BOUND
    assert first.binding.guide_id == world.guides[0]
    assert first.binding.store_id == world.nanjing_road
    assert first.binding.cause == BindingCause.BINDING_CAUSE_SCAN
    with world.running.nothing_written(world.brand_id):
        for again in (code, await world.code()):
            repeat = await world.scan(again, customer)
            assert (repeat.outcome, repeat.member_id) == (ALREADY_BOUND, first.member_id)
            assert repeat.binding == first.binding
    assert _standing(await _rows(world, first.member_id)) == [first.binding]


async def test_a_minute_later_another_guide_does_not_steal_him(running: Running) -> None:
    """The default policy: 90 days of protection, then whoever scans next."""
    world = await a_world(running)
    customer = world.identity()
    first = await world.scan(await world.code(0), customer)
    until = time_of(first.binding.protected_until_time)
    assert until - time_of(first.binding.valid_from_time) == timedelta(days=90)
    running.later(minutes=1)
    with running.nothing_written(world.brand_id):
        kept = await world.scan(await world.code(2), customer)
    assert (kept.outcome, kept.binding) == (KEPT, first.binding)
    running.later(days=89, hours=23, minutes=58)
    assert (await world.scan(await world.code(2), customer)).outcome == KEPT
    running.later(minutes=2)
    taken = await world.scan(await world.code(2), customer)
    assert taken.outcome == SNATCHED
    assert (taken.binding.guide_id, taken.binding.store_id) == (world.guides[2], world.xintiandi)
    was, ended, now = await _rows(world, taken.member_id)
    assert was.binding_id == first.binding.binding_id
    assert was.superseded_time == ended.recorded_time
    assert ended.guide_id == world.guides[0]
    assert ended.valid_to_time == now.valid_from_time, "no moment is nobody's"
    assert ended.cause == BindingCause.BINDING_CAUSE_SNATCHED
    assert now == taken.binding
    assert (await world.scan(await world.code(0), customer)).outcome == KEPT, "the new one is protected"


async def test_never_means_never(running: Running) -> None:
    world = await a_world(running, policy=BindingPolicy(snatch=directory_pb2.SNATCH_NEVER))
    customer = world.identity()
    first = await world.scan(await world.code(0), customer)
    assert not first.binding.HasField("protected_until_time"), "for ever"
    running.later(days=1000)
    assert (await world.scan(await world.code(1), customer)).binding == first.binding


async def test_always_means_that_the_last_scan_wins(running: Running) -> None:
    world = await a_world(running, policy=BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS))
    customer = world.identity()
    outcomes = []
    for guide in (0, 1, 1, 2, 0):
        scanned = await world.scan(await world.code(guide), customer)
        outcomes.append((scanned.outcome, world.guides.index(scanned.binding.guide_id)))
    assert outcomes == [(BOUND, 0), (SNATCHED, 1), (ALREADY_BOUND, 1), (SNATCHED, 2), (SNATCHED, 0)]
    rows = await _rows(world, (await world.scan(await world.code(0), customer)).member_id)
    assert len(_standing(rows)) == 1
    recorded = [time_of(row.recorded_time) for row in rows]
    assert recorded == sorted(recorded)


async def test_protection_for_ever_and_for_no_day_at_all(running: Running) -> None:
    for days, outcome in ((-1, KEPT), (0, SNATCHED)):
        world = await a_world(running, policy=BindingPolicy(protection_days=days))
        customer = world.identity()
        await world.scan(await world.code(0), customer)
        running.later(days=400)
        assert (await world.scan(await world.code(1), customer)).outcome == outcome, days


async def test_a_scan_that_is_reported_late_counts_from_when_it_was_made(world: World) -> None:
    customer, scanned = world.identity(), world.running.now() - timedelta(hours=23)
    code = await world.code()
    world.running.later(seconds=1)
    reply = await world.scan(code, customer, scanned_time=to_timestamp(scanned))
    assert time_of(reply.binding.valid_from_time) == scanned
    assert time_of(reply.binding.recorded_time) > scanned + timedelta(hours=22)


async def test_of_two_scans_the_later_made_wins_whichever_is_delivered_last(running: Running) -> None:
    world = await a_world(running, policy=BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS))
    customer = world.identity()
    codes = [await world.code(0), await world.code(1)]
    running.later(hours=2)
    first = await world.scan(codes[0], customer, scanned_time=to_timestamp(running.now()))
    late = running.now() - timedelta(hours=1)
    second = await world.scan(codes[1], customer, scanned_time=to_timestamp(late))
    assert second.outcome == KEPT
    assert second.binding == first.binding
    assert len(_standing(await _rows(world, first.member_id))) == 1


async def test_a_clock_that_is_a_little_fast_is_forgiven(world: World) -> None:
    ahead = to_timestamp(world.running.now() + timedelta(seconds=4))
    assert (await world.scan(await world.code(), world.identity(), scanned_time=ahead)).outcome == BOUND


async def test_64_guides_scan_one_customer_at_once_and_one_has_him(running: Running) -> None:
    world = await a_world(running, guides=64)
    customer = world.identity()
    codes = [await world.code(index) for index in range(64)]
    replies = await asyncio.gather(*[world.scan(code, customer) for code in codes])
    assert Counter(reply.outcome for reply in replies) == {BOUND: 1, KEPT: 63}
    assert len({reply.binding.SerializeToString() for reply in replies}) == 1, "all are told the same"
    assert len({reply.member_id for reply in replies}) == 1
    rows = await _rows(world, replies[0].member_id)
    assert len(rows) == 1
    assert _standing(rows) == [replies[0].binding]
    [member] = running.documents("members", "members", {"brand_id": world.brand_id, "rows.0": {"$exists": 1}})
    assert member["member_id"] == replies[0].member_id
    winner = next(index for index, reply in enumerate(replies) if reply.outcome == BOUND)
    assert world.guides[winner] == replies[0].binding.guide_id


async def test_64_scans_of_one_code_at_once_bind_once(running: Running) -> None:
    world = await a_world(running)
    code, customer = await world.code(), world.identity()
    replies = await asyncio.gather(*[world.scan(code, customer) for _ in range(64)])
    assert Counter(reply.outcome for reply in replies) == {BOUND: 1, ALREADY_BOUND: 63}
    assert len({reply.binding.SerializeToString() for reply in replies}) == 1
    assert len(await _rows(world, replies[0].member_id)) == 1


async def test_many_guides_snatch_one_customer_at_once_and_his_rows_stay_whole(running: Running) -> None:
    world = await a_world(running, guides=16, policy=BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS))
    customer = world.identity()
    codes = [await world.code(index) for index in range(16)]
    replies = await asyncio.gather(*[world.scan(code, customer) for code in codes])
    # KEPT: one that was made a moment before the one that stands, and came after it.
    assert {reply.outcome for reply in replies} <= {BOUND, SNATCHED, KEPT}
    rows = await _rows(world, replies[0].member_id)
    assert len(_standing(rows)) == 1
    assert len({row.binding_id for row in rows}) == len(rows)
    believed = sorted((row for row in rows if not row.HasField("superseded_time")), key=_from)
    for earlier, later in itertools.pairwise(believed):
        assert earlier.valid_to_time == later.valid_from_time, "neither a gap nor two at once"


def _from(row: Binding) -> datetime:
    return time_of(row.valid_from_time)


@pytest.mark.parametrize("allowed", [False, True])
async def test_a_guide_becomes_her_own_member_only_by_policy(running: Running, allowed: bool) -> None:
    world = await a_world(running, policy=BindingPolicy(self_binding=allowed))
    phone, card = world.identity(), world.identity(CARD)
    request = directory_pb2.CreateGuideRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide=Guide(store_id=world.nanjing_road, display_name="Narcissa", accounts=[phone]),
    )
    guide = (await world.admin.directory.CreateGuide(request)).guide
    code = await world.connector.codes.CreateGuideCode(
        guide_code_pb2.CreateGuideCodeRequest(
            brand_id=world.brand_id, store_id=world.nanjing_road, guide_id=guide.guide_id
        )
    )
    # Known by her card too, which is none of the accounts that she gave.
    await world.connector.members.EnrolMember(
        member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=[phone, card])
    )
    for identity in (phone, card):
        scanned = world.scan(code.code, identity)
        if allowed:
            assert (await scanned).binding.guide_id == guide.guide_id
        else:
            found = await refusal(scanned)
            assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SELF_BINDING")
    assert (await world.scan(await world.code(0), card)).outcome == (KEPT if allowed else BOUND)


# ---- members ----------------------------------------------------------------------------------------


async def _enrol(world: World, *identities: Identity) -> member_pb2.EnrolMemberResponse:
    return await world.connector.members.EnrolMember(
        member_pb2.EnrolMemberRequest(brand_id=world.brand_id, identities=identities)
    )


async def test_the_same_identity_twice_is_the_same_member(world: World) -> None:
    phone = world.identity()
    first = await _enrol(world, phone)
    assert first.enrolled
    with world.running.nothing_written(world.brand_id):
        again = await _enrol(world, phone, phone)
    assert not again.enrolled
    assert again.member == first.member
    # However he writes his number.
    digits = phone.value.removeprefix("+86")
    for written in (digits, f"+86 {digits[:3]} {digits[3:7]} {digits[7:]}", f"0086{digits}"):
        known = await _enrol(world, Identity(kind=PHONE, value=written))
        assert known.member.member_id == first.member.member_id, written


async def test_kinds_and_apps_tell_identities_apart(world: World) -> None:
    value = world.identity(CARD).value
    ids = {
        (await _enrol(world, Identity(kind=kind, value=value, app_id=app))).member.member_id
        for kind, app in (
            (CARD, ""),
            (TAOBAO, ""),
            (IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID, "app-1"),
            (IdentityKind.IDENTITY_KIND_WECHAT_OPEN_ID, "app-2"),
        )
    }
    assert len(ids) == 4


async def test_one_customer_enrolled_many_times_at_once_is_one_member(world: World) -> None:
    identities = [world.identity(), world.identity(CARD), world.identity(TAOBAO)]
    replies = await asyncio.gather(*[_enrol(world, *identities) for _ in range(16)])
    assert len({reply.member.member_id for reply in replies}) == 1
    assert Counter(reply.enrolled for reply in replies) == {True: 1, False: 15}
    member = (await _enrol(world, identities[0])).member
    assert len(member.identities) == 3


async def test_enrolling_links_what_is_new_to_the_member_who_is_known(world: World) -> None:
    phone, card = world.identity(), world.identity(CARD)
    known = await _enrol(world, phone)
    both = await _enrol(world, card, phone)
    assert (both.enrolled, both.member.member_id) == (False, known.member.member_id)
    by_card = await world.connector.members.GetMember(
        member_pb2.GetMemberRequest(brand_id=world.brand_id, identity=card)
    )
    assert by_card.member == both.member


async def test_a_linked_identity_finds_the_member_and_shows_masked(world: World) -> None:
    phone, card = world.identity(), world.identity(CARD)
    member_id = (await _enrol(world, phone)).member.member_id
    request = member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=member_id, identity=card)
    linked = (await world.connector.members.LinkIdentity(request)).member
    assert (await world.connector.members.LinkIdentity(request)).member == linked
    assert {one.masked_value for one in linked.identities} == {
        f"{phone.value[3:6]}****{phone.value[-4:]}",
        f"{card.value[:3]}****{card.value[-4:]}",
    }
    for subject in ({"member_id": member_id}, {"identity": card}, {"identity": phone}):
        for caller in (world.connector, world.admin, world.service):
            request_: dict[str, Any] = {"brand_id": world.brand_id, **subject}
            read = await caller.members.GetMember(member_pb2.GetMemberRequest(**request_))
            assert read.member == linked


async def test_a_scanned_customer_is_enrolled_and_can_be_read(world: World) -> None:
    customer = world.identity()
    scanned = await world.scan(await world.code(), customer)
    read = await world.connector.members.GetMember(
        member_pb2.GetMemberRequest(brand_id=world.brand_id, identity=customer)
    )
    assert read.member.member_id == scanned.member_id
    assert read.member.binding == scanned.binding
    assert len(read.member.identities) == 1
    assert not (await _enrol(world, customer)).enrolled


async def test_revealing_a_number_is_recorded_before_it_is_shown(world: World) -> None:
    phone, card = world.identity(), world.identity(CARD)
    member_id = (await _enrol(world, phone, card)).member.member_id
    before = len(world.running.documents("members", "audit", {}))
    reply = await world.admin.members.RevealIdentity(
        member_pb2.RevealIdentityRequest(
            brand_id=world.brand_id, member_id=member_id, kind=PHONE, purpose="he lost his parcel"
        )
    )
    assert list(reply.identities) == [phone]
    records = world.running.documents("members", "audit", {})
    assert len(records) == before + 1
    record = max(records, key=lambda record: (record["recorded_time"], int(record["sequence"])))
    chain = [one for one in records if one["process_id"] == record["process_id"]]
    chain.sort(key=lambda one: int(one["sequence"]))
    assert (record["action"], record["role"], record["caller"]) == (
        "RevealIdentity",
        "ROLE_BRAND_ADMIN",
        "local-brand_admin",
    )
    assert record["subject"] == {"brand_id": world.brand_id, "member_id": member_id, "kind": "PHONE"}
    assert record["purpose"] == "he lost his parcel"
    assert phone.value[3:] not in str(record)
    assert audit.broken_at(chain) is None, "the chain is whole"
    middle = chain[len(chain) // 2]
    middle["purpose"] = "changed"
    assert audit.broken_at(chain) == middle["_id"], "and a change would show"


async def test_nothing_is_revealed_of_a_kind_that_he_has_not(world: World) -> None:
    member_id = (await _enrol(world, world.identity(CARD))).member.member_id
    reply = await world.admin.members.RevealIdentity(
        member_pb2.RevealIdentityRequest(
            brand_id=world.brand_id, member_id=member_id, kind=PHONE, purpose="a call"
        )
    )
    assert not reply.identities


# ---- whose, when, as known when ---------------------------------------------------------------------


async def _resolved(world: World, **query: Any) -> ResolvedBinding:
    request = binding_pb2.ResolveBindingRequest(brand_id=world.brand_id, query=BindingQuery(**query))
    return (await world.service.bindings.ResolveBinding(request)).resolved


async def test_a_binding_is_resolved_by_member_and_by_identity(world: World) -> None:
    member_id, customer = await world.bound(2)
    for query in ({"member_id": member_id}, {"identity": customer}):
        found = await _resolved(world, **query)
        assert (found.member_id, found.guide_id) == (member_id, world.guides[2])
        assert found.store_id == world.xintiandi
    assert await _resolved(world, member_id="a" * 16) == ResolvedBinding()
    assert await _resolved(world, identity=world.identity()) == ResolvedBinding()
    unbound = (await _enrol(world, world.identity())).member.member_id
    assert await _resolved(world, member_id=unbound) == ResolvedBinding(member_id=unbound)


async def test_who_was_his_guide_then_and_what_was_believed_then(running: Running) -> None:
    """Monday the first guide's; Wednesday the second's; told about it as of, and as known at, any day."""
    world = await a_world(running, policy=BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS))
    monday = running.now()
    first: ScanGuideCodeResponse = await world.scan(await world.code(0), customer := world.identity())
    running.later(days=1)
    tuesday = running.now()
    running.later(days=1)
    second = await world.scan(await world.code(1), customer)
    running.later(days=1)
    thursday = running.now()

    async def whose(as_of: datetime | None, known_at: datetime | None = None) -> str:
        times: dict[str, Any] = {"as_of_time": as_of and to_timestamp(as_of)}
        if known_at is not None:
            times["known_at_time"] = to_timestamp(known_at)
        found = await _resolved(world, member_id=first.member_id, **times)
        return found.guide_id

    before = monday - timedelta(hours=1)
    assert [await whose(time) for time in (before, tuesday, thursday, None)] == [
        "",
        world.guides[0],
        world.guides[1],
        world.guides[1],
    ]
    # On Tuesday nobody knew of Wednesday, and so believed that Thursday would be the first guide's.
    assert await whose(thursday, tuesday) == world.guides[0]
    assert await whose(tuesday, tuesday) == world.guides[0]
    assert await whose(tuesday, before) == "", "and before Monday nothing was known"
    at_the_scan = time_of(second.binding.valid_from_time)
    assert await whose(at_the_scan) == world.guides[1], "the moment itself is the new one's"
    assert await whose(at_the_scan - timedelta(milliseconds=1)) == world.guides[0]


async def test_an_answer_once_given_stays(running: Running) -> None:
    world = await a_world(running, policy=BindingPolicy(snatch=directory_pb2.SNATCH_ALWAYS))
    member_id, customer = await world.bound(0)
    running.later(seconds=10)
    then = running.now() - timedelta(seconds=6)
    query = {"member_id": member_id, "as_of_time": to_timestamp(then), "known_at_time": to_timestamp(then)}
    before = await _resolved(world, **query)
    assert before.guide_id == world.guides[0]
    await world.scan(await world.code(1), customer)
    await world.scan(await world.code(2), customer)
    assert await _resolved(world, **query) == before


async def test_a_thousand_questions_are_answered_in_the_order_asked(running: Running) -> None:
    world = await a_world(running)
    bound = [await world.bound(index % 3) for index in range(6)]
    queries, expected = [], []
    for index in range(1000):
        member_id, identity = bound[index % 6]
        if index % 7 == 3:
            queries.append(BindingQuery(member_id="a" * 16))
            expected.append(("", ""))
            continue
        queries.append(BindingQuery(member_id=member_id) if index % 2 else BindingQuery(identity=identity))
        expected.append((member_id, world.guides[index % 6 % 3]))
    reply = await world.service.bindings.BatchResolveBindings(
        binding_pb2.BatchResolveBindingsRequest(brand_id=world.brand_id, queries=queries)
    )
    assert [(one.member_id, one.guide_id) for one in reply.resolved] == expected
