"""One brand's people learn nothing of another brand and change nothing in it, whatever they ask.

`DAOGOU_SEED=n` repeats a run; every failure names its seed.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.rpc import status_pb2

from chassis.times import to_timestamp
from daogou.commission.v1 import (
    adjustment_pb2,
    feed_pb2,
    ledger_pb2,
    performance_pb2,
    plan_pb2,
    reattribution_pb2,
)
from daogou.commission.v1.adjustment_pb2_grpc import AdjustmentServiceStub
from daogou.commission.v1.feed_pb2_grpc import FeedServiceStub
from daogou.commission.v1.reattribution_pb2_grpc import ReattributionServiceStub
from daogou.common.v1 import access_pb2
from daogou.common.v1.access_pb2 import Role
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from daogou.common.v1.identity_pb2 import Identity, IdentityKind
from daogou.members.v1 import (
    activity_pb2,
    binding_pb2,
    consent_pb2,
    directory_pb2,
    follow_up_pb2,
    handover_pb2,
    member_pb2,
    member_search_pb2,
    merge_pb2,
    profile_pb2,
    region_pb2,
    tag_pb2,
)
from daogou.members.v1.follow_up_pb2 import Task
from daogou.members.v1.handover_pb2_grpc import HandoverServiceStub
from daogou.members.v1.merge_pb2 import Merge
from daogou.members.v1.merge_pb2_grpc import MergeServiceStub
from daogou.members.v1.profile_pb2 import Profile
from tests.messages import Accepted, every_method, message_of, service_of
from tests.rpc.care import Care, update_of
from tests.rpc.running import Caller, Running, eventually, sent
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, request_id, rule_of

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.commission.v1.adjustment_pb2_grpc import AdjustmentServiceAsyncStub
    from daogou.commission.v1.feed_pb2_grpc import FeedServiceAsyncStub
    from daogou.commission.v1.reattribution_pb2_grpc import ReattributionServiceAsyncStub
    from daogou.members.v1.handover_pb2_grpc import HandoverServiceAsyncStub
    from daogou.members.v1.merge_pb2_grpc import MergeServiceAsyncStub

SEED: Final = int(os.environ.get("DAOGOU_SEED", random.SystemRandom().randrange(10**9)))
PAID_MINOR: Final = 94_318_779
"""An amount that no other brand has."""


@dataclass
class Tenant:
    """A brand with everything in it, and what its people can read of it."""

    world: World
    order: Order
    code: str
    lookup: Identity
    """An identity of one of its members. Others may know it: the customer is theirs too."""
    handover_id: str
    task_id: str
    merge: Merge
    """Of another of its members into the one that its world names."""
    adjustment_id: str
    reattribution_id: str
    texts: set[str]
    amounts: set[int]

    def ids(self) -> dict[str, list[str]]:
        """Its identifiers, by the name of the field that they belong in."""
        world = self.world
        stores = [world.nanjing_road, world.xintiandi, world.flagship]
        return {
            "brand_id": [world.brand_id],
            "region_id": [world.region_id],
            "parent_region_id": [world.region_id],
            "store_id": stores,
            "selling_store_id": stores,
            "pool_store_id": stores,
            "bearing_store_id": stores,
            "store_ids": stores,
            "guide_id": world.guides,
            "guide_ids": world.guides,
            "taker_guide_ids": world.guides,
            "manager_guide_id": world.guides,
            "serving_guide_id": world.guides,
            "maker_guide_id": world.guides,
            "member_id": [world.member_id, self.merge.merged_member_id],
            "merge_id": [self.merge.merge_id],
            "handover_id": [self.handover_id],
            "task_id": [self.task_id],
            "adjustment_id": [self.adjustment_id],
            "reattribution_id": [self.reattribution_id],
            "order_id": [self.order.order_id],
            "entry_id": sorted(text for text in self.texts if text.startswith(f"{world.brand_id}|")),
            "shop_id": [world.shop_id],
            "code": [self.code],
        }


async def a_tenant(running: Running, name: str, paid_minor: int) -> Tenant:
    """A brand in which every RPC so far has something to find."""
    plan = plan_of(rule_of(f"{name}-rule", match=plan_pb2.Match()), display_name=f"{name} plan")
    world = await a_world(running, guides=4, names=[name, f"{name} guide"], plan=plan)
    code = await world.code(0, campaign=f"{name}-camp")
    lookup = world.identity(IdentityKind.IDENTITY_KIND_TAOBAO_OPEN_ID)
    assert world.phone is not None
    await world.scan(code, world.phone)
    await world.connector.members.LinkIdentity(
        member_pb2.LinkIdentityRequest(brand_id=world.brand_id, member_id=world.member_id, identity=lookup)
    )
    order = world.order(identity=lookup)
    lines = [line_of(f"{name}-coat", paid_minor), line_of(f"{name}-scarf", paid_minor // 7)]
    await world.ingest(order.placed(*lines), order.paid(*lines))
    await world.ingest(order.refunded(refund_of(f"{name}-scarf", paid_minor // 9)))
    handover_id = await _handed_over(world)
    task_id, merge = await _looked_after(world, name), await _merged(world)
    adjustment_id = await _adjusted(world, name, paid_minor // 11)
    reattribution_id = await _reattributed(world, name, order)
    texts: set[str] = set()
    amounts: set[int] = set()
    async for reply in what_its_people_read(world, order, handover_id):
        texts |= {text for text in texts_of(reply) if len(text) >= 6}
        amounts |= {number for number in numbers_of(reply) if number > 100_000}
    # What others may know and say themselves is no secret.
    shared = {world.shop_id, order.order_id, lookup.value, masked(lookup)}
    texts -= shared
    proposed = adjustment_id, reattribution_id
    return Tenant(world, order, code, lookup, handover_id, task_id, merge, *proposed, texts, amounts)


async def _merged(world: World) -> Merge:
    """A merge of a customer who scanned a code into the member."""
    _, card = await world.bound(1)
    request = member_pb2.LinkIdentityRequest(
        brand_id=world.brand_id, member_id=world.member_id, identity=card
    )
    return (await world.connector.members.LinkIdentity(request)).merge


async def _adjusted(world: World, name: str, amount_minor: int) -> str:
    """Registers a feed of the tills, and proposes an adjustment; the id of that."""
    feeds: FeedServiceAsyncStub = FeedServiceStub(world.admin.channel("commission"))
    feed: dict[str, Any] = {"feed_id": f"{name}-feed", "channel": Channel.CHANNEL_POS}
    await feeds.RegisterFeed(
        feed_pb2.RegisterFeedRequest(brand_id=world.brand_id, request_id=request_id(), **feed)
    )
    adjustments: AdjustmentServiceAsyncStub = AdjustmentServiceStub(world.admin.channel("commission"))
    proposal = adjustment_pb2.ProposeAdjustmentRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        guide_id=world.guides[0],
        amount_minor=amount_minor,
        reason=f"{name} bonus",
    )
    return (await adjustments.ProposeAdjustment(proposal)).adjustment.adjustment_id


async def _reattributed(world: World, name: str, order: Order) -> str:
    """Proposes to reattribute an order; the id of that."""
    named = reattribution_pb2.OrderName(channel=order.channel, order_id=order.order_id)
    proposal = reattribution_pb2.ProposeReattributionRequest(
        brand_id=world.brand_id,
        request_id=request_id(),
        reason=f"{name} mix-up",
        named=reattribution_pb2.NamedOrders(orders=[named]),
    )
    stub: ReattributionServiceAsyncStub = ReattributionServiceStub(world.admin.channel("commission"))
    return (await stub.ProposeReattribution(proposal)).reattribution.reattribution_id


async def _looked_after(world: World, name: str) -> str:
    """Makes everything that there is to know of the member, and a task for him; the id of the task."""
    care, guide, time = Care(world.admin), Care(world.guide(0)), to_timestamp(world.running.now())
    profile = Profile(display_name=f"{name} customer", tier=f"{name}-gold", remark=f"{name} remark")
    await care.profiles.UpdateProfile(update_of(world, world.member_id, profile))
    named: dict[str, Any] = {"brand_id": world.brand_id, "member_id": world.member_id}
    await care.tags.AddTags(tag_pb2.AddTagsRequest(tags=[f"{name}-tag"], **named))
    consent = consent_pb2.RecordConsentRequest(
        purpose=f"{name}-purpose",
        state=consent_pb2.CONSENT_STATE_GIVEN,
        version=f"{name}-1",
        consent_time=time,
        channel=consent_pb2.CONSENT_CHANNEL_PAPER,
        evidence=f"{name} evidence",
        **named,
    )
    await care.consents.RecordConsent(consent)
    hers = {**named, "guide_id": world.guides[0]}
    contact = activity_pb2.RecordContactRequest(contact_time=time, note=f"{name} contact", **hers)
    await guide.activity.RecordContact(contact)
    task = Task(title=f"{name} task", note=f"{name} note", due_time=time)
    request = follow_up_pb2.CreateTaskRequest(request_id=request_id(), task=task, **hers)
    return (await guide.follow_up.CreateTask(request)).task.task_id


async def _handed_over(world: World) -> str:
    """The id of a handover with an open offer, in which nothing more happens by itself for a day."""
    await world.bound(3)
    handovers: HandoverServiceAsyncStub = HandoverServiceStub(world.admin.channel("members"))
    begun = await handovers.HandOverMembers(
        handover_pb2.HandOverMembersRequest(
            brand_id=world.brand_id,
            request_id=request_id(),
            guide_id=world.guides[3],
            taker_guide_ids=[world.guides[2]],
        )
    )
    handover_id = begun.handover.handover_id
    read = handover_pb2.GetHandoverRequest(brand_id=world.brand_id, handover_id=handover_id)

    async def offered() -> bool:
        state = (await handovers.GetHandover(read)).handover.state
        return state == handover_pb2.HANDOVER_STATE_OFFERED

    await eventually(offered, "the members are offered")
    return handover_id


def masked(identity: Identity) -> str:
    """A long identity as lists show it."""
    return f"{identity.value[:3]}****{identity.value[-4:]}"


async def what_its_people_read(world: World, order: Order, handover_id: str) -> AsyncIterator[Message]:
    """Replies that only the brand's own people may see."""
    brand, admin = world.brand_id, world.admin
    handovers: HandoverServiceAsyncStub = HandoverServiceStub(admin.channel("members"))
    yield await handovers.GetHandover(
        handover_pb2.GetHandoverRequest(brand_id=brand, handover_id=handover_id)
    )
    yield await handovers.ListOffers(handover_pb2.ListOffersRequest(brand_id=brand, handover_id=handover_id))
    yield await admin.directory.GetBrand(directory_pb2.GetBrandRequest(brand_id=brand))
    yield await admin.regions.ListRegions(region_pb2.ListRegionsRequest(brand_id=brand))
    yield await admin.directory.ListStores(directory_pb2.ListStoresRequest(brand_id=brand))
    yield await admin.directory.ListGuides(directory_pb2.ListGuidesRequest(brand_id=brand))
    yield await admin.members.GetMember(
        member_pb2.GetMemberRequest(brand_id=brand, member_id=world.member_id)
    )
    yield await admin.members.RevealIdentity(
        member_pb2.RevealIdentityRequest(
            brand_id=brand,
            member_id=world.member_id,
            kind=IdentityKind.IDENTITY_KIND_PHONE,
            purpose="a test",
        )
    )
    yield await admin.bindings.ListBindingRows(
        binding_pb2.ListBindingRowsRequest(brand_id=brand, member_id=world.member_id)
    )
    async for reply in _what_they_know_of_the_member(world):
        yield reply
    merges: MergeServiceAsyncStub = MergeServiceStub(admin.channel("members"))
    yield await merges.ListMerges(merge_pb2.ListMergesRequest(brand_id=brand, member_id=world.member_id))
    yield await admin.plans.ListPlans(plan_pb2.ListPlansRequest(brand_id=brand))
    yield await world.explained(order)
    yield await world.trial_balance()
    yield await admin.ledger.GetBalance(
        ledger_pb2.GetBalanceRequest(brand_id=brand, guide_id=world.guides[0])
    )
    entries = await admin.ledger.ListEntries(
        ledger_pb2.ListEntriesRequest(brand_id=brand, guide_id=world.guides[0])
    )
    yield entries
    for entry in entries.entries:
        yield await admin.ledger.ExplainEntry(
            ledger_pb2.ExplainEntryRequest(brand_id=brand, entry_id=entry.entry_id)
        )
    feeds: FeedServiceAsyncStub = FeedServiceStub(admin.channel("commission"))
    yield await feeds.ListFeeds(feed_pb2.ListFeedsRequest(brand_id=brand))
    adjustments: AdjustmentServiceAsyncStub = AdjustmentServiceStub(admin.channel("commission"))
    yield await adjustments.ListAdjustments(adjustment_pb2.ListAdjustmentsRequest(brand_id=brand))
    reattributions: ReattributionServiceAsyncStub = ReattributionServiceStub(admin.channel("commission"))
    yield await reattributions.ListReattributions(reattribution_pb2.ListReattributionsRequest(brand_id=brand))

    asked: dict[str, Any] = {"brand_id": brand, "range": year_of(world)}
    yield await admin.performance.GetBrandPerformance(performance_pb2.GetBrandPerformanceRequest(**asked))
    yield await admin.performance.GetStorePerformance(
        performance_pb2.GetStorePerformanceRequest(**asked, store_id=world.flagship)
    )
    yield await admin.performance.GetGuidePerformance(
        performance_pb2.GetGuidePerformanceRequest(**asked, guide_id=world.guides[0])
    )
    ranked: dict[str, Any] = {"brand_id": brand, "period": month_of(world)}
    yield await admin.performance.ListStoreLeaderboard(performance_pb2.ListStoreLeaderboardRequest(**ranked))
    yield await admin.performance.ListGuideLeaderboard(performance_pb2.ListGuideLeaderboardRequest(**ranked))


