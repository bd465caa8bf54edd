"""What people call a brand, its guides and its stores, for documents that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from daogou.members.v1 import directory_pb2 as pb
from daogou.members.v1 import directory_pb2_grpc
from svc_commission.members_client import CALL_TIMEOUT_S, meant
from svc_commission.rules.attribution import guide_of

_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class PayeeNames:
    """What a payee is called, and the store where she stands. Empty: not known."""

    payee: str
    store: str


class Names:
    """Asks the members service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._directory = directory_pb2_grpc.DirectoryServiceStub(channel)

    async def brand(self, brand_id: str) -> str:
        """A brand's name. Raises: NotFound; Unavailable."""
        try:
            reply = await self._directory.GetBrand(
                pb.GetBrandRequest(brand_id=brand_id), timeout=CALL_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise meant(error) from error
        return reply.brand.display_name

    async def payees(self, brand_id: str, payees: Sequence[str]) -> dict[str, PayeeNames]:
        """The names of guides and of store pools. Raises: Unavailable."""
        guides = await self._guides(brand_id, sorted({guide_of(payee) for payee in payees} - {""}))
        pools = {payee: payee.partition(":")[2] for payee in payees if not guide_of(payee)}
        store_ids = {guide.store_id for guide in guides.values()} | set(pools.values())
        stores = await self._stores(brand_id, sorted(store_ids))
        found = {}
        for payee in payees:
            if payee in pools:
                name = stores.get(pools[payee], "")
                found[payee] = PayeeNames(name, name)
            else:
                guide = guides.get(guide_of(payee), pb.Guide())
                found[payee] = PayeeNames(guide.display_name, stores.get(guide.store_id, ""))
        return found

    async def _guides(self, brand_id: str, guide_ids: Sequence[str]) -> dict[str, pb.Guide]:
        found: dict[str, pb.Guide] = {}
        for begin in range(0, len(guide_ids), _AT_ONCE):
            part = guide_ids[begin : begin + _AT_ONCE]
            request = pb.BatchGetGuidesRequest(brand_id=brand_id, guide_ids=part)
            try:
                reply = await self._directory.BatchGetGuides(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise meant(error) from error
            found.update(zip(part, (result.guide for result in reply.results), strict=True))
        return found

    async def _stores(self, brand_id: str, store_ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for begin in range(0, len(store_ids), _AT_ONCE):
            part = store_ids[begin : begin + _AT_ONCE]
            keys = [pb.BatchGetStoresRequest.Key(store_id=store_id) for store_id in part if store_id]
            if not keys:
                continue
            request = pb.BatchGetStoresRequest(brand_id=brand_id, keys=keys)
            try:
                reply = await self._directory.BatchGetStores(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as error:
                raise meant(error) from error
            found.update((result.store.store_id, result.store.display_name) for result in reply.results)
        return found
