"""Entries of the journal over the wire: listed for their payee, explained to the fen, found when forged."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date
from typing import Any, Final

import grpc
import pytest

from daogou.commission.v1 import ledger_pb2, plan_pb2
from daogou.commission.v1.ledger_pb2 import Account, ExplainEntryResponse, PostingKind
from daogou.common.v1.channel_pb2 import Channel
from daogou.common.v1.date_pb2 import Date
from tests.rpc.running import Caller, Running, eventually, refusal
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, rule_of

POS: Final = Channel.CHANNEL_POS
COAT, SCARF = line_of("coat", 59_900), line_of("scarf", 12_950)
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def world(running: Running) -> World:
    """A brand with a plan of 3 % for the owner; what is earned at a till is held for a day."""
    return await a_world(running, plan=plan_of(holds=[plan_pb2.Hold(channel=POS, days=1)]))


async def sold(world: World, guide: int = 0, channel: Any = POS) -> Order:
    """An order of a guide's member, of two hours ago."""
    _, identity = await world.bound(guide)
    world.running.later(hours=3)
    return world.order(channel, identity=identity)


async def explained(world: World, entry_id: str) -> ExplainEntryResponse:
    """The whole way to one entry."""
    request = ledger_pb2.ExplainEntryRequest(brand_id=world.brand_id, entry_id=entry_id)
    return await world.admin.ledger.ExplainEntry(request)


async def listed(
    world: World, guide: int = 0, caller: Caller | None = None, **more: Any
) -> ledger_pb2.ListEntriesResponse:
    """One page of a guide's entries."""
    payee: dict[str, Any] = {} if "pool_store_id" in more else {"guide_id": world.guides[guide]}
    request = ledger_pb2.ListEntriesRequest(brand_id=world.brand_id, **payee, **more)
    return await (caller or world.admin).ledger.ListEntries(request)


def journal(world: World) -> Any:
    """The collection itself."""
    return world.running.database("commission")["journal"]


# ---- explained --------------------------------------------------------------------------------------


async def test_every_entry_of_an_order_is_recomputed_from_what_was_known_then(world: World) -> None:
    """Events in any order and grouping: each entry is what the events of its time add to those before it."""
    seed = random.SystemRandom().randrange(10**9)
    draw = random.Random(seed)
    order = await sold(world)
    events = [
        order.paid(COAT, SCARF),
        order.refunded(refund_of("scarf", 333)),
        order.refunded(number=2, goodwill_minor=1_111),
        order.paid(line_of("coat", 100), number=2),
        order.received(),
    ]
    draw.shuffle(events)
    while events:
        size = draw.randint(1, len(events))
        await world.ingest(*events[:size])
        events = events[size:]
    world.running.later(days=2)

    async def confirmed() -> bool:
        return bool((await listed(world)).entries[0].cause_event_ids == ["CONFIRMED"])

    await eventually(confirmed, "what was held becomes payable")
    told = await world.explained(order)
    assert told.books_agree
    for entry in told.entries:
        found = await explained(world, entry.entry_id)
        assert found.entry == entry
        assert found.order.agrees, f"seed {seed}: {found}"
        assert found.order.attribution == told.attribution
        causes = {event.event_id for event in found.order.events if event.is_cause}
        assert causes == set(entry.cause_event_ids) - {"CONFIRMED"}, f"seed {seed}"
    last = (await explained(world, told.entries[-1].entry_id)).order
    assert [event.event_id for event in last.events] == [event.event_id for event in told.events]
    assert list(last.lines) == list(told.lines)
    assert last.HasField("confirmed_through_time")