def month_of(world: World) -> Date:
    """The month of the business calendar in which its orders were paid."""
    paid = (world.running.now() - timedelta(hours=2)).astimezone(ZoneInfo("Asia/Shanghai"))
    return Date(year=paid.year, month=paid.month)


def year_of(world: World) -> performance_pb2.PeriodRange:
    """The months of that year."""
    year = month_of(world).year
    return performance_pb2.PeriodRange(first=Date(year=year, month=1), last=Date(year=year, month=12))


async def _what_they_know_of_the_member(world: World) -> AsyncIterator[Message]:
    care, brand, member = Care(world.admin), world.brand_id, world.member_id
    named: dict[str, Any] = {"brand_id": brand, "member_id": member}
    yield await care.profiles.GetProfile(profile_pb2.GetProfileRequest(**named))
    yield await care.tags.ListTags(tag_pb2.ListTagsRequest(**named))
    yield await care.consents.GetConsents(consent_pb2.GetConsentsRequest(**named))
    yield await care.consents.ListConsentRecords(consent_pb2.ListConsentRecordsRequest(**named))
    yield await care.follow_up.ListContacts(follow_up_pb2.ListContactsRequest(**named))
    yield await care.follow_up.ListTasks(
        follow_up_pb2.ListTasksRequest(brand_id=brand, guide_id=world.guides[0])
    )
    yield await care.search.SearchMembers(
        member_search_pb2.SearchMembersRequest(brand_id=brand, guide_id=world.guides[0])
    )


