"""Regions over gRPC: a tree that changes as a whole."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from chassis.clock import Now
from chassis.errors import Violation, invalid_fields
from chassis.ids import derived_id
from chassis.mongo import idempotency
from chassis.mongo.connection import Document
from chassis.times import to_timestamp
from daogou.members.v1 import region_pb2 as pb
from svc_members.directory.entities import BRAND
from svc_members.directory.store_directory import DirectoryStore
from svc_members.directory.store_region import RegionStore, tree_of
from svc_members.member.identities import IdentitySealer
from svc_members.rules import region as rules

MUTABLE: Final = frozenset({"display_name", "parent_region_id"})


class RegionServicer:
    """Implements daogou.members.v1.RegionService."""

    def __init__(
        self, directory: DirectoryStore, regions: RegionStore, sealer: IdentitySealer, now: Now
    ) -> None:
        self._directory = directory
        self._regions = regions
        self._digest = sealer.digest
        self._now = now

    async def CreateRegion(self, request: pb.CreateRegionRequest, context: Any) -> pb.CreateRegionResponse:
        await self._directory.find(BRAND, request.brand_id, request.brand_id)
        standing = await self._regions.find(request.brand_id)
        body = idempotency.body_hash(request, self._digest)
        region_id = derived_id("region", request.brand_id, request.request_id)
        for region in standing["regions"]:
            if region["region_id"] == region_id:
                first = idempotency.first_reply([region["created"]], "created", body, pb.Region)
                return pb.CreateRegionResponse(region=first)
        rules.placed(tree_of(standing), region_id, request.region.parent_region_id)
        made = _new_document(region_id, request, body, self._now())
        regions = sorted([*standing["regions"], made], key=lambda region: region["region_id"])
        await self._regions.replace({**standing, "regions": regions})
        return pb.CreateRegionResponse(region=region_message(request.brand_id, made))

    async def UpdateRegion(self, request: pb.UpdateRegionRequest, context: Any) -> pb.UpdateRegionResponse:
        paths = set(request.update_mask.paths)
        if wrong := sorted(paths - MUTABLE):
            raise invalid_fields([Violation("update_mask", f"{path} cannot be changed") for path in wrong])
        now = self._now()
        standing = await self._regions.find(request.brand_id)
        body = idempotency.body_hash(request, self._digest)
        first = idempotency.first_reply(
            standing["receipts"], request.request_id, body, pb.UpdateRegionResponse
        )
        if first is not None:
            return first
        region = next((one for one in standing["regions"] if one["region_id"] == request.region_id), None)
        if region is None:
            raise rules.unknown()
        changed = {**region, **{path: getattr(request.region, path) for path in paths}, "update_time": now}
        rules.placed(tree_of(standing), request.region_id, changed["parent_region_id"])
        reply = pb.UpdateRegionResponse(region=region_message(request.brand_id, changed))
        receipt = idempotency.receipt(request.request_id, body, reply, now)
        await self._regions.replace(
            {
                **standing,
                "regions": [changed if one is region else one for one in standing["regions"]],
                "receipts": idempotency.with_receipt(standing["receipts"], receipt),
            }
        )
        return reply

    async def ListRegions(self, request: pb.ListRegionsRequest, context: Any) -> pb.ListRegionsResponse:
        standing = await self._regions.find(request.brand_id)
        return pb.ListRegionsResponse(
            regions=[region_message(request.brand_id, region) for region in standing["regions"]]
        )


def _new_document(region_id: str, request: pb.CreateRegionRequest, body: bytes, now: datetime) -> Document:
    """The document of a region, with the receipt of its creation."""
    document = {
        "region_id": region_id,
        "display_name": request.region.display_name,
        "parent_region_id": request.region.parent_region_id,
        "create_time": now,
        "update_time": now,
    }
    reply = region_message(request.brand_id, document)
    return {**document, "created": idempotency.receipt("created", body, reply, now)}


def region_message(brand_id: str, document: Document) -> pb.Region:
    """A stored region as a message."""
    return pb.Region(
        region_id=document["region_id"],
        brand_id=brand_id,
        display_name=document["display_name"],
        parent_region_id=document["parent_region_id"],
        create_time=to_timestamp(document["create_time"]),
        update_time=to_timestamp(document["update_time"]),
    )
