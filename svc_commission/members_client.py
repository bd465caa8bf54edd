"""What commission asks of the members service: a brand's calendar, which stores exist, whose a buyer was.

What cannot change is remembered: a brand's time zone and currency, and that a store exists. The store that
holds a shop can change, so it is asked anew after a minute.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import grpc

from chassis.errors import DaogouError, NotFound, Unavailable
from chassis.rpc.status import from_rpc_error
from daogou.common.v1.channel_pb2 import Channel
from daogou.members.v1 import binding_pb2, directory_pb2
from daogou.members.v1.binding_pb2_grpc import BindingServiceStub
from daogou.members.v1.directory_pb2_grpc import DirectoryServiceStub
from svc_commission.rules.attribution import StandingBinding

if TYPE_CHECKING:
    # These names exist in the stubs alone.
    from daogou.members.v1.binding_pb2_grpc import BindingServiceAsyncStub
    from daogou.members.v1.directory_pb2_grpc import DirectoryServiceAsyncStub

CALL_TIMEOUT_S = 5.0
SHOP_TTL_S = 60.0
_KEPT_MAX = 100_000

K = TypeVar("K")
V = TypeVar("V")


class _Kept(Generic[K, V]):
    """A bounded memory; oldest out first."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K) -> V | None:
        found = self._kept.get(key)
        return found[1] if found and found[0] + self._ttl_s > time.monotonic() else None

    def put(self, key: K, value: V) -> None:
        self._kept[key] = (time.monotonic(), value)
        self._kept.move_to_end(key)
        if len(self._kept) > _KEPT_MAX:
            self._kept.popitem(last=False)


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
        self._brands: _Kept[str, BrandFacts] = _Kept(float("inf"))
        self._stores: _Kept[tuple[str, str], str] = _Kept(float("inf"))
        self._shops: _Kept[tuple[str, str], str] = _Kept(SHOP_TTL_S)

    async def brand(self, brand_id: str) -> BrandFacts:
        """Raises: NotFound BRAND_UNKNOWN."""
        known = self._brands.get(brand_id)
        if known is None:
            try:
                reply = await self._directory.GetBrand(
                    directory_pb2.GetBrandRequest(brand_id=brand_id), timeout=CALL_TIMEOUT_S
                )
            except grpc.aio.AioRpcError as error:
                raise _meant(error) from error
            known = BrandFacts(reply.brand.business_time_zone, reply.brand.currency_code)
            self._brands.put(brand_id, known)
        return known

    async def find_stores(
        self, brand_id: str, store_ids: Sequence[str], shops: Sequence[tuple[str, str]]
    ) -> tuple[set[str], dict[tuple[str, str], str]]:
        """Which of the stores exist; and by shop (channel, shop id) the store that holds it, if one does."""
        found_ids = {one for one in store_ids if self._stores.get((brand_id, one))}
        found_shops = {
            shop: held for shop in shops if (held := self._shops.get((brand_id, "|".join(shop)))) is not None
        }
        asked_ids = sorted(set(store_ids) - found_ids)
        asked_shops = sorted(set(shops) - found_shops.keys())
        keys = [directory_pb2.BatchGetStoresRequest.Key(store_id=store_id) for store_id in asked_ids]
        keys += [_shop_key(shop) for shop in asked_shops]
        stores = [
            store
            for start in range(0, len(keys), 1000)
            for store in await self._stores_of(brand_id, keys[start : start + 1000])
        ]
        for store_id, store in zip(asked_ids, stores, strict=False):
            if store:
                found_ids.add(store_id)
                self._stores.put((brand_id, store_id), store)
        for shop, store in zip(asked_shops, stores[len(asked_ids) :], strict=True):
            if store:
                found_shops[shop] = store
                self._shops.put((brand_id, "|".join(shop)), store)
        return found_ids, found_shops

    async def _stores_of(
        self, brand_id: str, keys: Sequence[directory_pb2.BatchGetStoresRequest.Key]
    ) -> list[str]:
        """The store ids for up to 1,000 keys, in order; empty where there is none."""
        request = directory_pb2.BatchGetStoresRequest(brand_id=brand_id, keys=keys)
        try:
            reply = await self._directory.BatchGetStores(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _meant(error) from error
        return [result.store.store_id for result in reply.results]

    async def resolve(
        self, brand_id: str, queries: Sequence[binding_pb2.BindingQuery]
    ) -> list[StandingBinding]:
        """The bindings asked for, in order. At most 1,000."""
        request = binding_pb2.BatchResolveBindingsRequest(brand_id=brand_id, queries=queries)
        try:
            reply = await self._bindings.BatchResolveBindings(request, timeout=CALL_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise _meant(error) from error
        return [_bound(one) for one in reply.resolved]


def _bound(one: binding_pb2.ResolvedBinding) -> StandingBinding:
    """An answer for the rules. An identity that is none (a malformed number) is nobody's."""
    if one.HasField("error") and one.error.reason != "INVALID_FIELDS":
        raise Unavailable("ATTRIBUTION_PENDING", f"the members service refused: {one.error.reason}")
    return StandingBinding(one.member_id, one.binding_id, one.guide_id, one.store_id)


def _shop_key(shop: tuple[str, str]) -> directory_pb2.BatchGetStoresRequest.Key:
    channel, shop_id = shop
    account = directory_pb2.ShopAccount(channel=Channel.Value(f"CHANNEL_{channel}"), shop_id=shop_id)
    return directory_pb2.BatchGetStoresRequest.Key(shop=account)


def _meant(error: grpc.aio.AioRpcError) -> DaogouError:
    """NotFound as the members service said it; anything else: it cannot be asked now."""
    said = from_rpc_error(error)
    if isinstance(said, NotFound):
        return said
    return Unavailable(
        "MEMBERS_UNAVAILABLE", f"the members service answered {error.code().name}", retry_after_s=1
    )