def values_in(message: Message) -> Iterator[tuple[FieldDescriptor, Any]]:
    """Every scalar value of a message, at any depth."""
    for field, value in message.ListFields():
        for item in value if field.is_repeated else [value]:
            if isinstance(item, Message):
                yield from values_in(item)
            else:
                yield field, item


def texts_of(message: Message) -> set[str]:
    """Every text of a message, at any depth."""
    return {value for _, value in values_in(message) if isinstance(value, str)}


def numbers_of(message: Message) -> set[int]:
    """The size of every number that is no part of a time, at any depth."""
    return {
        abs(value)
        for field, value in values_in(message)
        if isinstance(value, int) and not field.full_name.startswith("google.protobuf.")
    }


@pytest.fixture(scope="module")
async def mine(running: Running) -> Tenant:
    return await a_tenant(running, "Aurora", 59_900)


@pytest.fixture(scope="module")
async def theirs(running: Running, mine: Tenant) -> Tenant:
    """The other brand; its texts and amounts are those that mine has not."""
    found = await a_tenant(running, "Zephyr", PAID_MINOR)
    found.texts -= mine.texts
    found.amounts -= mine.amounts
    return found


def people_of(world: World) -> dict[int, Caller]:
    """Somebody of every role that belongs to a brand."""
    brand = {"brand": world.brand_id}
    return {
        Role.ROLE_CONNECTOR: world.connector,
        Role.ROLE_BRAND_ADMIN: world.admin,
        Role.ROLE_REGION_MANAGER: world.running.caller("REGION_MANAGER", region=world.region_id, **brand),
        Role.ROLE_STORE_MANAGER: world.manager(),
        Role.ROLE_GUIDE: world.guide(),
        Role.ROLE_DOOR: world.running.caller("DOOR", **brand),
        Role.ROLE_BOX: world.running.caller("BOX", **brand),
    }


