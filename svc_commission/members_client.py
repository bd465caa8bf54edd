"""What commission asks of the members service: a brand's calendar, which stores exist, whose a buyer was.

What cannot change is remembered: a brand's time zone and currency. The store that holds a shop, the manager
of a store and where a guide stands can change, so they are asked anew after a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import grpc

from chassis.errors import DaogouError, NotFound, Unavailable
from chassis.kept import Kept
from chassis.rpc.status import from_rpc_error
from chassis.times import from_timestamp, to_timestamp
from daogou.common.v1.channel_pb2 import Channel
from daogou.members.v1 import activity_pb2, binding_pb2, directory_pb2
from daogou.members.v1.activity_pb2_grpc import ActivityServiceStub
from daogou.members.v1.binding_pb2_grpc import BindingServiceStub
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from svc_commission.rules.attribution import Guide, StandingBinding

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.activity_pb2_grpc import ActivityServiceAsyncStub
    from daogou.members.v1.binding_pb2_grpc import BindingServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

CALL_TIMEOUT_S = 5.0
DIRECTORY_TTL_S = 60.0


@dataclass(frozen=True, slots=True)
class BrandFacts:
    """What cannot change about a brand."""

    time_zone: str
    currency_code: str


class MembersClient:
    """Calls the members service. Every method raises Unavailable when it cannot be reached."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._directory: DirectoryServiceAsyncStub = DirectoryServiceStub(channel)
        self._bindings: BindingServiceAsyncStub = BindingServiceStub(channel)
        self._activity: ActivityServiceAsyncStub = ActivityServiceStub(channel)
        self._brands: Kept[str, BrandFacts] = Kept(float("inf"))
        self._managers: Kept[tuple[str, str], str] = Kept(DIRECTORY_TTL_S)
        self._guides: Kept[tuple[str, str], Guide] = Kept(DIRECTORY_TTL_S)
        self._shops: Kept[tuple[str, str], str] = Kept(DIRECTORY_TTL_S)

    async def brand(self, brand_id: str) -> BrandFacts:
        """Raises: NotFound BRAND_UNKNOWN."""
        known = self._brands.get(brand_id)
        if known is None:
            try:
                reply = await self._directory.GetBrand(
                    directory_pb2.GetBrandRequest(brand_id=brand_id), timeout=CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                raise meant(error) from error
            known = BrandFacts(reply.brand.business_time_zone, reply.brand.currency_code)
            self._brands.put(brand_id, known)
        return known

    async def find_stores(
        self, brand_id: str, store_ids: Sequence[str], shops: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
        """The manager of each of the stores, empty where it has none; by shop the store that holds it.

        Stores that do not exist are left out. A shop is a channel and a shop id; one that no store holds is
        left out too.
        """
        managers = {
            one: known for one in store_ids if (known := self._managers.get((brand_id, one))) is not None
        }
        held = {
            shop: known
            for shop in shops
            if (known := self._shops.get((brand_id, "|".join(shop)))) is not None
        }
        asked_ids = sorted(set(store_ids) - managers.keys())
        asked_shops = sorted(set(shops) - held.keys())
        keys = [directory_pb2.BatchGetStoresRequest.Key(store_id=store_id) for store_id in asked_ids]
        keys += [_shop_key(shop) for shop in asked_shops]
        stores = [
            store
            for start in range(0, len(keys), 1000)
            for store in await self._stores_of(brand_id, keys[start : start + 1000])
        ]
        for store in stores:
            if store.store_id:
                managers[store.store_id] = store.manager_guide_id
                self._managers.put((brand_id, store.store_id), store.manager_guide_id)
        for shop, store in zip(asked_shops, stores[len(asked_ids) :], strict=True):
            if store.store_id:
                held[shop] = store.store_id
                self._shops.put((brand_id, "|".join(shop)), store.store_id)
        return managers, held

    async def find_guides(
        self, brand_id: str, guide_ids: Sequence[str], *, anew: bool = False
    ) -> dict[str, Guide]:
        """Those of the guides who exist, resigned ones included. `anew`: as they are now, not lately."""
        kept = [] if anew else guide_ids
        found = {one: known for one in kept if (known := self._guides.get((brand_id, one))) is not None}
        asked = sorted(set(guide_ids) - found.keys())
        for start in range(0, len(asked), 1000):
            request = directory_pb2.BatchGetGuidesRequest(
                brand_id=brand_id, guide_ids=asked[start : start + 1000]
            )
            try:
                reply = await self._directory.BatchGetGuides(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise meant(error) from error
            for guide_id, result in zip(request.guide_ids, reply.results, strict=True):
                if result.HasField("guide"):
                    found[guide_id] = _guide(result.guide)
                    self._guides.put((brand_id, guide_id), found[guide_id])
        return found

    async def all_guides(self, brand_id: str) -> dict[str, Guide]:
        """Every guide of a brand, resigned ones included."""
        found: dict[str, Guide] = {}
        request = directory_pb2.ListGuidesRequest(brand_id=brand_id, page_size=1000)
        while True:
            try:
                reply = await self._directory.ListGuides(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise meant(error) from error
            found.update((guide.guide_id, _guide(guide)) for guide in reply.guides)
            if not reply.next_page_token:
                return found
            request.page_token = reply.next_page_token

    async def _stores_of(
        self, brand_id: str, keys: Sequence[directory_pb2.BatchGetStoresRequest.Key]
    ) -> list[directory_pb2.Store]:
        """The stores for up to 1,000 keys, in order; an empty one where there is none."""
        request = directory_pb2.BatchGetStoresRequest(brand_id=brand_id, keys=keys)
        try:
            reply = await self._directory.BatchGetStores(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise meant(error) from error
        return [result.store for result in reply.results]

    async def record_purchases(self, brand_id: str, purchases: Sequence[tuple[str, datetime]]) -> list[str]:
        """Notes up to 1,000 purchases: of whom, when. Why each was not noted, in order; empty: it was."""
        request = activity_pb2.BatchRecordPurchasesRequest(
            brand_id=brand_id,
            purchases=[
                activity_pb2.Purchase(member_id=member_id, purchase_time=to_timestamp(time))
                for member_id, time in purchases
            ],
        )
        try:
            reply = await self._activity.BatchRecordPurchases(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise meant(error) from error
        return [result.error.reason for result in reply.results]

    async def resolve(
        self, brand_id: str, queries: Sequence[binding_pb2.BindingQuery]
    ) -> list[StandingBinding]:
        """The bindings asked for, in order. At most 1,000."""
        request = binding_pb2.BatchResolveBindingsRequest(brand_id=brand_id, queries=queries)
        try:
            reply = await self._bindings.BatchResolveBindings(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise meant(error) from error
        return [_bound(one) for one in reply.resolved]


def _guide(message: directory_pb2.Guide) -> Guide:
    """A guide for the rules."""
    left = message.HasField("resign_time")
    return Guide(
        postings=tuple((from_timestamp(one.from_time), one.store_id) for one in message.postings),
        resign_time=from_timestamp(message.resign_time) if left else None,
        member_ids=frozenset([message.member_id, *message.merged_member_ids] if message.member_id else ()),
    )


def _bound(one: binding_pb2.ResolvedBinding) -> StandingBinding:
    """An answer for the rules. An identity that is none (a malformed number) is nobody's."""
    if one.HasField("error") and one.error.reason != "INVALID_FIELDS":
        raise Unavailable("ATTRIBUTION_PENDING", f"the members service refused: {one.error.reason}")
    return StandingBinding(one.member_id, one.binding_id, one.guide_id, one.store_id)


def _shop_key(shop: tuple[str, str]) -> directory_pb2.BatchGetStoresRequest.Key:
    channel, shop_id = shop
    account = directory_pb2.ShopAccount(channel=Channel.Value(f"CHANNEL_{channel}"), shop_id=shop_id)
    return directory_pb2.BatchGetStoresRequest.Key(shop=account)


def meant(error: grpc.aio.AioRpcError) -> DaogouError:
    """NotFound as the members service said it; anything else: it cannot be asked now."""
    said = from_rpc_error(error)
    if isinstance(said, NotFound):
        return said
    return Unavailable(
        "MEMBERS_UNAVAILABLE", f"the members service answered {error.code().name}", retry_after_s=1
    )
