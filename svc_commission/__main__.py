"""The commission service: `python -m svc_commission`, or with `migrate` to build its indexes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence

from pydantic import Field, FilePath

from chassis import background
from chassis.audit import Audit
from chassis.ids import new_id
from chassis.mongo import outbox
from chassis.mongo.schema import Schema
from chassis.rpc import client, limits, server
from chassis.rpc.cursors import Cursors
from chassis.rpc.server import Registration, Service, Surroundings
from chassis.sealing import Sealer
from chassis.settings import ServiceSettings
from daogou.commission.v1 import (
    adjustment_pb2_grpc,
    feed_pb2_grpc,
    ledger_pb2_grpc,
    month_pb2_grpc,
    order_event_pb2_grpc,
    payout_pb2_grpc,
    performance_pb2_grpc,
    plan_pb2,
    plan_pb2_grpc,
    reattribution_pb2_grpc,
    simulation_pb2_grpc,
    verification_pb2_grpc,
)
from daogou.commission.v1.order_event_pb2 import OrderEvent
from svc_commission.background import Rounds
from svc_commission.feed import store_feed
from svc_commission.feed.authority import Authority
from svc_commission.feed.lag import Lag
from svc_commission.feed.servicer_feed import FeedServicer
from svc_commission.feed.store_feed import FeedStore
from svc_commission.ledger.servicer_ledger import LedgerServicer
from svc_commission.ledger.store_journal import JournalStore
from svc_commission.members_client import MembersClient
from svc_commission.month import store_month, store_owner_sales, store_statement
from svc_commission.month.closing import Closing, Parts
from svc_commission.month.late_sales import LateSales
from svc_commission.month.leases import Leases
from svc_commission.month.names import Names
from svc_commission.month.servicer_month import MonthServicer
from svc_commission.month.store_month import MonthStore
from svc_commission.month.store_owner_sales import OwnerSalesStore
from svc_commission.month.store_statement import StatementStore
from svc_commission.order import documents, purchases, store_first_purchase, store_order, store_replay
from svc_commission.order.attributor import Attributor
from svc_commission.order.ingest import Ingest
from svc_commission.order.purchases import Purchases
from svc_commission.order.replay import Replays
from svc_commission.order.servicer_order_event import OrderEventServicer
from svc_commission.order.store_first_purchase import FirstPurchaseStore
from svc_commission.order.store_order import OrderStore
from svc_commission.order.store_replay import ReplayStore
from svc_commission.payout import store_adjustment, store_payout
from svc_commission.payout.adjustments import Adjustments
from svc_commission.payout.opening_balances import OpeningBalances
from svc_commission.payout.payouts import Payouts
from svc_commission.payout.servicer_adjustment import AdjustmentServicer
from svc_commission.payout.servicer_payout import PayoutServicer
from svc_commission.payout.store_adjustment import AdjustmentStore
from svc_commission.payout.store_entry import EntryStore
from svc_commission.payout.store_payout import PayoutStore
from svc_commission.performance import periods, store_sales
from svc_commission.performance.servicer_performance import PerformanceServicer
from svc_commission.performance.store_sales import SalesStore
from svc_commission.plan import plans
from svc_commission.plan.servicer_plan import PlanServicer
from svc_commission.plan.store_plan import PlanStore
from svc_commission.reattribution import store_reattribution
from svc_commission.reattribution.carrying_out import CarryingOut
from svc_commission.reattribution.messages import check_requests as check_reattributions
from svc_commission.reattribution.proposals import Proposals
from svc_commission.reattribution.servicer_reattribution import ReattributionServicer
from svc_commission.reattribution.store_reattribution import ReattributionStore
from svc_commission.simulation.servicer_simulation import SimulationServicer
from svc_commission.verification.servicer_verification import VerificationServicer


class CommissionSettings(ServiceSettings):
    """Settings of the commission service alone."""

    members_target: str
    """Where the members service is, as gRPC resolves it."""
    pii_keys_file: FilePath
    """Keys that buyers' identities are sealed with (chassis.sealing)."""
    posting_lease_s: float = Field(default=10.0, ge=0.5, le=10.0)
    """For how long a replica relies on which month is open, and how long a close waits. The same for all."""


SCHEMA = Schema(
    version=1,
    indexes=[
        *store_order.INDEXES,
        *store_replay.INDEXES,
        *store_first_purchase.INDEXES,
        *store_feed.INDEXES,
        *store_adjustment.INDEXES,
        *store_payout.INDEXES,
        *store_month.INDEXES,
        *store_owner_sales.INDEXES,
        *store_statement.INDEXES,
        *store_sales.INDEXES,
        *store_reattribution.INDEXES,
    ],
)


