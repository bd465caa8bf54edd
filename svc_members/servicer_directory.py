"""The directory over gRPC: one way of creating, reading, changing and listing for all three kinds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from chassis.clock import Now
from chassis.errors import AlreadyExists, DaogouError, Invalid, NotFound, Refused, Violation, invalid_fields
from chassis.ids import derived_id, is_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.rpc.items import to_item_error
from daogou.members.v1 import directory_pb2 as pb
from svc_members.entities import BRAND, STORE, Kind, guide_kind, shop_key
from svc_members.identities import IdentitySealer
from svc_members.store_directory import DirectoryStore, document_id

M = TypeVar("M", bound=Message)

PAGE_SIZE_DEFAULT = 100


class DirectoryServicer:
    """Implements daogou.members.v1.DirectoryService."""

    def __init__(self, store: DirectoryStore, sealer: IdentitySealer, now: Now) -> None:
        self._store = store
        self._guide = guide_kind(sealer)
        self._digest = sealer.digest
        self._now = now

    async def CreateBrand(self, request: pb.CreateBrandRequest, context: Any) -> pb.CreateBrandResponse:
        [brand] = await self._create(BRAND, "", request.request_id, [request.brand], prefix="brand.")
        return pb.CreateBrandResponse(brand=_or_raised(brand))

    async def GetBrand(self, request: pb.GetBrandRequest, context: Any) -> pb.GetBrandResponse:
        found = await self._store.find(BRAND, request.brand_id, request.brand_id)
        return pb.GetBrandResponse(brand=BRAND.to_message(found))

    async def UpdateBrand(self, request: pb.UpdateBrandRequest, context: Any) -> pb.UpdateBrandResponse:
        brand = await self._update(BRAND, request.brand_id, request, request.brand)
        return pb.UpdateBrandResponse(brand=brand)

    async def ListBrands(self, request: pb.ListBrandsRequest, context: Any) -> pb.ListBrandsResponse:
        brands, token = await self._list(BRAND, "", request.page_size, request.page_token)
        return pb.ListBrandsResponse(brands=brands, next_page_token=token)

    async def CreateStore(self, request: pb.CreateStoreRequest, context: Any) -> pb.CreateStoreResponse:
        await self._store.find(BRAND, request.brand_id, request.brand_id)
        [store] = await self._create(
            STORE, request.brand_id, request.request_id, [request.store], prefix="store."
        )
        return pb.CreateStoreResponse(store=_or_raised(store))

    async def BatchCreateStores(
        self, request: pb.BatchCreateStoresRequest, context: Any
    ) -> pb.BatchCreateStoresResponse:
        await self._store.find(BRAND, request.brand_id, request.brand_id)
        made = await self._create(STORE, request.brand_id, request.request_id, request.stores)
        result = pb.BatchCreateStoresResponse.Result
        return pb.BatchCreateStoresResponse(
            results=[
                result(error=to_item_error(one)) if isinstance(one, DaogouError) else result(store=one)
                for one in made
            ]
        )

    async def GetStore(self, request: pb.GetStoreRequest, context: Any) -> pb.GetStoreResponse:
        found = await self._store.find(STORE, request.brand_id, request.store_id)
        return pb.GetStoreResponse(store=STORE.to_message(found))

    async def BatchGetStores(
        self, request: pb.BatchGetStoresRequest, context: Any
    ) -> pb.BatchGetStoresResponse:
        ids = [key.store_id for key in request.keys if key.HasField("store_id")]
        shops = [shop_key(key.shop) for key in request.keys if key.HasField("shop")]
        by_id = await self._store.find_many(STORE, request.brand_id, ids) if ids else {}
        by_shop = await self._store.find_by_shops(STORE, request.brand_id, shops) if shops else {}
        unknown = to_item_error(NotFound("STORE_UNKNOWN", "no store of this brand has that id or shop"))
        result = pb.BatchGetStoresResponse.Result
        found = [
            by_id.get(key.store_id) if key.HasField("store_id") else by_shop.get(shop_key(key.shop))
            for key in request.keys
        ]
        return pb.BatchGetStoresResponse(
            results=[result(store=STORE.to_message(one)) if one else result(error=unknown) for one in found]
        )

    async def UpdateStore(self, request: pb.UpdateStoreRequest, context: Any) -> pb.UpdateStoreResponse:
        store = await self._update(STORE, request.store_id, request, request.store)
        return pb.UpdateStoreResponse(store=store)

    async def ListStores(self, request: pb.ListStoresRequest, context: Any) -> pb.ListStoresResponse:
        stores, token = await self._list(STORE, request.brand_id, request.page_size, request.page_token)
        return pb.ListStoresResponse(stores=stores, next_page_token=token)

    async def CreateGuide(self, request: pb.CreateGuideRequest, context: Any) -> pb.CreateGuideResponse:
        [guide] = await self._hire(request.brand_id, request.request_id, [request.guide], prefix="guide.")
        return pb.CreateGuideResponse(guide=_or_raised(guide))

    async def BatchCreateGuides(
        self, request: pb.BatchCreateGuidesRequest, context: Any
    ) -> pb.BatchCreateGuidesResponse:
        made = await self._hire(request.brand_id, request.request_id, request.guides)
        result = pb.BatchCreateGuidesResponse.Result
        return pb.BatchCreateGuidesResponse(
            results=[
                result(error=to_item_error(one)) if isinstance(one, DaogouError) else result(guide=one)
                for one in made
            ]
        )

    async def GetGuide(self, request: pb.GetGuideRequest, context: Any) -> pb.GetGuideResponse:
        found = await self._store.find(self._guide, request.brand_id, request.guide_id)
        return pb.GetGuideResponse(guide=self._guide.to_message(found))

    async def UpdateGuide(self, request: pb.UpdateGuideRequest, context: Any) -> pb.UpdateGuideResponse:
        guide = await self._update(self._guide, request.guide_id, request, request.guide)
        return pb.UpdateGuideResponse(guide=guide)

    async def ListGuides(self, request: pb.ListGuidesRequest, context: Any) -> pb.ListGuidesResponse:
        guides, token = await self._list(
            self._guide, request.brand_id, request.page_size, request.page_token, request.store_id
        )
        return pb.ListGuidesResponse(guides=guides, next_page_token=token)

    async def _hire(
        self, brand_id: str, request_id: str, guides: Sequence[pb.Guide], *, prefix: str = ""
    ) -> list[pb.Guide | DaogouError]:
        named = [guide.store_id for guide in guides if is_id(guide.store_id)]
        known = await self._store.find_many(STORE, brand_id, named)
        return await self._create(
            self._guide, brand_id, request_id, guides, prefix=prefix, known_stores=set(known)
        )

    async def _create(
        self,
        kind: Kind[M],
        brand_id: str,
        request_id: str,
        items: Sequence[M],
        *,
        prefix: str = "",
        known_stores: set[str] | None = None,
    ) -> list[M | DaogouError]:
        """Creates each item that is acceptable; what stands in its place, or why nothing does, in order.

        An item's id follows from the request and its place, so that a repeat meets what it wrote.
        """
        results: list[M | DaogouError] = []
        accepted: list[tuple[int, Document]] = []
        for index, item in enumerate(items):
            if found := limits.violations(item, prefix) or kind.problems(item, prefix):
                results.append(invalid_fields(found))
            elif known_stores is not None and item.store_id not in known_stores:  # type: ignore[attr-defined]
                results.append(NotFound("STORE_UNKNOWN", "the store does not exist in this brand"))
            else:
                accepted.append((index, self._new_document(kind, brand_id, request_id, index, item)))
                results.append(item)
        if accepted:
            standing = await self._store.insert(kind, [document for _, document in accepted])
            for (index, document), stands in zip(accepted, standing, strict=True):
                results[index] = _creation_reply(kind, document, stands)
        return results

    def _new_document(self, kind: Kind[M], brand_id: str, request_id: str, index: int, item: M) -> Document:
        now = self._now()
        entry_id = derived_id(kind.name, brand_id, request_id, str(index))
        document = {
            "_id": document_id(kind, brand_id or entry_id, entry_id),
            "brand_id": brand_id or entry_id,
            f"{kind.name}_id": entry_id,
            "rev": 1,
            "create_time": now,
            "update_time": now,
            "receipts": [],
            **kind.to_document(brand_id or entry_id, item),
        }
        reply = kind.to_message(document)
        document["created"] = idempotency.receipt(
            "created", idempotency.body_hash(item, self._digest), reply, now
        )
        return document

    async def _update(self, kind: Kind[M], entry_id: str, request: Any, item: M) -> M:
        """Changes the masked fields, once for one request."""
        paths = set(request.update_mask.paths)
        found = [
            Violation("update_mask", f"{path} cannot be changed") for path in sorted(paths - kind.mutable)
        ]
        brand_id, key, now = request.brand_id, f"update|{request.request_id}", self._now()
        standing = await self._store.find(kind, brand_id, entry_id)
        masked = kind.message()
        masked.CopyFrom(kind.to_message(standing))
        for path in paths & kind.mutable:
            _copy_field(item, masked, path)
        found += [
            problem
            for problem in kind.problems(masked, f"{kind.name}.")
            if problem.field.split(".")[1].split("[")[0] in paths
        ]
        if found:
            raise invalid_fields(found)

        def change(entry: Document) -> tuple[Document, M]:
            wanted = kind.to_document(brand_id, masked)
            changed = {**entry, **{path: wanted[path] for path in paths}, "update_time": now}
            return changed, kind.to_message(changed)

        body = idempotency.body_hash(request, self._digest)
        return await self._store.change_once(kind, standing, (key, body, now), change, kind.message)

    async def _list(
        self, kind: Kind[M], brand_id: str, page_size: int, page_token: str, store_id: str = ""
    ) -> tuple[list[M], str]:
        """One page and the token of the next."""
        size = page_size or PAGE_SIZE_DEFAULT
        after_id = _opened_page_token(page_token)
        found = await self._store.page(kind, brand_id, after_id, size + 1, store_id)
        token = _page_token(found[size - 1][f"{kind.name}_id"]) if len(found) > size else ""
        return [kind.to_message(document) for document in found[:size]], token


def _or_raised(result: M | DaogouError) -> M:
    if isinstance(result, DaogouError):
        raise result
    return result


def _creation_reply(kind: Kind[M], document: Document, stands: Document | Refused) -> M | DaogouError:
    """The reply to a creation, from what stands in the database after it."""
    if isinstance(stands, Refused):
        return stands
    try:
        first = idempotency.first_reply(
            [stands["created"]], "created", document["created"]["body_hash"], kind.message
        )
    except AlreadyExists as error:
        return error
    return first if first is not None else kind.to_message(stands)


def _copy_field(source: Message, target: Message, name: str) -> None:
    """Sets one field of `target` as it is in `source`: absent, empty or with a value."""
    target.ClearField(name)
    field = source.DESCRIPTOR.fields_by_name[name]
    value = getattr(source, name)
    if field.is_repeated:
        getattr(target, name).extend(value)
    elif field.message_type is None:
        setattr(target, name, value)
    elif source.HasField(name):
        getattr(target, name).CopyFrom(value)


def _page_token(last_id: str) -> str:
    return base64.urlsafe_b64encode(last_id.encode()).rstrip(b"=").decode()


def _opened_page_token(token: str) -> str:
    """The id after which the page begins. Raises: Invalid PAGE_TOKEN_INVALID."""
    if not token:
        return ""
    try:
        last_id = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)).decode()
    except (binascii.Error, ValueError):
        last_id = ""
    if not is_id(last_id):
        raise Invalid("PAGE_TOKEN_INVALID", "this page_token was not given by this method")
    return last_id