def mixed(draw: random.Random, mine: Tenant, theirs: Tenant) -> Mapping[str, list[Any]]:
    """What to fill a request with: theirs in one field or another, or in all."""
    own, foreign = mine.ids(), theirs.ids()
    share = draw.choice((0.3, 0.6, 1.0))
    chosen: dict[str, list[Any]] = {
        name: foreign[name] if draw.random() < share else own[name] for name in own
    }
    # Without the right brand nearly everything is refused at the door.
    chosen["brand_id"] = own["brand_id"] if draw.random() < 0.8 else foreign["brand_id"]
    chosen["FORMAT_ID"] = [one for name, ids in foreign.items() if name.endswith("_id") for one in ids][:8]
    chosen["daogou.common.v1.Identity.kind"] = [theirs.lookup.kind]
    chosen["daogou.common.v1.Identity.value"] = [theirs.lookup.value, "somebody-else"]
    chosen["daogou.common.v1.Identity.app_id"] = [""]
    chosen["line_id"] = ["coat", "Zephyr-coat"]
    chosen["channel"] = [theirs.order.channel]
    chosen["currency_code"] = ["CNY"]
    chosen["period"], chosen["range"] = [month_of(mine.world)], [year_of(mine.world)]
    return chosen


def told(reply: Message) -> tuple[set[str], set[int]]:
    """What a reply tells, without the store ids that the caller's own plans are made of."""
    texts = {
        value
        for field, value in values_in(reply)
        if isinstance(value, str) and field.full_name != "daogou.commission.v1.Match.store_ids"
    }
    return texts, numbers_of(reply)


