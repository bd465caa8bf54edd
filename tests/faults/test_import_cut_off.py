"""kill -9 in the middle of an import: the next one completes it, and nobody is there twice or by half."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from rich.progress import Progress

from chassis.rpc import client
from local import token
from local.pilot import Loaded, Pilot, Size
from local.services import SERVICES
from local.stack import Stack

KILLS = 3
MEMBERS = 8_000
MEMBERS_SOAK = 50_000


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    members = [spec for spec in SERVICES if spec.name == "members"]
    async with Stack(tmp_path, services=members, testing=True) as started:
        yield started


async def imported(stack: Stack, size: Size) -> Loaded:
    """What an import from the beginning to the end did."""
    operator = token.mint(stack.keys, "PLATFORM")
    channel = client.connect(stack.targets["members"], lambda: operator)
    try:
        return await Pilot(channel, size, Progress(disable=True)).load()
    finally:
        await channel.close()


async def cut_off(stack: Stack, size: Size, members: Database[dict[str, Any]], at: int) -> None:
    """Imports until some members are there, then kills the service; whoever imported gives up as well."""
    importing = asyncio.create_task(imported(stack, size))
    while await asyncio.to_thread(members["members"].estimated_document_count) < at:
        assert not importing.done(), "the import was done before it could be cut off"
        await asyncio.sleep(random.uniform(0, 0.02))
    await stack.kill("members")
    importing.cancel()
    await asyncio.gather(importing, return_exceptions=True)


async def test_an_import_cut_off_by_kill_9_is_completed_by_the_next(stack: Stack, soak: bool) -> None:
    """Whoever imports need remember nothing: he begins again."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    random.seed(seed)
    size = Size(brands=2, stores=4, guides=20, members=MEMBERS_SOAK if soak else MEMBERS)
    with MongoClient[dict[str, Any]](stack.mongo.uri) as mongo:
        database = mongo[stack._database("members") or "daogou_members"]
        for at in sorted(random.sample(range(1, size.members * 3 // 4), KILLS)):
            await cut_off(stack, size, database, at)
            await stack.start_service("members")
        loaded = await imported(stack, size)
        assert loaded.refused == []
        assert loaded.outcomes.keys() == {"IMPORTED", "KNOWN"}, "some were there, some were not"
        assert loaded.outcomes.total() == size.members
        check(database, size)


def check(database: Database[dict[str, Any]], size: Size) -> None:
    """Each member is there once, known by the one identity that he came with, and bound by one row."""
    members = list(database["members"].find())
    assert len(members) == size.members
    for member in members:
        [row] = member["rows"]
        assert (row["valid_to_time"], row["superseded_time"]) == (None, None)
        assert member["standing"]["binding_id"] == row["binding_id"]
        assert (member["rev"], member["identity_count"]) == (1, 1)
    identities = Counter(f"{link['brand_id']}|{link['member_id']}" for link in database["identities"].find())
    assert identities == dict.fromkeys((member["_id"] for member in members), 1)
