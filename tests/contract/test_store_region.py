"""Regions in the database: a tree, though two change it at once."""

from __future__ import annotations

import asyncio

import pytest

from chassis.errors import Conflict
from chassis.mongo.connection import Database
from svc_members.directory.store_region import RegionStore

BRAND = "a" * 16


def region(region_id: str, parent_id: str = "") -> dict[str, str]:
    """A region below another."""
    return {"region_id": region_id, "parent_region_id": parent_id, "display_name": region_id}


@pytest.mark.both_drivers
async def test_of_two_who_change_the_tree_at_once_one_must_look_again(database: Database) -> None:
    """One puts A below B, the other B below A: both together would be a circle."""
    store = RegionStore(database)
    assert await store.tree(BRAND) == {}
    await store.replace({**await store.find(BRAND), "regions": [region("a"), region("b")]})
    standing = await store.find(BRAND)
    trees = [[region("a", "b"), region("b")], [region("a"), region("b", "a")]]
    outcomes = await asyncio.gather(
        *(store.replace({**standing, "regions": regions}) for regions in trees), return_exceptions=True
    )
    [conflict] = [outcome for outcome in outcomes if outcome is not None]
    assert isinstance(conflict, Conflict)
    assert conflict.reason == "REGIONS_CHANGED"
    assert await store.tree(BRAND) in ({"a": "b", "b": ""}, {"a": "", "b": "a"})


async def test_the_first_regions_of_a_brand_are_written_by_one(database: Database) -> None:
    """And another brand's are its own."""
    store = RegionStore(database)
    new = {**await store.find(BRAND), "regions": [region("a")]}
    outcomes = await asyncio.gather(*(store.replace(new) for _ in range(4)), return_exceptions=True)
    assert sum(outcome is None for outcome in outcomes) == 1
    assert await store.tree(BRAND) == {"a": ""}
    assert await store.tree("b" * 16) == {}
