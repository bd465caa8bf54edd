"""Aliases of guide codes in MongoDB: `{_id: brand|alias, code, expire_time}`, removed when the code ends."""

from __future__ import annotations

from datetime import datetime

from chassis.errors import NotFound
from chassis.ids import derived_id
from chassis.mongo.connection import Database
from chassis.mongo.schema import Index

INDEXES = (Index("code_aliases", "ends", [("expire_time", 1)], {"expireAfterSeconds": 0}),)


class GuideCodeStore:
    """Reads and writes aliases. Codes themselves are stored nowhere."""

    def __init__(self, database: Database) -> None:
        self._aliases = database["code_aliases"]

    async def give_alias(self, brand_id: str, code: str, expire_time: datetime) -> str:
        """The code's alias, always the same: it is derived from the code."""
        alias = derived_id("alias", brand_id, code)
        await self._aliases.update_one(
            {"_id": f"{brand_id}|{alias}"},
            {"$setOnInsert": {"code": code, "expire_time": expire_time}},
            upsert=True,
        )
        return alias

    async def code_of(self, brand_id: str, alias: str) -> str:
        """The code that the alias stands for. Raises: NotFound CODE_ALIAS_UNKNOWN."""
        found = await self._aliases.find_one({"_id": f"{brand_id}|{alias}"})
        if found is None:
            raise NotFound("CODE_ALIAS_UNKNOWN", "no code of this brand has that alias, or it has ended")
        return str(found["code"])
