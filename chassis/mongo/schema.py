"""Indexes and the schema's version: built by `python -m svc_x migrate`, compared at every start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chassis.mongo.connection import Database


@dataclass(frozen=True)
class Index:
    """One index of a collection. `keys` as PyMongo takes them; `options` such as unique or sparse."""

    collection: str
    name: str
    keys: Sequence[tuple[str, int]]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Schema:
    """What a service needs of its database. `version` rises with every change."""

    version: int
    indexes: Sequence[Index]


async def migrate(database: Database, schema: Schema) -> None:
    """Builds what is missing and raises the version. Safe to repeat and to run twice at once."""
    for index in schema.indexes:
        await database[index.collection].create_index(list(index.keys), name=index.name, **index.options)
    await database["schema"].update_one(
        {"_id": "version"}, {"$max": {"version": schema.version}}, upsert=True
    )


async def missing(database: Database, schema: Schema) -> list[str]:
    """What the service needs and the database has not; empty when it can serve."""
    stored = await database["schema"].find_one({"_id": "version"})
    version = stored["version"] if stored else 0
    if version < schema.version:
        return [f"schema version {version}, needed {schema.version}: run the migrate job"]
    lacking = []
    for collection in {index.collection for index in schema.indexes}:
        built = await database[collection].index_information()
        lacking += [
            f"index {index.collection}.{index.name}"
            for index in schema.indexes
            if index.collection == collection and index.name not in built
        ]
    return sorted(lacking)
