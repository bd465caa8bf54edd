"""Members of whom the tests of this folder need only that they are there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from chassis.mongo.connection import Database

NO_ALIASES: Final[Mapping[str, str]] = {}


async def let_be(
    database: Database, brand_id: str, names: Iterable[str], aliases: Mapping[str, str] = NO_ALIASES
) -> None:
    """Members of these ids, with nothing but their ids, and those that are aliases of which."""
    await database["members"].insert_many(
        {
            "_id": f"{brand_id}|{name}",
            "brand_id": brand_id,
            "member_id": name,
            "rev": 1,
            "absorbed": [alias for alias, answers in aliases.items() if answers == name],
        }
        for name in names
    )