@contextlib.asynccontextmanager
async def composed(around: Surroundings[CommissionSettings]) -> AsyncIterator[Sequence[Registration]]:
    """The service's parts, put together."""
    limits.also_check(OrderEvent, documents.event_problems)
    limits.also_check(plan_pb2.Plan, plans.plan_problems)
    periods.check_requests()
    check_reattributions()
    config, now = around.settings, around.clock.now
    sealer = Sealer.from_file(config.pii_keys_file)
    token = client.ServiceToken(config.service_key_file, "svc_commission", config.token_audience)
    orders, published = OrderStore(around.database), PlanStore(around.database)
    journal, firsts = JournalStore(around.database), FirstPurchaseStore(around.database)
    feeds, audit = FeedStore(around.database), Audit(around.database["audit"], new_id())
    async with client.connect(config.members_target, token) as channel:
        members = MembersClient(channel)
        again, replays = ReplayStore(around.database), Replays()
        months, owned = MonthStore(around.database), OwnerSalesStore(around.database)
        leases = Leases(months, config.posting_lease_s)
        ingest = Ingest(orders, published, firsts, members, sealer, now, new_id, leases)
        told = outbox.Relay(around.database["orders"], {purchases.KIND: Purchases(members).deliver}, now)
        rounds = {**Rounds(orders, firsts, ingest, now).all(), "outbox": told.round}
        rounds["feed_lag"] = Lag(feeds, now).round
        close = Parts(
            months=months,
            statements=StatementStore(around.database),
            sales=owned,
            orders=orders,
            entries=EntryStore(around.database),
            plans=published,
            ingest=ingest,
            members=members,
            leases=leases,
            now=now,
        )
        rounds["closing"] = Closing(close).resume
        rounds["late_sales"] = LateSales(orders, owned, months, ingest, now).round
        reattributions = ReattributionStore(around.database)
        proposals = Proposals(published, firsts, Attributor(members, sealer))
        rounds["reattribution"] = CarryingOut(reattributions, orders, firsts, ingest, now).round
        entries, adjusted, paid = (
            EntryStore(around.database),
            AdjustmentStore(around.database),
            PayoutStore(around.database),
        )
        adjustments, payouts = (
            Adjustments(adjusted, entries, leases, now),
            Payouts(paid, entries, months, leases, now),
        )
        rounds |= {"adjustments": adjustments.round, "payouts": payouts.round}
        opening = OpeningBalances(entries, leases, members, now)
        async with background.running(rounds):
            yield [
                (
                    order_event_pb2_grpc.add_OrderEventServiceServicer_to_server,
                    OrderEventServicer(ingest, Authority(feeds)),
                ),
                (
                    plan_pb2_grpc.add_PlanServiceServicer_to_server,
                    PlanServicer(published, sealer, audit, now),
                ),
                (
                    feed_pb2_grpc.add_FeedServiceServicer_to_server,
                    FeedServicer(feeds, sealer, audit, now),
                ),
                (
                    performance_pb2_grpc.add_PerformanceServiceServicer_to_server,
                    PerformanceServicer(SalesStore(around.database), Cursors(sealer.digest)),
                ),
                (
                    ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
                    LedgerServicer(orders, journal, published, Cursors(sealer.digest)),
                ),
                (
                    reattribution_pb2_grpc.add_ReattributionServiceServicer_to_server,
                    ReattributionServicer(reattributions, orders, proposals, sealer, audit, now),
                ),
                (
                    simulation_pb2_grpc.add_SimulationServiceServicer_to_server,
                    SimulationServicer(again, published, replays, now),
                ),
                (
                    adjustment_pb2_grpc.add_AdjustmentServiceServicer_to_server,
                    AdjustmentServicer(adjusted, adjustments, opening, orders, members, sealer, audit, now),
                ),
                (
                    payout_pb2_grpc.add_PayoutServiceServicer_to_server,
                    PayoutServicer(paid, payouts, months, leases, sealer, audit, now),
                ),
                (
                    month_pb2_grpc.add_MonthServiceServicer_to_server,
                    MonthServicer(close, feeds, Names(channel), Cursors(sealer.digest), audit, now),
                ),
                (
                    verification_pb2_grpc.add_VerificationServiceServicer_to_server,
                    VerificationServicer(orders, journal, published, again, replays),
                ),
            ]


if __name__ == "__main__":
    server.main(Service("commission", CommissionSettings, SCHEMA, composed))
