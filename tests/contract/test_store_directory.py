"""Directory entries in the database: created once, changed by one at a time, listed whole."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import pytest

from chassis.clock import Clock
from chassis.errors import AlreadyExists, Conflict, NotFound, Refused
from chassis.ids import derived_id
from chassis.mongo import idempotency, schema
from chassis.mongo.connection import Database, Document
from chassis.mongo.schema import Schema
from daogou.members.v1.directory_pb2 import Store
from svc_members.directory import store_directory
from svc_members.directory.entities import BRAND, STORE, Kind
from svc_members.directory.store_directory import DirectoryStore, document_id

A, B = "a" * 16, "b" * 16
NOW = Clock().now()


@pytest.fixture
async def store(database: Database) -> DirectoryStore:
    await schema.migrate(database, Schema(1, store_directory.INDEXES))
    return DirectoryStore(database)


def entry(number: int | str, *shops: str, kind: Kind[Any] = STORE, brand_id: str = A) -> Document:
    """A new entry; the same number is the same entry."""
    entry_id = derived_id(kind.name, brand_id, str(number))
    return {
        "_id": document_id(kind, brand_id if kind is STORE else entry_id, entry_id),
        "brand_id": brand_id if kind is STORE else entry_id,
        f"{kind.name}_id": entry_id,
        "display_name": f"Entry {number}",
        "rev": 1,
        "receipts": [],
        **({"shops": list(shops)} if kind is STORE else {}),
    }


def refusals(found: list[Document | Refused]) -> list[str]:
    """Per entry, why it does not stand; empty: it does."""
    return [one.reason if isinstance(one, Refused) else "" for one in found]


async def all_ids(store: DirectoryStore, brand_id: str = A, size: int = 3) -> list[str]:
    """The stores of a brand, page by page."""
    found: list[str] = []
    while page := await store.page(STORE, brand_id, found[-1] if found else "", size, {}):
        found += [one["store_id"] for one in page]
    return found


@pytest.mark.both_drivers
async def test_creating_again_returns_what_was_created_first(store: DirectoryStore) -> None:
    """In its place among others that are new, and though its shop is taken: by itself."""
    first = entry(1, "TMALL|1")
    assert refusals(await store.insert(STORE, [first])) == [""]
    again = {**entry(1, "TMALL|1"), "display_name": "Another name"}
    found = await store.insert(STORE, [entry(2), again, entry(3)])
    assert refusals(found) == ["", "", ""]
    stands = found[1]
    assert not isinstance(stands, Refused)
    assert stands["display_name"] == "Entry 1"
    assert len(await all_ids(store)) == 3


@pytest.mark.both_drivers
@pytest.mark.parametrize("kind", [BRAND, STORE], ids=["brand", "store"])
async def test_creating_one_entry_twice_at_once_creates_it_once(
    store: DirectoryStore, kind: Kind[Any]
) -> None:
    """A caller who loses patience sends again while the first call is still on its way."""
    for number in range(10):
        found = await asyncio.gather(*(store.insert(kind, [entry(number, kind=kind)]) for _ in range(4)))
        assert [refusals(one) for one in found] == [[""]] * 4
        assert len({one["_id"] for [one] in found if not isinstance(one, Refused)}) == 1


async def test_a_shop_belongs_to_one_store_of_a_brand(store: DirectoryStore) -> None:
    """Named later, named in the same call, or at the same time; another brand may have one of that name."""
    await store.insert(STORE, [entry(1, "TMALL|1", "TAOBAO|1")])
    found = await store.insert(
        STORE, [entry(2, "TMALL|2"), entry(3, "POS|1", "TAOBAO|1"), entry(4, "TMALL|2")]
    )
    assert refusals(found) == ["", "SHOP_TAKEN", "SHOP_TAKEN"]
    at_once = await asyncio.gather(
        *(store.insert(STORE, [entry(10 + number, "POS|9")]) for number in range(5))
    )
    assert sorted(refusals([one for [one] in at_once])) == [""] + ["SHOP_TAKEN"] * 4
    assert refusals(await store.insert(STORE, [entry(1, "TMALL|1", brand_id=B)])) == [""]


async def test_any_number_of_stores_have_no_shop(store: DirectoryStore) -> None:
    """No shop is not a shop that two stores could share."""
    assert refusals(await store.insert(STORE, [entry(number) for number in range(5)])) == [""] * 5


async def test_a_refused_store_is_created_when_its_shop_is_free(store: DirectoryStore) -> None:
    """By the same request, sent again."""
    [standing] = await store.insert(STORE, [entry(1, "TMALL|1")])
    assert refusals(await store.insert(STORE, [entry(2, "TMALL|1")])) == ["SHOP_TAKEN"]
    assert not isinstance(standing, Refused)
    await store.replace(STORE, {**standing, "shops": []})
    assert refusals(await store.insert(STORE, [entry(2, "TMALL|1")])) == [""]


async def test_stores_are_found_by_their_shops_within_their_brand(store: DirectoryStore) -> None:
    """Each shop with the store that holds it; unknown ones are left out."""
    await store.insert(STORE, [entry(1, "TMALL|1", "POS|1"), entry(2, "POS|2")])
    await store.insert(STORE, [entry(1, "TMALL|9", brand_id=B)])
    found = await store.find_by_shops(STORE, A, ["POS|1", "TMALL|1", "TMALL|9", "POS|7"])
    assert {shop: one["display_name"] for shop, one in found.items()} == {
        "POS|1": "Entry 1",
        "TMALL|1": "Entry 1",
    }


async def test_an_entry_of_another_brand_is_unknown(store: DirectoryStore) -> None:
    """By its id, alone or among others."""
    await store.insert(STORE, [entry(1)])
    store_id = entry(1)["store_id"]
    assert (await store.find(STORE, A, store_id))["display_name"] == "Entry 1"
    with pytest.raises(NotFound) as raised:
        await store.find(STORE, B, store_id)
    assert raised.value.reason == "STORE_UNKNOWN"
    assert await store.find_many(STORE, B, [store_id]) == {}
    assert set(await store.find_many(STORE, A, [store_id, "z" * 16])) == {store_id}


async def test_of_two_changes_at_once_one_must_be_made_again(store: DirectoryStore) -> None:
    """Neither overwrites what it has not seen."""
    await store.insert(STORE, [entry(1)])
    standing = await store.find(STORE, A, entry(1)["store_id"])
    changes = [store.replace(STORE, {**standing, "display_name": name}) for name in ("One", "Other")]
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    [conflict] = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(conflict, Conflict)
    assert conflict.reason == "DIRECTORY_CHANGED"
    stored = await store.find(STORE, A, entry(1)["store_id"])
    assert (stored["display_name"], stored["rev"]) == (["One", "Other"][outcomes.index(None)], 2)


async def test_a_change_to_a_taken_shop_is_refused_and_changes_nothing(store: DirectoryStore) -> None:
    """The store keeps the shops that it had."""
    await store.insert(STORE, [entry(1, "TMALL|1"), entry(2, "TMALL|2")])
    standing = await store.find(STORE, A, entry(2)["store_id"])
    with pytest.raises(Refused) as raised:
        await store.replace(STORE, {**standing, "shops": ["TMALL|2", "TMALL|1"]})
    assert raised.value.reason == "SHOP_TAKEN"
    assert await store.find(STORE, A, entry(2)["store_id"]) == standing


async def test_a_change_is_made_once_for_one_request(store: DirectoryStore) -> None:
    """Its repeat gets the first reply, though others changed the entry since; another body is refused."""
    await store.insert(STORE, [entry(1)])

    async def renamed(request_id: str, name: str) -> str:
        standing = await store.find(STORE, A, entry(1)["store_id"])

        def change(document: Document) -> tuple[Document, Store]:
            return {**document, "display_name": name}, Store(display_name=name)

        request = (request_id, hashlib.sha256(name.encode()).digest(), NOW)
        return (await store.change_once(STORE, standing, request, change, Store)).display_name

    assert [await renamed(*one) for one in [("1", "One"), ("2", "Two"), ("1", "One")]] == [
        "One",
        "Two",
        "One",
    ]
    assert (await store.find(STORE, A, entry(1)["store_id"]))["display_name"] == "Two"
    with pytest.raises(AlreadyExists) as raised:
        await renamed("1", "Other")
    assert raised.value.reason == "REQUEST_ID_REUSED"


async def test_a_thousand_changes_fit_and_more_are_refused_before_the_document_is_too_large(
    store: DirectoryStore,
) -> None:
    """The database takes 16 MiB of one document; receipts stay far below."""
    reply = Store(display_name="店" * 100, address="店" * 300)
    receipts = [
        idempotency.receipt(f"update|{number}" + "x" * 64, b"h" * 32, reply, NOW)
        for number in range(idempotency.RECEIPTS_MAX)
    ]
    assert refusals(await store.insert(STORE, [{**entry(1), "receipts": receipts}])) == [""]
    assert len((await store.find(STORE, A, entry(1)["store_id"]))["receipts"]) == idempotency.RECEIPTS_MAX


async def test_pages_hold_every_entry_once_in_one_order(store: DirectoryStore) -> None:
    """Whatever the size of the pages."""
    await store.insert(STORE, [entry(number) for number in range(10)])
    await store.insert(STORE, [entry(number, brand_id=B) for number in range(4)])
    wanted = sorted(entry(number)["store_id"] for number in range(10))
    for size in (1, 3, 10, 100):
        assert await all_ids(store, size=size) == wanted
    assert len(await all_ids(store, B)) == 4
    assert await all_ids(store, "c" * 16) == []


async def test_pages_stay_whole_while_entries_are_added(store: DirectoryStore) -> None:
    """None of those that were there is missed or comes twice."""
    before = sorted(entry(number)["store_id"] for number in range(12))
    await store.insert(STORE, [entry(number) for number in range(12)])
    found: list[str] = []
    while page := await store.page(STORE, A, found[-1] if found else "", 2, {}):
        found += [one["store_id"] for one in page]
        await store.insert(STORE, [entry(f"new-{len(found)}-{number}") for number in range(3)])
        if len(found) > 60:
            break
    assert found == sorted(set(found))
    assert set(before) <= set(found)


async def test_brands_are_paged_too(store: DirectoryStore) -> None:
    """All of them, for the operator."""
    await store.insert(BRAND, [entry(number, kind=BRAND) for number in range(5)])
    first = await store.page(BRAND, "", "", 3, {})
    rest = await store.page(BRAND, "", first[-1]["brand_id"], 3, {})
    assert len(first) == 3
    assert [one["brand_id"] for one in [*first, *rest]] == sorted(
        entry(number, kind=BRAND)["brand_id"] for number in range(5)
    )