async def test_an_entry_is_explained_to_the_fen(world: World) -> None:
    """3 % of 599.00 is 17.97; of 129.50 it is 3.885, and half a fen more; then 50.00 of the scarf go back.

    3.89 × 50.00 ÷ 129.50 = 1.5019…: the second entry takes back 1.50.
    """
    order = await sold(world, channel=Channel.CHANNEL_TMALL)
    await world.ingest(order.placed(COAT, SCARF), order.paid(COAT, SCARF))
    await world.ingest(order.refunded(refund_of("scarf", 5_000)))
    second, first = (await listed(world)).entries
    found = (await explained(world, first.entry_id)).order
    assert [(event.event_id, event.is_cause) for event in found.events] == [
        ("PLACED", True),
        ("PAID:1", True),
    ]
    coat, scarf = found.lines
    assert (coat.rule_id, coat.rate_bp, coat.earned_minor, coat.earned_rounding_bp) == ("all", 300, 1_797, 0)
    assert (scarf.earned_minor, scarf.earned_rounding_bp, scarf.distributable_rounding_bp) == (389, 5_000, 0)
    assert scarf.refunded_minor == 0, "nothing was known of it yet"
    assert found.attribution.owner.guide_id == world.guides[0]
    assert found.attribution.plan_id == world.plan_id
    found = (await explained(world, second.entry_id)).order
    amounts = {
        (one.line_id, one.account, one.kind): (one.before_minor, one.posted_minor, one.computed_minor)
        for one in found.amounts
    }
    payable, expense = Account.ACCOUNT_PAYABLE, Account.ACCOUNT_EXPENSE
    earned, back = PostingKind.POSTING_KIND_EARNED, PostingKind.POSTING_KIND_CLAWED_BACK
    assert amounts == {
        ("coat", payable, earned): (-1_797, 0, -1_797),
        ("coat", expense, earned): (1_797, 0, 1_797),
        ("scarf", payable, earned): (-389, 0, -389),
        ("scarf", expense, earned): (389, 0, 389),
        ("scarf", payable, back): (0, 150, 150),
        ("scarf", expense, back): (0, -150, -150),
    }
    assert all(one.agrees for one in found.amounts)
    assert found.agrees


async def test_an_entry_stays_explained_by_what_was_known_whatever_comes_later(running: Running) -> None:
    """The member's first purchase, until an earlier one becomes known: each entry says which it was then."""
    first = rule_of("first", 1_000, match=plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST))
    world = await a_world(running, plan=plan_of(first, rule_of("again", 100)))
    order = await sold(world)
    await world.ingest(order.paid(COAT))
    before = world.order(POS, identity=order.fields["identity"])
    earlier = Order(before.channel, before.order_id, order.placed_time.replace(microsecond=0), before.fields)
    assert earlier.placed_time <= order.placed_time
    await world.ingest(earlier.paid(COAT))

    async def made_anew() -> bool:
        return len((await world.explained(order)).entries) == 2

    await eventually(made_anew, "the displaced order is booked anew")
    was, became = (await world.explained(order)).entries
    then, now = await explained(world, was.entry_id), await explained(world, became.entry_id)
    assert [(one.order.first_purchase, one.order.agrees) for one in (then, now)] == [
        (True, True),
        (False, True),
    ]
    assert [one.order.lines[0].rule_id for one in (then, now)] == ["first", "again"]
    assert list(became.cause_event_ids) == ["NOT_FIRST_PURCHASE"]


async def test_a_forged_posting_is_found(world: World) -> None:
    """One fen moved from the brand to a guide: the entry still sums to zero, and is not what was earned."""
    order = await sold(world)
    await world.ingest(order.paid(COAT, SCARF))
    [entry] = (await listed(world)).entries
    assert (await explained(world, entry.entry_id)).order.agrees
    stored = journal(world).find_one({"_id": entry.entry_id})
    forged = [
        {**one, "amount_minor": one["amount_minor"] + (1 if one["account"] == "EXPENSE" else -1)}
        for one in stored["postings"]
    ]
    for postings in (
        forged,
        [*stored["postings"], {**stored["postings"][0], "payee": f"guide:{world.guides[1]}"}],
        stored["postings"][1:],
    ):
        journal(world).update_one({"_id": entry.entry_id}, {"$set": {"postings": postings}})
        found = (await explained(world, entry.entry_id)).order
        assert not found.agrees
        assert [one for one in found.amounts if not one.agrees]
    journal(world).replace_one({"_id": entry.entry_id}, stored)
    assert (await explained(world, entry.entry_id)).order.agrees


