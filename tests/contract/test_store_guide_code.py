"""Aliases of guide codes in the database: one for each code, good as long as the code is."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from chassis.clock import Clock
from chassis.errors import NotFound
from chassis.mongo import schema
from chassis.mongo.connection import Database
from chassis.mongo.schema import Schema
from svc_members.guide_code import store_guide_code
from svc_members.guide_code.store_guide_code import GuideCodeStore

BRAND = "a" * 16
LATER = Clock().now() + timedelta(days=90)


@pytest.fixture
async def store(database: Database) -> GuideCodeStore:
    await schema.migrate(database, Schema(1, store_guide_code.INDEXES))
    return GuideCodeStore(database)


async def test_a_code_has_one_alias_that_leads_back_to_it(store: GuideCodeStore) -> None:
    """However often it is asked for; short enough for a mini-program's scene."""
    alias = await store.give_alias(BRAND, "code-1", LATER)
    assert await store.give_alias(BRAND, "code-1", LATER) == alias
    assert await store.give_alias(BRAND, "code-2", LATER) != alias
    assert re.fullmatch(r"[a-z0-9]{1,32}", alias)
    assert await store.code_of(BRAND, alias) == "code-1"


async def test_an_alias_is_of_its_brand_alone(store: GuideCodeStore) -> None:
    """Nor does one lead anywhere that was never given."""
    alias = await store.give_alias(BRAND, "code-1", LATER)
    for brand_id, asked in [("b" * 16, alias), (BRAND, "z" * 16)]:
        with pytest.raises(NotFound) as raised:
            await store.code_of(brand_id, asked)
        assert raised.value.reason == "CODE_ALIAS_UNKNOWN"


async def test_aliases_are_removed_when_their_codes_end(store: GuideCodeStore, database: Database) -> None:
    """By the database, at the code's time: there is nothing to tidy up."""
    built = await database["code_aliases"].index_information()
    assert built["ends"]["expireAfterSeconds"] == 0
    await store.give_alias(BRAND, "code-1", LATER)
    stored = await database["code_aliases"].find_one({})
    assert stored is not None
    assert stored["expire_time"] == LATER