def told_by(error: grpc.aio.AioRpcError) -> str:
    """All that a refusal tells, in one text."""
    parts = [error.details() or ""]
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            status = status_pb2.Status.FromString(value)
            parts += [status.message, *(str(detail.value) for detail in status.details)]
        else:
            parts.append(str(value))
    return "\n".join(parts)


async def test_nothing_of_another_brand_is_told_or_touched(
    running: Running, mine: Tenant, theirs: Tenant, soak: bool
) -> None:
    draw = random.Random(SEED)
    people = people_of(mine.world)
    running.until_all_is_told([theirs.world.brand_id])
    before, nobodys = running.written(theirs.world.brand_id), running.written("nobody")
    of_theirs = [name for name in before if before[name][1] != nobodys[name][1]]
    assert len(of_theirs) >= 8, f"the other brand has too little to lose: {of_theirs}"
    codes: Counter[str] = Counter()
    for _ in range(10_000 if soak else 1_000):
        method = draw.choice(every_method())
        admitted = set(method.GetOptions().Extensions[access_pb2.access].roles) & people.keys()
        roles = sorted(admitted) if admitted and draw.random() < 0.85 else sorted(people)
        caller = people[draw.choice(roles)]
        accepted = Accepted(mixed(draw, mine, theirs), draw=draw, now=running.now())
        request = accepted.message(method.input_type)
        said = texts_of(request)
        context = f"DAOGOU_SEED={SEED}: {method.full_name}\n{request!r:.2000}"
        try:
            raw = await sent(
                running.plain(service_of(method)), method, request.SerializeToString(), caller.metadata
            )
        except grpc.aio.AioRpcError as error:
            codes[error.code().name] += 1
            leaked = [text for text in theirs.texts - said if text in told_by(error)]
            assert not leaked, f"{context}\n{leaked}"
            continue
        codes["OK"] += 1
        reply = message_of(method.output_type)
        reply.MergeFromString(raw)
        texts, numbers = told(reply)
        held = "\n".join(texts)
        leaked = [text for text in theirs.texts - said if text in held]
        assert not leaked, f"{context}\nanswered {reply!r:.2000}\n{leaked}"
        assert not numbers & theirs.amounts, f"{context}\nanswered {reply!r:.2000}"
    assert codes["OK"] > 50, f"too few probes got anywhere: {codes}"
    assert codes["NOT_FOUND"] > 20, f"too few probes named what is not theirs: {codes}"
    after = running.written(theirs.world.brand_id)
    assert [name for name in of_theirs if before[name][1] != after[name][1]] == [], f"DAOGOU_SEED={SEED}"