async def test_an_entry_of_no_stored_order_is_not_explained_away(world: World) -> None:
    order = await sold(world)
    await world.ingest(order.paid(COAT))
    [entry] = (await listed(world)).entries
    stored = journal(world).find_one({"_id": entry.entry_id})
    planted = {**stored, "_id": f"{entry.entry_id}-2", "order_key": f"{stored['order_key']}-2"}
    journal(world).insert_one(planted)
    found = await explained(world, planted["_id"])
    assert not found.order.agrees
    assert not found.order.events
    journal(world).delete_one({"_id": planted["_id"]})


async def test_an_entry_from_before_its_circumstances_were_kept_says_so(world: World) -> None:
    order = await sold(world)
    await world.ingest(order.paid(COAT))
    [entry] = (await listed(world)).entries
    journal(world).update_one({"_id": entry.entry_id}, {"$unset": {"around": 1}})
    found = (await explained(world, entry.entry_id)).order
    assert found.too_old
    assert not found.agrees
    assert not found.amounts


async def test_an_entry_that_is_of_no_order_is_given_with_its_cause(world: World) -> None:
    """Adjustments, payments and what was owed before are booked by themselves."""
    order = await sold(world)
    await world.ingest(order.paid(COAT))
    [entry] = (await listed(world)).entries
    stored = journal(world).find_one({"_id": entry.entry_id})
    postings = [{**one, "line_id": "", "kind": "ADJUSTED"} for one in stored["postings"]]
    entry_id = f"{world.brand_id}|ADJUSTED|x"
    common = ("brand_id", "posting_month", "recorded_time", "currency_code")
    named = {"_id": entry_id, "cause": "ADJUSTMENT:x", "postings": postings}
    journal(world).insert_one({**named, **{name: stored[name] for name in common}})
    found = await explained(world, entry_id)
    assert not found.HasField("order")
    assert (found.entry.cause, found.entry.order_id, found.currency_code) == ("ADJUSTMENT:x", "", "CNY")
    assert found.entry.channel == Channel.CHANNEL_UNSPECIFIED
    assert {one.kind for one in found.entry.postings} == {PostingKind.POSTING_KIND_ADJUSTED}
    assert len((await listed(world)).entries) == 2


@pytest.mark.parametrize("entry_id", ["nobody", "aaaaaaaaaaaaaaaa|00|POS|1|1|2026-11", "|", "导购"])
async def test_an_unknown_entry_is_said_to_be_unknown(world: World, entry_id: str) -> None:
    found = await refusal(explained(world, entry_id))
    assert (found.code, found.reason) == (NOT_FOUND, "ENTRY_UNKNOWN")


async def test_another_brands_entry_is_unknown_here(running: Running, world: World) -> None:
    """Its id names its brand and its order; who asks is answered for his own brand all the same."""
    other = await a_world(running, plan=plan_of())
    order = await sold(other)
    await other.ingest(order.paid(COAT))
    [entry] = (await listed(other)).entries
    found = await refusal(explained(world, entry.entry_id))
    assert (found.code, found.reason) == (NOT_FOUND, "ENTRY_UNKNOWN")
    assert (await explained(other, entry.entry_id)).order.agrees


@pytest.mark.parametrize("entry_id", ["", "x" * 201, "a\x00b"])
async def test_what_is_no_entry_id_is_refused(world: World, entry_id: str) -> None:
    found = await refusal(explained(world, entry_id))
    assert (found.code, found.reason, found.fields) == (INVALID, "INVALID_FIELDS", {"entry_id"})


# ---- listed -----------------------------------------------------------------------------------------


async def test_entries_are_listed_the_last_first_page_by_page(world: World) -> None:
    _, identity = await world.bound(0)
    world.running.later(hours=3)
    orders = [world.order(POS, identity=identity) for _ in range(7)]
    # Some in one call: they are recorded at the same moment.
    await world.ingest(*[order.paid(COAT) for order in orders[:4]])
    for order in orders[4:]:
        await world.ingest(order.paid(COAT))
    whole = list((await listed(world)).entries)
    assert [(entry.order_id, entry.channel) for entry in whole[:3]] == [
        (order.order_id, POS) for order in reversed(orders[4:])
    ]
    assert {entry.order_id for entry in whole[3:]} == {order.order_id for order in orders[:4]}
    for size in (1, 2, 3, 7, 8):
        pages: list[ledger_pb2.Entry] = []
        token = ""
        while True:
            page = await listed(world, page_size=size, page_token=token)
            assert 0 < len(page.entries) <= size
            pages.extend(page.entries)
            if not (token := page.next_page_token):
                break
        assert pages == whole, f"by {size}"


