"""The directory over gRPC: one way of creating, reading, changing and listing for all three kinds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from chassis.clock import Now
from chassis.errors import AlreadyExists, DaogouError, NotFound, Refused, Violation, invalid_fields
from chassis.ids import derived_id, is_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.rpc import limits
from chassis.rpc.cursors import PAGE_SIZE_DEFAULT
from chassis.rpc.items import to_item_error
from chassis.times import from_timestamp
from daogou.members.v1 import directory_pb2 as pb
from svc_members.directory import guide_members, postings
from svc_members.directory.entities import BRAND, STORE, Kind, check_employed, guide_kind, shop_key
from svc_members.directory.paging import opened_page_token, page_token
from svc_members.directory.store_directory import DirectoryStore, document_id
from svc_members.directory.store_region import RegionStore
from svc_members.member.identities import IdentitySealer
from svc_members.member.store_answering import AnsweringStore
from svc_members.rules import region

M = TypeVar("M", bound=Message)
Refusal = Callable[[M], DaogouError | None]
"""What the directory says against an item, if anything."""


class DirectoryServicer:
    """Implements daogou.members.v1.DirectoryService."""

    def __init__(
        self,
        store: DirectoryStore,
        regions: RegionStore,
        answering: AnsweringStore,
        sealer: IdentitySealer,
        now: Now,
    ) -> None:
        self._store = store
        self._regions = regions
        self._answering = answering
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
        [store] = await self._open(request.brand_id, request.request_id, [request.store], prefix="store.")
        return pb.CreateStoreResponse(store=_or_raised(store))

    async def BatchCreateStores(
        self, request: pb.BatchCreateStoresRequest, context: Any
    ) -> pb.BatchCreateStoresResponse:
        made = await self._open(request.brand_id, request.request_id, request.stores)
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
        bad = {place: found for place, key in enumerate(request.keys) if (found := limits.violations(key))}
        good = [key for place, key in enumerate(request.keys) if place not in bad]
        ids = [key.store_id for key in good if key.HasField("store_id")]
        shops = [shop_key(key.shop) for key in good if key.HasField("shop")]
        by_id = await self._store.find_many(STORE, request.brand_id, ids) if ids else {}
        by_shop = await self._store.find_by_shops(STORE, request.brand_id, shops) if shops else {}
        unknown = NotFound("STORE_UNKNOWN", "no store of this brand has that id or shop")

        def result(place: int, key: pb.BatchGetStoresRequest.Key) -> pb.BatchGetStoresResponse.Result:
            if place in bad:
                return pb.BatchGetStoresResponse.Result(error=to_item_error(invalid_fields(bad[place])))
            by_key = key.HasField("store_id")
            found = by_id.get(key.store_id) if by_key else by_shop.get(shop_key(key.shop))
            if found is None:
                return pb.BatchGetStoresResponse.Result(error=to_item_error(unknown))
            return pb.BatchGetStoresResponse.Result(store=STORE.to_message(found))

        results = [result(place, key) for place, key in enumerate(request.keys)]
        return pb.BatchGetStoresResponse(results=results)

    async def UpdateStore(self, request: pb.UpdateStoreRequest, context: Any) -> pb.UpdateStoreResponse:
        masked = {"region_id", "manager_guide_id"}.intersection(request.update_mask.paths)
        named = pb.Store(**{path: getattr(request.store, path) for path in masked})
        # What is not changed is not looked at: a manager who has left since keeps nobody from anything else.
        refusal = await self._store_refusal(request.brand_id, [named])
        store = await self._update(STORE, request.store_id, request, request.store, lambda _: refusal(named))
        return pb.UpdateStoreResponse(store=store)

    async def ListStores(self, request: pb.ListStoresRequest, context: Any) -> pb.ListStoresResponse:
        only = {}
        if request.region_id:
            only["region_id"] = await self._regions_below(request.brand_id, request.region_id)
        stores, token = await self._list(STORE, request.brand_id, request.page_size, request.page_token, only)
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
        [guide] = await self._read(request.brand_id, [found])
        return pb.GetGuideResponse(guide=guide)

    async def BatchGetGuides(
        self, request: pb.BatchGetGuidesRequest, context: Any
    ) -> pb.BatchGetGuidesResponse:
        found = await self._store.find_many(self._guide, request.brand_id, list(set(request.guide_ids)))
        guides = dict(zip(found, await self._read(request.brand_id, list(found.values())), strict=True))
        result = pb.BatchGetGuidesResponse.Result
        unknown = to_item_error(NotFound("GUIDE_UNKNOWN", "no guide of this brand has that id"))
        return pb.BatchGetGuidesResponse(
            results=[
                result(guide=guides[guide_id]) if guide_id in guides else result(error=unknown)
                for guide_id in request.guide_ids
            ]
        )

    async def UpdateGuide(self, request: pb.UpdateGuideRequest, context: Any) -> pb.UpdateGuideResponse:
        named = pb.Guide(
            member_id=request.guide.member_id if "member_id" in request.update_mask.paths else ""
        )
        refusal = await guide_members.refusal(self._answering, request.brand_id, [named])
        guide = await self._update(
            self._guide, request.guide_id, request, request.guide, lambda _: refusal(named)
        )
        return pb.UpdateGuideResponse(guide=guide)

    async def MoveGuide(self, request: pb.MoveGuideRequest, context: Any) -> pb.MoveGuideResponse:
        now = self._now()
        time = from_timestamp(request.move_time) if request.HasField("move_time") else now
        standing = await self._store.find(self._guide, request.brand_id, request.guide_id)
        await self._store.find(STORE, request.brand_id, request.store_id)

        def move(guide: Document) -> tuple[Document, pb.MoveGuideResponse]:
            check_employed(guide)
            moved = postings.moved(guide, request.store_id, time, now)
            return moved, pb.MoveGuideResponse(guide=self._guide.to_message(moved))

        body = idempotency.body_hash(request, self._digest)
        key = f"move|{request.request_id}"
        return await self._store.change_once(
            self._guide, standing, (key, body, now), move, pb.MoveGuideResponse
        )

    async def ListGuides(self, request: pb.ListGuidesRequest, context: Any) -> pb.ListGuidesResponse:
        only = {"store_id": [request.store_id]} if request.store_id else {}
        if request.region_id:
            region_ids = await self._regions_below(request.brand_id, request.region_id)
            inside = await self._store.ids(STORE, request.brand_id, {"region_id": region_ids, **only})
            only = {"store_id": inside}
        guides, token = await self._list(
            self._guide, request.brand_id, request.page_size, request.page_token, only
        )
        await guide_members.follow(self._answering, request.brand_id, guides)
        return pb.ListGuidesResponse(guides=guides, next_page_token=token)

    async def _read(self, brand_id: str, documents: Sequence[Document]) -> list[pb.Guide]:
        """Guides as they are told to whoever reads them."""
        guides = [self._guide.to_message(document) for document in documents]
        await guide_members.follow(self._answering, brand_id, guides)
        return guides

    async def _open(
        self, brand_id: str, request_id: str, stores: Sequence[pb.Store], *, prefix: str = ""
    ) -> list[pb.Store | DaogouError]:
        await self._store.find(BRAND, brand_id, brand_id)
        refusal = await self._store_refusal(brand_id, stores)
        return await self._create(STORE, brand_id, request_id, stores, refusal, prefix=prefix)

    async def _hire(
        self, brand_id: str, request_id: str, guides: Sequence[pb.Guide], *, prefix: str = ""
    ) -> list[pb.Guide | DaogouError]:
        named = [guide.store_id for guide in guides if is_id(guide.store_id)]
        known = await self._store.find_many(STORE, brand_id, named)
        unknown = NotFound("STORE_UNKNOWN", "the store does not exist in this brand")
        member_refusal = await guide_members.refusal(self._answering, brand_id, guides)

        def refusal(guide: pb.Guide) -> DaogouError | None:
            return member_refusal(guide) if guide.store_id in known else unknown

        return await self._create(self._guide, brand_id, request_id, guides, refusal, prefix=prefix)

    async def _store_refusal(self, brand_id: str, stores: Sequence[pb.Store]) -> Refusal[pb.Store]:
        """What refuses those of the stores that name a region or a manager who is not there."""
        regions = {store.region_id for store in stores if is_id(store.region_id)}
        unknown = regions - set(await self._regions.tree(brand_id)) if regions else frozenset()
        managers = [store.manager_guide_id for store in stores if is_id(store.manager_guide_id)]
        guides = await self._store.find_many(self._guide, brand_id, managers) if managers else {}

        def refusal(store: pb.Store) -> DaogouError | None:
            if store.region_id in unknown:
                return region.unknown()
            if not store.manager_guide_id:
                return None
            if store.manager_guide_id not in guides:
                return NotFound("GUIDE_UNKNOWN", "the manager is no guide of this brand")
            if guides[store.manager_guide_id]["state"] == "RESIGNED":
                return Refused("GUIDE_RESIGNED", "the manager has resigned")
            return None

        return refusal

    async def _regions_below(self, brand_id: str, region_id: str) -> list[str]:
        """A region and all below it. Raises: NotFound REGION_UNKNOWN."""
        return sorted(region.descendants(await self._regions.tree(brand_id), region_id))

    async def _create(
        self,
        kind: Kind[M],
        brand_id: str,
        request_id: str,
        items: Sequence[M],
        refusal: Refusal[M] = lambda _: None,
        *,
        prefix: str = "",
    ) -> list[M | DaogouError]:
        """Creates each item that is acceptable; what stands in its place, or why nothing does, in order.

        An item's id follows from the request and its place, so that a repeat meets what it wrote.
        """
        results: list[M | DaogouError] = []
        accepted: dict[int, Document] = {}
        refused: dict[int, Document] = {}
        for index, item in enumerate(items):
            if found := limits.violations(item, prefix):
                results.append(invalid_fields(found))
                continue
            reason = refusal(item)
            results.append(reason or item)
            documents = refused if reason else accepted
            documents[index] = self._new_document(kind, brand_id, request_id, index, item)
        if accepted:
            standing = await self._store.insert(kind, list(accepted.values()))
            for (index, document), stands in zip(accepted.items(), standing, strict=True):
                results[index] = _creation_reply(kind, document, stands)
        if refused:
            # What is refused today may have been created before: then this is a repeat.
            ids = [document[f"{kind.name}_id"] for document in refused.values()]
            known = await self._store.find_many(kind, brand_id, ids)
            for index, document in refused.items():
                if before := known.get(document[f"{kind.name}_id"]):
                    results[index] = _creation_reply(kind, document, before)
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

    async def _update(
        self, kind: Kind[M], entry_id: str, request: Any, item: M, refusal: Refusal[M] = lambda _: None
    ) -> M:
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
            check_employed(entry)
            if refused := refusal(masked):
                raise refused
            wanted = kind.to_document(brand_id, masked)
            changed = {**entry, **{path: wanted[path] for path in paths}, "update_time": now}
            return changed, kind.to_message(changed)

        body = idempotency.body_hash(request, self._digest)
        return await self._store.change_once(kind, standing, (key, body, now), change, kind.message)

    async def _list(
        self,
        kind: Kind[M],
        brand_id: str,
        page_size: int,
        token: str,
        only: Mapping[str, Sequence[str]] | None = None,
    ) -> tuple[list[M], str]:
        """One page and the token of the next. `only`: as DirectoryStore.page."""
        size = page_size or PAGE_SIZE_DEFAULT
        after_id = opened_page_token(token)
        found = await self._store.page(kind, brand_id, after_id, size + 1, only or {})
        following = page_token(found[size - 1][f"{kind.name}_id"]) if len(found) > size else ""
        return [kind.to_message(document) for document in found[:size]], following


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