async def test_the_other_brands_own_people_do_read_all_that(theirs: Tenant) -> None:
    """The probes look for what can be found: were the look-out blind, this would fail."""
    assert theirs.amounts >= {PAID_MINOR, PAID_MINOR * 3 // 100}
    assert {"Zephyr", "Zephyr Nanjing Road", "Zephyr guide 0", "Zephyr plan", "Zephyr-rule"} <= theirs.texts
    assert {"Zephyr customer", "Zephyr-tag", "Zephyr evidence", "Zephyr note"} <= theirs.texts
    assert theirs.world.phone is not None
    assert theirs.world.phone.value in theirs.texts
    assert {theirs.world.member_id, theirs.world.brand_id, *theirs.world.guides} <= theirs.texts
    texts: set[str] = set()
    async for reply in what_its_people_read(theirs.world, theirs.order, theirs.handover_id):
        texts |= told(reply)[0]
    assert theirs.texts <= texts | {theirs.world.shop_id}


async def test_the_same_customer_is_another_member_in_each_brand(mine: Tenant, theirs: Tenant) -> None:
    """He may shop at both; neither learns what the other knows of him."""
    card, phone = theirs.world.identity(IdentityKind.IDENTITY_KIND_POS_CARD), theirs.world.identity()
    there = await theirs.world.connector.members.EnrolMember(
        member_pb2.EnrolMemberRequest(brand_id=theirs.world.brand_id, identities=[card, phone])
    )
    await theirs.world.scan(theirs.code, card)
    here = await mine.world.connector.members.EnrolMember(
        member_pb2.EnrolMemberRequest(brand_id=mine.world.brand_id, identities=[card])
    )
    assert here.enrolled
    assert here.member.member_id != there.member.member_id
    assert not here.member.HasField("binding")
    assert [one.masked_value for one in here.member.identities] == [masked(card)]