async def test_only_the_payees_own_postings_are_listed(running: Running) -> None:
    """What a colleague earns of the same sale is not hers to know, nor what it costs the brand."""
    shares = [
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_OWNER, share_bp=6_000),
        plan_pb2.Share(role=plan_pb2.PAYEE_ROLE_SERVING, share_bp=4_000),
    ]
    world = await a_world(running, plan=plan_of(plan_pb2.Rule(rule_id="all", rate_bp=1_000, shares=shares)))
    order = await sold(world)
    await world.ingest(order.paid(line_of("coat", 10_000), serving_guide_id=world.guides[1]))
    for guide, earned in ((0, 600), (1, 400)):
        caller = world.guide(guide)
        page = await listed(world, guide, caller=caller)
        [posting] = [one for entry in page.entries for one in entry.postings]
        assert (posting.payee.guide_id, posting.amount_minor) == (world.guides[guide], -earned)
        assert page.currency_code == "CNY"
        found = await refusal(listed(world, 1 - guide, caller=caller))
        assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOURS")
    found = await refusal(listed(world, caller=world.guide(0), pool_store_id=world.nanjing_road))
    assert (found.code, found.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_YOURS")


async def test_entries_can_be_had_of_one_month(world: World) -> None:
    orders = [await sold(world) for _ in range(2)]
    await world.ingest(*[order.paid(COAT) for order in orders])
    months: Counter[tuple[int, int]] = Counter()
    for entry in (await listed(world)).entries:
        months[entry.posting_month.year, entry.posting_month.month] += 1
        assert {(one.origin_month.year, one.origin_month.month) for one in entry.postings} == {
            (entry.posting_month.year, entry.posting_month.month)
        }
    for (year, month), count in months.items():
        page = await listed(world, posting_month=Date(year=year, month=month))
        assert len(page.entries) == count
    before = date(min(months)[0] - 1, 12, 1)
    page = await listed(world, posting_month=Date(year=before.year, month=before.month))
    assert (list(page.entries), page.currency_code, page.next_page_token) == ([], "", "")


async def test_a_pool_has_entries_too(world: World) -> None:
    order = world.order(POS)
    await world.ingest(order.paid(COAT))
    [entry] = (await listed(world, pool_store_id=world.nanjing_road)).entries
    [posting] = entry.postings
    assert (posting.payee.pool_store_id, posting.amount_minor) == (world.nanjing_road, -1_797)
    assert not (await listed(world, pool_store_id=world.xintiandi)).entries


@pytest.mark.parametrize(
    ("more", "reason", "fields"),
    [
        ({"page_size": 1_001}, "INVALID_FIELDS", {"page_size"}),
        ({"page_size": -1}, "INVALID_FIELDS", {"page_size"}),
        ({"posting_month": Date(year=2026, month=13)}, "INVALID_FIELDS", {"posting_month"}),
        ({"posting_month": Date(year=0, month=1)}, "INVALID_FIELDS", {"posting_month"}),
        ({"posting_month": Date(year=2026, month=1, day=1)}, "INVALID_FIELDS", {"posting_month"}),
        ({"page_token": "nonsense"}, "PAGE_TOKEN_INVALID", set()),
    ],
)
async def test_a_bad_question_for_entries_is_refused(
    world: World, more: dict[str, Any], reason: str, fields: set[str]
) -> None:
    found = await refusal(listed(world, **more))
    assert (found.code, found.reason, found.fields) == (INVALID, reason, fields)


async def test_a_token_is_good_for_the_question_that_it_was_given_for(world: World) -> None:
    orders = [await sold(world) for _ in range(2)]
    for order in orders:
        await world.ingest(order.paid(COAT))
    token = (await listed(world, page_size=1)).next_page_token
    assert token
    found = await refusal(listed(world, 1, page_token=token))
    assert found.reason == "PAGE_TOKEN_INVALID"
