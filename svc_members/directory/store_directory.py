"""Brands, stores and guides in MongoDB: one document each, with the receipts of the requests that wrote it.

Documents: brands `{_id: brand}`, stores `{_id: brand|store}`, guides `{_id: brand|guide}`; each with `rev`,
`created` (the receipt of its creation, kept for ever) and `receipts` (of later changes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from pymongo.errors import BulkWriteError, DuplicateKeyError

from chassis.errors import Conflict, NotFound, Refused
from chassis.mongo import failures, idempotency
from chassis.mongo.connection import Collection, Database, Document
from chassis.mongo.schema import Index
from svc_members.directory.entities import Kind

INDEXES = (
    Index(
        "stores",
        "shop",
        [("brand_id", 1), ("shops", 1)],
        {"unique": True, "partialFilterExpression": {"shops": {"$exists": True}}},
    ),
    Index("stores", "by_region", [("brand_id", 1), ("region_id", 1)]),
    Index("guides", "by_store", [("brand_id", 1), ("store_id", 1), ("guide_id", 1)]),
    Index(
        "guides",
        "by_member",
        [("brand_id", 1), ("member_id", 1)],
        {"partialFilterExpression": {"member_id": {"$gt": ""}}},
    ),
)


def document_id(kind: Kind[Any], brand_id: str, entry_id: str) -> str:
    """The primary key: it begins with the brand, by which the collections are sharded."""
    return brand_id if kind.name == "brand" else f"{brand_id}|{entry_id}"


M = TypeVar("M", bound=Message)


class DirectoryStore:
    """Reads and writes directory entries."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _of(self, kind: Kind[Any]) -> Collection:
        return self._database[kind.collection]

    async def insert(self, kind: Kind[Any], documents: Sequence[Document]) -> list[Document | Refused]:
        """Inserts each document unless one of its id is there; returns what then stands, in order.

        Refused SHOP_TAKEN stands in the place of a store that names another store's shop.
        """
        failed: dict[int, Mapping[str, Any]] = {}
        try:
            await self._of(kind).insert_many([_stored(document) for document in documents], ordered=False)
        except BulkWriteError as error:
            failed = {failure["index"]: failure for failure in failures.duplicates(error)}
        repeated = [
            documents[index]["_id"] for index, failure in failed.items() if "_id" in failure["keyPattern"]
        ]
        standing = {found["_id"]: found async for found in self._of(kind).find({"_id": {"$in": repeated}})}
        return [
            document
            if index not in failed
            else standing.get(document["_id"], Refused("SHOP_TAKEN", "another store holds one of the shops"))
            for index, document in enumerate(documents)
        ]

    async def find(self, kind: Kind[Any], brand_id: str, entry_id: str) -> Document:
        """One entry. Raises: NotFound, with the kind's reason."""
        found = await self._of(kind).find_one({"_id": document_id(kind, brand_id, entry_id)})
        if found is None:
            raise NotFound(kind.unknown_reason, f"the {kind.name} does not exist in this brand")
        return found

    async def find_many(
        self, kind: Kind[Any], brand_id: str, entry_ids: Sequence[str]
    ) -> dict[str, Document]:
        """The entries that exist, by their ids."""
        ids = [document_id(kind, brand_id, entry_id) for entry_id in set(entry_ids)]
        field = f"{kind.name}_id"
        return {found[field]: found async for found in self._of(kind).find({"_id": {"$in": ids}})}

    async def find_by_shops(
        self, kind: Kind[Any], brand_id: str, shops: Sequence[str]
    ) -> dict[str, Document]:
        """The stores that hold the shops, by shop key."""
        found = self._of(kind).find({"brand_id": brand_id, "shops": {"$in": list(set(shops))}})
        return {shop: store async for store in found for shop in store["shops"]}

    async def replace(self, kind: Kind[Any], document: Document) -> None:
        """Writes the next state of an entry, if nobody else has.

        Raises: Conflict DIRECTORY_CHANGED; Refused SHOP_TAKEN.
        """
        guard = {"_id": document["_id"], "rev": document["rev"]}
        try:
            result = await self._of(kind).replace_one(
                guard, _stored({**document, "rev": document["rev"] + 1})
            )
        except DuplicateKeyError:
            raise Refused("SHOP_TAKEN", "another store holds one of the shops") from None
        if not result.matched_count:
            raise Conflict("DIRECTORY_CHANGED", "the entry was changed meanwhile", retry_after_s=0.05)

    async def change_once(
        self,
        kind: Kind[Any],
        standing: Document,
        request: tuple[str, bytes, datetime],
        change: Callable[[Document], tuple[Document, M]],
        reply_type: type[M],
    ) -> M:
        """Changes an entry as `change` says, once for one request, and returns its reply.

        `request`: its key among those that write the entry, its body's hash, and the time.

        Raises: AlreadyExists REQUEST_ID_REUSED; Conflict DIRECTORY_CHANGED; Refused SHOP_TAKEN.
        """
        key, body, now = request
        first = idempotency.first_reply(standing["receipts"], key, body, reply_type)
        if first is not None:
            return first
        changed, reply = change(standing)
        receipt = idempotency.receipt(key, body, reply, now)
        await self.replace(
            kind, {**changed, "receipts": idempotency.with_receipt(standing["receipts"], receipt)}
        )
        return reply

    async def brands_with_validity(self) -> list[Document]:
        """The brands whose bindings may lapse."""
        return [
            brand
            async for brand in self._database["brands"].find({"binding_policy.validity_days": {"$gt": 0}})
        ]

    async def page(
        self,
        kind: Kind[Any],
        brand_id: str,
        after_id: str,
        size: int,
        only: Mapping[str, Sequence[str]],
    ) -> list[Document]:
        """Up to `size` entries after one, by id: all brands, or those of a brand.

        `only` accepts, per field, just the values it lists.
        """
        query: Document = {"_id": {"$gt": after_id}}
        if kind.name != "brand":
            query = _within(brand_id, after_id, only)
        return [found async for found in self._of(kind).find(query).sort("_id", 1).limit(size)]

    async def ids(self, kind: Kind[Any], brand_id: str, only: Mapping[str, Sequence[str]]) -> list[str]:
        """The ids of all entries of a brand that `only` accepts, as in `page`."""
        field = f"{kind.name}_id"
        return [found[field] async for found in self._of(kind).find(_within(brand_id, "", only), {field: 1})]


def _within(brand_id: str, after_id: str, only: Mapping[str, Sequence[str]]) -> Document:
    """The entries of a brand after one.

    The range of keys holds just those that begin with the brand, for `}` follows `|`. It stands beside the
    accepted values so that either index may be walked: the primary where most entries are accepted, the
    other where few are.
    """
    query: Document = {"_id": {"$gt": f"{brand_id}|{after_id}", "$lt": brand_id + "}"}}
    if only:
        query["brand_id"] = brand_id
    return query | {field: {"$in": list(values)} for field, values in only.items()}


def _stored(document: Document) -> Document:
    """The document without an empty list of shops, which the unique index would count as a value."""
    if document.get("shops") == []:
        return {key: value for key, value in document.items() if key != "shops"}
    return document
