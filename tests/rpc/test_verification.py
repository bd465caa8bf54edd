"""All of a brand's books computed again: nothing to be said against good ones, and forged ones are found."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from daogou.commission.v1 import plan_pb2
from daogou.common.v1.channel_pb2 import Channel
from tests.rpc.replaying import Verified, verified
from tests.rpc.running import Running
from tests.rpc.test_operations import samples_of
from tests.rpc.world import Order, World, a_world, line_of, plan_of, refund_of, rule_of

POS: Final = Channel.CHANNEL_POS
COAT, SCARF = line_of("coat", 59_900), line_of("scarf", 12_950)


@pytest.fixture
async def world(running: Running) -> World:
    """A brand with orders of all kinds, some of which are held."""
    first = rule_of("first", 1_000, match=plan_pb2.Match(purchase=plan_pb2.PURCHASE_CONDITION_FIRST))
    holds = [plan_pb2.Hold(channel=POS, days=1)]
    world = await a_world(running, plan=plan_of(first, rule_of("again"), holds=holds))
    buyers = [(await world.bound(guide))[1] for guide in (0, 2)]
    running.later(hours=3)
    for number in range(12):
        order = world.order((POS, Channel.CHANNEL_TMALL)[number % 2], identity=buyers[number % 3 % 2])
        await world.ingest(order.placed(COAT, SCARF), order.paid(COAT, SCARF))
        if number % 3:
            await world.ingest(order.refunded(refund_of("scarf", 77 * number), goodwill_minor=number))
        if number == 7:
            await world.ingest(order.closed())
    # One of which nobody knows whose sale it is, and one of which nothing is paid.
    await world.ingest(world.order(POS, selling_store_id="a" * 16).paid(COAT))
    await world.ingest(world.order(POS).placed(COAT))
    return world


def collection(world: World, name: str) -> Any:
    """As the database holds it."""
    return world.running.database("commission")[name]


def an_entry(world: World) -> dict[str, Any]:
    """Some entry of the brand's journal."""
    found = list(collection(world, "journal").find({"brand_id": world.brand_id}).sort("_id", 1))
    entry: dict[str, Any] = found[len(found) // 2]
    return entry


async def test_good_books_are_found_good(running: Running, world: World) -> None:
    with running.nothing_written(world.brand_id):
        found = await verified(world)
    assert found.verdict.agrees
    assert not found.differences
    assert (found.verdict.order_count, found.verdict.differing_order_count) == (14, 0)
    trial = await world.trial_balance()
    assert (found.verdict.entry_count, found.verdict.trial_balance_minor) == (trial.entry_count, 0)
    last = found.progress[-1]
    assert (last.orders_done, last.orders_total) == (14, 14)
    assert (await verified(world, running.caller("PLATFORM"))).verdict == found.verdict


async def test_a_brand_without_orders_has_good_books(running: Running) -> None:
    found = await verified(await a_world(running))
    assert found.verdict.agrees
    assert (found.verdict.order_count, found.verdict.entry_count) == (0, 0)
    assert found.progress


def a_fen_moved(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The entry still balances."""
    debit = next(one for one in entry["postings"] if one["amount_minor"] > 0)
    credit = next(one for one in entry["postings"] if one["amount_minor"] < 0)
    rest = [one for one in entry["postings"] if one not in (debit, credit)]
    more = debit["amount_minor"] + 1, credit["amount_minor"] - 1
    return [{**debit, "amount_minor": more[0]}, {**credit, "amount_minor": more[1]}, *rest]


def another_payee(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """What was hers is somebody else's."""
    return [{**one, "payee": "guide:zzzzzzzzzzzzzzzz" if one["payee"] else ""} for one in entry["postings"]]


def another_month(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """It would count in a statement of last year."""
    return [{**one, "origin_month": "2020-01"} for one in entry["postings"]]


def another_kind(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """It would stand in another line of a statement."""
    return [{**one, "kind": "ADJUSTED"} for one in entry["postings"]]


@pytest.mark.parametrize("forge", [a_fen_moved, another_payee, another_month, another_kind])
async def test_a_forged_posting_is_found_and_named(
    world: World, forge: Callable[[dict[str, Any]], list[dict[str, Any]]]
) -> None:
    entry = an_entry(world)
    journal = collection(world, "journal")
    journal.update_one({"_id": entry["_id"]}, {"$set": {"postings": forge(entry)}})
    found = await verified(world)
    assert not found.verdict.agrees
    assert (found.verdict.differing_order_count, found.verdict.trial_balance_minor) == (1, 0)
    [difference] = found.differences
    assert difference.order_id == entry["order_key"].split("|")[3]
    assert Channel.Name(difference.channel) == f"CHANNEL_{entry['order_key'].split('|')[2]}"
    assert difference.amounts
    assert all(one.computed_minor != one.posted_minor for one in difference.amounts)
    journal.replace_one({"_id": entry["_id"]}, entry)
    assert (await verified(world)).verdict.agrees


async def test_money_from_nowhere_is_found(world: World) -> None:
    """An entry that does not sum to zero: named, and in the trial balance."""
    entry = an_entry(world)
    journal = collection(world, "journal")
    journal.update_one({"_id": entry["_id"]}, {"$inc": {"postings.0.amount_minor": 7}})
    found = await verified(world)
    assert (found.verdict.trial_balance_minor, found.verdict.differing_order_count) == (7, 1)
    assert list(found.verdict.unbalanced_entry_ids) == [entry["_id"]]
    journal.replace_one({"_id": entry["_id"]}, entry)
    loose = {**entry, "_id": f"{world.brand_id}|ADJUSTED|x", "cause": "ADJUSTMENT:x", "postings": []}
    del loose["order_key"]
    posting = {**entry["postings"][0], "line_id": "", "amount_minor": 5}
    journal.insert_one({**loose, "postings": [posting]})
    found = await verified(world)
    assert (found.verdict.trial_balance_minor, found.verdict.differing_order_count) == (5, 0)
    assert list(found.verdict.unbalanced_entry_ids) == [loose["_id"]]
    assert not found.verdict.agrees
    balanced = [posting, {**posting, "amount_minor": -5}]
    journal.update_one({"_id": loose["_id"]}, {"$set": {"postings": balanced}})
    found = await verified(world)
    assert found.verdict.agrees
    assert found.verdict.entry_count == (await world.trial_balance()).entry_count


async def test_an_entry_that_is_gone_is_missed(world: World) -> None:
    entry = an_entry(world)
    collection(world, "journal").delete_one({"_id": entry["_id"]})
    found = await verified(world)
    assert (found.verdict.differing_order_count, found.verdict.trial_balance_minor) == (1, 0)
    collection(world, "journal").insert_one(entry)
    assert (await verified(world)).verdict.agrees


async def test_entries_of_orders_that_nobody_knows_are_found(world: World) -> None:
    """Wherever their keys sort, and whatever they look like."""
    entry = an_entry(world)
    keys = [
        f"{world.brand_id}|00|POS|a",
        f"{world.brand_id}|ff|POS|zzz",
        f"{entry['order_key']}-2",
        "somewhere else",
        "~",
    ]
    planted = [{**entry, "_id": f"planted-{world.brand_id}-{key}", "order_key": key} for key in keys]
    collection(world, "journal").insert_many(planted)
    found = await verified(world)
    assert found.verdict.differing_order_count == len(keys)
    assert all(one.unknown_order for one in found.differences)
    assert found.verdict.entry_count == (await world.trial_balance()).entry_count
    collection(world, "journal").delete_many({"_id": {"$in": [one["_id"] for one in planted]}})


async def test_an_entry_that_claims_another_brands_order_is_found(running: Running, world: World) -> None:
    other = await a_world(running, plan=plan_of())
    order = other.order()
    await other.ingest(order.paid(COAT))
    [entry] = collection(world, "journal").find({"brand_id": other.brand_id})
    planted = {**entry, "_id": f"planted-{world.brand_id}", "brand_id": world.brand_id}
    collection(world, "journal").insert_one(planted)
    found = await verified(world)
    assert [one.unknown_order for one in found.differences] == [True]
    assert (await verified(other)).verdict.agrees
    collection(world, "journal").delete_one({"_id": planted["_id"]})


async def test_what_waits_for_the_journal_counts_as_though_it_were_there(world: World) -> None:
    """As a crash leaves it between the order and its entries; the journal will have them in a moment."""
    entry = an_entry(world)
    orders, journal = collection(world, "orders"), collection(world, "journal")
    # Younger than what the rounds take up, so that it is still there when it is looked for.
    waiting = {"batch": "b", "recorded_time": world.running.now(), "entries": [entry]}
    orders.update_one({"_id": entry["order_key"]}, {"$set": {"relay": waiting}})
    journal.delete_one({"_id": entry["_id"]})
    found = await verified(world)
    assert found.verdict.agrees
    journal.update_one({"_id": entry["_id"]}, {"$set": entry}, upsert=True)
    orders.update_one({"_id": entry["order_key"]}, {"$unset": {"relay": 1}})


async def test_books_that_differ_are_counted_and_logged(world: World) -> None:
    def counted() -> float:
        name = "daogou_commission_books_differ_orders_total"
        return sum(value for sample, _, value in samples_of(world.running, "commission") if sample == name)

    entry, before = an_entry(world), counted()
    journal = collection(world, "journal")
    journal.update_one({"_id": entry["_id"]}, {"$set": {"postings": a_fen_moved(entry)}})
    await verified(world)
    assert counted() - before == 1
    logged = [json.loads(line) for line in world.running.log("commission").splitlines()]
    mine = [line for line in logged if line.get("brand_id") == world.brand_id and line["level"] == "error"]
    assert {line["event"] for line in mine} == {"order_differs", "books_differ"}
    assert {line.get("order") for line in mine} == {None, entry["order_key"]}
    journal.replace_one({"_id": entry["_id"]}, entry)


async def test_orders_that_change_meanwhile_raise_no_false_alarm(running: Running, world: World) -> None:
    """Verified over and over while events come in: whatever it meets, it is at every moment right."""
    seed = random.SystemRandom().randrange(10**9)
    draw = random.Random(seed)
    _, identity = await world.bound(1)
    running.later(hours=3)
    orders = [world.order(POS, identity=identity) for _ in range(6)]

    async def sell(order: Order) -> None:
        await world.ingest(order.paid(COAT, SCARF))
        for number in range(1, 12):
            await world.ingest(order.refunded(refund_of("coat", draw.randint(1, 500)), number=number))

    async def verify() -> list[Verified]:
        return [await verified(world) for _ in range(15)]

    *_, seen = await asyncio.gather(*[sell(order) for order in orders], verify())
    assert seen is not None
    assert all(one.verdict.agrees for one in seen), f"seed {seed}"
    assert {one.verdict.differing_order_count for one in seen} == {0}, f"seed {seed}"
