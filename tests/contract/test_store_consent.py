"""Consents in the database: every record for good, and what holds is the latest of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chassis.clock import Clock
from chassis.mongo import schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from svc_members.care import store_consent
from svc_members.care.store_consent import ConsentStore
from tests.contract.owners import let_be

BRAND, OTHER = "a" * 16, "b" * 16
NOON = datetime(2026, 3, 10, 4, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def store(database: Database) -> ConsentStore:
    await schema.migrate(database, Schema(1, store_consent.INDEXES))
    await let_be(database, BRAND, ["ann", "bob", "young"], {"young": "ann"})
    await let_be(database, OTHER, ["ann"])
    return ConsentStore(database, Clock())


def consent(key: str, purpose: str = "sms", state: str = "GIVEN", hours: int = 0, **more: Any) -> Document:
    """A record of Ann's."""
    return {
        "_id": f"{BRAND}|ann|{key}",
        "brand_id": BRAND,
        "member_id": "ann",
        "origin_id": "ann",
        "purpose": purpose,
        "state": state,
        "consent_time": NOON + hours * HOUR,
        **more,
    }


async def held(store: ConsentStore) -> dict[str, str]:
    """What holds of Ann's."""
    return {one["purpose"]: one["state"] for one in await store.latest(BRAND, "ann")}


@pytest.mark.both_drivers
async def test_a_repeat_returns_what_was_recorded_first(store: ConsentStore, database: Database) -> None:
    """Also when many come at once."""
    first = await store.record(consent("1", channel="PAPER"))
    again = await asyncio.gather(*(store.record(consent("1", channel="WEB")) for _ in range(8)))
    assert again == [first] * 8
    at_once = await asyncio.gather(*(store.record(consent("2", channel=str(number))) for number in range(8)))
    assert len({one["channel"] for one in at_once}) == 1
    assert await database["consents"].count_documents({}) == 2


async def test_what_holds_is_the_latest_by_its_own_time_whatever_came_first(store: ConsentStore) -> None:
    """A withdrawal that is reported late takes nothing back that was given after it."""
    await store.record(consent("1", hours=2))
    await store.record(consent("2", state="WITHDRAWN", hours=1))
    await store.record(consent("3", purpose="post", state="WITHDRAWN"))
    assert await held(store) == {"post": "WITHDRAWN", "sms": "GIVEN"}
    await store.record(consent("4", state="WITHDRAWN", hours=3))
    assert await held(store) == {"post": "WITHDRAWN", "sms": "WITHDRAWN"}
    assert await store.purposes(BRAND, "ann") == {"post", "sms"}


async def test_of_two_from_one_moment_the_one_recorded_later_holds(store: ConsentStore) -> None:
    for key, state in [("z", "GIVEN"), ("a", "WITHDRAWN"), ("m", "GIVEN")]:
        await store.record(consent(key, state=state))
        assert await held(store) == {"sms": state}
        await asyncio.sleep(0.003)


async def test_text_that_looks_like_an_expression_is_text(store: ConsentStore) -> None:
    """A record goes into the database through a pipeline, where `$` has a meaning."""
    strange = consent("1", purpose="$$ROOT", version="$state", evidence=b"$x")
    stands = await store.record(strange)
    assert strange.items() <= stands.items()


async def test_records_are_listed_newest_first_page_by_page(store: ConsentStore) -> None:
    """Records of one moment are told apart by their ids; others' are not among them."""
    for number in range(7):
        await store.record(consent(str(number), purpose=f"p{number}", hours=number // 3))
    await store.record({**consent("9"), "_id": f"{OTHER}|ann|9", "brand_id": OTHER})
    await store.record({**consent("9"), "_id": f"{BRAND}|bob|9", "member_id": "bob", "origin_id": "bob"})
    found: list[Document] = []
    while page := await store.page(
        BRAND, "ann", (found[-1]["consent_time"], found[-1]["_id"]) if found else None, 2
    ):
        found += page
    assert [one["purpose"] for one in found] == ["p6", "p5", "p4", "p3", "p2", "p1", "p0"]


async def test_what_holds_of_a_merged_member_is_the_latest_of_both(
    store: ConsentStore, database: Database
) -> None:
    await store.record(consent("1"))
    young = {"_id": f"{BRAND}|young|1", "member_id": "young", "origin_id": "young"}
    await store.record({**consent("1", state="WITHDRAWN", hours=1), **young})
    await database["consents"].update_many({"member_id": "young"}, {"$set": {"member_id": "ann"}})
    assert await held(store) == {"sms": "WITHDRAWN"}
