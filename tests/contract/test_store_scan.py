"""What a scan is decided on, read in one command: the same as it is read by several everywhere else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pytest

from chassis.errors import NotFound
from chassis.mongo.connection import Database, Document
from svc_members.directory.entities import BRAND as BRANDS
from svc_members.directory.entities import STORE as STORES
from svc_members.directory.entities import Kind, guide_kind
from svc_members.directory.store_directory import DirectoryStore, document_id
from svc_members.guide_code.store_scan import ScanStore, Scene
from svc_members.member.identities import StoredIdentity
from svc_members.member.member_document import Member
from svc_members.member.store_erasure import ErasureStore
from tests.contract.members import BRAND, CLOCK, SEALER, Members, card, members_of

GUIDES: Final = guide_kind(SEALER)
ANN, EAST = "annannannannanna", "easteasteasteast"
FRESH: Final = "freshfreshfreshf"


@pytest.fixture
async def members(database: Database) -> Members:
    await put(database, BRANDS, BRAND, {"binding_policy": {"snatch": "NEVER"}})
    await put(database, GUIDES, ANN, {"store_id": EAST, "accounts": [], "code_epoch": 3})
    await put(database, STORES, EAST, {})
    return await members_of(database)


async def put(database: Database, kind: Kind[Any], entry_id: str, more: Mapping[str, Any]) -> None:
    """An entry of the directory."""
    entry: Document = {"_id": document_id(kind, BRAND, entry_id), "brand_id": BRAND, **more}
    await database[kind.collection].insert_one(entry | {f"{kind.name}_id": entry_id})


async def scene(
    members: Members, identity: StoredIdentity, kind: Kind[Any] = GUIDES, entry_id: str = ANN
) -> Scene:
    """What a customer's scan is decided on."""
    scans = ScanStore(members.database, DirectoryStore(members.database), members.store)
    return await scans.scene((kind, entry_id), BRAND, identity, FRESH, CLOCK.now())


async def as_read_alone(members: Members, identity: StoredIdentity) -> Member:
    """The customer, as he is read after somebody else wrote him."""
    return await members.store.holder_of(BRAND, identity, lambda: FRESH, CLOCK.now())


@pytest.mark.both_drivers
async def test_whose_code_it_is_is_told_with_the_brand(members: Members) -> None:
    """A guide's or a store's."""
    of_guide = await scene(members, card(1))
    assert (of_guide.code_holder["guide_id"], of_guide.code_holder["code_epoch"]) == (ANN, 3)
    assert of_guide.brand["binding_policy"] == {"snatch": "NEVER"}
    of_store = await scene(members, card(1), STORES, EAST)
    assert of_store.code_holder["store_id"] == EAST


async def test_whom_nobody_knows_is_new_and_nothing_is_written(members: Members) -> None:
    """A scan may still be refused."""
    customer = (await scene(members, card(1))).customer
    assert (customer.member_id, customer.rev, customer.rows) == (FRESH, 0, ())
    assert await members.holders(card(1)) == [""]


@pytest.mark.both_drivers
async def test_a_customer_is_read_as_he_is_read_alone(members: Members, database: Database) -> None:
    """Bound; found by whom was merged into him; half enrolled; by an identity given up; erased."""
    bound, _ = await members.scan("bea", card("bound"))
    await members.scan("bea", card("older"))
    older = (await as_read_alone(members, card("older"))).member_id
    younger = (await members.scan("cid", card("younger")))[0].member_id
    await members.merged(older, younger)
    await members.cut_off(card("half"), "halfhalfhalfhalf")
    leaver = (await members.scan("bea", card("given up")))[0].member_id
    await members.unlink(leaver, card("given up"))
    gone = (await members.scan("bea", card("erased")))[0].member_id
    await ErasureStore(database, members.store).erase(BRAND, gone, CLOCK.now())
    for name in ("bound", "older", "younger", "half", "given up", "erased"):
        customer, alone = (
            (await scene(members, card(name))).customer,
            await as_read_alone(members, card(name)),
        )
        assert (customer.member_id, customer.rev, customer.rows, customer.origin_id, customer.not_before) == (
            alone.member_id,
            alone.rev,
            alone.rows,
            alone.origin_id,
            alone.not_before,
        )
    assert (await scene(members, card("bound"))).customer == bound
    assert (await scene(members, card("younger"))).customer.origin_id == younger


@pytest.mark.parametrize(
    ("missing", "reason"),
    [("brands", "BRAND_UNKNOWN"), ("guides", "GUIDE_UNKNOWN"), ("stores", "STORE_UNKNOWN")],
)
async def test_what_is_missing_is_named(
    members: Members, database: Database, missing: str, reason: str
) -> None:
    """As where it is read alone."""
    await database[missing].delete_many({})
    code_holder = (STORES, EAST) if missing == "stores" else (GUIDES, ANN)
    with pytest.raises(NotFound) as found:
        await scene(members, card(1), *code_holder)
    assert found.value.reason == reason
