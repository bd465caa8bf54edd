"""The commission service: `python -m svc_commission`, or with `migrate` to build its indexes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence

import grpc
from pydantic import Field, FilePath

from chassis import background
from chassis.audit import Audit
from chassis.background import Round
from chassis.ids import new_id
from chassis.mongo import outbox
from chassis.mongo.schema import Schema
from chassis.rpc import client, limits, server
from chassis.rpc.cursors import Cursors
from chassis.rpc.life import Registration
from chassis.rpc.server import Service, Surroundings
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
from svc_commission.month import closing, store_month, store_owner_sales, store_statement
from svc_commission.month.late_sales import LateSales
from svc_commission.month.leases import Leases
from svc_commission.month.names import Names
from svc_commission.month.servicer_month import MonthServicer
from svc_commission.month.store_month import MonthStore
from svc_commission.month.store_owner_sales import OwnerSalesStore
from svc_commission.month.store_statement import StatementStore
from svc_commission.order import documents, purchases, store_first_purchase, store_order, store_replay
from svc_commission.order.attributor import Attributor
from svc_commission.order.booking import Booking
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


class _Parts:
    """What servicers and rounds are made of, made once."""

    def __init__(self, around: Surroundings[CommissionSettings], channel: grpc.aio.Channel) -> None:
        config, database, now = around.settings, around.database, around.clock.now
        self.now = now
        self.sealer = Sealer.from_file(config.pii_keys_file)
        self.audit = Audit(database["audit"], new_id())
        self.cursors = Cursors(self.sealer.digest)
        self.members, self.names = MembersClient(channel), Names(channel)
        self.plans, self.feeds = PlanStore(database), FeedStore(database)
        self.orders, self.firsts = OrderStore(database), FirstPurchaseStore(database)
        self.replay, self.replays = ReplayStore(database), Replays()
        self.journal, self.entries = JournalStore(database), EntryStore(database)
        self.sales = SalesStore(database)
        self.months, self.owner_sales = MonthStore(database), OwnerSalesStore(database)
        self.leases = Leases(self.months, config.posting_lease_s)
        self.booking = Booking(
            self.orders, self.plans, self.firsts, self.members, self.sealer, now, new_id, self.leases
        )
        self.closing = closing.Parts(
            months=self.months,
            statements=StatementStore(database),
            sales=self.owner_sales,
            orders=self.orders,
            entries=self.entries,
            plans=self.plans,
            booking=self.booking,
            members=self.members,
            leases=self.leases,
            now=now,
        )
        self.reattributions = ReattributionStore(database)
        self.adjusted, self.paid = AdjustmentStore(database), PayoutStore(database)
        self.adjustments = Adjustments(self.adjusted, self.entries, self.leases, now)
        self.payouts = Payouts(self.paid, self.entries, self.months, self.leases, now)
        self.told = outbox.Relay(database["orders"], {purchases.KIND: Purchases(self.members).deliver}, now)


def _rounds(of: _Parts) -> Mapping[str, Round]:
    """What is done without anybody calling."""
    carrying_out = CarryingOut(of.reattributions, of.orders, of.firsts, of.booking, of.now)
    late_sales = LateSales(of.orders, of.owner_sales, of.months, of.booking, of.now)
    return {
        **Rounds(of.orders, of.firsts, of.booking, of.now).all(),
        "outbox": of.told.round,
        "feed_lag": Lag(of.feeds, of.now).round,
        "closing": closing.Closing(of.closing).resume,
        "late_sales": late_sales.round,
        "reattribution": carrying_out.round,
        "adjustments": of.adjustments.round,
        "payouts": of.payouts.round,
    }


def _registrations(of: _Parts) -> Sequence[Registration]:
    """A servicer for each service of the contracts."""
    proposals = Proposals(of.plans, of.firsts, Attributor(of.members, of.sealer))
    opening = OpeningBalances(of.entries, of.leases, of.members, of.now)
    return [
        (
            order_event_pb2_grpc.add_OrderEventServiceServicer_to_server,
            OrderEventServicer(Ingest(of.orders, of.booking, of.sealer, of.now), Authority(of.feeds)),
        ),
        (
            plan_pb2_grpc.add_PlanServiceServicer_to_server,
            PlanServicer(of.plans, of.sealer, of.audit, of.now),
        ),
        (
            feed_pb2_grpc.add_FeedServiceServicer_to_server,
            FeedServicer(of.feeds, of.sealer, of.audit, of.now),
        ),
        (
            performance_pb2_grpc.add_PerformanceServiceServicer_to_server,
            PerformanceServicer(of.sales, of.cursors),
        ),
        (
            ledger_pb2_grpc.add_LedgerServiceServicer_to_server,
            LedgerServicer(of.orders, of.journal, of.plans, of.cursors),
        ),
        (
            reattribution_pb2_grpc.add_ReattributionServiceServicer_to_server,
            ReattributionServicer(of.reattributions, of.orders, proposals, of.sealer, of.audit, of.now),
        ),
        (
            simulation_pb2_grpc.add_SimulationServiceServicer_to_server,
            SimulationServicer(of.replay, of.plans, of.replays, of.now),
        ),
        (
            adjustment_pb2_grpc.add_AdjustmentServiceServicer_to_server,
            AdjustmentServicer(
                of.adjusted, of.adjustments, opening, of.orders, of.members, of.sealer, of.audit, of.now
            ),
        ),
        (
            payout_pb2_grpc.add_PayoutServiceServicer_to_server,
            PayoutServicer(of.paid, of.payouts, of.months, of.leases, of.sealer, of.audit, of.now),
        ),
        (
            month_pb2_grpc.add_MonthServiceServicer_to_server,
            MonthServicer(of.closing, of.feeds, of.names, of.cursors, of.audit, of.now),
        ),
        (
            verification_pb2_grpc.add_VerificationServiceServicer_to_server,
            VerificationServicer(
                of.orders,
                of.journal,
                of.plans,
                of.replay,
                of.months,
                of.closing.statements,
                of.replays,
            ),
        ),
    ]


@contextlib.asynccontextmanager
async def composed(around: Surroundings[CommissionSettings]) -> AsyncIterator[Sequence[Registration]]:
    """The service's parts, put together."""
    limits.also_check(OrderEvent, documents.event_problems)
    limits.also_check(plan_pb2.Plan, plans.plan_problems)
    periods.check_requests()
    check_reattributions()
    config = around.settings
    token = client.ServiceToken(config.service_key_file, "svc_commission", config.token_audience)
    async with client.connect(config.members_target, token) as channel:
        parts = _Parts(around, channel)
        async with background.running(_rounds(parts)):
            yield _registrations(parts)


if __name__ == "__main__":
    server.main(Service("commission", CommissionSettings, SCHEMA, composed))
