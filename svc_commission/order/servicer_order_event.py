"""Order events over gRPC."""

from __future__ import annotations

from typing import Any

from chassis.rpc.items import to_item_error
from daogou.commission.v1 import order_event_pb2 as pb
from svc_commission.feed.authority import Authority
from svc_commission.order.ingest import Ingest


class OrderEventServicer:
    """Implements daogou.commission.v1.OrderEventService."""

    def __init__(self, ingest: Ingest, authority: Authority) -> None:
        self._ingest = ingest
        self._authority = authority

    async def IngestOrderEvents(
        self, request: pb.IngestOrderEventsRequest, context: Any
    ) -> pb.IngestOrderEventsResponse:
        refused = await self._authority.refused(request.brand_id, request.feed_id, request.events)
        verdicts = await self._ingest.ingest(request.brand_id, request.events, refused)
        return pb.IngestOrderEventsResponse(
            results=[
                pb.EventResult(
                    outcome=verdict.outcome,
                    error=to_item_error(verdict.error) if verdict.error else None,
                )
                for verdict in verdicts
            ]
        )
