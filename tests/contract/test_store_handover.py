"""Handovers in the database: each offer once, ended once, and by whom it was ended first."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.errors import NotFound
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_members.handover import store_handover
from svc_members.handover.store_handover import LEASE, NOT_OFFERED, HandoverStore

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: Database) -> HandoverStore:
    await schema.migrate(database, Schema(1, store_handover.INDEXES))
    return HandoverStore(database)


def handover(number: int = 1, **fields: Any) -> Document:
    """A handover whose members are still to be offered."""
    return {
        "_id": f"{BRAND}|handover-{number}",
        "brand_id": BRAND,
        "handover_id": f"handover-{number}",
        "state": "OFFERING",
        "lease_time": NOON,
        **fields,
    }


def offer(member: str, number: int = 1, **fields: Any) -> Document:
    """An open offer of a member to Bea."""
    return {
        "_id": f"{BRAND}|handover-{number}|{member}",
        "brand_id": BRAND,
        "handover_id": f"handover-{number}",
        "member_id": member,
        "taker_guide_id": "bea",
        "state": "OFFERED",
        "offer_time": NOON,
        "answer_by_time": NOON + 24 * HOUR,
        **fields,
    }


async def test_the_same_handover_twice_is_one(store: HandoverStore) -> None:
    """The one that was first; another brand knows nothing of it."""
    await store.insert(handover(reason="first"))
    again = await asyncio.gather(*(store.insert(handover(reason="again")) for _ in range(3)))
    assert {one["reason"] for one in again} == {"first"}
    with pytest.raises(NotFound):
        await store.find(OTHER, "handover-1")


@pytest.mark.both_drivers
async def test_a_handover_is_worked_on_by_one_at_a_time(store: HandoverStore) -> None:
    """Whoever dies with it loses it when his lease has run out; a finished one is worked on by nobody."""
    await store.insert(handover())
    leased = await asyncio.gather(*(store.lease(NOON) for _ in range(5)))
    assert sum(one is not None for one in leased) == 1
    assert await store.lease(NOON + LEASE - timedelta(milliseconds=1)) is None
    taken = await store.lease(NOON + LEASE)
    assert taken is not None
    await store.release(taken, {"state": "OFFERED"})
    assert await store.lease(NOON + 9 * HOUR) is None


async def test_a_member_is_offered_once_in_a_handover(store: HandoverStore) -> None:
    """Though the round that offers him is run again: the first offer stands."""
    await store.add_offer(offer("m1"))
    await store.add_offer(offer("m1", taker_guide_id="cat"))
    assert (await store.find_offer(BRAND, "handover-1", "m1"))["taker_guide_id"] == "bea"
    await store.add_offer(offer("m2", state=NOT_OFFERED))
    for member in ("m2", "m3"):
        with pytest.raises(NotFound) as raised:
            await store.find_offer(BRAND, "handover-1", member)
        assert raised.value.reason == "OFFER_UNKNOWN"


@pytest.mark.both_drivers
async def test_an_offer_ends_once(store: HandoverStore) -> None:
    """Of an acceptance, a refusal and the clock, the first counts."""
    await store.add_offer(offer("m1"))
    ends = [store.end_offer(offer("m1"), {"state": state}) for state in ("ACCEPTED", "REFUSED", "LOST")]
    ended = [one for one in await asyncio.gather(*ends) if one is not None]
    assert len(ended) == 1
    assert (await store.find_offer(BRAND, "handover-1", "m1"))["state"] == ended[0]["state"]
    assert not await store.begin_accepting(offer("m1"), NOON, by_member=True)


async def test_an_offer_that_is_being_accepted_cannot_be_refused_any_more(store: HandoverStore) -> None:
    """The member may be with his new guide by now; where it was cut off it is due at once."""
    await store.add_offer(offer("m1"))
    assert await store.begin_accepting(offer("m1"), NOON + HOUR, by_member=True)
    assert await store.end_offer(offer("m1"), {"state": "REFUSED"}, unless_accepting=True) is None
    assert [one["member_id"] for one in await store.overdue(NOON + HOUR, 10)] == ["m1"]
    accepted = await store.end_offer(offer("m1"), {"state": "ACCEPTED"})
    assert accepted is not None
    assert accepted["answered_by_member"]
    assert await store.overdue(NOON + 99 * HOUR, 10) == []


async def test_open_offers_are_due_when_their_time_is_over(store: HandoverStore) -> None:
    """The longest overdue first."""
    for hours, member in [(24, "m1"), (2, "m2"), (5, "m3")]:
        await store.add_offer(offer(member, answer_by_time=NOON + hours * HOUR))
    due = await store.overdue(NOON + 5 * HOUR, 10)
    assert [one["member_id"] for one in due] == ["m2", "m3"]
    assert len(await store.overdue(NOON + 99 * HOUR, 1)) == 1


async def test_counts_and_pages_are_of_one_handover(store: HandoverStore) -> None:
    """Who was only released is counted and was offered to nobody."""
    for number in range(5):
        await store.add_offer(offer(f"m{number}", taker_guide_id=("bea", "cat")[number % 2]))
    await store.add_offer(offer("m8", state=NOT_OFFERED))
    await store.add_offer(offer("m9", number=12))
    await store.end_offer(offer("m3"), {"state": "REFUSED"})
    assert await store.counts(BRAND, "handover-1") == {"OFFERED": 4, "REFUSED": 1, NOT_OFFERED: 1}
    assert await store.loads(BRAND, "handover-1") == {"bea": 3, "cat": 2}
    first = await store.page(BRAND, "handover-1", "", 3)
    rest = await store.page(BRAND, "handover-1", first[-1]["member_id"], 9)
    assert [one["member_id"] for one in [*first, *rest]] == ["m0", "m1", "m2", "m3", "m4"]
    assert await store.page(OTHER, "handover-1", "", 9) == []


async def test_earlier_offers_are_those_of_other_handovers(store: HandoverStore) -> None:
    """Made since a time, and really made."""
    await store.add_offer(offer("m1", 1, offer_time=NOON))
    await store.add_offer(offer("m1", 2, offer_time=NOON + HOUR))
    await store.add_offer(offer("m1", 3, offer_time=NOON + HOUR, state=NOT_OFFERED))
    await store.add_offer(offer("m1", 4, offer_time=NOON - 99 * HOUR))
    await store.add_offer(offer("m2", 2, offer_time=NOON + HOUR))
    earlier = await store.earlier_offers(BRAND, ["m1", "alias"], "handover-1", NOON - HOUR)
    assert list(earlier) == [NOON + HOUR]
