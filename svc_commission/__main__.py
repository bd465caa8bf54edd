"""The commission service: `python -m svc_commission`, or with `migrate` to build its indexes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from pydantic import FilePath

from chassis import background
from chassis.audit import Audit
from chassis.ids import new_id
from chassis.mongo import outbox
from chassis.mongo.schema import Schema
from chassis.rpc import client, limits, server
from chassis.rpc.server import Registration, Service, Surroundings
from chassis.sealing import Sealer
from chassis.settings import ServiceSettings
from daogou.commission.v1 import ledger_pb2_grpc, order_event_pb2_grpc, plan_pb2, plan_pb2_grpc
from daogou.commission.v1.order_event_pb2 import OrderEvent
from svc_commission.background import Rounds
from svc_commission.ledger.servicer_ledger import LedgerServicer
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.members_client import MembersClient
from svc_commission.order import documents, purchases, store_first_purchase, store_order
from svc_commission.order.ingest import Ingest
from svc_commission.order.purchases import Purchases
from svc_commission.order.servicer_order_event import OrderEventServicer
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import OrderStore
from svc_commission.plan import plans
from svc_commission.plan.servicer_plan import PlanServicer
from svc_commission.plan.store_plan import PlanStore


class CommissionSettings(ServiceSettings):
    """Settings of the commission service alone."""

    members_target: str
    """Where the members service is, as gRPC resolves it."""
    pii_keys_file: FilePath
    """Keys that buyers' identities are sealed with (chassis.sealing)."""


SCHEMA = Schema(version=1, indexes=[*store_order.INDEXES, *store_first_purchase.INDEXES])


@contextlib.asynccontextmanager
async def composed(around: Surroundings[CommissionSettings]) -> AsyncIterator[Sequence[Registration]]:
    """The service's parts, put together."""
    limits.also_check(OrderEvent, documents.event_problems)
    limits.also_check(plan_pb2.Plan, plans.plan_problems)
    config, now = around.settings, around.clock.now
    sealer = Sealer.from_file(config.pii_keys_file)
    token = client.ServiceToken(config.service_key_file, "svc_commission", config.token_audience)
    orders, published = OrderStore(around.database), PlanStore(around.database)
    journal, firsts = JournalStore(around.database), FirstPurchaseStore(around.database)
    audit = Audit(around.database["audit"], new_id())
    async with client.connect(config.members_target, token) as channel:
        members = MembersClient(channel)
        ingest = Ingest(orders, published, firsts, members, sealer, now, new_id)
        told = outbox.Relay(around.database["orders"], {purchases.KIND: Purchases(members).deliver}, now)
        rounds = {**Rounds(orders, firsts, ingest, now).all(), "outbox": told.round}
        async with background.running(rounds):
            yield [
                (
                    order_event_pb2_grpc.add_OrderEventServiceServicer_to_server,
                    OrderEventServicer(ingest),
                ),
                (
                    plan_pb2_grpc.add_PlanServiceServicer_to_server,
                    PlanServicer(published, sealer, audit, now),
                ),
                (
                    ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
                    LedgerServicer(orders, journal, published),
                ),
            ]


if __name__ == "__main__":
    server.main(Service("commission", CommissionSettings, SCHEMA, composed))
